"""The standard normal prior."""

import torch
from torch import Tensor

from vaes.distributions import Cholesky, kl_cholesky
from vaes.functional import kl_normal, log_normal
from vaes.posteriors import Latent
from vaes.priors.base import Encode, Prior

__all__ = ["StandardNormal"]


class StandardNormal(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, z_shape: int | tuple[int, ...]) -> None:
        super().__init__(z_shape)

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> (...), in nats."""
        zero = torch.zeros((), dtype=z.dtype, device=z.device)
        return log_normal(z, zero, zero).flatten(z.dim() - len(self.z_shape)).sum(-1)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """The noise itself."""
        return noise

    def centre(self, encode: Encode | None = None) -> Tensor:
        """Zero."""
        return torch.zeros(self.z_shape)

    def kl(self, latent: Latent) -> Tensor | None:
        """The closed form (B, Z...) where q is Gaussian."""
        if latent.mean is None:
            return None
        if "cholesky" in latent.aux:
            return kl_cholesky(Cholesky(latent.mean, latent.aux["cholesky"], latent.aux["log_diagonal"]))
        return None if latent.logvar is None else kl_normal(latent.mean, latent.logvar)
