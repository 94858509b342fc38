"""A critic that judges an image as a whole and at each of its pixels."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from vaes.functional import to_float32
from vaes.nn.spectral import spectral_norm
from vaes.objectives.terms.critics import adam

__all__ = ["UNetNetwork"]


class UNetNetwork(nn.Module):
    """Images (N, C, H, W) -> a logit of each image (N,) and of each pixel (N, H, W), float32 or wider.

    The discriminator of Schönfeld, Schiele & Khoreva, A U-Net Based Discriminator for Generative Adversarial Networks,
    2020, https://arxiv.org/abs/2002.12655, section 3.1, in plain convolutions: ``layers`` of stride 2 down to the
    image's logit, as many steps up, each beside the map of its size on the way down, to the pixels'. LeakyReLU(0.2);
    all weights have spectral norm 1 (Miyato et al., 2018, https://arxiv.org/abs/1802.05957), which
    :func:`vaes.nn.spectral.follow` keeps up.

    Args:
        channels: of an image.
        width: channels at full size; each step down has twice as many, up to 8 times.
        layers: steps down.
        lr: its learning rate, constant.
        betas: of its Adam.
    """

    def __init__(self, channels: int, width: int, layers: int, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        widths = [width * min(2**step, 8) for step in range(layers + 1)]
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, padding=1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(nn.Conv2d(b + a, a, 3, padding=1) for a, b in reversed([*pairwise(widths)]))
        self.image, self.pixels = nn.Linear(widths[-1], 1), nn.Conv2d(width, 1, 1)
        spectral_norm(self, by_itself=False)
        self.training_options: Mapping[str, Any] = adam(lr, betas)

    @staticmethod
    def room(side: int) -> int:
        """How many steps down leave two pixels of a side."""
        return int(math.log2(side / 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N,), (N, H, W)."""
        h = leaky_relu(self.stem(x), 0.2)
        seen = []
        for layer in self.down:
            seen.append(h)
            h = leaky_relu(layer(h), 0.2)
        whole = self.image(h.mean((2, 3)))[:, 0]
        for layer in self.up:
            beside = seen.pop()
            h = leaky_relu(layer(torch.cat([interpolate(h, size=beside.shape[2:]), beside], 1)), 0.2)
        return to_float32(whole), to_float32(self.pixels(h)[:, 0])
