"""What an objective asks of images, settings and memory, refused or said."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from vaes.data import Splits
from vaes.errors import UserError
from vaes.objectives import Objective
from vaes.train.settings import Settings

__all__ = ["UNRANKED", "enough_memory", "left_out", "refuse_misfit"]

UNRANKED = "no step is the best: the loss holds what a critic thinks at the time ({})"


def left_out(objective: Objective, splits: Splits) -> str:
    """What is not computed where a split has too few images; empty where all is."""
    least = objective.least_images
    few = [f"{name} has {len(getattr(splits, name))}" for name in ("valid", "test")]
    few = [text for text, name in zip(few, ("valid", "test"), strict=True) if len(getattr(splits, name)) < least]
    if not few:
        return ""
    comparing = ", ".join(name for name, term in objective.named_terms.items() if term.compares)
    return (
        f"{' and '.join(few)} of the images, and {comparing} needs {least}: it is left out there, and the loss with it"
    )


def refuse_misfit(objective: Objective, settings: Settings, splits: Splits, images: int) -> None:
    """UserError where an objective cannot be trained so, ``images`` at a time in a process."""
    _refuse_lone_images(objective, images)
    _refuse_turns_of_one(objective, settings)
    counting = [name for name, term in objective.named_terms.items() if term.counts_images]
    if counting and not splits.count:
        raise UserError(
            f"data.length: {', '.join(counting)} depends on the number of training images, which this stream does not "
            "tell; set it"
        )


def _refuse_turns_of_one(objective: Objective, settings: Settings) -> None:
    """Turns are taken with a critic."""
    if settings.play == "alternate" and objective.losses == ("loss",):
        raise UserError(
            "train.play: alternate takes turns with a critic, and no term here has one; use together, or add "
            "such a term (objective.terms.prior_critic)"
        )


def _refuse_lone_images(objective: Objective, images: int) -> None:
    """Batch statistics of one image are none."""
    least = objective.least_images
    if any(isinstance(layer, _BatchNorm) for layer in objective.modules()):
        least = max(least, 2)
    if images < least:
        raise UserError(
            f"train.batch_size: batch norm and terms that compare images need {least} images or more per process and "
            f"micro-batch, got {images}; raise it or lower train.accumulate (or use model.network.norm none)"
        )


@contextmanager
def enough_memory(device: torch.device, images: int, accumulate: int) -> Iterator[None]:
    """Inside, having no memory left for so many images at a time is a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in said:
            raise
        raise UserError(
            f"train.batch_size: no memory is left on {device} for {images} images at a time "
            f"({said.splitlines()[0] if said else 'MemoryError'}); lower train.batch_size, or divide a step into more "
            f"micro-batches (train.accumulate, now {accumulate})"
        ) from error
