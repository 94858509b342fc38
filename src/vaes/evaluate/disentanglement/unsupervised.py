"""How far codes depend on one another, without any factors: three scores of codes (N, D) alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaes.evaluate.disentanglement.information import discretize, mutual_information
from vaes.evaluate.disentanglement.inputs import MIN_ROWS, Floats, Ints
from vaes.evaluate.record import Array, Metric, NotApplicable, float_matrix, jackknife_stderr

__all__ = ["gaussian_total_correlation", "gaussian_wasserstein", "mutual_information_of_codes"]

GROUPS = 20  # of rows, for the jackknife
SOURCE = "as in Locatello et al. 2019 (1811.12359)"


def _moving(codes: Array) -> Floats:
    """The codes that vary, (N, D).

    Raises:
        NotApplicable: not finite, not flat, fewer than 100 rows, or fewer than two that vary.
    """
    z = float_matrix(codes, "codes", MIN_ROWS)
    z = z[:, np.ptp(z, axis=0) > 0]
    if z.shape[1] < 2:
        raise NotApplicable(f"{z.shape[1]} code(s) vary: this score compares at least 2")
    return z


def _without(z: NDArray[Any]) -> list[NDArray[Any]]:
    """All rows, then the rows without each of 20 groups."""
    group = np.random.default_rng(0).permutation(len(z)) % GROUPS
    return [z, *(z[group != g] for g in range(GROUPS))]


def gaussian_total_correlation(codes: Array) -> Metric:
    """``(sum_j log C_jj - log det C) / 2``, nats: the total correlation of a Gaussian of the codes' covariance C.

    0 where no two codes are correlated, whatever else they share. Biased upwards by about ``D (D - 1) / 4 N``. The
    standard error is a jackknife over 20 groups of rows. Codes that do not vary are left out.

    Watanabe, Information Theoretical Analysis of Multivariate Correlation, 1960; as a score: Locatello et al.,
    Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, 2019,
    https://arxiv.org/abs/1811.12359.

    Args:
        codes: (N, D).

    Raises:
        NotApplicable: see :func:`_moving`; or a singular covariance.
    """
    z = _moving(codes)
    values = [_total_correlation(rows) for rows in _without(z)]
    if not np.isfinite(values).all():
        raise NotApplicable("the covariance of the codes is singular (a code is a copy of others)")
    return Metric(
        "gaussian_total_correlation",
        values[0],
        len(z),
        f"total correlation of a Gaussian of the covariance of the {z.shape[1]} codes that vary, nats; {SOURCE}",
        stderr=jackknife_stderr(np.array(values[1:])),
    )


def _total_correlation(z: Floats) -> float:
    values = np.linalg.eigvalsh(np.corrcoef(z.T))
    return -0.5 * float(np.log(values).sum()) if values[0] > len(values) * np.finfo(float).eps else math.inf


def gaussian_wasserstein(codes: Array) -> tuple[Metric, Metric]:
    """Squared 2-Wasserstein distance from N(0, C) to the Gaussian of independent codes N(0, diag C), and its ratio to
    ``tr C``.

    ``2 tr C - 2 tr (R C R)^(1/2)``, R the square root of diag C. 0 where no two codes are correlated. Biased upwards;
    the standard errors are a jackknife over 20 groups of rows.

    Locatello et al., 2019; the distance: Dowson & Landau, 1982.

    Args:
        codes: (N, D).

    Raises:
        NotApplicable: see :func:`_moving`.
    """
    z = _moving(codes)
    values = np.array([_wasserstein(rows) for rows in _without(z)])
    about = f"N(0, C) to N(0, diag C), C the covariance of the {z.shape[1]} codes that vary"
    names = {"gaussian_wasserstein": f"squared 2-Wasserstein distance, {about}; {SOURCE}",
             "gaussian_wasserstein_ratio": f"squared 2-Wasserstein distance over tr C, {about}; {SOURCE}"}  # fmt: skip
    first, second = (
        Metric(name, float(column[0]), len(z), definition, stderr=jackknife_stderr(column[1:]))
        for (name, definition), column in zip(names.items(), values.T, strict=True)
    )
    return first, second


def _wasserstein(z: Floats) -> tuple[float, float]:
    covariance = np.cov(z.T)
    root = np.sqrt(np.diag(covariance))
    overlap = np.sqrt(np.linalg.eigvalsh(root[:, None] * covariance * root).clip(0)).sum()
    distance = max(0.0, 2 * float(np.trace(covariance) - overlap))
    return distance, distance / float(np.trace(covariance))


def mutual_information_of_codes(codes: Array) -> Metric:
    """Mean mutual information of two different codes, nats, by histograms of 20 x 20 bins.

    Two independent codes have about ``(19 x 19) / 2 N`` of it by the bias of their histogram. The standard error is a
    jackknife over 20 groups of rows, at fixed bins.

    Locatello et al., 2019.

    Args:
        codes: (N, D).

    Raises:
        NotApplicable: see :func:`_moving`.
    """
    z = _moving(codes)
    values = [_mean_information(rows) for rows in _without(discretize(z))]
    return Metric(
        "mutual_information_of_codes",
        values[0],
        len(z),
        f"mean over pairs of the {z.shape[1]} codes that vary of their 20-bin histogram MI, nats; {SOURCE}",
        stderr=jackknife_stderr(np.array(values[1:])),
    )


def _mean_information(bins: Ints) -> float:
    found: list[float] = []
    for j in range(1, bins.shape[1]):
        counts = [np.bincount(20 * bins[:, i] + bins[:, j], minlength=400).reshape(20, 20) for i in range(j)]
        found.extend(mutual_information(np.stack(counts)))
    return float(np.mean(found))
