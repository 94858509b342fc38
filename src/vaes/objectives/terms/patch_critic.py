"""A critic of patches: it tells reconstructions from images, place by place."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from vaes.functional import to_float32
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.objectives.terms.critics import adam, frozen

__all__ = ["PatchCritic", "PatchNetwork"]

SMALLEST = 8
"""Pixels of a side."""


class PatchNetwork(nn.Module):
    """Images (N, C, H, W) -> a logit for each patch (N, h, w), float32 or wider.

    The discriminator of Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017,
    https://arxiv.org/abs/1611.07004, appendix 6.1.2: 4x4 convolutions, ``layers`` of stride 2 and two of stride 1,
    LeakyReLU(0.2) between; but that each image is normalised by itself in place of batch norm, so that images do not
    see each other.

    Args:
        channels: of an image.
        width: channels of the first convolution; each that follows has twice as many, up to 8 times.
        layers: convolutions of stride 2.
        lr: its learning rate, constant.
        betas: of its Adam.
    """

    def __init__(self, channels: int, width: int, layers: int, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for stage in range(layers + 1):
            after, stride = width * min(2**stage, 8), 2 if stage < layers else 1
            between = [nn.GroupNorm(1, channels), nn.LeakyReLU(0.2)] if stage > 1 else [nn.LeakyReLU(0.2)] * stage
            stages += [*between, nn.Conv2d(channels, after, 4, stride, padding=1)]
            channels = after
        last = nn.Conv2d(channels, 1, 4, 1, padding=1)
        self.net = nn.Sequential(*stages, nn.GroupNorm(1, channels), nn.LeakyReLU(0.2), last)
        self.training_options: Mapping[str, Any] = adam(lr, betas)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, h, w)."""
        return to_float32(self.net(x)[:, 0])


class PatchCritic(Term):
    """How badly reconstructions, the means of p(x|z), pass for images: ``-mean of logits`` under the hinge loss,
    ``mean of -log sigmoid(logit)`` under the logistic one, over patches and images. Encoder and decoder descend it.

    The critic descends ``1/2 (max(0, 1 - real) + max(0, 1 + made))``, or half the cross-entropy: Lim & Ye, Geometric
    GAN, 2017, https://arxiv.org/abs/1705.02894, and Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661. As an
    autoencoder's adversary: Esser, Rombach & Ommer, Taming Transformers, 2021, https://arxiv.org/abs/2012.09841,
    equation 6; of the first sample of each image.

    Args:
        image_shape: (C, H, W), of 8 pixels a side or more.
        loss: ``hinge`` or ``logistic``.
        start: the step at which the critic begins to learn. When it begins to count is its weight's schedule.
        width: channels of the critic's first convolution; each that follows has twice as many, up to 8 times.
        layers: its convolutions of stride 2; small images have room for fewer.
        lr: the critic's learning rate.
        betas: of the critic's Adam.
    """

    needs = frozenset({"x_mean"})
    unit = ""
    compares = False
    has_critic = True
    ranks = False

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        loss: Literal["hinge", "logistic"] = "hinge",
        start: int = 0,
        width: int = 64,
        layers: int = 3,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        if min(sides) < SMALLEST:
            raise ValueError(f"a critic of patches needs {SMALLEST} pixels a side or more, got {sides[0]}x{sides[1]}")
        if min(width, layers) < 1 or start < 0:
            raise ValueError(f"width and layers must be 1 or more and start 0 or more, got {width}, {layers}, {start}")
        room = int(math.log2(min(sides) / 3))  # the two of stride 1 take a pixel each
        if room < layers:
            self.note = f"images of {sides[0]}x{sides[1]} have room for {room} of the critic's {layers} layers"
        self.loss, self.start = loss, start
        self.critic = PatchNetwork(channels, width, min(layers, room), lr, betas)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        assert trace.x_mean is not None
        logits = frozen(self.critic, trace.x_mean[0])
        return -logits.mean() if self.loss == "hinge" else softplus(-logits).mean()

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """Of telling images from their reconstructions, a scalar; without a gradient before ``start``."""
        assert trace.x_mean is not None
        real, made = self.critic(torch.cat([trace.x, trace.x_mean[0].detach()])).chunk(2)
        one_sided = (lambda logits: relu(1 - logits)) if self.loss == "hinge" else (lambda logits: softplus(-logits))
        found: Tensor = 0.5 * (one_sided(real).mean() + one_sided(-made).mean())
        return found if context.step >= self.start else found.detach() + 0 * found
