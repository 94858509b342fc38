"""Random numbers as functions of (seed, use, step): nothing to save, and any number of processes draws the same."""

import enum

import numpy as np
import torch
from torch import Tensor

__all__ = ["Use", "normal"]


class Use(enum.IntEnum):
    """What random numbers are for; each use has a stream of its own."""

    POSTERIOR = 101
    PRIOR = 102
    VALIDATION = 103
    PICTURES = 104


def normal(shape: tuple[int, ...], seed: int, use: Use, step: int, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal numbers that depend on nothing but the arguments (and, on an accelerator, its kind)."""
    mixed = np.random.SeedSequence((seed, int(use), step)).generate_state(1, np.uint64)[0]
    generator = torch.Generator(device).manual_seed(int(mixed >> np.uint64(1)))
    return torch.randn(shape, generator=generator, device=device)
