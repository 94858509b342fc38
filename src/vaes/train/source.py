"""Where a training's batches come from: a set, whose order is a function of the step, or a stream, which is carried."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaes.data import Batches, Splits
from vaes.data.batches import StreamBatches
from vaes.errors import Stopped, UserError
from vaes.train.checkpoint import Checkpoint
from vaes.train.runtime import Runtime
from vaes.train.stop import Stop

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Source"]


class Source:
    """The batches of a training, of splits whose training images lie on its device.

    Attributes:
        start, size: the slice of the global batch that is this process's.
        words: what there is, for people.
        notes: what is to be said before the first step.
    """

    def __init__(self, splits: Splits, batch_size: int, seed: int, runtime: Runtime) -> None:
        self._runtime = runtime
        place = (runtime.rank, runtime.world)
        self._batches: Batches | StreamBatches
        if splits.stream is None:
            self._batches = Batches(splits.train, batch_size, seed, *place)
        else:
            self._batches = StreamBatches(splits.train, splits.stream, batch_size, seed, *place)
        self.start, self.size = self._batches.start, self._batches.size
        number = f"{splits.count:,} " if splits.count else ""
        self.words = f"{number}images" + " of a stream, each" * (splits.stream is not None)
        self.notes: list[str] = []

    def begin(self, resume: Checkpoint | None, *, branch: bool) -> None:
        """Fill the buffer of a stream, or go on from where a checkpoint's stood; a ``branch`` whose stream is another
        begins its own.

        Raises:
            UserError: too few images come, or the checkpoint's stream is another. In all processes, if in one.
        """
        if not isinstance(self._batches, StreamBatches):
            return
        other = failed = None
        if resume is not None:
            try:
                self._batches.restore(resume.training)
            except UserError as error:
                other = error
        others = self._said(other)
        if others and not branch:
            raise UserError(others[0]) from other
        try:
            if others:  # in all processes, or two of them could read the same shard
                self._batches.reader.rewind()
                self.notes.append(f"the stream is not that of the checkpoint, and begins anew ({others[0]})")
            self._batches.begin()
        except UserError as error:
            failed = error
        if said := self._said(failed):
            raise UserError(said[0]) from failed
        if not self._batches.reader.apart:
            self.notes.append("fewer shards than processes: each process reads all, and takes its share of the images")

    def read(self, training: "Training", step: int, flips: bool, stop: Stop | None = None) -> Tensor:
        """This process's images at a step.

        Raises:
            UserError: the stream of a process ended, stalled or is damaged. All processes save then, and raise it.
            Stopped: a signal came while a process waited for its images; saved likewise.
        """
        if not isinstance(self._batches, StreamBatches):
            return self._batches.read(step, flips)
        failed: UserError | None = None
        images, signal = None, 0
        try:
            if self._batches.wait(step, lambda: stop is not None and stop.signal is not None):
                images = self._batches.read(step, flips)
            elif stop is not None:
                signal = stop.signal or 0
        except UserError as error:
            failed = error
        # Those whose stream goes on would wait for the gradients of one that raises.
        ends = torch.tensor([failed is not None, signal], dtype=torch.int64, device=self._runtime.device)
        fails, signal = self._runtime.greatest(ends).tolist()
        if fails or signal:
            if step > training.begun:
                training.refuse_non_finite(step)
                training.save()
                training.saved()
            after = f"saved after step {step}" if step > training.begun else f"nothing is lost after step {step}"
            if fails:
                raise UserError(f"{self._said(failed)[0]}; {after}; go on with --resume latest") from failed
            raise Stopped(f"stopped, and {after}; go on with --resume latest", 128 + signal)
        if news := self._batches.news():
            training.say(news)
        assert images is not None
        return images

    def _said(self, error: UserError | None) -> list[str]:
        """What went wrong in any process."""
        return [text for text in self._runtime.collected(str(error or "")) if text]

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._batches, StreamBatches):
            self._batches.close()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of the streams of all processes; called by all of them."""
        if not isinstance(self._batches, StreamBatches):
            return {}
        found: dict[str, Tensor] = {}
        for own in self._runtime.collected(self._batches.state()):
            found |= own
        return found
