"""A critic of images: it judges what the decoder makes, and lends its features to compare images in."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vaes.functional import to_float32
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.objectives.terms.critics import adam, frozen
from vaes.schedules import Scheduled

__all__ = ["ConvCritic", "ImageCritic"]

SMALLEST = 8
"""Pixels of a side."""


class ConvCritic(nn.Module):
    """Images (N, C, H, W) -> logits (N,) and features (N, C', h, w), both float32 or wider.

    4x4 convolutions of stride 2 until the smaller side is 4 to 12, LeakyReLU(0.2) after each, a linear layer. Features
    are the last convolution's output. The critic of Radford, Metz & Chintala, DCGAN, 2016,
    https://arxiv.org/abs/1511.06434, but that each image is normalised by itself in place of batch norm, so that images
    do not see each other.

    Args:
        image_shape: (C, H, W).
        width: channels of the first convolution; each that follows has twice as many, up to 8 times.
        lr: its learning rate, constant.
        betas: of its Adam.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        channels, *sides = image_shape
        if min(sides) < SMALLEST:
            raise ValueError(f"a critic of images needs {SMALLEST} pixels a side or more, got {sides[0]}x{sides[1]}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        layers: list[nn.Module] = []
        for stage in range(max(1, int(math.log2(min(sides) / 6)))):
            after = width * min(2**stage, 8)
            between = [nn.GroupNorm(1, channels), nn.LeakyReLU(0.2)] if stage else []
            layers += [*between, nn.Conv2d(channels, after, 4, 2, padding=1)]
            channels, sides = after, [side // 2 for side in sides]
        self.features = nn.Sequential(*layers)
        self.logit = nn.Sequential(
            nn.GroupNorm(1, channels), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(channels * math.prod(sides), 1)
        )
        self.training_options: Mapping[str, Any] = adam(lr, betas)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> (N,), (N, C', h, w)."""
        features = self.features(x)
        return to_float32(self.logit(features)[:, 0]), to_float32(features)


class ImageCritic(Term):
    """``features + adversary / gamma``, nats per image: how far an image and its reconstruction lie apart in the
    critic's features, ``E |f(x) - f(E[x|z])|^2 / 2``, and how well the decoder's images pass for real ones, ``E -log
    d(E[x|z])`` of codes from q(z|x) plus the same of codes from the prior (the non-saturating loss).

    The features' distance is an addition, no density of pixels. The adversary teaches the decoder alone: its gradient
    stops at the codes. Encoder and decoder descend what they do in the paper, whose decoder has ``gamma * features +
    adversary``: a factor of its whole gradient, which neither Adam nor Muon feels.

    Larsen et al., Autoencoding beyond pixels using a learned similarity metric, 2016,
    https://arxiv.org/abs/1512.09300, equations 7 to 9 and algorithm 1, of the first sample of each image.

    Args:
        image_shape: (C, H, W), of 8 pixels a side or more.
        gamma: weighs the features against the adversary in the decoder.
        width: channels of the critic's first convolution; each that follows has twice as many, up to 8 times.
        lr: the critic's learning rate.
        betas: of the critic's Adam.
    """

    needs = frozenset({"x_mean"})
    draws_images = True
    has_critic = True
    ranks = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        gamma: Scheduled = 1e-6,
        width: int = 32,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        super().__init__()
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.gamma, self.critic = gamma, ConvCritic(image_shape, width, lr, betas)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        assert trace.x_mean is not None
        assert drawn.images is not None
        n = len(trace.x)
        logits, features = frozen(self.critic, torch.cat([trace.x, trace.x_mean[0], *drawn.images]))
        real, made, _ = features.flatten(1).tensor_split([n, 2 * n])
        alike = 0.5 * (real.detach() - made).square().sum(1).mean()
        return alike + softplus(-logits[2 * n :]).sum() / n / context.own.get("gamma", self.gamma)

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """The cross-entropy of telling images from the decoder's, both as many, a scalar, log 2 where it cannot."""
        assert drawn.images is not None
        made = drawn.images.detach().flatten(0, 1)
        real, fake = self.critic(torch.cat([trace.x, made]))[0].tensor_split([len(trace.x)])
        return 0.5 * (softplus(-real).mean() + softplus(fake).mean())
