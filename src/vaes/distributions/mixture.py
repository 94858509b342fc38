"""Mixtures of diagonal Gaussians, learned or made from the posteriors of pseudo-inputs."""

import torch
from torch import Tensor

from vaes.distributions.categorical import choose
from vaes.functional import LOG_2PI

__all__ = ["log_components", "log_mixture", "sample_mixture"]


def log_components(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log-density of every z (..., D) under every one of C diagonal Gaussians (C, D), in nats: (..., C).

    Memory is (..., C): the square is multiplied out about the components' mean, in float64 where there is one, because
    ``z^2 - 2 z m + m^2`` loses narrow components in float32.
    """
    wide = z.dtype if z.device.type == "mps" else torch.float64
    middle = mean.mean(0)
    points, mean = (z.reshape(-1, z.shape[-1]).to(wide) - middle), mean.to(wide) - middle
    precision = torch.exp(-logvar.to(wide))
    squares = points.square() @ precision.mT - 2 * points @ (mean * precision).mT + (mean.square() * precision).sum(-1)
    found = -0.5 * (z.shape[-1] * LOG_2PI + logvar.sum(-1) + squares.clamp_min(0))
    return found.to(z.dtype).reshape(*z.shape[:-1], -1)


def log_mixture(z: Tensor, mean: Tensor, logvar: Tensor, logits: Tensor | None = None) -> Tensor:
    """Log-density of z (..., D) under a mixture of C Gaussians (C, D), weights softmax(logits (C,)): (...), in nats.

    Equal weights without logits: with the posteriors of C pseudo-inputs this is the VampPrior (Tomczak & Welling, VAE
    with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, section 3).
    """
    components = log_components(z, mean, logvar)
    weights = torch.zeros_like(mean[:, 0]) if logits is None else logits
    return torch.logsumexp(components + torch.log_softmax(weights, -1), -1)


def sample_mixture(
    mean: Tensor, logvar: Tensor, noise: Tensor, uniform: Tensor, logits: Tensor | None = None
) -> Tensor:
    """Normal noise (N, D) and, for the choice of the component, uniform noise (N,) -> draws (N, D)."""
    component = choose(torch.zeros_like(mean[:, 0]) if logits is None else logits, uniform)
    return mean[component] + torch.exp(0.5 * logvar[component]) * noise
