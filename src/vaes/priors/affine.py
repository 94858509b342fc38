"""Another prior, shifted and stretched: where codes do not lie about 0 with variance 1."""

import torch
from torch import Tensor

from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["Affine"]


class Affine(Prior):
    """The law of ``mean + L z`` for z of another prior: ``log p(L^-1 (z - mean)) - sum log L_ii``.

    Args:
        inner: the other prior, of flat codes.
    """

    mean: Tensor  # (D,)
    factor: Tensor  # (D, D) L, lower triangular with a positive diagonal

    def __init__(self, inner: Prior) -> None:
        super().__init__(inner.z_shape)
        self.inner = inner
        self.exact = inner.exact
        self.register_buffer("mean", torch.zeros(self.z_dim))
        self.register_buffer("factor", torch.eye(self.z_dim))

    @property
    def noise(self) -> Draw:
        """The other prior's."""
        return self.inner.noise

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., D) -> (...), in nats, exact where the other prior's is."""
        flat = (z - self.mean).reshape(-1, self.z_dim)
        white = torch.linalg.solve_triangular(self.factor, flat.T, upper=False).T
        return self.inner.log_prob(white.reshape(z.shape), encode) - self.factor.diagonal().log().sum()

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Noise (N, ...) as the other prior wants it -> codes (N, D)."""
        return self.mean + self.inner.sample(noise, encode) @ self.factor.T

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The other prior's, carried over."""
        return self.mean + self.factor @ self.inner.centre(encode).to(self.mean)
