"""Random numbers as functions of (seed, use, index): nothing to save, and any number of processes draws the same."""

import enum

import numpy as np
import torch
from torch import Tensor

from vaes.errors import UserError

__all__ = ["Use", "generator", "normal", "permutation"]


class Use(enum.IntEnum):
    """What random numbers are for; each use has numbers of its own, so that none disturbs another.

    A number, once given, is never given again: runs that are on disks depend on it.
    """

    VALID = 1
    TEST = 2
    TRAIN = 3
    EPOCH = 4
    FLIP = 5
    STATIC = 6
    DYNAMIC = 7
    POSTERIOR = 101
    PRIOR = 102
    VALIDATION = 103
    PICTURES = 104
    ENCODING = 105


def generator(seed: int, use: Use, index: int = 0) -> np.random.Generator:
    """A generator that depends on nothing but (seed, use, index).

    Raises:
        UserError: a negative seed.
    """
    if seed < 0:
        raise UserError(f"seed: {seed} is negative; a seed is 0 or more")
    return np.random.default_rng((seed, int(use), index))


def permutation(n: int, seed: int, use: Use, index: int = 0) -> Tensor:
    """A permutation (n,) int64 that depends on nothing but (n, seed, use, index)."""
    return torch.from_numpy(generator(seed, use, index).permutation(n))


def normal(shape: tuple[int, ...], seed: int, use: Use, index: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers that depend on nothing but the arguments (and, on an accelerator, its kind)."""
    mixed = np.random.SeedSequence((seed, int(use), index)).generate_state(1, np.uint64)[0]
    numbers = torch.Generator(device).manual_seed(int(mixed >> np.uint64(1)))
    return torch.randn(shape, generator=numbers, device=device)
