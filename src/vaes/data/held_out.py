"""Parts of a set that are held out: by what the images show, or by their order."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.data.binary import splitmix64
from vaes.data.images import ImageSet
from vaes.data.splits import Splits, report
from vaes.errors import UserError
from vaes.randomness import Use, generator, permutation

__all__ = ["Divided", "Held", "HeldOut", "divide", "hashes_of", "hold_out", "hold_out_by_content", "keys"]

HeldOut = Literal["content", "order"]

TEST, VALID = 0.1, 0.05
"""The shares that are held out where no number is given; that for validation is of what remains."""


class Held(NamedTuple):
    """A set in two, both in their first order."""

    rest: ImageSet
    held: ImageSet
    note: str = ""
    """Where the rule could not be followed to the letter: what was done."""


class Divided(NamedTuple):
    """A source in three, and how."""

    train: ImageSet
    valid: ImageSet
    test: ImageSet
    how: str
    notes: tuple[str, ...]

    def splits(
        self,
        *,
        no_labels: str = "",
        more: Sequence[str] = (),
        warnings: Sequence[str] = (),
        white: int | None = None,
    ) -> Splits:
        """The splits with their reading: see `report`."""
        parts = self[:3]
        found = report(*parts, self.how, no_labels=no_labels, more=[*self.notes, *more], warnings=warnings, white=white)
        return Splits(*parts, found)


def hashes_of(images: ImageSet) -> Tensor:
    """The hashes of a set; ValueError where it has none."""
    if images.notes.hashes is None:
        raise ValueError("images without hashes cannot be held out by content")
    return images.notes.hashes


def keys(hashes: Tensor, seed: int, use: Use) -> np.ndarray:
    """A uniform 64-bit number (N,) uint64 of each of `hashes` (N,) int64, a function of (hash, seed, use) alone."""
    start = int(generator(seed, use).integers(-(2**63), 2**63 - 1))
    return splitmix64(start, hashes).numpy().view(np.uint64)


def hold_out(images: ImageSet, n: int, seed: int, use: Use, key: str) -> tuple[ImageSet, ImageSet]:
    """Split `images` into the rest and `n` of them chosen by the seed and their order, both in their first order; `key`
    names the option in errors."""
    _check(n, len(images), key)
    order = permutation(len(images), seed, use)
    return images.subset(order[n:].sort().values), images.subset(order[:n].sort().values)


def hold_out_by_content(
    images: ImageSet, n: int | None, share: float, seed: int, use: Use, key: str, leave: int = 1
) -> Held:
    """Split `images` by `keys` of their hashes: those with keys in the lowest `share` of the range are held out, or the
    `n` with the smallest keys.

    With a share an image's side depends on its own content and the seed alone, so that no image changes sides when the
    set grows; with a number it may. Copies of a picture stay together, which may leave the number short. At least one
    picture is held out and `leave` are not. Raises UserError where there are too few.
    """
    hashes = hashes_of(images)
    pictures, group, sizes = np.unique(hashes.numpy(), return_inverse=True, return_counts=True)
    if len(pictures) <= leave:
        raise UserError(
            f"{key}: {len(images)} images, {len(pictures)} of them different, cannot be divided; add images"
        )
    order = keys(torch.from_numpy(pictures), seed, use)
    rank = np.argsort(order)
    note = ""
    if n is None:
        below = int((order < np.uint64(share * 2.0**64)).sum())
        chosen = rank[: min(max(below, 1), len(rank) - leave)]
        if len(chosen) != below:
            note = f"{key}: too few images for a share, {sizes[chosen].sum()} taken"
    else:
        _check(n, len(images) - leave + 1, key)
        chosen = _fill(rank, sizes, n, len(rank) - leave)
        if not len(chosen):
            raise UserError(f"{key}: {n} cannot be held out, because copies of a picture stay together; more can")
        if (found := int(sizes[chosen].sum())) != n:
            note = f"{key}: {found} instead of {n}, because copies of a picture stay together"
    held = torch.from_numpy(np.isin(group, chosen))
    rest, out = (images.subset(torch.nonzero(side)[:, 0]) for side in (~held, held))
    return Held(rest, out, note)


def _fill(rank: np.ndarray, sizes: np.ndarray, n: int, most: int) -> np.ndarray:
    """The first pictures of `rank`, `most` of them, whose copies come to `n`; one that would exceed it is passed
    over."""
    total = np.cumsum(sizes[rank])
    first = min(most, int(np.searchsorted(total, n, side="right")))
    chosen, left = list(rank[:first]), n - (int(total[first - 1]) if first else 0)
    for picture in rank[first:]:
        if not left or len(chosen) == most:
            break
        if sizes[picture] <= left:
            chosen.append(picture)
            left -= int(sizes[picture])
    return np.array(chosen, np.int64)


def divide(
    train: ImageSet,
    valid: ImageSet | None,
    test: ImageSet | None,
    n_valid: int | None,
    n_test: int | None,
    seed: int,
    by: HeldOut = "content",
) -> Divided:
    """The three splits, those that are missing held out of `train`.

    `content`: see `hold_out_by_content`; where no number is given, a tenth is the test split, and a twentieth of the
    rest is for validation. `order`, the rule of runs before there was another: by a permutation of the images as they
    are listed; for validation 5,000 at most.
    """
    ours = [name for name, images in (("valid", valid), ("test", test)) if images is None]
    needed = 1 + len(ours)
    if len(train) < needed:
        n = len(train)
        raise UserError(f"data: {n} image{'s' * (n != 1)} cannot be divided into {needed} splits; add images")
    notes: list[str] = []
    for key, own, given in (("n_valid", valid, n_valid), ("n_test", test, n_test)):
        if own is not None and given is not None and given != len(own):
            notes.append(f"data.{key}: {given:,} is not used, because the set has its own {len(own):,} images")
    if ours and by == "content" and (different := len(torch.unique(hashes_of(train)))) < needed:
        # There is no other way, and the reading's warnings name what the splits share.
        notes.append(f"by order and not by content, because all {len(train)} images are copies of {different}")
        by = "order"
    if test is None:
        train, test, note = _held(train, n_test, TEST, len(train), seed, Use.TEST, "data.n_test", needed - 1, by)
        notes.append(note)
    if valid is None:
        train, valid, note = _held(train, n_valid, VALID, 5000, seed, Use.VALID, "data.n_valid", 1, by)
        notes.append(note)
    how = f"{'' if len(ours) == 2 else f'{ours[0]} '}held out by {by}" if ours else "as given"
    return Divided(train, valid, test, how, tuple(note for note in notes if note))


def _held(
    images: ImageSet, n: int | None, share: float, most: int, seed: int, use: Use, key: str, leave: int, by: HeldOut
) -> Held:
    if by == "content":
        return hold_out_by_content(images, n, share, seed, use, key, leave)
    count = min(most, max(1, len(images) // round(1 / share))) if n is None else n
    return Held(*hold_out(images, count, seed, use, key))


def _check(n: int, of: int, key: str) -> None:
    if not 0 < n < of:
        raise UserError(f"{key}: {n} of {of} images cannot be held out; 1 to {of - 1} can")
