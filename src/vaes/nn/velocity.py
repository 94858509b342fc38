"""Networks of a code and a time: the velocity at which codes move from noise to data. They start as 0."""

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.nn.blocks import channels_last, lay_out
from vaes.nn.resnet import GroupNorm

__all__ = ["FlatVelocity", "GridVelocity"]

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)

WAVES = 32
BLOCKS = 3
LEAST_SIDE = 8
"""A grid is halved while its shorter side is at least that."""
MOST_HALVINGS = 3
MOST_PLACES = 256
"""Attention is among at most so many places."""


class _Time(nn.Module):
    """Times (N,) in [0, 1] -> (N, width): sines and cosines of 1/4 to 16 turns, and two layers."""

    waves: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("waves", 2 * math.pi * torch.logspace(-2, 4, WAVES, base=2.0), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * WAVES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.waves
        found: Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], -1))
        return found


class FlatVelocity(nn.Module):
    """Codes (N, D) and times (N,) -> (N, D): residual blocks of two layers, the time as scale and shift in each.

    Args:
        size: D.
        width: of the hidden layers.
    """

    def __init__(self, size: int, *, width: int = 256) -> None:
        super().__init__()
        self.time = _Time(width)
        self.first = nn.Linear(size, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(BLOCKS))
        self.turns = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(BLOCKS))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), _zero(nn.Linear(width, width))) for _ in range(BLOCKS)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), _zero(nn.Linear(width, size)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The same shape as x."""
        h, time = self.first(x), self.time(t)
        for norm, turn, layer in zip(self.norms, self.turns, self.layers, strict=True):
            scale, shift = turn(time).chunk(2, -1)
            h = h + layer(norm(h) * (1 + scale) + shift)
        found: Tensor = self.last(h)
        return found


class GridVelocity(nn.Module):
    """Codes (N, C, H, W) and times (N,) -> the same: a U-Net whose sides are halved while they are 8 or more, its
    channels doubled once; attention where there are few places. Each place has a vector of its own, because codes of
    aligned images differ by place.

    Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239, appendix B,
    cut down.

    Args:
        z_shape: (C, H, W).
        width: channels at full size; half of those below.
    """

    def __init__(self, z_shape: tuple[int, int, int], *, width: int = 64) -> None:
        super().__init__()
        channels, height, wide = z_shape
        sides = [(height, wide)]
        while min(sides[-1]) >= LEAST_SIDE and len(sides) <= MOST_HALVINGS:
            sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
        widths = [width, *[2 * width] * (len(sides) - 1)]
        self.time = _Time(4 * width)
        self.place = nn.Parameter(0.02 * torch.randn(width, height, wide))
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down, self.up, self.halve, self.narrow = (nn.ModuleList() for _ in range(4))
        for i, (size, (h, w)) in enumerate(zip(widths, sides, strict=True)):
            few = h * w <= MOST_PLACES
            self.down.append(_Stage(size, size, 4 * width, few))
            self.up.append(_Stage(2 * size if i < len(sides) - 1 else size, size, 4 * width, few))
        for a, b in pairwise(widths):
            self.halve.append(nn.Conv2d(a, b, 3, 2, padding=1))
            self.narrow.append(nn.Conv2d(b, a, 1))
        self.last = nn.Sequential(_norm(width), nn.SiLU(), _zero(nn.Conv2d(width, channels, 3, padding=1)))
        lay_out(self)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The same shape as x."""
        time = self.time(t)
        h = self.first(channels_last(x)) + self.place
        passed = []
        for i, stage in enumerate(self.down):
            h = stage(h, time)
            if i < len(self.halve):
                passed.append(h)
                h = self.halve[i](h)
        for i in reversed(range(len(self.up))):
            h = self.up[i](h, time)
            if i:
                beside = passed.pop()
                h = self.narrow[i - 1](F.interpolate(h, size=beside.shape[2:], mode="nearest"))
                h = torch.cat([h, beside], 1)
        found: Tensor = self.last(h).contiguous()
        return found


class _Stage(nn.Module):
    """A residual block, and attention after it where it is asked for."""

    def __init__(self, channels_in: int, channels_out: int, width: int, attention: bool) -> None:
        super().__init__()
        self.block = _Residual(channels_in, channels_out, width)
        self.attention = _Attention(channels_out) if attention else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h: Tensor = self.block(x, time)
        return h if self.attention is None else self.attention(h)


class _Residual(nn.Module):
    """Twice norm, SiLU and a 3x3 convolution, beside what comes past; the time scales and shifts what the second
    sees."""

    def __init__(self, channels_in: int, channels_out: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels_in), _norm(channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.turn = nn.Linear(width, 2 * channels_out)
        self.past = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.turn(time)[..., None, None].chunk(2, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        past: Tensor = self.past(x)
        return past + h


class _Attention(nn.Module):
    """Among all places, beside what comes past."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(n for n in (4, 2, 1) if channels % n == 0)
        self.norm = _norm(channels)
        self.project, self.out = nn.Linear(channels, 3 * channels), _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        h = self.project(self.norm(x).flatten(2).transpose(1, 2))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in h.chunk(3, -1))
        h = self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + channels_last(h.transpose(1, 2).unflatten(2, x.shape[2:]))


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(next(n for n in (8, 4, 2, 1) if channels % n == 0), channels)


def _zero(layer: _Layer) -> _Layer:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
