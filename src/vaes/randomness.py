"""Random numbers as functions of (seed, use, index): nothing to save, and any number of processes draws the same."""

import enum
import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.errors import UserError

__all__ = ["Draw", "Use", "draw", "drawn", "generator", "mirrored", "normal", "permutation"]

Law = Literal["normal", "uniform", "gumbel"]


class Draw(NamedTuple):
    """The noise that a part wants: independent numbers of one law."""

    shape: tuple[int, ...]  # of one sample of one image, or of a whole batch where ``shared``
    law: Law = "normal"  # standard normal, uniform on (0, 1), or standard Gumbel
    shared: bool = False  # one for the whole batch, the same in every process

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return math.prod(self.shape)


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
    SHARDS = 8
    STREAM = 9
    POSTERIOR = 101
    PRIOR = 102
    VALIDATION = 103
    PICTURES = 104
    ENCODING = 105
    TERM = 106
    VALIDATION_PRIOR = 107
    VALIDATION_TERM = 108
    FITTING = 120


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
    return draw(Draw(shape), (), seed, use, index, device)


def draw(
    wanted: Draw,
    lead: tuple[int, ...],
    seed: int,
    use: Use,
    index: int,
    device: torch.device | str = "cpu",
    *,
    part: int = 0,
) -> Tensor:
    """Noise (*lead, *wanted.shape) that depends on nothing but the arguments (and, on an accelerator, its kind).

    ``part`` tells draws of one use apart, of several terms say.
    """
    key = (seed, int(use), index, part) if part else (seed, int(use), index)
    mixed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return drawn(wanted, lead, torch.Generator(device).manual_seed(int(mixed >> np.uint64(1))))


def drawn(wanted: Draw, lead: tuple[int, ...], numbers: torch.Generator) -> Tensor:
    """Noise (*lead, *wanted.shape), float32, the next of a generator's numbers, on its device."""
    shape = (*lead, *wanted.shape)
    if wanted.law == "normal":
        return torch.randn(shape, generator=numbers, device=numbers.device)
    # Centres of 2^23 equal bins: never 0 or 1, whose logarithms the laws below would take.
    bins = torch.randint(2**23, shape, generator=numbers, device=numbers.device)
    uniform = (bins.float() + 0.5) / 2**23
    return uniform if wanted.law == "uniform" else -torch.log(-torch.log(uniform))


def mirrored(noise: Tensor, law: Law) -> Tensor:
    """Noise of the same law on the other side of its median: what is linear in it, or nearly, cancels over the two."""
    if law == "normal":
        return -noise
    if law == "uniform":
        return 1 - noise
    return -torch.log(-torch.log(-torch.expm1(-torch.exp(-noise))))
