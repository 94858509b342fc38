"""The order of training as a pure function of the step, and what is done to a batch after it is read."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor

from vaes.data.binary import coin
from vaes.data.images import ImageSet
from vaes.data.stream import Reader, Stream
from vaes.errors import UserError
from vaes.randomness import Use, generator, permutation

__all__ = ["Batches", "StreamBatches", "flip", "to_float", "to_uint8"]

LOOK = 0.2
"""Seconds between two looks whether what waits for a stream was stopped."""


class Batches:
    """Batches of `images` for training, as a pure function of the step.

    The epochs' permutations, each seeded by (seed, epoch), are laid end to end, and step s takes the positions from s B
    up to (s + 1) B of that line: nothing is dropped, a batch may begin in one epoch and end in the next, and every N
    positions in a row from a multiple of N on hold every image once. Rank r of `world` takes the r-th of `world` equal
    slices of the batch, so that any number of processes see the same global batch.

    `batch_size` is the global one, B. Raises UserError where it exceeds the number of images or is no multiple of
    `world`.
    """

    def __init__(self, images: ImageSet, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in 0 .. {world - 1}")
        if not 1 <= batch_size <= len(images):
            raise UserError(
                f"train.batch_size: {batch_size} of {len(images)} training images; it must be 1 to {len(images)}"
            )
        if batch_size % world:
            raise UserError(
                f"train.batch_size: {batch_size} does not divide among {world} processes; use a multiple of {world}"
            )
        self.images = images
        self._source = images.redrawn or images
        self.batch_size = batch_size
        self.seed = seed
        self.start = rank * (batch_size // world)
        """Where this rank's slice starts in the global batch."""
        self.size = batch_size // world
        """How many images this rank reads in a step."""
        self.steps_per_epoch = -(-len(images) // batch_size)
        """ceil(N / B): after this many steps every image has been seen."""
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self._reader = ThreadPoolExecutor(1)
        self._waiting: tuple[int, Future[Tensor]] = (-1, Future())

    def index(self, step: int) -> Tensor:
        """The indices (B / world,) int64 of this rank's images at `step`, on `images.index_device`."""
        first = step * self.batch_size + self.start
        epoch, begin = divmod(first, len(self.images))
        head = self._permutation(epoch)[begin : begin + self.size]
        if len(head) == self.size:
            return head
        return torch.cat([head, self._permutation(epoch + 1)[: self.size - len(head)]])

    def read(self, step: int, flips: bool = False) -> Tensor:
        """This rank's images at `step`, (B / world, C, H, W) uint8 on `images.device`: drawn anew from grey ones where
        the set says so, and with random horizontal flips if asked."""
        images = self._read_ahead(step) if self._source.ahead else self._source.read(self.index(step))
        if self.images.redrawn is not None:
            positions = torch.arange(self.start, self.start + self.size, device=images.device)
            images = coin(images, positions, self.seed, Use.DYNAMIC, step)
        return flip(images, self.seed, step, self.start) if flips else images

    def _read_ahead(self, step: int) -> Tensor:
        """The images at `step`, which a thread has begun to read while the step before it ran."""
        waiting = self._waiting if self._waiting[0] == step else self._begin(step)
        self._waiting = self._begin(step + 1)
        return waiting[1].result()

    def _begin(self, step: int) -> tuple[int, Future[Tensor]]:
        return step, self._reader.submit(self._source.read, self.index(step))

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            self._order = permutation(len(self.images), self.seed, Use.EPOCH, epoch).to(self.images.index_device)
            self._epoch = epoch
        return self._order


class StreamBatches:
    """Batches of a stream, met as `Batches` are: each process takes its slice of a batch from its own part of it.

    Steps are read in their order, the last one as often as it is asked for; `state` is that after it, and `restore`
    goes on from it.
    """

    def __init__(
        self, images: ImageSet, stream: Stream, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"train.batch_size: {batch_size} does not divide among {world} processes; use a multiple of {world}"
            )
        self.images, self._seed = images, seed
        self.size = batch_size // world
        self.start = rank * self.size
        if stream.buffer < self.size:
            raise UserError(
                f"data.shuffle_buffer: {stream.buffer:,} where a process takes {self.size:,} images at a step "
                f"(train.batch_size); it must be {self.size:,} or more"
            )
        self.reader = Reader(stream, seed, rank, world)
        self._rank = rank
        self._taker = ThreadPoolExecutor(1)
        self._waiting: tuple[int, Future[tuple[Tensor, dict[str, Tensor]]]] | None = None
        self._read: tuple[int, Tensor] | None = None
        self._state = self.reader.state()
        self._told = (0, 0)

    def read(self, step: int, flips: bool = False) -> Tensor:
        """This rank's images at `step`, (B / world, C, H, W) uint8 on `images.device`, as `Batches.read` gives them.
        Raises UserError where the stream ends, stalls or is damaged."""
        self.wait(step)
        if self._read is None or self._read[0] != step:
            assert self._waiting is not None
            images, self._state = self._waiting[1].result()
            self._waiting = self._begin(step + 1)
            self._read = step, images.to(self.images.device, non_blocking=True)
        images = self._read[1]
        if self.images.redrawn is not None:
            positions = torch.arange(self.start, self.start + self.size, device=images.device)
            images = coin(images, positions, self._seed, Use.DYNAMIC, step)
        return flip(images, self._seed, step, self.start) if flips else images

    def wait(self, step: int, stopped: Callable[[], bool] = bool) -> bool:
        """Wait for the images of a step, but no longer than until `stopped`; whether they, or an error, are there."""
        if self._read is not None and self._read[0] == step:
            return True
        if self._waiting is None:
            self._waiting = self._begin(step)
        if self._waiting[0] != step:
            raise ValueError(f"step {step} where the stream stands at {self._waiting[0]}")
        while not wait([self._waiting[1]], LOOK).done:
            if stopped():
                return False
        return True

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of this process's part."""
        return {f"stream.{self._rank}.{name}": x for name, x in self._state.items()}

    def begin(self) -> None:
        """Fill the buffer, unless it was restored. Raises UserError where too few images come."""
        self.reader.fill()
        self._state = self.reader.state()

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's tensors. Raises UserError where they are of another stream or world."""
        head = f"stream.{self._rank}."
        own = {name.removeprefix(head): x for name, x in saved.items() if name.startswith(head)}
        if not own and any(name.startswith("stream.") for name in saved):
            own = {name.removeprefix("stream.0."): x for name, x in saved.items()}  # which says how many there were
        self.reader.restore(own)
        self._state = self.reader.state()
        self._told = self.passed_over()

    def passed_over(self) -> tuple[int, int]:
        """Images and shards that could not be used, up to the last step read."""
        images, shards = self._state["at"][-2:].tolist()
        return images, shards

    def news(self) -> str:
        """A line where twice as much was passed over as when one was last given, or the first; else empty."""
        now = self.passed_over()
        if sum(now) < max(1, 2 * sum(self._told)):
            return ""
        self._told = now
        return (
            f"warning: data.skip_bad: process {self._rank} passed over {now[0]:,} images and {now[1]:,} damaged shards "
            f"so far ({self.reader.example})"
        )

    def close(self) -> None:
        """Let go of its threads."""
        self._taker.shutdown(wait=False, cancel_futures=True)
        self.reader.close()

    def _begin(self, step: int) -> tuple[int, Future[tuple[Tensor, dict[str, Tensor]]]]:
        return step, self._taker.submit(self._take, step)

    def _take(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.reader.take(self.size, step), self.reader.state()


def flip(images: Tensor, seed: int, step: int, start: int = 0) -> Tensor:
    """Flip each of `images` (B, C, H, W) left to right with probability 1/2, as a pure function of (seed, step,
    position).

    The position of image i in the global batch is `start + i`: however a batch is divided among processes, each image
    meets the same coin.
    """
    coins = generator(seed, Use.FLIP, step).random(start + len(images))[start:] < 0.5
    heads = torch.from_numpy(coins).to(images.device, non_blocking=True)
    return torch.where(heads[:, None, None, None], images.flip(-1), images)


def to_float(images: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Map uint8 0 .. 255 linearly onto `value_range` (low, high) as float32, both ends exactly."""
    low, high = value_range
    return images.float().div_(255).mul_(high - low).add_(low)


def to_uint8(x: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Map `value_range` (low, high) linearly onto 0 .. 255 as uint8, rounded, values outside clamped: the inverse of
    `to_float`."""
    low, high = value_range
    return x.float().sub(low).div_(high - low).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
