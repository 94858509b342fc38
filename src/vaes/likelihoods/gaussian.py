"""The Gaussian likelihood, with five kinds of scale."""

import math
from typing import Literal

import torch
from torch import Tensor

from vaes.functional import LOG_2PI
from vaes.likelihoods.base import Link, LocationScale, inside

__all__ = ["Gaussian"]


class Gaussian(LocationScale):
    """p(x|z) = N(x; link(y), scale^2 I), with all its constants, so that it is a density.

    Args:
        scale: a number, fixed (1 gives half the squared error plus a constant); ``learned``, one parameter trained
            with the rest; ``per_pixel``, made by the decoder for each pixel and channel (twice the channels: means,
            then log-scales); or ``optimal``, the maximum-likelihood value ``sqrt(mean squared error)`` of the batch, as
            in sigma-VAE. In evaluation ``optimal`` uses its running mean over training batches, so that a number does
            not depend on the batch it is computed in; over several processes that running mean is the first's.
        link: maps the decoder's output to the mean: ``tanh`` for pixels in [-1, 1], ``sigmoid`` for [0, 1],
            ``identity`` for anything.

    Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021,
    https://arxiv.org/abs/2006.13202, equation 5; ``per_pixel`` is Kingma & Welling, Auto-Encoding Variational Bayes,
    2013, https://arxiv.org/abs/1312.6114, appendix C.2. A scale that follows the batch or the pixel is kept above
    exp(-6), as theirs is, without which a perfectly reconstructed batch has an infinite density.
    """

    MIN_VARIANCE = math.exp(-12)
    MOMENTUM = 0.01

    variance: Tensor
    batches: Tensor

    def __init__(self, *, scale: float | Literal["learned", "per_pixel", "optimal"] = 1.0, link: Link = "tanh") -> None:
        super().__init__(scale, link, ("learned", "per_pixel", "optimal"))
        if scale == "optimal":
            self.register_buffer("variance", torch.ones(()))
            self.register_buffer("batches", torch.zeros(()))

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) -> (K, B), in nats."""
        error = (x - self.mean(y)).square()
        if self.scale == "per_pixel":
            logvar = 2 * self.log_scales(y)
            assert isinstance(logvar, Tensor)
            return -0.5 * (LOG_2PI + logvar + error * torch.exp(-logvar)).flatten(2).sum(-1)
        squares, pixels = error.flatten(2).sum(-1), math.prod(x.shape[1:])
        if not isinstance(self.scale, str):  # plain numbers: a tensor made of one would wait for the device
            return -0.5 * (squares / self.scale**2 + pixels * (LOG_2PI + 2 * math.log(self.scale)))
        logvar = 2 * self.log_scale if self.scale == "learned" else self._optimal(error)
        return -0.5 * (squares * torch.exp(-logvar) + pixels * (LOG_2PI + logvar))

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """m + s ndtri(noise); under ``optimal`` s is the running one, whatever the mode."""
        standard = torch.special.ndtri(inside(noise))
        if self.scale == "optimal":
            return self.mean(y) + self.variance.sqrt() * standard
        return self.spread(y, standard)

    def _optimal(self, error: Tensor) -> Tensor:
        """The log-variance of the batch, or the running one in evaluation."""
        if not self.training:
            return self.variance.log()
        # Not detached: the gradient through the scale is zero for the mean of log p over samples and images alone, not
        # for a bound that weighs them, as IWAE does.
        variance = error.mean().clamp_min(self.MIN_VARIANCE)
        self.batches += 1
        weight = torch.clamp_min(1 / self.batches, self.MOMENTUM)
        self.variance += weight * (variance.detach().to(self.variance.dtype) - self.variance)
        return variance.log()
