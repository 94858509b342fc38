"""Images that come in an order of their own, from shards: read ahead, shuffled in a buffer, exact on resuming."""

import abc
import io
import itertools
import os
import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from vaes.data.decode import Picture, Recipe, decode_image, read_header
from vaes.data.survey import Bad, reason, same_aspect
from vaes.errors import UserError
from vaes.randomness import Use, generator, permutation

__all__ = ["DamagedShardError", "Reader", "Sample", "Shards", "Stream", "ahead"]

AHEAD = 64
"""Samples that are read and not yet taken."""

POLL = 0.2
"""Seconds after which one who waits for a sample sees that nobody wants it any more."""

CHUNK = 32
"""Samples that are decoded at once."""

T = TypeVar("T")


class Sample(NamedTuple):
    """A picture's file and what is known of it, still encoded."""

    name: str
    content: bytes
    label: int | str | None = None


class DamagedShardError(UserError):
    """A shard that cannot be read to its end; what came before it can."""


class Shards(abc.ABC):
    """Samples in shards, each read from its beginning.

    `names` are the shards', in their order; `label` is what messages call all of them; `fingerprint` tells them from
    others without reading them.
    """

    names: list[str]
    label: str
    fingerprint: str
    stamp: str
    """Changes where a file may have."""
    label_names: tuple[str, ...] = ()
    """Of labels that are numbers, where the set says them."""
    length: int | None = None
    """Samples in all of them, where the set says it."""
    remark: str = ""
    """What was decided about them, for people."""

    @abc.abstractmethod
    def samples(self, shard: int) -> Iterator[Sample]:
        """The samples of a shard, the same in the same order every time.

        Raises DamagedShardError, or UserError where the shard is out of reach.
        """


class _Read(NamedTuple):
    """One thing that came: a sample with its place, or a shard's damage."""

    turn: tuple[int, int]
    """Which pass over the shards, and which shard of it by its place in the order."""
    shard: int
    number: int
    sample: Sample | None
    why: str = ""


class Stream:
    """An endless stream of the images of `shards` but those whose hashes are `held` out.

    Every pass takes the shards in an order of its own, a function of (the training's seed, pass), and a buffer of
    `buffer` images gives at each draw one of its own and takes in the next. Shards are divided among the processes once
    and for all, so that two of them never see the same image; where there are fewer shards than processes, each takes
    its share of the samples of every one. `recipe` and `shape` (C, H, W) are those of the images that were looked at
    first; one that does not fit them cannot be used.

    `length` is the number of images to train on, where it is known.

    Nothing for `timeout` seconds, a damaged shard and an image that cannot be used are a UserError; the last two are
    passed over and counted with `skip_bad`.
    """

    def __init__(
        self,
        shards: Shards,
        recipe: Recipe,
        shape: tuple[int, int, int],
        held: Tensor,
        *,
        buffer: int,
        timeout: float,
        skip_bad: bool,
        length: int | None = None,
    ) -> None:
        self.shards, self.recipe, self.shape, self.held = shards, recipe, shape, frozenset(held.tolist())
        self.buffer, self.timeout, self.skip_bad = buffer, timeout, skip_bad
        self.length = length


class Reader:
    """A process's part of a stream. :meth:`take` goes on where the one before it ended; :meth:`state` after it is all
    that :meth:`restore` needs to go on in the same way: where the stream stands, and which samples the buffer holds.
    """

    def __init__(self, stream: Stream, seed: int, rank: int = 0, world: int = 1) -> None:
        self._stream, self._seed, self._rank, self._world = stream, seed, rank, world
        whole = permutation(len(stream.shards.names), seed, Use.SHARDS)
        self.apart = len(whole) >= world
        """Whether no two processes read the same shard."""
        self._mine = whole[rank::world] if self.apart else whole
        self._pixels = np.empty((stream.buffer, *stream.shape), np.uint8)
        self._slots = np.zeros((stream.buffer, 3), np.int64)
        """Shard, number in it and checksum of what each slot holds."""
        self._filled = 0
        self._at = (0, 0, 0)
        """Pass, place of the shard in its order, and the first sample that was not taken."""
        self.bad_images = self.bad_shards = 0
        self.example = ""
        """One that was passed over, and why."""
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._waiting: deque[tuple[_Read, Picture | Bad | None]] = deque()
        self._came: Iterator[_Read] | None = None
        self._closed = threading.Event()
        self._where = stream.shards.label
        self._last_used = 0

    def fill(self) -> None:
        """Fill the buffer. UserError where a whole pass has not as many images."""
        while self._filled < self._stream.buffer:
            self._put(self._filled)
            if self._last_used > 0:
                raise UserError(
                    f"data.shuffle_buffer: {self._stream.buffer:,} where {self._stream.shards.label} has "
                    f"{self._filled:,} training images{' for a process' * (self._world > 1)}; it must be at most that "
                    "many, or set data.streaming to false"
                )
            self._filled += 1

    def take(self, count: int, draw: int) -> Tensor:
        """`count` images (count, C, H, W) uint8 from places in the buffer that (seed, `draw`, rank) chooses."""
        stream = self._stream
        self.fill()
        numbers = generator(self._seed, Use.STREAM, draw * self._world + self._rank)
        out = np.empty((count, *stream.shape), np.uint8)
        for i, slot in enumerate(numbers.integers(0, stream.buffer, count).tolist()):
            out[i] = self._pixels[slot]
            self._put(slot)
        return torch.from_numpy(out)

    def state(self) -> dict[str, Tensor]:
        """All of it, as int64 tensors."""
        at = [self._world, self._rank, self._identity, *self._at, self.bad_images, self.bad_shards]
        return {"at": torch.tensor(at), "slots": torch.from_numpy(self._slots[: self._filled].copy())}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`, reading again what the buffer held.

        Raises:
            UserError: it is of other shards, or of another number of processes; a sample is not what it was.
        """
        what = f"data: {self._stream.shards.label}"
        try:
            world, _, identity, *at, images, shards = state["at"].tolist()
            slots = state["slots"].numpy()
            if len(at) != 3 or slots.ndim != 2 or slots.shape[1] != 3 or len(slots) not in (0, self._stream.buffer):
                raise ValueError("misshapen")
        except (KeyError, ValueError) as error:
            raise UserError(f"{what}: the checkpoint does not say where its stream stood ({error})") from None
        if world != self._world:
            raise UserError(
                f"{what}: streamed to {world} process{'es' * (world > 1)} and now to {self._world}: each has its own "
                f"shards and buffer, so go on with {world}, or begin anew with -e"
            )
        if identity != self._identity:
            raise UserError(f"{what}: not the shards that the training streams from; restore them, or begin anew")
        self._at, self.bad_images, self.bad_shards = (at[0], at[1], at[2]), images, shards
        self._filled = len(slots)
        self._slots[: self._filled] = slots
        self._refill(what)

    def rewind(self) -> None:
        """Forget what was restored."""
        self._at, self._filled, self.bad_images, self.bad_shards = (0, 0, 0), 0, 0, 0

    def close(self) -> None:
        """Let go of its threads; one that waits for a shard is left behind, and ends with the process."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def _identity(self) -> int:
        s = self._stream
        return zlib.crc32(f"{s.shards.fingerprint} {self._seed} {s.buffer} {s.shape} {list(s.recipe)}".encode())

    def _refill(self, what: str) -> None:
        wanted: dict[tuple[int, int], list[int]] = {}
        for slot, (shard, number, _) in enumerate(self._slots[: self._filled].tolist()):
            wanted.setdefault((shard, number), []).append(slot)

        def needed() -> Iterator[_Read]:
            for shard in sorted({shard for shard, _ in wanted}):
                last = max(number for of, number in wanted if of == shard)
                self._where = self._stream.shards.names[shard]
                found = itertools.islice(self._stream.shards.samples(shard), last + 1)
                yield from (_Read((0, 0), shard, i, s) for i, s in enumerate(found) if (shard, i) in wanted)

        came = ahead(needed(), self._stream.timeout, lambda: self._where)
        for read, picture in self._decoded(came):
            assert read.sample is not None
            slots = wanted.pop((read.shard, read.number))
            if not isinstance(picture, Picture) or zlib.crc32(read.sample.content) != self._slots[slots[0], 2]:
                raise UserError(f"{what}: {read.sample.name} is not what it was; restore it, or begin anew with -e")
            for slot in slots:
                self._pixels[slot] = picture.pixels
        if wanted:
            shard = self._stream.shards.names[min(wanted)[0]]
            raise UserError(f"{what}: {shard} has fewer images than it had; restore it, or begin anew with -e")

    def _put(self, slot: int) -> None:
        """The next image that can be used, into a slot of the buffer."""
        while True:
            if self._came is None:
                self._came = ahead(self._walk(self._at), self._stream.timeout, lambda: self._where, self._closed)
                self._last_used = self._at[0]
            if not self._waiting:
                chunk = list(itertools.islice(self._came, 1 if self._filled == 0 else CHUNK))
                if self._closed.is_set():
                    raise RuntimeError("the reader is closed")
                self._waiting.extend(self._decoded(iter(chunk)))
            read, picture = self._waiting.popleft()
            if read.turn[0] > self._last_used + 1:
                raise UserError(f"data: {self._stream.shards.label}: a whole pass gave no image to train on; see to it")
            used = self._judge(read, picture)
            self._at = (*read.turn, read.number + 1)
            if used is not None:
                assert read.sample is not None
                self._pixels[slot] = used
                self._slots[slot] = (read.shard, read.number, zlib.crc32(read.sample.content))
                self._last_used = read.turn[0]
                return

    def _judge(self, read: _Read, picture: Picture | Bad | None) -> np.ndarray | None:
        """The pixels to train on; None for what is held out, or passed over."""
        name = self._stream.shards.names[read.shard]
        if read.sample is None:
            if not self._stream.skip_bad:
                raise DamagedShardError(f"{name}: damaged ({read.why}); replace it, or set data.skip_bad to true")
            self.bad_shards += 1
            self.example = f"{name}: {read.why}"
        elif isinstance(picture, Bad):
            said = f"{name}/{read.sample.name}: cannot be used ({picture.why})"
            if not self._stream.skip_bad:
                raise UserError(f"{said}; remove it, or set data.skip_bad to true")
            self.bad_images += 1
            self.example = said
        elif picture is not None and picture.hash not in self._stream.held:
            return picture.pixels
        return None

    def _decoded(self, came: Iterator[_Read]) -> Iterator[tuple[_Read, Picture | Bad | None]]:
        while chunk := list(itertools.islice(came, CHUNK)):
            yield from zip(chunk, self._pool.map(self._decode, chunk), strict=True)

    def _decode(self, read: _Read) -> Picture | Bad | None:
        if read.sample is None:
            return None
        return decode(read.sample.content, self._stream.recipe, self._stream.shape)

    def _walk(self, begin: tuple[int, int, int]) -> Iterator[_Read]:
        """All that comes from a place on, without an end."""
        shards, (first_pass, first_turn, first) = self._stream.shards, begin
        for number in itertools.count(first_pass):
            order = permutation(len(self._mine), self._seed, Use.SHARDS, 1 + number * self._world + self._rank)
            came = False
            for turn in range(first_turn, len(order)):
                shard = int(self._mine[order[turn]])
                self._where = shards.names[shard]
                for read in self._shard((number, turn), shard, first):
                    came = True
                    yield read
                came, first = came or first > 0, 0
            if not came and first_turn == 0:
                raise UserError(f"data: {shards.label}: a whole pass over its shards gave no image; see to it")
            first_turn = 0

    def _shard(self, turn: tuple[int, int], shard: int, first: int) -> Iterator[_Read]:
        i = -1
        try:
            for i, sample in enumerate(self._stream.shards.samples(shard)):
                if i >= first and (self.apart or i % self._world == self._rank):
                    yield _Read(turn, shard, i, sample)
        except DamagedShardError as error:
            if i + 1 >= first:
                yield _Read(turn, shard, i + 1, None, str(error))


def decode(content: bytes, recipe: Recipe, shape: tuple[int, int, int]) -> Picture | Bad:
    """A picture as those that the recipe was made from, or why it cannot be."""
    try:
        if recipe.size is not None and recipe.fit == "refuse":
            h, w = read_header(io.BytesIO(content)).size
            if not same_aspect((h, w), recipe.size):
                return Bad(f"{h}x{w} has not the shape of data.image_size; set data.fit")
        picture = decode_image(content, recipe)
    except MemoryError:
        raise
    except Exception as error:  # see `survey`
        return Bad(reason(error))
    if picture.pixels.shape != shape:
        h, w = picture.pixels.shape[1:]
        return Bad(f"{h}x{w} and not {shape[1]}x{shape[2]} as those looked at first; set data.image_size")
    return picture


def ahead(
    items: Iterator[T], timeout: float, where: Callable[[], str], left: threading.Event | None = None
) -> Iterator[T]:
    """The items, which a thread takes ahead, until there are no more or `left` is set. Raises what taking them raises,
    and UserError where none comes for `timeout` seconds: the thread is left behind then, and does not keep the process
    alive."""
    came: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(AHEAD)
    left = left or threading.Event()

    def put(what: tuple[T | None, BaseException | None]) -> bool:
        while not left.is_set():
            try:
                came.put(what, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # raised again where it is waited for
            put((None, error))

    threading.Thread(target=work, name="stream", daemon=True).start()
    try:
        asked = time.monotonic()
        while not left.is_set():
            try:
                item, error = came.get(timeout=min(timeout, POLL))
            except queue.Empty:
                if time.monotonic() - asked < timeout:
                    continue
                raise UserError(
                    f"{where()}: nothing came for {timeout:g} s (data.timeout); see whether it can be read"
                ) from None
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
            asked = time.monotonic()
    finally:
        left.set()
