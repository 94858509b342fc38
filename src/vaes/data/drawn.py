"""Sets with one image for each combination of known factors, drawn on the device when they are read."""

import abc
import hashlib
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from vaes.data.held_out import hold_out
from vaes.data.images import Annotations, ImageSet
from vaes.data.splits import Splits, report
from vaes.randomness import Use

__all__ = ["DrawnSet", "drawn_splits", "mixed_radix"]


def mixed_radix(index: Tensor, sizes: Sequence[int]) -> Tensor:
    """The factors (..., F) of the combinations numbered `index` (...): the last factor goes fastest, as in dSprites."""
    digits = []
    for size in reversed(sizes):
        digits.append(index % size)
        index = index // size
    return torch.stack(digits[::-1], dim=-1)


class DrawnSet(ImageSet):
    """Grey images (1, S, S) of the combinations of factors numbered `rows` (M,). The first factor is the label."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    values: tuple[str, ...]
    """Of the first factor."""

    def __init__(self, rows: Tensor, image_size: int) -> None:
        factors = mixed_radix(rows.cpu(), self.sizes)
        notes = Annotations(factors[:, 0].contiguous(), self.values, factors, self.names, self.sizes)
        super().__init__((1, image_size, image_size), rows.device, rows.device, notes)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, 1, S, S) uint8 on the device."""
        rows = self._rows[index.to(self.device, non_blocking=True)]
        return self._draw(mixed_radix(rows, self.sizes))

    def definition(self) -> str:
        """Which images, and how they are drawn."""
        order = self._rows.cpu().sort().values.numpy().tobytes()
        return f"{self._manner()} {hashlib.sha256(order).hexdigest()}"

    def to(self, device: torch.device | str) -> Self:
        """The same images, drawn on `device`."""
        return self._of(self._rows.to(device))

    def subset(self, index: Tensor) -> Self:
        """The images at `index` (M,) int64 as a set."""
        return self._of(self._rows[index.to(self.device)])

    @abc.abstractmethod
    def _draw(self, factors: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def _manner(self) -> str:
        """What is drawn and how: two sets that differ in it hold other images."""

    @abc.abstractmethod
    def _of(self, rows: Tensor) -> Self:
        """Other rows, drawn alike, on their device."""


def drawn_splits(whole: ImageSet, n_train: int | None, n_valid: int, n_test: int, seed: int) -> Splits:
    """`n_test` and `n_valid` images chosen by the seed; the rest trains, or `n_train` of it."""
    rest, test = hold_out(whole, n_test, seed, Use.TEST, "data.n_test")
    train, valid = hold_out(rest, n_valid, seed, Use.VALID, "data.n_valid")
    if n_train is not None and n_train != len(train):
        train = hold_out(train, n_train, seed, Use.TRAIN, "data.n_train")[1]
    return Splits(train, valid, test, report(train, valid, test, "held out by order; drawn when read"))
