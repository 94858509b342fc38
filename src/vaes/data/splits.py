"""The three parts of a source, and how it was read, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaes.data.images import ImageSet

if TYPE_CHECKING:
    from vaes.data.stream import Stream

__all__ = ["Reading", "Splits", "report", "some"]


@dataclass(frozen=True)
class Reading:
    """How data were read: every decision that dropped or changed something. The library prints none of it."""

    sentence: str = ""
    """One line: numbers, shape, splits, labels, what was changed and what was left out."""
    warnings: tuple[str, ...] = ()
    """What the user may not have meant, one line each."""
    white: int | None = None
    """The value that became white in pictures of more than 8 bits; None where there are none."""


@dataclass(frozen=True)
class Splits:
    """The three disjoint parts of a source; it iterates over them, in this order."""

    train: ImageSet
    valid: ImageSet
    test: ImageSet
    report: Reading = field(default_factory=Reading)
    """Where none is given: what the three sets themselves tell."""
    stream: "Stream | None" = None
    """Where training takes its images from; `train` is then those that were looked at first."""

    def __post_init__(self) -> None:
        if self.report == Reading():
            object.__setattr__(self, "report", report(self.train, self.valid, self.test))

    @property
    def count(self) -> int:
        """The images that training takes its batches from; 0 for a stream that does not tell."""
        return len(self.train) if self.stream is None else self.stream.length or 0

    def __iter__(self) -> Iterator[ImageSet]:
        return iter((self.train, self.valid, self.test))


def report(
    train: ImageSet,
    valid: ImageSet,
    test: ImageSet,
    how: str = "",
    *,
    no_labels: str = "",
    more: Sequence[str] = (),
    warnings: Sequence[str] = (),
    white: int | None = None,
) -> Reading:
    """The reading of a source: `how` it was divided, why it has `no_labels`, `more` parts of the sentence."""
    parts = {"train": train, "valid": valid, "test": test}
    counts = ", ".join(f"{len(images):,} {name}" for name, images in parts.items())
    total = sum(len(images) for images in parts.values())
    sentence = f"{total:,} {kind_of(train.shape)}: {counts}" + (f" ({how})" if how else "")
    names = train.label_names
    labels = f"{len(names)} label{'s' * (len(names) != 1)}" if train.labels is not None else "no labels"
    labels += f" ({no_labels})" if no_labels and train.labels is None else ""
    found = (*warnings, *_missing_labels(parts), *_shared(parts))
    return Reading("; ".join([sentence, labels, *more]), found, white)


def kind_of(shape: tuple[int, int, int]) -> str:
    """What images of a shape (C, H, W) are, in words."""
    c, h, w = shape
    if (c, h) == (1, 1) and w > 1:
        return f"vectors of {w:,} numbers"
    return f"images {h}x{w} {({1: 'grey', 3: 'colour'}).get(c, f'of {c} channels')}"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _missing_labels(parts: dict[str, ImageSet]) -> list[str]:
    found = []
    labelled = {name: images for name, images in parts.items() if images.labels is not None}
    if labelled and len(labelled) < len(parts):
        found.append(f"labels: {' and '.join(sorted(set(parts) - set(labelled)))} has none")
    for name, images in labelled.items():
        assert images.labels is not None
        present = set(torch.unique(images.labels).tolist())
        missing = [label for i, label in enumerate(images.label_names) if i not in present]
        if missing:
            found.append(
                f"{name}: no image of {len(missing)} of {len(images.label_names)} labels ({some(missing)}); "
                "what is measured by label does not know them"
            )
    return found


def _shared(parts: dict[str, ImageSet]) -> list[str]:
    """Splits that share images, which measures what was learned by heart."""
    hashes = {name: images.notes.hashes for name, images in parts.items()}
    found = []
    for (a, x), (b, y) in combinations(hashes.items(), 2):
        if x is not None and y is not None and (n := int(np.isin(y.numpy(), x.numpy()).sum())):
            found.append(f"{n:,} of {len(y):,} images of {b} are in {a} as well, pixel for pixel; remove them from one")
    return found
