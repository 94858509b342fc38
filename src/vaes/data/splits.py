"""Seeded orders of images, and parts of a set held out by them."""

import enum

import numpy as np
import torch
from torch import Tensor

from vaes.data.images import ImageSet, Splits
from vaes.errors import UserError

__all__ = ["Stream", "divide", "generator", "hold_out", "permutation"]


class Stream(enum.IntEnum):
    """The uses of a seed; each has random numbers of its own, so that no use disturbs another."""

    VALID = 1
    TEST = 2
    TRAIN = 3
    EPOCH = 4
    FLIP = 5
    STATIC = 6
    DYNAMIC = 7


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """A generator that depends on nothing but (seed, stream, index)."""
    if seed < 0:
        raise UserError(f"seed: {seed} is negative; a seed is 0 or more")
    return np.random.default_rng((seed, int(stream), index))


def permutation(n: int, seed: int, stream: Stream, index: int = 0) -> Tensor:
    """A permutation (n,) int64 that depends on nothing but (n, seed, stream, index)."""
    return torch.from_numpy(generator(seed, stream, index).permutation(n))


def hold_out(images: ImageSet, n: int, seed: int, stream: Stream, key: str) -> tuple[ImageSet, ImageSet]:
    """Split `images` into the rest and `n` of them chosen by the seed, both in their first order; `key` names the
    option in errors."""
    if not 0 < n < len(images):
        raise UserError(f"{key}: {n} of {len(images)} images cannot be held out; 1 to {len(images) - 1} can")
    order = permutation(len(images), seed, stream)
    return images.subset(order[n:].sort().values), images.subset(order[:n].sort().values)


def divide(
    train: ImageSet, valid: ImageSet | None, test: ImageSet | None, n_valid: int | None, n_test: int | None, seed: int
) -> Splits:
    """The three splits, those that are missing held out of `train`.

    `n_test` images become the test split (None: a tenth) and `n_valid` of the rest the validation split (None: a
    twentieth, 5,000 at most).
    """
    needed = 1 + (valid is None) + (test is None)
    if len(train) < needed:
        raise UserError(f"data: {len(train)} training images cannot be divided into {needed} splits; add images")
    if test is None:
        n = max(1, len(train) // 10) if n_test is None else n_test
        train, test = hold_out(train, n, seed, Stream.TEST, "data.n_test")
    if valid is None:
        n = min(5000, max(1, len(train) // 20)) if n_valid is None else n_valid
        train, valid = hold_out(train, n, seed, Stream.VALID, "data.n_valid")
    return Splits(train, valid, test)
