"""Mixtures of Gaussians: with components of their own, or those that the encoder gives to images that are learned."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaes.distributions import log_mixture, sample_mixture
from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["Mixture", "Vamp"]


class _OfGaussians(Prior):
    """sum_c w_c N(mean_c, diag exp(logvar_c)), flat or not; noise is one uniform number, then a code's normals as
    uniforms."""

    def _components(self, encode: Encode | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (C,), means and log-variances (C, D)."""
        raise NotImplementedError

    @property
    def noise(self) -> Draw:
        """One number chooses the component, the others a code of it."""
        return Draw((1 + self.z_dim,), "uniform")

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> (...), in nats."""
        log_weights, mean, logvar = self._components(encode)
        return log_mixture(z.flatten(z.dim() - len(self.z_shape)), mean, logvar, log_weights)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Uniform noise (N, 1 + D) -> codes (N, Z...)."""
        log_weights, mean, logvar = self._components(encode)
        normal = torch.special.ndtri(noise[:, 1:])
        return sample_mixture(mean, logvar, normal, noise[:, 0], log_weights).unflatten(1, self.z_shape)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The mixture's mean."""
        log_weights, mean, _ = self._components(encode)
        return (log_weights.exp() @ mean).unflatten(0, self.z_shape)


class Mixture(_OfGaussians):
    """p(z) = sum_c w_c N(mean_c, diag exp(logvar_c)), all of it learned.

    The mixture of Gaussians to which Tomczak & Welling, VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120,
    compare theirs (section 4); theirs has equal weights.

    Args:
        z_shape: of a code.
        components: how many.
        spread: standard deviation of the normal that the first means are drawn from.
    """

    training_options: Mapping[str, Any] = {"matrix": False}  # rows of components are no matrix: Muon leaves them alone

    def __init__(self, z_shape: int | tuple[int, ...], *, components: int = 10, spread: float = 1.0) -> None:
        super().__init__(z_shape)
        _at_least_one(components)
        if not spread > 0:
            raise ValueError(f"spread must be above 0, got {spread}")
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(spread * torch.randn(components, self.z_dim))
        self.logvar = nn.Parameter(torch.zeros(components, self.z_dim))

    def _components(self, encode: Encode | None) -> tuple[Tensor, Tensor, Tensor]:
        return self.logits.log_softmax(0), self.mean, self.logvar


class Vamp(_OfGaussians):
    """p(z) = (1/C) sum_c q(z|u_c): the posteriors of C pseudo-inputs u_c, images that are learned. Of a posterior by a
    flow, the Gaussians that it starts from, for its density at a given code has no cheap form.

    Tomczak & Welling, VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, equation 9, with a sigmoid where
    they clip pixels. The encoder is lent by the model and belongs to it alone. A network with batch norm sees the
    pseudo-inputs as a batch of their own.

    Args:
        z_shape: of a code.
        image_shape: (C, H, W) of a pseudo-input.
        value_range: of its pixels.
        components: how many pseudo-inputs; the paper has 500.
    """

    needs = frozenset({"gaussian"})
    training_options: Mapping[str, Any] = {"matrix": False}

    def __init__(
        self,
        z_shape: int | tuple[int, ...],
        image_shape: tuple[int, int, int],
        value_range: tuple[float, float],
        *,
        components: int = 500,
    ) -> None:
        super().__init__(z_shape)
        _at_least_one(components)
        self.value_range = value_range
        self.pseudo = nn.Parameter(torch.randn(components, *image_shape))

    def _components(self, encode: Encode | None) -> tuple[Tensor, Tensor, Tensor]:
        if encode is None:
            raise ValueError("the VampPrior needs the model's encoder: use VAE.log_prior and VAE.sample_codes")
        low, high = self.value_range
        latent = encode(low + (high - low) * torch.sigmoid(self.pseudo))
        mean, logvar = latent.aux["gaussian"].chunk(2, dim=1)
        return mean.new_zeros(len(mean)).log_softmax(0), mean, logvar


def _at_least_one(components: int) -> None:
    if components < 1:
        raise ValueError(f"components must be at least 1, got {components}")
