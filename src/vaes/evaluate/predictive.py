"""Predictive checks: which statistics of images the model's samples get wrong, and how, in words.

Rubin, Bayesianly Justifiable and Relevant Frequency Calculations for the Applied Statistician, Annals of Statistics
1984; Gelman, Meng & Stern, Posterior Predictive Assessment of Model Fitness via Realized Discrepancies, Statistica
Sinica 1996. The images here are held out, so that a p-value is uniform under a model that is right, which one on the
training images is not.
"""

import math
import sys
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.evaluate.record import Metric, NotApplicable, mean_metric

__all__ = [
    "Law",
    "Statistics",
    "image_statistics",
    "law_distance",
    "mean_distance",
    "predictive_checks",
    "relabellings",
]

BINS = 16
TINY = sys.float_info.min
CHUNK = 500  # images at a time
MIN_ROWS = 20
LEVEL = 0.05  # what is said in words is so for all of a check's statistics together
NOUNS = {"means": "decoded means", "draws": "draws"}
WORDS = {
    "brightness": ("darker", "brighter", "mean intensity"),
    "contrast": ("flatter", "higher in contrast", "standard deviation of pixels"),
    "edges": ("smoother", "rougher", "edge energy"),
    "asymmetry": ("more symmetric", "less symmetric", "distance from their mirror image"),
    "colour": ("paler", "more colourful", "range over channels"),
}
DEFINITIONS = {
    "brightness": "mean of pixels",
    "contrast": "standard deviation of pixels, root mean square over channels",
    "edges": "mean absolute difference of neighbouring pixels, down and across",
    "asymmetry": "mean absolute difference from the image mirrored left to right",
    "colour": "mean over pixels of the largest less the smallest channel",
    "intensities": f"shares of pixels in {BINS} even bins: half the sum of absolute differences of their means",
    "channels": "means of the channels: the largest absolute difference",
}


class Statistics(NamedTuple):
    """What each of N images is summed up in, on pixels in [0, 1], float64."""

    scalars: dict[str, Tensor]  # (N,) by name, those of WORDS that these images have
    intensities: Tensor  # (N, 16) shares of pixels
    channels: Tensor | None  # (N, C), of colour images

    def join(self, other: "Statistics") -> "Statistics":
        """The images of both."""
        channels = None if self.channels is None or other.channels is None else torch.cat(
            [self.channels, other.channels]
        )  # fmt: skip
        scalars = {name: torch.cat([values, other.scalars[name]]) for name, values in self.scalars.items()}
        return Statistics(scalars, torch.cat([self.intensities, other.intensities]), channels)


class Law(NamedTuple):
    """How far the laws of a statistic are apart in two sets, and how often that comes about by chance."""

    distance: float
    p: float


def image_statistics(images: Tensor) -> Statistics:
    """The statistics of images (N, C, H, W) uint8. One row of numbers, (N, 1, 1, D), has no edges and no mirror
    image."""
    parts = [_statistics(part) for part in images.split(CHUNK)]
    found = parts[0]
    for part in parts[1:]:
        found = found.join(part)
    return found


def _statistics(images: Tensor) -> Statistics:
    x = images.float() / 255
    n, c, h, w = x.shape
    flat = x.flatten(2)
    scalars = {"brightness": flat.mean((1, 2)), "contrast": flat.var(2, correction=0).mean(1).sqrt()}
    if h > 1 and w > 1:
        down, across = (x.diff(dim=axis).abs().flatten(1) for axis in (2, 3))
        scalars["edges"] = (down.sum(1) + across.sum(1)) / (down.shape[1] + across.shape[1])
        scalars["asymmetry"] = (x - x.flip(3)).abs().mean((1, 2, 3))
    if c == 3:
        scalars["colour"] = (x.amax(1) - x.amin(1)).mean((1, 2))
    bins = images.flatten(1).long() * BINS // 256 + BINS * torch.arange(n)[:, None]
    shares = torch.bincount(bins.flatten(), minlength=n * BINS).reshape(n, BINS).double() / flat[0].numel()
    doubles = {name: values.double() for name, values in scalars.items()}
    return Statistics(doubles, shares, flat.mean(2).double() if c > 1 else None)


def relabellings(n: int, m: int, count: int, seed: int) -> Tensor:
    """Which of n + m pooled rows count as the first set: (1 + count, n + m) bool, the truth and then at random."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(1 + count, n + m, dtype=torch.bool)
    found[0, :n] = True
    for row in found[1:]:
        row[torch.randperm(n + m, generator=generator)[:n]] = True
    return found


def law_distance(x: Tensor, y: Tensor, first: Tensor) -> Law:
    """The largest difference of two empirical distribution functions (Kolmogorov and Smirnov's), and its p-value.

    The p-value is the share of relabellings, the true one among them, that are as far apart. It is exact whatever the
    law, ties included: of two sets of one law it is uniform on its grid, or above where there are ties.

    Phipson & Smyth, Permutation P-values Should Never Be Zero, 2010.

    Args:
        x: (N,).
        y: (M,).
        first: (1 + R, N + M) of :func:`relabellings`.
    """
    n, m = len(x), len(y)
    ordered, order = torch.cat([x, y]).sort()
    last = torch.ones(n + m, dtype=torch.bool)  # of rows that are tied
    last[:-1] = ordered[1:] != ordered[:-1]
    seen = torch.arange(1, n + m + 1)[last]
    found = []
    for part in first.split(64):
        below = part[:, order].cumsum(1)[:, last]
        found.append((below * m - (seen - below) * n).abs().amax(1))  # whole numbers: ties of distances are exact
    distances = torch.cat(found)
    return Law(float(distances[0]) / (n * m), float((distances >= distances[0]).double().mean()))


def mean_distance(x: Tensor, y: Tensor, first: Tensor, *, total: bool) -> Law:
    """The distance of the means of x (N, k) and y (M, k), half the sum of absolute differences if ``total`` and the
    largest otherwise, with its p-value as in :func:`law_distance`."""
    n, m = len(x), len(y)
    pooled = torch.cat([x, y])
    pooled = pooled - pooled.mean(0)  # of the centred rows both means follow from one
    sums = torch.cat([part.double() @ pooled for part in first.split(64)])
    differences = (sums * (1 / n + 1 / m)).abs()
    distances = differences.sum(1) / 2 if total else differences.amax(1)
    rounding = 1e-12 * float(pooled.abs().max())
    return Law(float(distances[0]), float((distances >= distances[0] - rounding).double().mean()))


def predictive_checks(
    images: Tensor, samples: Mapping[str, Tensor], *, n_permutations: int = 999, seed: int = 0
) -> list[Metric]:
    """Every statistic of held-out images, and of samples its value, a p-value, and words where it differs beyond chance
    (at 5 % for all statistics of these samples together).

    The p-values are of permutation tests that images and samples are of one law: that of the statistic over images for
    those of one number, that of its mean for histogram and channels. They fall with N however small the mismatch.

    Args:
        images: (N, C, H, W) uint8, not trained on.
        samples: (M, C, H, W) uint8 by what they are: ``means``, decoded from codes of the prior, or ``draws`` about
            these; the metrics' names end in it.
        n_permutations: relabellings.
        seed: of the relabellings.

    Raises:
        NotApplicable: fewer than 20 of either.
    """
    for name, some in (("images", images), *samples.items()):
        if len(some) < MIN_ROWS:
            raise NotApplicable(f"{len(some)} {name}: at least {MIN_ROWS} are needed")
    real = image_statistics(images)
    found = [mean_metric(name, x, f"{DEFINITIONS[name]}, of images") for name, x in real.scalars.items()]
    for name, some in samples.items():
        found += _check(real, image_statistics(some), name, n_permutations, seed)
    return found


def _check(real: Statistics, fake: Statistics, name: str, count: int, seed: int) -> list[Metric]:
    n, m = len(real.intensities), len(fake.intensities)
    first, noun = relabellings(n, m, count, seed), NOUNS.get(name, name)
    several = 1 + len(real.scalars) + (real.channels is not None)
    about = f"{m} {noun} and {n} images"
    found: list[Metric] = []

    def add(what: str, value: Metric, law: Law, of: str, words: str) -> None:
        said = words if law.p * several <= LEVEL else None
        p = f"p-value that {about} have one {of} of their {what}, {count} relabellings; Phipson & Smyth 2010"
        found.extend([value._replace(note=said), Metric(f"{what}_{name}_p", law.p, min(n, m), p, seed=seed)])

    for what, x in real.scalars.items():
        y = fake.scalars[what]
        law = law_distance(x, y, first)
        value = mean_metric(f"{what}_{name}", y, f"{DEFINITIONS[what]}, of {noun}", seed=seed)
        add(what, value, law, "law", _scalar_words(what, noun, x, y))
    vectors = [("intensities", real.intensities, fake.intensities)]
    if real.channels is not None and fake.channels is not None:
        vectors.append(("channels", real.channels, fake.channels))
    for what, x, y in vectors:
        law = mean_distance(x, y, first, total=what == "intensities")
        value = Metric(f"{what}_{name}", law.distance, min(n, m), f"{DEFINITIONS[what]}, {about}", seed=seed)
        add(what, value, law, "mean", _vector_words(what, noun, x.mean(0), y.mean(0)))
    return found


def _scalar_words(what: str, noun: str, x: Tensor, y: Tensor) -> str:
    """In what the samples' y differs most from the images' x: the mean (in standard deviations) or the spread (as a
    share), as far as two standard errors and more; else the shape."""
    less, more, measure = WORDS[what]
    mean_x, mean_y, sd_x, sd_y = (float(one) for one in (x.mean(), y.mean(), x.std(), y.std()))
    gap, ratio = abs(mean_y - mean_x), min(sd_x, sd_y) / max(sd_x, sd_y, TINY)
    of_mean = gap / max(sd_x, sd_y, TINY) if gap > 2 * math.hypot(sd_x / len(x) ** 0.5, sd_y / len(y) ** 0.5) else 0
    noise = math.hypot(_spread_error(x), _spread_error(y))
    of_spread = 1 - ratio if -math.log(max(ratio, TINY)) > 2 * noise else 0
    if not of_mean and not of_spread:
        return f"the {measure} of {noun} is distributed otherwise than images', with as large a mean and spread"
    if of_mean >= of_spread:
        side = less if mean_y < mean_x else more
        return f"{noun} are {side} than images: {measure} {mean_y:.3g} against {mean_x:.3g}"
    return (
        f"{noun} vary too {'little' if sd_y < sd_x else 'much'}: standard deviation of their {measure} {sd_y:.3g} "
        f"against {sd_x:.3g} of images"
    )


def _spread_error(x: Tensor) -> float:
    """Standard error of the logarithm of the standard deviation of x (N,), by the delta method."""
    centred = x - x.mean()
    variance = float(centred.square().mean())
    if variance == 0:
        return 1 / math.sqrt(2 * len(x))
    kurtosis = float(centred.pow(4).mean()) / variance**2
    return math.sqrt(max(kurtosis - 1, 1e-3) / (4 * len(x)))


def _vector_words(what: str, noun: str, x: Tensor, y: Tensor) -> str:
    """The entry in which the samples' means y (k,) are furthest from the images' x."""
    worst = int((y - x).abs().argmax())
    if what == "channels":
        channel = ("red", "green", "blue")[worst] if len(x) == 3 else f"channel {worst}"
        side = "little" if y[worst] < x[worst] else "much"
        return f"{noun} hold too {side} {channel}: mean {float(y[worst]):.3g} against {float(x[worst]):.3g}"
    low, high = (256 * edge // BINS for edge in (worst, worst + 1))
    side = "few" if y[worst] < x[worst] else "many"
    return (
        f"too {side} pixels of {noun} are of {low} to {high - 1} of 255: {float(y[worst]):.2%} against "
        f"{float(x[worst]):.2%} of images"
    )
