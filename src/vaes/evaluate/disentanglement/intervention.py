"""Scores from holding one factor fixed: BetaVAE, FactorVAE and the interventional robustness score (IRS)."""

import itertools
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from vaes.evaluate.disentanglement.information import discretize
from vaes.evaluate.disentanglement.inputs import FixedFactor, Floats, Ints, coded
from vaes.evaluate.record import Array, Metric, NotApplicable, float_matrix, parts_stderr, proportion_metric

__all__ = ["beta_vae_score", "factor_vae_score", "irs"]

CHUNK = 500  # batches of rows gathered at once
PART = 0.25  # of the draws, for each half of the rows


def beta_vae_score(
    codes: Array, factors: Array, *, batch_size: int = 64, n_train: int = 10_000, n_test: int = 5_000, seed: int = 0
) -> Metric:
    """Accuracy of a linear classifier that tells the fixed factor from ``mean |z_a - z_b|`` over pairs of codes.

    For each point a factor is drawn and ``batch_size`` pairs of rows that agree in it, no row twice; the classifier is
    a logistic regression with scikit-learn's defaults. Rows are drawn from those given (see :class:`FixedFactor`),
    where the paper renders new images. Standard error and interval are of rows and points drawn anew
    (:func:`_proportion`); neither is given where half the rows are too few for a score.

    Higgins et al., beta-VAE, 2017, https://openreview.net/forum?id=Sy2fzU9gl; sizes and classifier as in
    Locatello et al., 2019, https://arxiv.org/abs/1811.12359, whose tables are of scikit-learn before 0.22, when the
    default classifier was one-vs-rest.

    Args:
        codes: (N, D).
        factors: (N, F), F >= 2, whole numbers.
        batch_size: pairs per point.
        n_train: points to fit the classifier on.
        n_test: points to score it on.
        seed: of the draws.

    Raises:
        NotApplicable: see :func:`coded`; or so few rows share a value that a point would need one of them twice.
    """
    z, v = coded(codes, factors, min_factors=2)

    def share(rows: Ints, part: float, seed: int) -> float:
        z_part, fit, rng = z[rows], int(part * n_train), np.random.default_rng(seed)
        fixed = [FixedFactor(v[rows], k) for k in range(v.shape[1])]
        label = rng.integers(len(fixed), size=fit + int(part * n_test))
        points = np.empty((len(label), z.shape[1]))
        for k, draws in enumerate(fixed):
            for part_of in _parts(np.flatnonzero(label == k)):
                pairs = z_part[draws.pairs(draws.values((len(part_of), batch_size), rng), rng)]
                points[part_of] = np.abs(pairs[:, :, 0] - pairs[:, :, 1]).mean(1)
        with warnings.catch_warnings():
            # The stop after 100 iterations belongs to the published definition.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier = LogisticRegression().fit(points[:fit], label[:fit])
        return float((classifier.predict(points[fit:]) == label[fit:]).mean())

    definition = (
        f"test accuracy of logistic regression on mean |z_a - z_b| over {batch_size} pairs sharing one factor, "
        f"{n_train} points to fit, rows drawn without replacement from a finite set of {len(z)}; "
        "Higgins et al. 2017, Locatello et al. 2019"
    )
    return _proportion("beta_vae_score", share, len(z), n_test, definition, seed)


def factor_vae_score(
    codes: Array,
    factors: Array,
    *,
    batch_size: int = 64,
    n_train: int = 10_000,
    n_test: int = 5_000,
    min_std: float = 0.05,
    seed: int = 0,
) -> Metric:
    """Accuracy of a majority vote that tells the fixed factor from the code that varies least.

    For each vote a factor and a value are drawn, then ``batch_size`` different rows with that value; the vote goes to
    ``argmin_j Var_batch(z_j) / Var(z_j)``. Codes whose standard deviation is below ``min_std`` are left out as
    collapsed; if all are, the score is 0. Rows are drawn from those given (see :class:`FixedFactor`). Standard error
    and interval are of rows and votes drawn anew (:func:`_proportion`); neither is given where half the rows are too
    few.

    Kim & Mnih, Disentangling by Factorising, 2018, https://arxiv.org/abs/1802.05983, section 4; sizes as in Locatello
    et al., 2019, https://arxiv.org/abs/1811.12359 (the paper itself: batches of 200, 800 votes).

    Args:
        codes: (N, D).
        factors: (N, F), F >= 2, whole numbers.
        batch_size: rows per vote.
        n_train: votes for the table.
        n_test: votes to score it on.
        min_std: of a code that counts as active.
        seed: of the draws.

    Raises:
        NotApplicable: see :func:`coded`; or fewer than ``batch_size`` rows share a value of some factor.
    """
    z, v = coded(codes, factors, min_factors=2)
    definition = (
        f"test accuracy of the majority vote by least normalised variance, batches of {batch_size} sharing one factor, "
        f"{n_train} votes to fit, codes with std < {min_std:g} left out, rows drawn without replacement from a finite "
        f"set of {len(z)}; Kim & Mnih 2018 (1802.05983), Locatello et al. 2019"
    )
    scale = z.std(axis=0, ddof=1)
    active = scale >= min_std
    if not active.any():
        return proportion_metric("factor_vae_score", 0, n_test, definition, seed=seed, version=2)

    def share(rows: Ints, part: float, seed: int) -> float:
        z_part, fit, rng = z[rows][:, active], int(part * n_train), np.random.default_rng(seed)
        z_part = z_part / z_part.std(axis=0, ddof=1)
        fixed = [FixedFactor(v[rows], k) for k in range(v.shape[1])]
        label = rng.integers(len(fixed), size=fit + int(part * n_test))
        vote = np.empty(len(label), np.int64)
        for k, draws in enumerate(fixed):
            draws.need(batch_size)
            for part_of in _parts(np.flatnonzero(label == k)):
                batch = draws.batches(draws.values(len(part_of), rng), batch_size, rng)
                vote[part_of] = z_part[batch].var(axis=1).argmin(-1)
        table = np.zeros((z_part.shape[1], len(fixed)), np.int64)
        np.add.at(table, (vote[:fit], label[:fit]), 1)
        return float((table.argmax(1)[vote[fit:]] == label[fit:]).mean())

    return _proportion("factor_vae_score", share, len(z), n_test, definition, seed)


def _proportion(
    name: str, share: Callable[[Ints, float, int], float], n: int, n_test: int, definition: str, seed: int
) -> Metric:
    """``share(rows, part, seed)`` of all n rows, with an error of new rows and of ``n_test`` new draws.

    The rows' part is the spread of the score over halves of them (see :func:`parts_stderr`), each by a quarter of the
    draws, less what those draws alone would spread it. The interval is Wilson's for as many independent trials as have
    that error.
    """
    value = share(np.arange(n), 1.0, seed)
    seeds = itertools.count(seed + 1)
    try:
        halves = float(parts_stderr((n,), lambda rows: share(rows, PART, next(seeds)), repeats=8, seed=seed))
    except NotApplicable:
        note = "without an error, for which half the rows must do"
        return Metric(name, value, n_test, definition, seed=seed, version=2, note=note)
    binomial = value * (1 - value)
    variance = max(0.0, halves**2 - binomial / (2 * PART * n_test)) + binomial / n_test
    trials = binomial / variance if variance > 0 else n_test
    found = proportion_metric(name, value * trials, trials, definition, seed=seed, version=2)
    return found._replace(n=n_test)


def _parts(rows: Ints) -> list[Ints]:
    return [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]


def irs(codes: Array, factors: Array, *, quantile: float = 0.99) -> Metric:
    """Interventional robustness: how little a code moves when only the factors that it does not encode move.

    ``IRS_jk = 1 - mean_v Q(|z_j - E[z_j | v_k = v]|) / max |z_j - E z_j|`` with Q a quantile over the rows of value v;
    the score is the mean over codes of ``max_k IRS_jk``, weighted by ``max |z_j - E z_j|``. As in the published library
    a factor is cut into 20 bins of equal width first, so a factor of more than 20 values cannot reach 1.

    Suter et al., Robustly Disentangled Causal Mechanisms, 2019, https://arxiv.org/abs/1811.00007 (there Q is
    the maximum, ``quantile=1``).

    Args:
        codes: (N, D).
        factors: (N, F) whole numbers.
        quantile: Q's level.

    Raises:
        NotApplicable: see :func:`coded`.
    """
    z = coded(codes, factors).codes
    # Binned as given, not as renumbered: an uneven grid keeps its distances.
    bins = discretize(float_matrix(factors, "factors"))
    z = z[:, z.var(axis=0) > 0]
    largest = np.abs(z - z.mean(0)).max(0)
    deviation = np.stack([_deviation(z, column, quantile) for column in bins.T], axis=1)
    score = np.average((1 - deviation / largest[:, None]).max(1), weights=largest)
    return Metric(
        "irs",
        float(score),
        len(z),
        f"weighted mean over codes of 1 - mean {quantile:g}-quantile deviation at a fixed 20-bin factor over the "
        "largest deviation; Suter et al. 2019 (1811.00007) as in Locatello's library",
    )


def _deviation(z: Floats, column: Ints, quantile: float) -> Floats:
    """Mean over the values of one factor of the quantile of |z - its mean at that value|, (D,)."""
    groups = [z[column == value] for value in np.unique(column)]
    return np.mean([np.quantile(np.abs(group - group.mean(0)), quantile, axis=0) for group in groups], axis=0)
