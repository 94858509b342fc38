"""Pixels in [0, 1] from logits: black or white, or any grey in between."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vaes.likelihoods.base import Likelihood, Measure, Range, inside

__all__ = ["Bernoulli", "ContinuousBernoulli"]


class _UnitInterval(Likelihood):
    """Pixels in [0, 1], each with one unbounded logit."""

    default_range = (0.0, 1.0)

    def channels(self, image_channels: int) -> int:
        """As many as the image has."""
        return image_channels

    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """Bounded logits, or pixels outside [0, 1]."""
        name = type(self).__name__
        if any(math.isfinite(edge) for edge in decoder_range):
            return (
                f"the decoder ends in a layer confined to {decoder_range} but the {name} likelihood takes "
                "unbounded logits: drop that layer"
            )
        if value_range != self.default_range:
            return (
                f"the {name} likelihood needs pixels in (0, 1) but they lie in {value_range}: "
                "use value_range (0, 1) or a Gaussian likelihood"
            )
        return None


class Bernoulli(_UnitInterval):
    """p(x|z) = prod sigmoid(y)^x (1 - sigmoid(y))^(1 - x), from logits y.

    A probability where x is 0 or 1. On grey values in between it is the usual cross-entropy, which is not a normalised
    density (Loaiza-Ganem & Cunningham, The Continuous Bernoulli, 2019, https://arxiv.org/abs/1907.06845): compare its
    nats only with its own.
    """

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) logits and x (B, C, H, W) in [0, 1] -> (K, B), in nats."""
        return (x * y - F.softplus(y)).flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """sigmoid(y)."""
        return torch.sigmoid(y)

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """1 where the noise lies below sigmoid(y), else 0."""
        return (noise < torch.sigmoid(y)).to(y.dtype)

    def measure(self, x: Tensor) -> Measure:
        """A probability where every pixel is 0 or 1."""
        return "mass of binary values" if bool(((x == 0) | (x == 1)).all()) else "cross-entropy"


class ContinuousBernoulli(_UnitInterval):
    """p(x|z) = prod C(l) l^x (1 - l)^(1 - x) for x in [0, 1] and l = sigmoid(y), normalised: exp(x y) y / (exp(y) - 1).

    Loaiza-Ganem & Cunningham, The Continuous Bernoulli: Fixing a Pervasive Error in Variational Autoencoders, 2019,
    https://arxiv.org/abs/1907.06845, section 3: C(l) = 2 artanh(1 - 2 l) / (1 - 2 l), which is 2 at l = 1/2, and the
    mean l / (2 l - 1) + 1 / (2 artanh(1 - 2 l)). In logits they are short; near y = 0, where they are 0 / 0, their
    series are taken.

    A density on [0, 1] has no mass beside 0 and 1, where half of the bins of the darkest and the brightest 8-bit value
    lie: it has no bits per dimension.
    """

    SERIES = 0.5
    """Below this |y| the series: the first term left out of the two is 1e-13 and 1e-12 there."""

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C, H, W) logits and x (B, C, H, W) in [0, 1] -> (K, B), in nats."""
        return (x * y - self._log_integral(y)).flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """1 / (1 - exp(-y)) - 1 / y."""
        size = y.abs()
        large = torch.where(size < self.SERIES, 1.0, size)  # both branches have gradients
        decay = torch.exp(-large)
        far = torch.sign(y) * (0.5 + decay / (1 - decay) - 1 / large)
        square = torch.where(size < self.SERIES, y, 0.0).square()
        series = 1 / 12 + square * (-1 / 720 + square * (1 / 30240 + square * (-1 / 1209600 + square / 47900160)))
        return 0.5 + torch.where(size < self.SERIES, y * series, far)

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """The inverse of the distribution function: log(1 + noise (exp(y) - 1)) / y, from the side where exp(y) < 1."""
        u = inside(noise)
        down = -y.abs().clamp_min(torch.finfo(y.dtype).tiny)
        drawn = (torch.log1p(torch.where(y > 0, 1 - u, u) * torch.expm1(down)) / down).clamp(0, 1)
        return torch.where(y > 0, 1 - drawn, drawn)

    def measure(self, x: Tensor) -> Measure:
        """A density on the unit interval."""
        return "density on [0, 1]"

    def _log_integral(self, y: Tensor) -> Tensor:
        """log of the integral of exp(x y) over [0, 1], elementwise: log((exp(y) - 1) / y)."""
        size = y.abs()
        large = torch.where(size < self.SERIES, 1.0, size)
        far = F.relu(y) + torch.log(-torch.expm1(-large)) - torch.log(large)
        square = torch.where(size < self.SERIES, y / 2, 0.0).square()  # log(sinh(t) / t) in t^2
        series = square * (1 / 6 + square * (-1 / 180 + square * (1 / 2835 + square * (-1 / 37800 + square / 467775))))
        return torch.where(size < self.SERIES, y / 2 + series, far)
