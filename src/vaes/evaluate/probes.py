"""Downstream use of codes: linear and nearest-neighbour probes on labels, and outlier detection."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from vaes.evaluate.record import (
    Array,
    Metric,
    NotApplicable,
    float_matrix,
    proportion_metric,
    same_length,
    whole_numbers,
)

__all__ = ["auroc", "knn_probe", "linear_probe"]

MIN_ROWS = 20
Floats = NDArray[np.float64]


def _probe_data(
    codes: Array, labels: Array, test: tuple[Array, Array] | None, seed: int
) -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Training and test codes, standardised by the training rows, with labels 0 .. C-1.

    Raises:
        NotApplicable: codes that are not finite, not flat, too few or all alike; labels of one class; test rows of
        another width.
        UserError: codes and labels differ in length.
    """
    same_length(codes=codes, labels=labels)
    z, y = float_matrix(codes, "codes", MIN_ROWS), whole_numbers(labels, "labels")
    if test is None:
        order = np.random.default_rng(seed).permutation(len(z))
        rows, held = np.split(order, [len(order) - len(order) // 3])
        z, z_test, y, y_test = z[rows], z[held], y[rows], y[held]
    else:
        same_length(test_codes=test[0], test_labels=test[1])
        z_test, y_test = float_matrix(test[0], "test codes"), whole_numbers(test[1], "test labels")
    if z_test.shape[1] != z.shape[1]:
        raise NotApplicable(f"training codes have {z.shape[1]} dimensions and test codes {z_test.shape[1]}")
    if (z == z[0]).all():
        raise NotApplicable("the codes are constant: every row has the same code (a collapsed encoder)")
    whole_numbers(y, "labels of the training rows")
    spread = z.std(0)
    spread[spread == 0] = 1.0
    return (z - z.mean(0)) / spread, y, (z_test - z.mean(0)) / spread, y_test


def linear_probe(codes: Array, labels: Array, *, test: tuple[Array, Array] | None = None, seed: int = 0) -> Metric:
    """Test accuracy of a multinomial logistic regression on standardised codes (L2, C = 1, up to 1,000 iterations).

    The standard error and Wilson interval are the binomial ones of the test rows, the classifier held fixed.

    Args:
        codes: (N, D).
        labels: (N,) whole numbers.
        test: codes and labels to score on; otherwise a seeded third of the rows is held out.
        seed: of the split.

    Raises:
        NotApplicable: codes that are not finite, not flat, fewer than 20 or all alike; labels of one class.
        UserError: codes and labels differ in length.
    """
    x, y, x_test, y_test = _probe_data(codes, labels, test, seed)
    with warnings.catch_warnings():
        # A probe that stops early is still a probe: its accuracy is measured, not assumed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted = LogisticRegression(max_iter=1_000).fit(x, y).predict(x_test)
    definition = (
        f"test accuracy of logistic regression (C = 1) on standardised codes, {len(x)} rows to fit (its error of test "
        "rows, classifier held fixed)"
    )
    return proportion_metric("linear_probe", int((predicted == y_test).sum()), len(y_test), definition, seed=seed)


def knn_probe(
    codes: Array, labels: Array, *, k: int = 10, test: tuple[Array, Array] | None = None, seed: int = 0
) -> Metric:
    """Test accuracy of the majority among the k nearest training codes, Euclidean on standardised codes.

    The standard error and Wilson interval are the binomial ones of the test rows, the training set held fixed.

    Args:
        codes: (N, D).
        labels: (N,) whole numbers.
        k: neighbours that vote.
        test: codes and labels to score on; otherwise a seeded third of the rows is held out.
        seed: of the split.

    Raises:
        NotApplicable: as :func:`linear_probe`; or fewer training rows than k.
        UserError: codes and labels differ in length.
    """
    x, y, x_test, y_test = _probe_data(codes, labels, test, seed)
    if len(x) < k:
        raise NotApplicable(f"there are {len(x)} training rows: the {k} nearest cannot be taken")
    predicted = KNeighborsClassifier(n_neighbors=k).fit(x, y).predict(x_test)
    definition = (
        f"test accuracy of the {k} nearest neighbours' majority on standardised codes, {len(x)} rows to fit (its error "
        "of test rows, classifier held fixed)"
    )
    return proportion_metric("knn_probe", int((predicted == y_test).sum()), len(y_test), definition, seed=seed)


def auroc(inliers: Array, outliers: Array) -> Metric:
    """Probability that an outlier scores higher than an inlier, ties half: the area under the ROC curve.

    Standard error from the structural components of the two samples; the interval is that of its logit, which stays in
    [0, 1]. Where the two do not overlap at all the components say 0, and neither is given.

    Bamber, 1975 (the Mann-Whitney form); DeLong, DeLong & Clarke-Pearson, Comparing the Areas under Two or More
    Correlated Receiver Operating Characteristic Curves, Biometrics 1988.

    Args:
        inliers: (N,) scores, N >= 2; higher means more of an outlier (a negative log-likelihood, say).
        outliers: (M,) scores, M >= 2.

    Raises:
        NotApplicable: scores that are not finite, or fewer than 2 on a side.
    """
    low, high = (_scores(side, what) for side, what in ((inliers, "inlier scores"), (outliers, "outlier scores")))
    n, m = len(low), len(high)
    ranks = rankdata(np.concatenate([low, high]))
    # Rank in the pool less rank among one's own: the number of the other side below, ties half.
    above = (ranks[n:] - rankdata(high)) / n  # (M,) share of inliers below this outlier
    below = 1 - (ranks[:n] - rankdata(low)) / m  # (N,) share of outliers above this inlier
    value = float(above.mean())
    stderr: float | None = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    interval = None
    if not 0 < value < 1:
        stderr = None
    elif stderr:
        centre, half = math.log(value / (1 - value)), 1.959963984540054 * stderr / (value * (1 - value))
        interval = (1 / (1 + math.exp(half - centre)), 1 / (1 + math.exp(-half - centre)))
    definition = "P(outlier scores higher than inlier), ties half; standard error of DeLong et al. 1988"
    return Metric("auroc", value, n + m, definition, stderr=stderr, interval=interval)


def _scores(x: Array, what: str) -> Floats:
    if np.ndim(x) != 1:
        raise NotApplicable(f"{what} are of shape {tuple(x.shape)}: one score per image is wanted, (N,)")
    return float_matrix(x[:, None], what, min_rows=2)[:, 0]
