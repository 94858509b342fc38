"""The uniform prior over directions."""

import torch
from torch import Tensor

from vaes.distributions import kl_von_mises_fisher, log_uniform_sphere, to_sphere
from vaes.posteriors import UNIT, Latent
from vaes.priors.base import Encode, Prior

__all__ = ["Sphere"]


class Sphere(Prior):
    """p(z) uniform on the unit sphere of R^D, a density by area.

    Davidson et al., Hyperspherical Variational Auto-Encoders, 2018, https://arxiv.org/abs/1804.00891, section 3.
    """

    partner = "von_mises_fisher"

    def __init__(self, z_shape: int | tuple[int, ...]) -> None:
        super().__init__(z_shape)
        if len(self.z_shape) != 1:
            raise ValueError(f"a sphere takes flat codes, and these are {self.z_shape}")
        self.log_density = log_uniform_sphere(self.z_dim)

    @property
    def support(self) -> str:
        """Points of the sphere."""
        return UNIT

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """Unit z (..., D) -> (...), in nats."""
        return torch.full_like(z[..., 0], self.log_density)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Standard normal noise (N, D) over its length."""
        return to_sphere(noise)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The end of the first axis: all codes are alike, and their mean is none."""
        return torch.eye(self.z_dim)[0]

    def project(self, z: Tensor) -> Tensor:
        """z (..., D) over its length; the centre, where that is 0."""
        return torch.where(z.norm(dim=-1, keepdim=True) > 0, to_sphere(z), self.centre().to(z))

    def kl(self, latent: Latent) -> Tensor | None:
        """The closed form where q is von Mises-Fisher, (B, D) in even shares."""
        if "kappa" not in latent.aux:
            return None
        return (kl_von_mises_fisher(latent.aux["kappa"], self.z_dim) / self.z_dim)[:, None].expand(-1, self.z_dim)
