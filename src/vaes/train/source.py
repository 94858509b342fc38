"""Where a training's batches come from: a set, whose order is a function of the step, or a stream, which is carried."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaes.data import Batches, ImageSet
from vaes.data.batches import StreamBatches
from vaes.errors import UserError
from vaes.train.checkpoint import Checkpoint
from vaes.train.runtime import Runtime

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Source"]


class Source:
    """The batches of a training, of ``given`` as it lies ``there``, on the device.

    Attributes:
        start, size: the slice of the global batch that is this process's.
        words: what there is, for people.
    """

    def __init__(self, given: ImageSet, there: ImageSet, batch_size: int, seed: int, runtime: Runtime) -> None:
        self._runtime = runtime
        place = (runtime.rank, runtime.world)
        self._batches: Batches | StreamBatches
        if given.stream is None:
            self._batches = Batches(there, batch_size, seed, *place)
        else:
            self._batches = StreamBatches(there, given.stream, batch_size, seed, *place)
        self.start, self.size = self._batches.start, self._batches.size
        number = f"{there.count:,} " if there.count else ""
        self.words = f"{number}images" + " of a stream, each" * (given.stream is not None)

    def read(self, training: "Training", step: int, flips: bool) -> Tensor:
        """This process's images at a step.

        Raises:
            UserError: the stream of a process ended, stalled or is damaged. All processes save then, and raise it.
        """
        if not isinstance(self._batches, StreamBatches):
            return self._batches.read(step, flips)
        failed: UserError | None = None
        images = None
        try:
            images = self._batches.read(step, flips)
        except UserError as error:
            failed = error
        # Those whose stream goes on would wait for the gradients of one that raises.
        if bool(self._runtime.greatest(torch.tensor(int(failed is not None), device=self._runtime.device))):
            said = next(text for text in self._runtime.collected(str(failed or "")) if text)
            if step > training.begun:
                training.refuse_non_finite(step)
                training.save()
                training.saved()
            after = (
                f"saved after step {step}; go on" if step > training.begun else "nothing is lost; go on" if step else ""
            )
            raise UserError(f"{said}; {after} with --resume latest" if after else said) from failed
        if news := self._batches.news():
            training.say(news)
        assert images is not None
        return images

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

    def restore(self, saved: Checkpoint) -> None:
        """Go on from where a checkpoint's streams stood.

        Raises:
            UserError: it has none, or they are others.
        """
        if isinstance(self._batches, StreamBatches):
            self._batches.restore(saved.training)
