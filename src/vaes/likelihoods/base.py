"""What every likelihood has, and what those with a centre and a scale share."""

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Likelihood", "Link", "LocationScale", "Measure", "Range", "bent", "inside"]

Range = tuple[float, float]
Measure = Literal[
    "density", "density on [0, 1]", "mass of 8-bit values", "mass of binary values", "cross-entropy", "unknown"
]
"""What exp(log p(x|z)) is: a density of pixel values, on the real line or on the unit interval alone, a probability of
pixels of 256 or of two values, the usual cross-entropy, which is no normalised probability, or what the likelihood does
not say. Two kinds do not compare."""

Link = Literal["identity", "tanh", "sigmoid"]

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

    def noise_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The shape of the uniform noise that :meth:`draw` wants for one image (C, H, W)."""
        return image_shape

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """y (..., C', H, W) and noise (..., *noise_shape), uniform on (0, 1) -> a draw of x|z, (..., C, H, W).

        Raises:
            NotImplementedError: a likelihood of one's own that does not say how.
        """
        raise NotImplementedError(f"{type(self).__name__} has no draw(y, noise): it makes mean images alone")

    def measure(self, x: Tensor) -> Measure:
        """What its number is on images x (..., C, H, W). Where that is unknown there are no bits per dimension."""
        return "unknown"

    @abc.abstractmethod
    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """Why a decoder whose last layer is confined to ``decoder_range`` cannot model pixels in ``value_range``; None
        if it can."""


class LocationScale(Likelihood):
    """p(x|z) = prod f((x - m) / s) / s with m = link(y) and a scale s: fixed, one that is trained, or one a pixel that
    the decoder makes, as the log-scales in a second half of its channels.

    Scales that the decoder makes are kept above exp(-6), without which a pixel that is met exactly has an infinite
    density, and below exp(10).
    """

    default_range = (-1.0, 1.0)
    LOW, HIGH = -6.0, 10.0
    """Of the logarithm of a scale that the decoder makes."""

    def __init__(self, scale: float | str, link: str, others: tuple[str, ...] = ("learned", "per_pixel")) -> None:
        super().__init__()
        named = isinstance(scale, str) and scale in others
        if not named and (isinstance(scale, str) or not (math.isfinite(scale) and scale > 0)):
            names = [repr(name) for name in others]
            raise ValueError(f"scale must be a positive number, {', '.join(names[:-1])} or {names[-1]}, got {scale!r}")
        if link not in _LINKS:
            raise ValueError(f"link must be one of {', '.join(_LINKS)}, got {link!r}")
        self.scale, self.link = scale, link
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(()))

    def channels(self, image_channels: int) -> int:
        """As many as the image has, or twice that where each pixel has its scale."""
        return image_channels * (2 if self.scale == "per_pixel" else 1)

    def mean(self, y: Tensor) -> Tensor:
        """link(y), of the first half of the channels where each pixel has its scale."""
        return _LINKS[self.link](y.chunk(2, dim=-3)[0] if self.scale == "per_pixel" else y)

    def measure(self, x: Tensor) -> Measure:
        """A density of pixel values."""
        return "density"

    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """A bounded layer under a link or for log-scales, or a mean confined to another range than the pixels'."""
        bounded = any(math.isfinite(edge) for edge in decoder_range)
        if bounded and self.scale == "per_pixel":
            return (
                f"the decoder ends in a layer confined to {decoder_range} but makes log-scales too (scale: per_pixel): "
                "drop that layer"
            )
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

    def log_scales(self, y: Tensor) -> Tensor | float:
        """log s for y (..., C', H, W): of each pixel (..., C, H, W), the parameter (), or the plain number that is
        fixed (a tensor made of one would wait for the device)."""
        if self.scale == "per_pixel":
            return bent(y.chunk(2, dim=-3)[1], self.LOW, self.HIGH)
        return self.log_scale if self.scale == "learned" else math.log(float(self.scale))

    def standardise(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """((x - m) / s (K, B, C, H, W), log s) for y (K, B, C', H, W) and x (B, C, H, W)."""
        log_scale, error = self.log_scales(y), x - self.mean(y)
        return error * (torch.exp(-log_scale) if isinstance(log_scale, Tensor) else math.exp(-log_scale)), log_scale

    def spread(self, y: Tensor, standard: Tensor) -> Tensor:
        """m + s e for draws e (..., C, H, W) of the density with centre 0 and scale 1."""
        log_scale = self.log_scales(y)
        scale = torch.exp(log_scale) if isinstance(log_scale, Tensor) else math.exp(log_scale)
        return self.mean(y) + scale * standard


def bent(x: Tensor, low: float, high: float) -> Tensor:
    """x within (low, high), elementwise: bent by softplus at the lower end, where fits go, and cut at the upper."""
    return low + F.softplus(x.clamp_max(high) - low)


def inside(noise: Tensor) -> Tensor:
    """Uniform noise with its ends moved inside (0, 1): generators give a 0 now and then, whose quantile is infinite."""
    eps = torch.finfo(noise.dtype).eps
    return noise.clamp(eps / 4, 1 - eps / 2)
