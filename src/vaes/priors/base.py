"""What every prior is."""

import abc
import math
from collections.abc import Callable

from torch import Tensor, nn

from vaes.posteriors import REAL, Latent, Posterior
from vaes.randomness import Draw

__all__ = ["Encode", "Prior"]

Encode = Callable[[Tensor], Latent]
"""Images (N, C, H, W) -> the Latent of their central codes: the model's own encoder, lent to a prior that needs it."""


class Prior(nn.Module, abc.ABC):
    """A density over codes of ``z_shape`` that can be sampled from noise.

    The constructor takes ``z_shape`` and, where it needs them, ``image_shape`` and ``value_range`` as positional
    parameters of these names; its keyword-only parameters are keys of ``model.prior``.
    """

    z_shape: tuple[int, ...]
    needs: frozenset[str] = frozenset()
    """Fields of :class:`vaes.posteriors.Latent` that must not be None."""
    exact: bool = True
    """Whether :meth:`log_prob` is the density, and not a bound on it."""
    partner: str = "gaussian"
    """The kind of posterior that it is made for, to be named where another does not fit."""

    def __init__(self, z_shape: int | tuple[int, ...]) -> None:
        super().__init__()
        self.z_shape = (z_shape,) if isinstance(z_shape, int) else tuple(z_shape)
        if not self.z_shape or min(self.z_shape) < 1:
            raise ValueError(f"z_dim must be at least 1, got {z_shape}")

    @property
    def z_dim(self) -> int:
        """How many numbers a code is."""
        return math.prod(self.z_shape)

    @property
    def support(self) -> str:
        """What its codes are, in words, as :meth:`vaes.posteriors.Posterior.support` says it."""
        return REAL

    def bind(self, posterior: Posterior) -> None:
        """Called once with the posterior of the model that it becomes a part of, for a prior over that one's codes."""

    @property
    def noise(self) -> Draw:
        """What noise a sample takes."""
        return Draw(self.z_shape)

    @abc.abstractmethod
    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> log p(z) (...), in nats."""

    @abc.abstractmethod
    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Noise (N, ...) as :attr:`noise` wants it -> codes (N, Z...)."""

    @abc.abstractmethod
    def centre(self, encode: Encode | None = None) -> Tensor:
        """A central code (Z...): the prior's mean, where that is known and a code."""

    def project(self, z: Tensor) -> Tensor:
        """Any z (..., Z...) -> the code nearest to it, itself where codes are all of R^D: what a walk between codes
        leaves, and decoders have never seen."""
        return z

    def kl(self, latent: Latent) -> Tensor | None:
        """KL(q(z|x) || p) per dimension (B, Z...) in nats, or None where it has no closed form.

        Dimensions that have no KL of their own, such as those of a direction, share theirs evenly.
        """
        return None
