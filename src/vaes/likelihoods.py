"""Likelihoods p(x|z): what a decoder's output means. Log-densities are in nats, summed over channels and pixels."""

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.functional import LOG_2PI

__all__ = ["Bernoulli", "Gaussian", "Laplace", "Likelihood", "Measure", "StudentT"]

Range = tuple[float, float]
Link = Literal["identity", "tanh", "sigmoid"]
Measure = Literal["density", "mass of 8-bit values", "mass of binary values", "cross-entropy", "unknown"]
"""What exp(log p(x|z)) is: a density of pixel values, a probability of pixels of 256 or of two values, the usual
cross-entropy, which is no normalised probability, or what the likelihood does not say. Two kinds do not compare."""

_LINKS = {"identity": nn.Identity(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}
_LINK_RANGES: dict[str, Range] = {"identity": (-math.inf, math.inf), "tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


class Likelihood(nn.Module, abc.ABC):
    """A density over images, parameterised by the unbounded output y of a decoder."""

    default_range: Range
    """The range of pixel values that it is meant for."""

    @abc.abstractmethod
    def channels(self, image_channels: int) -> int:
        """How many channels the decoder has to make."""

    @abc.abstractmethod
    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) -> log p(x|z) (K, B), in nats."""

    @abc.abstractmethod
    def mean(self, y: Tensor) -> Tensor:
        """y (..., C', H, W) -> E[x|z] (..., C, H, W)."""

    def measure(self, x: Tensor) -> Measure:
        """What its number is on images x (..., C, H, W). Where that is unknown there are no bits per dimension."""
        return "unknown"

    @abc.abstractmethod
    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """Why a decoder whose last layer is confined to ``decoder_range`` cannot model pixels in ``value_range``; None
        if it can."""


class _Located(Likelihood):
    """A density about link(y), one number a pixel."""

    default_range = (-1.0, 1.0)
    link: Link

    def channels(self, image_channels: int) -> int:
        """As many as the image has."""
        return image_channels

    def mean(self, y: Tensor) -> Tensor:
        """link(y)."""
        return _LINKS[self.link](y)

    def measure(self, x: Tensor) -> Measure:
        """A density of pixel values."""
        return "density"

    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """A bounded layer under a link, or a mean confined to another range than the pixels'."""
        bounded = any(math.isfinite(edge) for edge in decoder_range)
        if bounded and self.link != "identity":
            return (
                f"the decoder ends in a layer confined to {decoder_range} and the likelihood applies {self.link} "
                "on top: drop that layer or use link='identity'"
            )
        mean_range = decoder_range if bounded else _LINK_RANGES[self.link]
        if mean_range != value_range and any(math.isfinite(edge) for edge in mean_range):
            return (
                f"the decoder's mean is confined to {mean_range} but the pixels lie in {value_range}: "
                "use link 'tanh' for (-1, 1), 'sigmoid' for (0, 1), or 'identity'"
            )
        return None


class Gaussian(_Located):
    """p(x|z) = N(x; link(y), scale^2 I), with all its constants, so that it is a density.

    Args:
        scale: a number, fixed (1 gives half the squared error plus a constant); ``learned``, one parameter trained
        with the rest; or
            ``optimal``, the maximum-likelihood value ``sqrt(mean squared error)`` of the batch, as in sigma-VAE. In
            evaluation ``optimal`` uses its running mean over training batches, so that a number does not depend on the
            batch it is computed in; over several processes that running mean is the first's.
        link: maps the decoder's output to the mean: ``tanh`` for pixels in [-1, 1], ``sigmoid`` for [0, 1],
        ``identity`` for anything.

    Rybkin, Daniilidis & Levine, Simple and Effective VAE Training with Calibrated Decoders, 2021,
    https://arxiv.org/abs/2006.13202, equation 5. As they do, the scale is kept above exp(-6), without which a
    perfectly reconstructed batch has an infinite density.
    """

    MIN_VARIANCE = math.exp(-12)
    MOMENTUM = 0.01

    variance: Tensor
    batches: Tensor

    def __init__(
        self,
        *,
        scale: float | Literal["learned", "optimal"] = 1.0,
        link: Link = "tanh",
    ) -> None:
        super().__init__()
        if isinstance(scale, str):
            if scale not in ("learned", "optimal"):
                raise ValueError(f"scale must be a positive number, 'learned' or 'optimal', got {scale!r}")
        elif not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number, 'learned' or 'optimal', got {scale}")
        self.scale, self.link = scale, link
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif scale == "optimal":
            self.register_buffer("variance", torch.ones(()))
            self.register_buffer("batches", torch.zeros(()))

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) and x (B, C, H, W) -> (K, B), in nats."""
        error = (x - self.mean(y)).square()
        squares, pixels = error.flatten(2).sum(-1), math.prod(x.shape[1:])
        if not isinstance(self.scale, str):  # plain numbers: a tensor made of one would wait for the device
            return -0.5 * (squares / self.scale**2 + pixels * (LOG_2PI + 2 * math.log(self.scale)))
        logvar = self._logvar(error)
        return -0.5 * (squares * torch.exp(-logvar) + pixels * (LOG_2PI + logvar))

    def _logvar(self, error: Tensor) -> Tensor:
        if self.scale == "learned":
            return 2 * self.log_scale
        if not self.training:
            return self.variance.log()
        # Not detached: the gradient through the scale is zero for the mean of log p over samples and images alone, not
        # for a bound that weighs them, as IWAE does.
        variance = error.mean().clamp_min(self.MIN_VARIANCE)
        self.batches += 1
        weight = torch.clamp_min(1 / self.batches, self.MOMENTUM)
        self.variance += weight * (variance.detach().to(self.variance.dtype) - self.variance)
        return variance.log()


class Laplace(_Located):
    """p(x|z) = prod exp(-|x - link(y)| / scale) / (2 scale): the absolute error, which lets edges be sharp.

    Args:
        scale: mean absolute deviation of a pixel from its mean.
        link: as the Gaussian's.
    """

    def __init__(self, *, scale: float = 0.7, link: Link = "tanh") -> None:
        super().__init__()
        self.scale, self.link = _positive("scale", scale), link

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) and x (B, C, H, W) -> (K, B), in nats."""
        return -((x - self.mean(y)).abs() / self.scale + math.log(2 * self.scale)).flatten(2).sum(-1)


class StudentT(_Located):
    """p(x|z): Student's t with ``df`` degrees of freedom about link(y), pixel by pixel, so that a pixel far off costs
    its logarithm alone.

    Takahashi et al., Student-t Variational Autoencoder for Robust Density Estimation, 2018,
    https://doi.org/10.24963/ijcai.2018/374, equation 5, with one scale and df for all pixels.

    Args:
        scale: of a pixel.
        df: degrees of freedom; the Gaussian where they grow without end. Above 1, so that there is a mean.
        link: as the Gaussian's.
    """

    def __init__(self, *, scale: float = 1.0, df: float = 5.0, link: Link = "tanh") -> None:
        super().__init__()
        if not 1 < df < math.inf:
            raise ValueError(f"df must be above 1, got {df}")
        self.scale, self.df, self.link = _positive("scale", scale), df, link

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) and x (B, C, H, W) -> (K, B), in nats."""
        half = (self.df + 1) / 2
        constant = (
            math.lgamma(half) - math.lgamma(self.df / 2) - 0.5 * math.log(self.df * math.pi) - math.log(self.scale)
        )
        squares = ((x - self.mean(y)) / self.scale).square() / self.df
        return (constant - half * torch.log1p(squares)).flatten(2).sum(-1)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number, got {value}")
    return value


class Bernoulli(Likelihood):
    """p(x|z) = prod sigmoid(y)^x (1 - sigmoid(y))^(1 - x), from logits y.

    A probability where x is 0 or 1. On grey values in between it is the usual cross-entropy, which is not a normalised
    density (Loaiza-Ganem & Cunningham, The Continuous Bernoulli, 2019, https://arxiv.org/abs/1907.06845): compare its
    nats only with its own.
    """

    default_range = (0.0, 1.0)

    def channels(self, image_channels: int) -> int:
        """As many as the image has."""
        return image_channels

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) logits and x (B, C, H, W) in [0, 1] -> (K, B), in nats."""
        return (x * y - F.softplus(y)).flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """sigmoid(y)."""
        return torch.sigmoid(y)

    def measure(self, x: Tensor) -> Measure:
        """A probability where every pixel is 0 or 1."""
        return "mass of binary values" if bool(((x == 0) | (x == 1)).all()) else "cross-entropy"

    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """Bounded logits, or pixels that are no probabilities."""
        if any(math.isfinite(edge) for edge in decoder_range):
            return (
                f"the decoder ends in a layer confined to {decoder_range} but the Bernoulli likelihood takes "
                "unbounded logits: drop that layer"
            )
        if value_range != (0.0, 1.0):
            return (
                f"the Bernoulli likelihood needs pixels in (0, 1) but they lie in {value_range}: "
                "use value_range (0, 1) or a Gaussian likelihood"
            )
        return None
