"""Sample quality on feature arrays (N, d), and how near samples come to the training data.

Features are those of any network, or flat pixels; ``features`` names them in the record, and numbers from different
ones are not comparable. All in float64.
"""

import math

import torch
from torch import Tensor

from vaes.evaluate.probes import auroc
from vaes.evaluate.record import Array, Metric, NotApplicable, float_tensor, mean_metric, to_float64

__all__ = ["fid", "frechet_distance", "kid", "memorisation", "precision_recall", "polynomial_mmd"]

CHUNK = 8_000_000  # distances held at once


def _pair(real: Array, fake: Array, min_rows: int) -> tuple[Tensor, Tensor]:
    """Check two feature arrays of equal width; on one device.

    Raises:
        NotApplicable: not finite, not flat, too few rows, or of different widths.
    """
    x, y = float_tensor(real, "real features", min_rows), float_tensor(fake, "generated features", min_rows)
    _same_width(x, y, "real features", "generated features")
    return x, y.to(x.device)


def _same_width(x: Tensor, y: Tensor, what_x: str, what_y: str) -> None:
    if x.shape[1] != y.shape[1]:
        raise NotApplicable(f"{what_x} have {x.shape[1]} columns and {what_y} {y.shape[1]}: they must be alike")


def frechet_distance(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians: ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``.

    With ``C = A A'`` and ``C' = B B'`` from symmetric eigendecompositions, ``tr (C C')^(1/2)`` is the sum of the
    singular values of ``A' B``. No square root of a non-symmetric matrix is taken, and singular covariances lose no
    digits.

    Dowson & Landau, The Frechet Distance between Multivariate Normal Distributions, 1982.

    Args:
        mean_x: (d,).
        cov_x: (d, d).
        mean_y: (d,).
        cov_y: (d, d).
    """
    overlap = torch.linalg.svdvals(_factor(cov_x).T @ _factor(cov_y)).sum()
    distance = (mean_x - mean_y).square().sum() + cov_x.trace() + cov_y.trace() - 2 * overlap
    return max(0.0, float(distance))


def _factor(covariance: Tensor) -> Tensor:
    """A with ``A A' = covariance``, directions of rounding error alone left at 0."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    return vectors * torch.where(values > floor, values, 0.0).sqrt()


def fid(real: Array, fake: Array, *, features: str, min_rows: int | None = None) -> Metric:
    """Frechet distance between Gaussians fitted to real (N, d) and generated (M, d) features.

    Biased upwards, the more the fewer rows: compare only numbers of equal N and M. No honest standard error comes with
    it.

    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017,
    https://arxiv.org/abs/1706.08500, equation 6.

    Args:
        real: (N, d).
        fake: (M, d).
        features: name of the feature network.
        min_rows: refuse fewer; d + 1 by default, below which a covariance is singular and the bias dwarfs the distance.

    Raises:
        NotApplicable: not finite, not flat, of different widths, or too few rows.
    """
    x, y = _pair(real, fake, 2)
    needed = x.shape[1] + 1 if min_rows is None else min_rows
    if min(len(x), len(y)) < needed:
        raise NotApplicable(
            f"{len(x)} real and {len(y)} generated rows are too few for a covariance of {x.shape[1]} features: "
            f"{needed} of each are needed (kid is unbiased with fewer)"
        )
    value = frechet_distance(x.mean(0), torch.atleast_2d(torch.cov(x.T)), y.mean(0), torch.atleast_2d(torch.cov(y.T)))
    return Metric(
        "fid",
        value,
        min(len(x), len(y)),
        f"Frechet distance of Gaussians fitted to {len(x)} real and {len(y)} generated rows, biased upwards; "
        "Heusel et al. 2017 (1706.08500)",
        features=features,
    )


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of x (n, d) and y (m, d) under ``k(a, b) = (a.b / d + 1)^3``.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 3; kernel of Binkowski et al., 2018.
    """
    n, m, d = len(x), len(y), x.shape[1]
    xx, yy, xy = ((a @ b.T / d + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kid(
    real: Array, fake: Array, *, features: str, n_subsets: int = 100, subset_size: int = 1_000, seed: int = 0
) -> Metric:
    """Kernel inception distance: the unbiased cubic-kernel MMD^2, averaged over random subsets.

    Unbiased at any number of rows, so slightly negative where the two agree. A subset takes at most a quarter of the
    rows. The usual standard error, ``sd / sqrt(n_subsets)``, shrinks to nothing as overlapping subsets are added; here
    sd is divided by the root of the number of disjoint subsets that the rows allow, which errs on the wide side.

    Binkowski et al., Demystifying MMD GANs, 2018, https://arxiv.org/abs/1801.01401.

    Args:
        real: (N, d).
        fake: (M, d).
        features: name of the feature network.
        n_subsets: subsets to average over.
        subset_size: rows of each side in a subset.
        seed: of the subsets.

    Raises:
        NotApplicable: not finite, not flat, of different widths, or fewer than 40 rows on a side.
    """
    x, y = _pair(real, fake, 40)
    fewer = min(len(x), len(y))
    size = min(subset_size, fewer // 4)
    generator = torch.Generator().manual_seed(seed)

    def subset(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)]

    values = torch.tensor([polynomial_mmd(subset(x), subset(y)) for _ in range(n_subsets)], dtype=torch.float64)
    disjoint = min(n_subsets, fewer // size)
    return Metric(
        "kid",
        float(values.mean()),
        fewer,
        f"unbiased MMD^2 with (a.b / d + 1)^3 over {n_subsets} subsets of {size}, not multiplied by 1,000; "
        "Binkowski et al. 2018 (1801.01401)",
        stderr=float(values.std()) / math.sqrt(disjoint),
        seed=seed,
        features=features,
    )


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n, m); the expanded square, whose error of about 1e-8 |x| float64 leaves small."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
    return squared.clamp_min_(0).sqrt_()


def _radii(x: Tensor, k: int) -> Tensor:
    """Distance (N,) of every row of x to its k-th nearest other row, a block of rows at a time."""
    found, step = [], max(1, CHUNK // len(x))
    for start in range(0, len(x), step):
        block = _distances(x[start : start + step], x)
        own = torch.arange(len(block), device=x.device)
        block[own, own + start] = torch.inf
        found.append(block.kthvalue(k, dim=1).values)
    return torch.cat(found)


def precision_recall(
    real: Array, fake: Array, *, features: str, k: int = 5, min_rows: int = 50
) -> tuple[Metric, Metric, Metric, Metric]:
    """Precision, recall, density and coverage from balls that reach to the k-th nearest neighbour of the same set.

    Precision: share of generated rows inside some real row's ball. Recall: share of real rows inside some generated
    row's. Density: mean number of real balls around a generated row, over k; it can exceed 1. Coverage: share of real
    balls that hold a generated row. Balls are closed (a published implementation takes open ones; they differ in exact
    ties only).
    Where both sets come from one distribution, density is 1 on average and coverage
    ``1 - prod_i (N - i) / (N + M - i)``, i = 1 .. k, not 1. Standard errors are those of the mean over the rows
    counted, the other set held fixed.

    Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019,
    https://arxiv.org/abs/1904.06991, section 2 (k = 3 there); Naeem et al., Reliable Fidelity and Diversity Metrics for
    Generative Models, 2020, https://arxiv.org/abs/2002.09797 (k = 5).

    Args:
        real: (N, d).
        fake: (M, d).
        features: name of the feature network.
        k: neighbour that the balls reach to.
        min_rows: refuse fewer on either side.

    Raises:
        NotApplicable: not finite, not flat, of different widths, or fewer than ``min_rows`` or k + 1 rows on a side.
    """
    x, y = _pair(real, fake, max(min_rows, k + 1))
    centre = x.mean(0)  # distances do not care, rounding does
    x, y = x - centre, y - centre
    radius_x, radius_y = _radii(x, k), _radii(y, k)
    covered, recalled, balls = [], [], torch.zeros(len(y), dtype=x.dtype, device=x.device)
    step = max(1, CHUNK // len(y))
    for part, radius in zip(x.split(step), radius_x.split(step), strict=True):
        distance = _distances(part, y)
        inside = distance <= radius[:, None]
        balls += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distance <= radius_y).any(1))
    about = f"k = {k}, {len(x)} real and {len(y)} generated rows"
    old, new = "Kynkaanniemi et al. 2019 (1904.06991)", "Naeem et al. 2020 (2002.09797)"
    values = {
        "precision": (balls > 0, f"share of generated rows in a real row's k-NN ball, {about}; {old}"),
        "recall": (torch.cat(recalled), f"share of real rows in a generated row's k-NN ball, {about}; {old}"),
        "density": (balls / k, f"mean number of real k-NN balls around a generated row, over k, {about}; {new}"),
        "coverage": (torch.cat(covered), f"share of real k-NN balls that hold a generated row, {about}; {new}"),
    }
    precision, recall, density, coverage = (
        mean_metric(name, rows.cpu(), definition, features=features) for name, (rows, definition) in values.items()
    )
    return precision, recall, density, coverage


def _nearest(x: Tensor, train: Tensor) -> Tensor:
    """Distance (S,) of every row of x to the nearest row of ``train``; exactly 0 for a copy. Both in blocks of rows."""
    step, found = max(1, CHUNK // max(x.shape[1], 1024)), []
    for part in map(to_float64, x.split(step)):
        best = torch.full((len(part),), torch.inf, dtype=part.dtype, device=part.device)
        for block in map(to_float64, train.split(step)):
            near = block[_distances(part, block).argmin(1)]
            best = torch.minimum(best, (part - near).norm(dim=1))
        found.append(best)
    return torch.cat(found)


def memorisation(samples: Array, train: Array, test: Array) -> tuple[Metric, Metric, Metric]:
    """Do samples lie nearer to training rows than fresh data do? Three metrics.

    ``memorisation`` is the probability that a sample is nearer to its nearest training row than a test row is to its
    own (ties half): 0.5 where samples are like fresh data, 1 where they are copies, below 0.5 where they stray from the
    data. With it, the mean nearest distances of samples and of test rows, Euclidean, in the units given.

    Meehan, Chaudhuri & Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative Models, 2020,
    https://arxiv.org/abs/2004.05675 (their statistic, without cells); standard error by DeLong et al., 1988.

    Args:
        samples: (S, d) generated images or features of them, flat.
        train: (N, d).
        test: (M, d).

    Raises:
        NotApplicable: not finite, not flat, of different widths, or fewer than 20 samples or test rows.
    """
    x = float_tensor(train, "training rows", lift=False)
    found = []
    for rows, what in ((samples, "samples"), (test, "test rows")):
        y = float_tensor(rows, what, min_rows=20, lift=False)
        _same_width(y, x, what, "training rows")
        found.append(_nearest(y.to(x.device), x).cpu())
    near, fresh = found
    about = f"nearest of {len(x)} training rows; Meehan et al. 2020 (2004.05675)"
    return (
        auroc(near, fresh)._replace(
            name="memorisation", definition=f"P(a sample is nearer than a test row), Euclidean distance to the {about}"
        ),
        mean_metric("nearest_train_samples", near, f"mean distance from samples to the {about}"),
        mean_metric("nearest_train_test", fresh, f"mean distance from test rows to the {about}"),
    )
