"""A code without a density."""

from collections.abc import Mapping

from torch import Tensor

from vaes.posteriors.base import Latent, Posterior
from vaes.randomness import Draw

__all__ = ["Point"]


class Point(Posterior):
    """A deterministic code: z = h. It has no density, so no rate and no ELBO: the posterior of an autoencoder."""

    gives = frozenset({"mean"})

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """The code itself."""
        return Draw(z_shape).size

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D) and noise (K, B, Z...), of which only the shape is used -> Latent."""
        mean = h.reshape(noise.shape[1:])
        return Latent(mean.expand(noise.shape), None, mean, None)

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The code."""
        mean = h.unflatten(1, z_shape)
        return Latent(mean[None], None, mean, None)
