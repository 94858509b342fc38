"""Priors p(z) over codes."""

import abc

import torch
from torch import Tensor, nn

from vaes.functional import kl_normal, log_normal

__all__ = ["Prior", "StandardNormal"]


class Prior(nn.Module, abc.ABC):
    """A density over codes of ``z_dim`` dimensions that can be sampled from noise."""

    z_dim: int

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., D) -> log p(z) (...), in nats."""

    @abc.abstractmethod
    def sample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (N, D) -> codes (N, D)."""

    @abc.abstractmethod
    def kl_from_gaussian(self, mean: Tensor, logvar: Tensor) -> Tensor | None:
        """KL(N(mean, diag exp(logvar)) || p) per dimension (B, D) in nats, or None where it has no closed form."""


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        if z_dim < 1:
            raise ValueError(f"z_dim must be at least 1, got {z_dim}")
        self.z_dim = z_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., D) -> (...), in nats."""
        zero = torch.zeros((), dtype=z.dtype, device=z.device)
        return log_normal(z, zero, zero).sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        """The noise itself."""
        return noise

    def kl_from_gaussian(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """The closed form, (B, D) -> (B, D)."""
        return kl_normal(mean, logvar)
