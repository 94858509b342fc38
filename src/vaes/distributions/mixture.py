"""Mixtures of diagonal Gaussians, learned or made from the posteriors of pseudo-inputs."""

from typing import Any

import torch
from torch import Tensor

from vaes.distributions.categorical import choose
from vaes.functional import LOG_2PI

__all__ = ["log_components", "log_mixture", "sample_mixture"]


class _ScaledSquaredDistances(torch.autograd.Function):
    """(N, D), (C, D), (C, D) -> (N, C), dimension by dimension: neither pass holds (N, C, D) or expands a square."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        total = z.new_zeros(len(z), len(mean))
        for d in range(z.shape[1]):
            total = total + (z[:, d, None] - mean[:, d]).square() * precision[:, d]
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, mean, precision = ctx.saved_tensors
        of_z, of_mean, of_precision = [], [], []
        for d in range(z.shape[1]):
            difference = z[:, d, None] - mean[:, d]
            pull = 2 * gradient * difference * precision[:, d]
            of_z.append(pull.sum(1))
            of_mean.append(-pull.sum(0))
            of_precision.append((gradient * difference.square()).sum(0))
        return torch.stack(of_z, 1), torch.stack(of_mean, 1), torch.stack(of_precision, 1)


def log_components(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """Log-density of every z (..., D) under every one of C diagonal Gaussians (C, D), in nats: (..., C).

    Memory is (..., C) in both passes. Differences are taken one by one: ``z^2 - 2 z m + m^2`` loses narrow components.
    """
    distances: Tensor = _ScaledSquaredDistances.apply(z.reshape(-1, z.shape[-1]), mean, torch.exp(-logvar))
    return -0.5 * (distances.reshape(*z.shape[:-1], -1) + (LOG_2PI + logvar).sum(-1))


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
