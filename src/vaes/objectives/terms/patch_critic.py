"""A critic that tells reconstructions from images, place by place."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from vaes.functional import to_float32
from vaes.model import Trace
from vaes.nn.spectral import follow
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.objectives.terms.critics import adam, frozen
from vaes.objectives.terms.unet_critic import UNetNetwork
from vaes.posteriors.quantizer import processes, summed

__all__ = ["PatchCritic", "PatchNetwork"]

SMALLEST = 8
"""Pixels of a side."""
DECAY = 0.99  # of LeCam's running means


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

    @staticmethod
    def room(side: int) -> int:
        """How many convolutions of stride 2 a side has room for: the two of stride 1 take a pixel each."""
        return int(math.log2(side / 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, h, w)."""
        return to_float32(self.net(x)[:, 0])


class PatchCritic(Term):
    """How badly reconstructions, the means of p(x|z), pass for images: ``-mean of logits`` under the hinge loss,
    ``mean of -log sigmoid(logit)`` under the logistic one, over images and patches, or over images plus over pixels.
    Encoder and decoder descend it.

    The critic descends ``1/2 (max(0, 1 - real) + max(0, 1 + made))``, or half the cross-entropy: Lim & Ye, Geometric
    GAN, 2017, https://arxiv.org/abs/1705.02894, and Goodfellow et al., 2014, https://arxiv.org/abs/1406.2661. As an
    autoencoder's adversary: Esser, Rombach & Ommer, Taming Transformers, 2021, https://arxiv.org/abs/2012.09841,
    equation 6; of the first sample of each image.

    ``lecam`` adds ``lecam * E (real - m)^2 + E (made - r)^2``, r and m being running means (decay 0.99) of the logits
    of images and of reconstructions over all processes, so that a critic that is sure pays for it: Tseng et al.,
    Regularizing Generative Adversarial Networks under Limited Data, 2021, https://arxiv.org/abs/2104.03310, equations
    5 to 7.

    Args:
        image_shape: (C, H, W), of 8 pixels a side or more.
        network: ``patch``, a logit for each patch; ``unet``, one for each image and one for each pixel.
        loss: ``hinge`` or ``logistic``.
        start: the step at which the critic begins to learn. When it begins to count is its weight's schedule.
        lecam: weighs LeCam regularisation in the critic's loss; 0 leaves it out. The paper has 0.3 where data are few.
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
    averages: Tensor
    counted: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        network: Literal["patch", "unet"] = "patch",
        loss: Literal["hinge", "logistic"] = "hinge",
        start: int = 0,
        lecam: float = 0.0,
        width: int = 64,
        layers: int = 3,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        if min(sides) < SMALLEST:
            raise ValueError(f"a critic of patches needs {SMALLEST} pixels a side or more, got {sides[0]}x{sides[1]}")
        if min(width, layers) < 1 or start < 0 or not 0 <= lecam < math.inf:
            raise ValueError(
                "width and layers must be 1 or more, start and lecam 0 or more, got "
                f"{width}, {layers}, {start}, {lecam}"
            )
        kind = PatchNetwork if network == "patch" else UNetNetwork
        room = kind.room(min(sides))
        if room < layers:
            self.note = f"images of {sides[0]}x{sides[1]} have room for {room} of the critic's {layers} layers"
        self.loss, self.start, self.lecam = loss, start, lecam
        self.critic = kind(channels, width, min(layers, room), lr, betas)
        outputs = 1 if network == "patch" else 2
        self.chance = outputs * (1.0 if loss == "hinge" else math.log(2))
        if lecam:
            self.register_buffer("averages", torch.zeros(outputs, 2))
            self.register_buffer("counted", torch.zeros(()))

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        assert trace.x_mean is not None
        fooled = _outputs(frozen(self.critic, trace.x_mean[0]))
        means = [-logits.mean() if self.loss == "hinge" else softplus(-logits).mean() for logits in fooled]
        return torch.stack(means).sum()

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """Of telling images from their reconstructions, a scalar; without a gradient before ``start``."""
        judged = self._judge(trace)
        found = self._wrong(judged)
        learns = context.step >= self.start
        if self.lecam:
            if moves := self.training and learns and torch.is_grad_enabled():
                self._average(torch.stack([torch.stack([real.mean(), made.mean()]) for real, made in judged]).detach())
            averages = self.averages.clone() if moves else self.averages  # the next micro-batch moves them
            for (real, made), (of_real, of_made) in zip(judged, averages, strict=True):
                found = found + self.lecam * ((real - of_made).square().mean() + (made - of_real).square().mean())
        if self.training and learns and torch.is_grad_enabled():
            follow(self.critic)
        return found if learns else found.detach() + 0 * found

    def judgement(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """Without LeCam."""
        return self._wrong(self._judge(trace))

    def _judge(self, trace: Trace) -> list[tuple[Tensor, Tensor]]:
        """The logits of images and of reconstructions, of each output."""
        assert trace.x_mean is not None
        both = self.critic(torch.cat([trace.x, trace.x_mean[0].detach()]))
        return [(logits[: len(trace.x)], logits[len(trace.x) :]) for logits in _outputs(both)]

    def _wrong(self, judged: list[tuple[Tensor, Tensor]]) -> Tensor:
        one_sided = (lambda logits: relu(1 - logits)) if self.loss == "hinge" else (lambda logits: softplus(-logits))
        return torch.stack([0.5 * (one_sided(real).mean() + one_sided(-made).mean()) for real, made in judged]).sum()

    @torch.no_grad()
    def _average(self, means: Tensor) -> None:
        """Move the running means by those of this batch (outputs, 2); the first ones are the batch's."""
        means = summed(means) / processes()
        self.averages.copy_(torch.where(self.counted > 0, DECAY * self.averages + (1 - DECAY) * means, means))
        self.counted.copy_(self.counted + 1)


def _outputs(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)
