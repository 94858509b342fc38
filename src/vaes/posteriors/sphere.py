"""Posteriors over directions."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vaes.distributions import log_von_mises_fisher, sample_von_mises_fisher, to_sphere
from vaes.posteriors.base import Latent, Posterior

__all__ = ["UNIT", "VonMisesFisher"]

UNIT = "unit vectors"
LEAST = 1.0
"""Concentration: below it the density is the uniform to a few per cent, and its gradient has nothing to pull at."""


class VonMisesFisher(Posterior):
    """q(z|x) = vMF(direction, kappa) on the unit sphere of R^D, kappa = 1 + softplus(h).

    Davidson et al., Hyperspherical Variational Auto-Encoders, 2018, https://arxiv.org/abs/1804.00891, section 3, and
    their kappa. Draws are pathwise, without rejection. E[z|x] lies inside the sphere and is no code: the central code
    is the direction. ``aux["kappa"]`` is (B,). z_dim counts the coordinates: 3 is the ordinary sphere.
    """

    gives = frozenset({"log_q", "log_q_stopped", "kappa"})
    needs_float64 = True
    partner = "sphere"

    def support(self, z_shape: tuple[int, ...]) -> str:
        """Points of the sphere."""
        return UNIT

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """A vector that gives the direction, and the concentration's number."""
        return sum(self.heads(z_shape))

    def heads(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The vector, the number."""
        if len(z_shape) != 1 or z_shape[0] < 2:
            raise ValueError(f"a sphere takes flat codes of 2 dimensions or more, and these are {z_shape}")
        return z_shape[0], 1

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D + 1) and noise (K, B, D) -> Latent."""
        direction, kappa = _split(h)
        z, log_q = sample_von_mises_fisher(direction, kappa, noise)
        return Latent(z, log_q, None, None, {"kappa": kappa})

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The direction."""
        direction, kappa = _split(h)
        return Latent(
            direction[None], log_von_mises_fisher(direction, direction, kappa)[None], None, None, {"kappa": kappa}
        )

    def log_prob(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) of unit codes z (K, B, D) -> (K, B), in nats by area of the sphere."""
        return log_von_mises_fisher(z, *_split(h))


def _split(h: Tensor) -> tuple[Tensor, Tensor]:
    return to_sphere(h[:, :-1]), LEAST + torch.nn.functional.softplus(h[:, -1])
