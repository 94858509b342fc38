"""What every posterior is."""

import abc
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from vaes.randomness import Draw

__all__ = ["REAL", "Latent", "Posterior"]

REAL = "real vectors"
"""The support of most parts: all of R^D."""


class Latent(NamedTuple):
    """Codes of a batch; K importance samples, B batch, and Z... the shape of a code: (D,) for a flat one."""

    z: Tensor  # (K, B, Z...) samples
    log_q: Tensor | None  # (K, B) log q(z|x) in nats; None where q has no density
    mean: Tensor | None  # (B, Z...) E[z|x]
    logvar: Tensor | None  # (B, Z...) log Var[z|x], where q is a diagonal Gaussian
    aux: Mapping[str, Tensor] = {}  # what else priors and terms may want, (B, ...), by documented names


class Posterior(nn.Module, abc.ABC):
    """Turns an encoder's output and noise into codes.

    One with parameters of its own takes ``z_shape`` (and ``image_shape``) as positional parameters of its constructor;
    its keyword-only parameters are keys of ``model.posterior``.
    """

    gives: frozenset[str]
    """Which optional fields of :class:`vaes.model.Trace` it fills, and names in its ``aux``; ``log_q_stopped`` where it
    has :meth:`log_prob`."""
    needs_float64: bool = False
    """Whether it cannot be computed on a device without (Apple's GPU)."""
    partner: str = "standard_normal"
    """The kind of prior that it is made for, to be named where another does not fit."""
    losses: frozenset[str] = frozenset()
    """Names in its ``aux`` that it learns by: a term must read them."""
    tells: Mapping[str, str] = {}
    """Names in its ``aux`` that are told with the terms, the same for all images of a batch -> their unit."""

    @abc.abstractmethod
    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """How many numbers the encoder makes of an image, for codes of this shape."""

    def heads(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The outputs by what they mean, for networks that have a head for each."""
        return (self.outputs(z_shape),)

    def support(self, z_shape: tuple[int, ...]) -> str:
        """What its codes are, in words. Densities are compared only where the prior says the same."""
        return REAL

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """What noise a sample of an image takes."""
        return Draw(z_shape)

    @abc.abstractmethod
    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, outputs) and noise (K, B, ...) as :meth:`noise` wants it -> Latent.

        ``options`` holds those of its scheduled options that have another value now than the constructor was given:
        that of the last step, which evaluation takes.
        """

    @abc.abstractmethod
    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """h (B, outputs) -> the Latent of one code an image (K = 1), its most typical."""

    def told(self, indices: Tensor) -> Mapping[str, Tensor]:
        """What :attr:`tells` names, of ``aux["indices"]`` (N, ...) of many images."""
        raise NotImplementedError(f"{type(self).__name__} has no indices")

    def worry(self) -> str:
        """What went wrong with what it learned, for people; empty where nothing did."""
        return ""

    def log_prob(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) of any codes z (K, B, Z...) -> (K, B), in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no density of given codes")
