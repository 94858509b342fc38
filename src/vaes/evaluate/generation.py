"""Sample quality on feature arrays (N, d), and how near samples come to the training data.

Features are those of any network, or flat pixels; ``features`` names them in the record, and numbers from different
ones are not comparable. All in float64.
"""

import math

import torch
from torch import Tensor

from vaes.evaluate.probes import auroc
from vaes.evaluate.record import Array, Metric, NotApplicable, float_tensor, mean_metric, parts_stderr, to_float64

__all__ = [
    "fid",
    "fid_bias",
    "fid_with_bias",
    "frechet_distance",
    "kid",
    "memorisation",
    "polynomial_mmd",
    "precision_recall",
]

CHUNK = 8_000_000  # distances held at once
LEVELS = 1_024  # of values on a grid
CANDIDATES = 8


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

    Biased upwards, the more the fewer rows: compare only numbers of equal N and M. The note says so where the bias that
    :func:`fid_bias` expects is more than a tenth of the value. No honest standard error comes with it.

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
    return fid_with_bias(real, fake, features=features, min_rows=min_rows)[0]


def fid_bias(real: Array, fake: Array, *, features: str, min_rows: int | None = None) -> Metric:
    """How far :func:`fid` is expected to lie above its value for endless rows: that of half the rows less that of all.

    The bias falls as 1 / rows, so halving them adds as much as there is. The two halves are disjoint and their values
    averaged. A second-order expansion for Gaussian features says the same of those, and too little of features with
    heavier tails. Arguments and errors as in :func:`fid`.

    Chong & Forsyth, Effectively Unbiased FID and Inception Score, 2020, https://arxiv.org/abs/1911.07023, section 3.
    """
    return fid_with_bias(real, fake, features=features, min_rows=min_rows)[1]


def fid_with_bias(real: Array, fake: Array, *, features: str, min_rows: int | None = None) -> tuple[Metric, Metric]:
    """:func:`fid` and :func:`fid_bias` together."""
    x, y = _pair(real, fake, 2)
    needed = max(4, x.shape[1] + 1 if min_rows is None else min_rows)  # 4: halves of two
    if min(len(x), len(y)) < needed:
        raise NotApplicable(
            f"{len(x)} real and {len(y)} generated rows are too few for a covariance of {x.shape[1]} features: "
            f"{needed} of each are needed (kid is unbiased with fewer)"
        )
    value = _fid(x, y)
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randperm(len(rows), generator=generator).to(x.device).chunk(2) for rows in (x, y)]
    bias = max(0.0, sum(_fid(x[i], y[j]) for i, j in zip(*halves, strict=True)) / 2 - value)
    n, rows = min(len(x), len(y)), f"{len(x)} real and {len(y)} generated rows"
    note = f"about {bias:.3g} of it is the bias of so few rows" if bias > value / 10 else None
    definition = f"Frechet distance of Gaussians fitted to {rows}, biased upwards; Heusel et al. 2017 (1706.08500)"
    of_bias = f"expected bias of fid on {rows}: fid of half of them less fid of all; Chong & Forsyth 2020 (1911.07023)"
    return (
        Metric("fid", value, n, definition, features=features, note=note),
        Metric("fid_bias", bias, n, of_bias, features=features),
    )


def _fid(x: Tensor, y: Tensor) -> float:
    return frechet_distance(x.mean(0), torch.atleast_2d(torch.cov(x.T)), y.mean(0), torch.atleast_2d(torch.cov(y.T)))


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
    rows. The usual standard error, ``sd / sqrt(n_subsets)``, shrinks to nothing as overlapping subsets are added. To
    first order the MMD is a mean of influences of single rows; the spread of subsets of m of n rows is then the
    variance of a subset less that of the whole, so the whole has ``sd / sqrt(n / m - 1)``, and drawing finitely many
    subsets adds ``sd / sqrt(n_subsets)``. Where the two distributions agree there is no first order, and this errs on
    the wide side.

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
    return Metric(
        "kid",
        float(values.mean()),
        fewer,
        f"unbiased MMD^2 with (a.b / d + 1)^3 over {n_subsets} subsets of {size}, not multiplied by 1,000; "
        "Binkowski et al. 2018 (1801.01401)",
        stderr=float(values.std()) * math.sqrt(1 / (fewer / size - 1) + 1 / n_subsets),
        seed=seed,
        features=features,
    )


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m), expanded; see :func:`_rounding`."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T).clamp_min_(0)


def _rounding(*sets: Tensor) -> float:
    """More than the error of any :func:`_squared` between rows of these sets: distances nearer than that are tied."""
    largest = max(float(rows.square().sum(1).max()) for rows in sets)
    return 8 * (sets[0].shape[1] + 2) * torch.finfo(sets[0].dtype).eps * largest


def _whole(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """The two sets as whole numbers of steps, where they lie on an even grid as pixels do, in any unit; else None.

    Pixels of 1/255 in float32 have lost their ties; float64 sums of squares of whole numbers are exact.
    """
    seen = torch.cat([x[:100].flatten(), y[:100].flatten()]).unique()
    if not 1 < len(seen) <= LEVELS:
        return None
    low, span = seen[0], seen[-1] - seen[0]
    steps = (span / seen.diff().min()).round()
    if steps > LEVELS:
        return None
    whole = [((rows - low) * (steps / span)) for rows in (x, y)]
    if any((rows - rows.round()).abs().max() > 0.01 for rows in whole):
        return None
    return whole[0].round(), whole[1].round()


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance (N,) of every row of x to its k-th nearest other row, a block of rows at a time."""
    found, step = [], max(1, CHUNK // len(x))
    for start in range(0, len(x), step):
        block = _squared(x[start : start + step], x)
        own = torch.arange(len(block), device=x.device)
        block[own, own + start] = torch.inf
        found.append(block.kthvalue(k, dim=1).values)
    return torch.cat(found)


def _precision_recall(x: Tensor, y: Tensor, k: int, tie: float) -> Tensor:
    """Precision, recall, density and coverage, (4,) float64, of real rows x and generated rows y; squared distances
    that differ by ``tie`` or less are equal."""
    radius_x, radius_y = _radii(x, k) + tie, _radii(y, k) + tie
    covered, recalled, balls = 0, 0, torch.zeros(len(y), dtype=x.dtype, device=x.device)
    step = max(1, CHUNK // len(y))
    for part, radius in zip(x.split(step), radius_x.split(step), strict=True):
        distance = _squared(part, y)
        inside = distance <= radius[:, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distance <= radius_y).any(1).sum())
    precision, density = float((balls > 0).double().mean()), float(balls.mean()) / k
    return torch.tensor([precision, recalled / len(x), density, covered / len(x)], dtype=torch.float64)


def precision_recall(
    real: Array, fake: Array, *, features: str, k: int = 5, min_rows: int = 50, seed: int = 0
) -> tuple[Metric, Metric, Metric, Metric]:
    """Precision, recall, density and coverage from balls that reach to the k-th nearest neighbour of the same set.

    Precision: share of generated rows inside some real row's ball. Recall: share of real rows inside some generated
    row's. Density: mean number of real balls around a generated row, over k; it can exceed 1. Coverage: share of real
    balls that hold a generated row. Balls are closed, and ties exact: features on a grid (binary or 8-bit images, in
    any unit) are compared as whole numbers, and others are tied where they differ by less than rounding (a published
    implementation takes open balls). Where both sets come from one distribution without ties, density is 1 on average
    and coverage ``1 - prod_i (N - i) / (N + M - i)``, i = 1 .. k, not 1.

    Standard errors are of both sets drawn anew: from the spread over disjoint random parts of both
    (:func:`vaes.evaluate.record.parts_stderr`).

    Kynkaanniemi et al., Improved Precision and Recall Metric for Assessing Generative Models, 2019,
    https://arxiv.org/abs/1904.06991, section 2 (k = 3 there); Naeem et al., Reliable Fidelity and Diversity Metrics for
    Generative Models, 2020, https://arxiv.org/abs/2002.09797 (k = 5).

    Args:
        real: (N, d).
        fake: (M, d).
        features: name of the feature network.
        k: neighbour that the balls reach to.
        min_rows: refuse fewer on either side.
        seed: of the parts.

    Raises:
        NotApplicable: not finite, not flat, of different widths, or fewer than ``min_rows`` or 2 k + 2 rows on a side.
    """
    x, y = _pair(real, fake, max(min_rows, 2 * k + 2))
    whole = _whole(x, y)
    centre = x.mean(0)  # distances do not care, rounding does
    x, y = whole or (x - centre, y - centre)
    tie = 0.0 if whole else 2 * _rounding(x, y)
    sizes, repeats = (len(x), len(y)), 16 if min(len(x), len(y)) <= 2_000 else 4
    stderr = parts_stderr(sizes, lambda i, j: _precision_recall(x[i], y[j], k, tie).numpy(), repeats=repeats, seed=seed)
    about = f"k = {k}, {len(x)} real and {len(y)} generated rows"
    old, new = "Kynkaanniemi et al. 2019 (1904.06991)", "Naeem et al. 2020 (2002.09797)"
    definitions = {
        "precision": f"share of generated rows in a real row's closed k-NN ball, {about}; {old}",
        "recall": f"share of real rows in a generated row's closed k-NN ball, {about}; {old}",
        "density": f"mean number of real closed k-NN balls around a generated row, over k, {about}; {new}",
        "coverage": f"share of real closed k-NN balls that hold a generated row, {about}; {new}",
    }
    rows = (len(y), len(x), len(y), len(x))
    precision, recall, density, coverage = (
        Metric(name, value, n, definition, stderr=float(error), seed=seed, version=2, features=features)
        for (name, definition), value, error, n in zip(
            definitions.items(), _precision_recall(x, y, k, tie).tolist(), stderr, rows, strict=True
        )
    )
    return precision, recall, density, coverage


def _nearest(x: Tensor, train: Tensor) -> Tensor:
    """Distance (S,) of every row of x to the nearest row of ``train``; exactly 0 for a copy. Both in blocks of rows.

    Sought by expanded squares, of bytes in float32; the nearest few, which rounding may have mixed up, are told apart.
    """
    step, found = max(1, CHUNK // max(x.shape[1], 1024)), []
    small = x.dtype == train.dtype == torch.uint8

    def lift(rows: Tensor) -> Tensor:
        return rows.float() - 127.5 if small else to_float64(rows)

    for part in x.split(step):
        near = torch.empty(len(part), 0, dtype=torch.int64, device=part.device)
        squared, lifted = near.to(lift(part[:1]).dtype), lift(part)
        for first, block in zip(range(0, len(train), step), train.split(step), strict=True):
            squared = torch.cat([squared, _squared(lifted, lift(block))], 1)
            rows = torch.arange(first, first + len(block), device=part.device).expand(len(part), -1)
            squared, kept = squared.topk(min(CANDIDATES, squared.shape[1]), largest=False)
            near = torch.cat([near, rows], 1).gather(1, kept)
        exact = [(to_float64(part) - to_float64(train[rows])).norm(dim=1) for rows in near.T]
        found.append(torch.stack(exact).amin(0))
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
