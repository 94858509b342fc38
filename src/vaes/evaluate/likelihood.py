"""How probable a model finds images: the ELBO, the importance-weighted bound and bits per dimension.

Pure in (model, x, noise) or (model, x, seed); K importance samples, B images, D latent dimensions, nats per image. A
model is any encoder and decoder in a :class:`vaes.VAE`. Evaluation mode and ``torch.inference_mode`` are the caller's.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.evaluate.record import NotApplicable
from vaes.model import VAE, Trace
from vaes.randomness import Draw

__all__ = [
    "Bound",
    "Draws",
    "LogMean",
    "bound_of",
    "concatenate",
    "dequantise",
    "elbo",
    "importance_weighted",
    "log_mean",
    "mass_to_bits",
    "to_bits",
    "units",
]


class Bound(NamedTuple):
    """The evidence lower bound of each image and its two halves, nats: ``elbo = -distortion - rate``."""

    elbo: Tensor  # (B,)
    distortion: Tensor  # (B,) -E log p(x|z)
    rate: Tensor  # (B,) KL(q(z|x) || p(z))


class LogMean(NamedTuple):
    """``log (1/K) sum_k w_k`` of each image, from K log-weights."""

    value: Tensor  # (B,)
    stderr: Tensor  # (B,) of the value, over draws; no more than 1 by construction: see trusted
    ess: Tensor  # (B,) effective sample size (sum w)^2 / sum w^2, between 1 and K
    k: int

    @property
    def ess_needed(self) -> float:
        """What the effective sample size must reach for its standard error to be one: ``min(3 sqrt(K), 3 K / 4)``.

        Below, the heaviest weights have probably not been drawn: the value is a lower bound of unknown slack. For
        log-normal weights of log-sd 0.2 to 4 and K from 8 to 5,000, 84 to 94 % of the 95 % intervals of single images
        hold the truth above it, and 53 to 73 % below.
        """
        return min(3 * math.sqrt(self.k), 0.75 * self.k)

    @property
    def trusted(self) -> Tensor:
        """(B,) where the standard error may be believed."""
        return self.ess >= self.ess_needed


class Draws:
    """Standard normal numbers for each image from a stream of its own, seeded by (seed, image).

    However the work is cut into batches of images and chunks of samples, every image meets the same numbers.
    """

    def __init__(self, seed: int, images: Sequence[int], z_dim: int) -> None:
        self._streams = [np.random.default_rng((seed, image)) for image in images]
        self._z_dim = z_dim

    def normal(self, k: int, like: Tensor) -> Tensor:
        """The next k draws of each image, (k, B, D), in the type and on the device of ``like``."""
        drawn = np.stack([stream.standard_normal((k, self._z_dim)) for stream in self._streams], 1)
        return torch.from_numpy(drawn).to(like)

    def of(self, wanted: Draw, k: int, like: Tensor) -> Tensor:
        """The next k draws of each image of the noise that a part wants, (k, B, ...)."""
        draw = {"normal": "standard_normal", "uniform": "random", "gumbel": "gumbel"}[wanted.law]
        options = {"size": (k, *wanted.shape)}
        drawn = np.stack([getattr(stream, draw)(**options) for stream in self._streams], 1)
        return torch.from_numpy(drawn).to(like)

    def uniform(self, k: int, like: Tensor) -> Tensor:
        """The next k uniform draws of each image, (k, B)."""
        return torch.from_numpy(np.stack([stream.random(k) for stream in self._streams], 1)).to(like)


def elbo(model: VAE, x: Tensor, noise: Tensor) -> Bound:
    """``E_q log p(x|z) - KL(q(z|x) || p(z))`` over K draws, the KL in closed form where there is one.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, equation 3.

    Args:
        model: any composition.
        x: (B, C, H, W) images in the model's value range.
        noise: (K, B, D) standard normal.

    Raises:
        NotApplicable: the posterior has no density.
    """
    return bound_of(model(x, noise), model)


def bound_of(trace: Trace, model: VAE) -> Bound:
    """The bound of a pass that was made already.

    Raises:
        NotApplicable: the posterior has no density.
    """
    if trace.rate is None:
        raise _no_density(model)
    distortion = -trace.log_px.mean(0)
    return Bound(-distortion - trace.rate, distortion, trace.rate)


def importance_weighted(
    model: VAE, x: Tensor, k: int, *, seed: int, images: Sequence[int] | None = None, batch_size: int = 500
) -> LogMean:
    """``log (1/K) sum_k p(x, z_k) / q(z_k | x)``, z_k drawn from q(z|x): below log p(x) on average, and rising.

    At most ``batch_size`` codes are decoded at once: sums run over chunks of K, so memory does not grow with it. The
    standard error is that of :func:`log_mean`, which also says how far below log p(x) the value still is on average. It
    knows only the weights that were drawn: both are too small where ``trusted`` is False, and may be where q is much
    narrower than the true posterior.

    Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519, equation 8;
    5,000 samples as there.

    Args:
        model: any composition whose posterior has a density.
        x: (B, C, H, W) images in the model's value range.
        k: samples for each image, at least 1.
        seed: of the draws.
        images: (B,) numbers that choose each image's stream; 0 .. B-1 by default.
        batch_size: codes decoded at once.

    Raises:
        NotApplicable: the posterior has no density.
        UserError: k or batch_size below 1.
    """
    if k < 1 or batch_size < 1:
        raise UserError(f"importance samples and batch size must be at least 1, got {k} and {batch_size}")
    if "log_q" not in model.posterior.gives:
        raise _no_density(model)
    numbers = range(len(x)) if images is None else images
    rows = max(1, batch_size // k)
    found = []
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        draws = Draws(seed, numbers[start : start + rows], model.z_dim)
        sums = _Sums.empty(part)
        for first in range(0, k, batch_size):
            trace = model(part, draws.of(model.noise, min(batch_size, k - first), part))
            assert trace.log_q is not None
            sums = sums.add(trace.log_px + trace.log_pz - trace.log_q)
        found.append(sums.finish(k))
    return concatenate(found)


def log_mean(log_weights: Tensor) -> LogMean:
    """``log mean_k w_k`` of log-weights (K, B), its standard error and the effective sample size; float64.

    With ``v = K sum w^2 / (sum w)^2 - 1`` the squared coefficient of variation of the weights, the standard error is
    ``sqrt(v / (K - 1))`` (the delta method) and the mean shortfall of the value, by Jensen, about half its square. With
    K = 1 neither is known, and the standard error is NaN.
    """
    return _Sums.empty(log_weights[0]).add(log_weights).finish(len(log_weights))


def concatenate(parts: Sequence[LogMean]) -> LogMean:
    """The images of all parts, which have the same K."""
    value, stderr, ess = (
        torch.cat(column) for column in zip(*((part.value, part.stderr, part.ess) for part in parts), strict=True)
    )
    return LogMean(value, stderr, ess, parts[0].k)


class _Sums(NamedTuple):
    """Running sums of weights and squared weights, as logarithms."""

    first: Tensor  # (B,) log sum w
    second: Tensor  # (B,) log sum w^2

    @classmethod
    def empty(cls, like: Tensor) -> "_Sums":
        start = torch.full((len(like),), -math.inf, dtype=torch.float64)
        return cls(start, start)

    def add(self, log_weights: Tensor) -> "_Sums":
        w = log_weights.detach().cpu().double()
        return _Sums(torch.logaddexp(self.first, w.logsumexp(0)), torch.logaddexp(self.second, (2 * w).logsumexp(0)))

    def finish(self, k: int) -> LogMean:
        ess = (2 * self.first - self.second).exp().clamp(1.0, float(k))
        variation = k / ess - 1
        stderr = (variation / (k - 1)).sqrt() if k > 1 else torch.full_like(ess, math.nan)
        return LogMean(self.first - math.log(k), stderr, ess, k)


def dequantise(pixels: Tensor, model: VAE, uniform: Tensor) -> Tensor:
    """8-bit pixels spread over their bins: (B, C, H, W) uint8 and uniform numbers in [0, 1) of that shape -> images.

    The 256 values lie evenly on the model's value range; each bin reaches half way to its neighbours, so that its
    centre is the value that the model was trained on: ``low + (high - low) (v + u - 1/2) / 255``.

    Theis, van den Oord & Bethge, A Note on the Evaluation of Generative Models, 2016, https://arxiv.org/abs/1511.01844,
    section 3.1, with bins of 1/255 about the pixel values, where theirs are [v/256, (v+1)/256].

    Raises:
        NotApplicable: the likelihood is no density over pixel values.
    """
    low, high = model.value_range
    x = low + (high - low) * (pixels.to(uniform) + uniform - 0.5) / 255
    measure = model.likelihood.measure(low + (high - low) * pixels.to(uniform) / 255)
    if measure != "density":
        name = type(model.likelihood).__name__
        raise NotApplicable(
            f"whether {name} is a density of pixel values is not known: it does not say"
            if measure == "unknown"
            else f"the number of {name} is a {measure}, no density of 8-bit pixels: it has no bits per dimension"
        )
    return x


def to_bits(log_density: Tensor, model: VAE, pixels: int) -> Tensor:
    """Log-densities (B,) of dequantised images, nats, -> an upper bound on the bits per pixel and channel of lossless
    coding, (B,): ``-(log p + D log((high - low) / 255)) / (D log 2)``.

    By Jensen ``log P(v) = log E_u p(x_u) delta^D >= E_u log p(x_u) + D log delta``, delta being the width of a bin.

    Theis et al., 2016, equation 3.

    Args:
        log_density: of images as :func:`dequantise` makes them.
        model: for its value range.
        pixels: D, pixels times channels.
    """
    low, high = model.value_range
    return mass_to_bits(log_density + pixels * math.log((high - low) / 255), pixels)


def mass_to_bits(log_mass: Tensor, pixels: int) -> Tensor:
    """Log-probabilities (B,) of 8-bit images, nats, -> bits per pixel and channel, (B,): ``-log P / (D log 2)``."""
    return -log_mass / (pixels * math.log(2))


def units(model: VAE, x: Tensor) -> str:
    """What the model's nats are: numbers with other units are no comparison. x (B, C, H, W)."""
    low, high = model.value_range
    said = {
        "density": f"density of pixels in [{low:g}, {high:g}]",
        "density on [0, 1]": "density of pixels on [0, 1] alone",
        "mass of 8-bit values": "probability of 8-bit pixels",
        "mass of binary values": "probability of binary pixels",
        "cross-entropy": "cross-entropy on grey pixels, which is no normalised probability",
        "unknown": f"of {type(model.likelihood).__name__}, which does not say what it is normalised over",
    }
    return f"nats per image, {said[model.likelihood.measure(x)]}"


def _no_density(model: VAE) -> NotApplicable:
    return NotApplicable(
        f"the posterior {type(model.posterior).__name__} has no density: there is no rate and no bound"
    )
