"""Probabilities of the 256 values of a pixel, from logistic densities: the likelihoods that have bits per dimension."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.likelihoods.base import Likelihood, Measure, Range, bent, inside

__all__ = ["DiscretisedLogistic", "LogisticMixture"]

HALF = 1 / 255
"""Half the width of the bin of one value; the 256 values lie evenly on [-1, 1]."""
LOG_SCALES = (-7.0, 7.0)
"""Limits of log-scales, the lower that of Salimans et al.: at exp(-7) all mass is in one bin, above exp(7) in two."""


def log_mass(x: Tensor, centre: Tensor, log_scale: Tensor) -> Tensor:
    """log P(x) of values x = 2 v / 255 - 1, elementwise: the mass of a logistic density within half a bin of x; the
    first and the last bin reach to infinity.

    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), whose logarithm loses no digits in the tails.
    """
    rate = torch.exp(-log_scale)
    above, below = (x + HALF - centre) * rate, (x - HALF - centre) * rate
    width = torch.log(-torch.expm1(-2 * HALF * rate))
    first, last = x < HALF - 1, x > 1 - HALF
    inner = F.logsigmoid(above) + F.logsigmoid(-below) + width
    return torch.where(first, F.logsigmoid(above), torch.where(last, F.logsigmoid(-below), inner))


def clamped_mean(centre: Tensor, scale: Tensor) -> Tensor:
    """The mean of a logistic variable clamped to [-1, 1], elementwise: 1 minus the integral of its distribution
    function."""
    return 1 - scale * (F.softplus((1 - centre) / scale) - F.softplus((-1 - centre) / scale))


def rounded(x: Tensor) -> Tensor:
    """The nearest of the 256 values."""
    return torch.round((x.clamp(-1, 1) + 1) * 127.5) / 127.5 - 1


class _EightBit(Likelihood):
    """Pixels of 256 values on [-1, 1]."""

    default_range = (-1.0, 1.0)

    def measure(self, x: Tensor) -> Measure:
        """A probability where every pixel is one of the 256 values."""
        values = (x + 1) * 127.5
        whole = bool(((values - values.round()).abs() < 0.01).all())
        return "mass of 8-bit values" if whole else "unknown"

    def misfit(self, decoder_range: Range, value_range: Range) -> str | None:
        """A bounded decoder, or pixels on another range."""
        name = type(self).__name__
        if any(math.isfinite(edge) for edge in decoder_range):
            return (
                f"the decoder ends in a layer confined to {decoder_range} but the {name} likelihood takes unbounded "
                "centres and log-scales: drop that layer"
            )
        if value_range != self.default_range:
            return (
                f"the {name} likelihood needs the 256 values of a pixel in (-1, 1) but they lie in {value_range}: "
                "use value_range (-1, 1)"
            )
        return None


class DiscretisedLogistic(_EightBit):
    """P(x|z) = prod F((x + 1/255 - m) / s) - F((x - 1/255 - m) / s) with F = sigmoid and m = y, over the 256 values x
    of a pixel in [-1, 1]; the bins of -1 and 1 reach to infinity, so that the masses sum to one.

    Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling, Improved Variational Inference with Inverse Autoregressive
    Flow, 2016, https://arxiv.org/abs/1606.04934, appendix C.4 (one learned scale); Salimans et al., PixelCNN++, 2017,
    https://arxiv.org/abs/1701.05517, equation 2 (its bins at the ends).

    Args:
        scale: ``learned``, one s trained with the rest, or ``per_pixel``, made by the decoder (twice the channels:
            centres, then log-scales).
    """

    FIRST = math.log(0.1)
    """The log-scale that ``learned`` begins with."""

    def __init__(self, *, scale: Literal["learned", "per_pixel"] = "learned") -> None:
        super().__init__()
        if scale not in ("learned", "per_pixel"):
            raise ValueError(f"scale must be 'learned' or 'per_pixel', got {scale!r}")
        self.scale = scale
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.tensor(self.FIRST))

    def channels(self, image_channels: int) -> int:
        """As many as the image has, or twice that where each pixel has its scale."""
        return image_channels * (2 if self.scale == "per_pixel" else 1)

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) of the 256 values -> log-probabilities (K, B), in nats."""
        return log_mass(x, *self._parts(y)).flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """The mean before the pixel is rounded to one of its values: within half a grey level of the mean after."""
        centre, log_scale = self._parts(y)
        return clamped_mean(centre, log_scale.exp())

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """m + s logit(noise), as the nearest of the 256 values."""
        centre, log_scale = self._parts(y)
        return rounded(centre + log_scale.exp() * torch.logit(inside(noise)))

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.scale == "per_pixel":
            centre, log_scale = y.chunk(2, dim=-3)
        else:
            centre, log_scale = y, self.log_scale
        return centre, bent(log_scale, *LOG_SCALES)


class LogisticMixture(_EightBit):
    """P(x|z) = prod over pixels of sum_k w_k prod over channels of the mass of a discretised logistic (m_k, s_k).

    Salimans, Karpathy, Chen & Kingma, PixelCNN++, 2017, https://arxiv.org/abs/1701.05517, equation 2. As there, a
    pixel's channels share the component; that one channel's centre also follows the values of those before it (their
    equation 3) is left out. The decoder makes K weights' logits, then K C centres, then K C log-scales for each pixel.

    Args:
        components: K, how many logistic densities a pixel has.
    """

    def __init__(self, *, components: int = 5) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.components = components
        # Where the components lie when the decoder gives nothing yet: alike, they would never part.
        spread = (torch.arange(components) + 0.5) * 2 / components - 1
        self.register_buffer("offsets", spread, persistent=False)

    offsets: Tensor

    def channels(self, image_channels: int) -> int:
        """K (1 + 2 C)."""
        return self.components * (1 + 2 * image_channels)

    def noise_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """One number a pixel for its component, and one for each channel: (1 + C, H, W)."""
        return (1 + image_shape[0], *image_shape[1:])

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) of the 256 values -> log-probabilities (K, B), in nats."""
        log_weight, centre, log_scale = self._parts(y)
        of_pixel = log_mass(x.unsqueeze(-4), centre, log_scale).sum(-3)
        return torch.logsumexp(log_weight + of_pixel, dim=-3).flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        """The mean before the pixel is rounded to one of its values: within half a grey level of the mean after."""
        log_weight, centre, log_scale = self._parts(y)
        return (log_weight.exp().unsqueeze(-3) * clamped_mean(centre, log_scale.exp())).sum(-4)

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """A component by the first number of each pixel, and a draw of it by the others."""
        log_weight, centre, log_scale = self._parts(y)
        which, u = noise[..., :1, :, :], inside(noise[..., 1:, :, :])
        below = log_weight.exp().cumsum(-3) < which  # (..., K, H, W)
        index = below.sum(-3, keepdim=True).clamp_max(self.components - 1).unsqueeze(-3)
        index = index.expand(*centre.shape[:-4], 1, *centre.shape[-3:])
        centre, log_scale = centre.gather(-4, index).squeeze(-4), log_scale.gather(-4, index).squeeze(-4)
        return rounded(centre + log_scale.exp() * torch.logit(u))

    def _parts(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y (..., C', H, W) -> log-weights (..., K, H, W), centres and log-scales (..., K, C, H, W)."""
        k = self.components
        logits, rest = y[..., :k, :, :], y[..., k:, :, :].unflatten(-3, (2, k, -1))
        centre, log_scale = rest.unbind(-5)
        centre = centre + self.offsets[:, None, None, None]
        return torch.log_softmax(logits, dim=-3), centre, bent(log_scale, *LOG_SCALES)
