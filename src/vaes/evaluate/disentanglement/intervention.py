"""Scores from holding one factor fixed: BetaVAE, FactorVAE and the interventional robustness score (IRS)."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from vaes.evaluate.disentanglement.information import discretize
from vaes.evaluate.disentanglement.inputs import FixedFactor, Floats, Ints, coded
from vaes.evaluate.record import Array, Metric, float_matrix, proportion_metric

__all__ = ["beta_vae_score", "factor_vae_score", "irs"]

CHUNK = 500  # batches of rows gathered at once


def beta_vae_score(
    codes: Array, factors: Array, *, batch_size: int = 64, n_train: int = 10_000, n_test: int = 5_000, seed: int = 0
) -> Metric:
    """Accuracy of a linear classifier that tells the fixed factor from ``mean |z_a - z_b|`` over pairs of codes.

    For each point a factor is drawn and ``batch_size`` pairs of rows that agree in it; the classifier is a logistic
    regression with scikit-learn's defaults. Rows are drawn from those given (see :class:`FixedFactor`), where the paper
    renders new images. The standard error is the binomial one of the test points, the classifier held fixed.

    Higgins et al., beta-VAE, 2017, https://openreview.net/forum?id=Sy2fzU9gl; sizes and classifier as in
    Locatello et al., 2019, https://arxiv.org/abs/1811.12359.

    Args:
        codes: (N, D).
        factors: (N, F), F >= 2, whole numbers.
        batch_size: pairs per point.
        n_train: points to fit the classifier on.
        n_test: points to score it on.
        seed: of the draws.

    Raises:
        NotApplicable: see :func:`coded`; or no two rows share a value of some factor.
    """
    z, v = coded(codes, factors, min_factors=2)
    rng = np.random.default_rng(seed)
    fixed = [FixedFactor(v, k) for k in range(v.shape[1])]
    label = rng.integers(len(fixed), size=n_train + n_test)
    points = np.empty((len(label), z.shape[1]))
    for k, draws in enumerate(fixed):
        for part in _parts(np.flatnonzero(label == k)):
            rows = draws.anchors((len(part), batch_size), rng)
            points[part] = np.abs(z[rows] - z[draws.partners(rows, rng)]).mean(1)
    with warnings.catch_warnings():
        # The stop after 100 iterations belongs to the published definition.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = LogisticRegression().fit(points[:n_train], label[:n_train])
    hits = int((classifier.predict(points[n_train:]) == label[n_train:]).sum())
    return proportion_metric(
        "beta_vae_score",
        hits,
        n_test,
        f"test accuracy of logistic regression on mean |z_a - z_b| over {batch_size} pairs sharing one factor, "
        f"{n_train} points to fit, rows drawn from a finite set of {len(z)}; "
        "Higgins et al. 2017, Locatello et al. 2019",
        seed=seed,
    )


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

    For each vote a factor and a value are drawn, then ``batch_size`` rows with that value; the vote goes to
    ``argmin_j Var_batch(z_j) / Var(z_j)``. Codes whose standard deviation is below ``min_std`` are left out as
    collapsed; if all are, the score is 0. Rows are drawn from those given, with replacement (see :class:`FixedFactor`).
    The standard error is the binomial one of the test votes, the table held fixed.

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
        NotApplicable: see :func:`coded`; or no two rows share a value of some factor.
    """
    z, v = coded(codes, factors, min_factors=2)
    definition = (
        f"test accuracy of the majority vote by least normalised variance, batches of {batch_size} sharing one factor, "
        f"{n_train} votes to fit, codes with std < {min_std:g} left out, rows drawn from a finite set of {len(z)}; "
        "Kim & Mnih 2018 (1802.05983), Locatello et al. 2019"
    )
    scale = z.std(axis=0, ddof=1)
    active = scale >= min_std
    if not active.any():
        return proportion_metric("factor_vae_score", 0, n_test, definition, seed=seed)
    rng = np.random.default_rng(seed)
    fixed = [FixedFactor(v, k) for k in range(v.shape[1])]
    label = rng.integers(len(fixed), size=n_train + n_test)
    vote = np.empty(len(label), np.int64)
    scaled = z[:, active] / scale[active]
    for k, draws in enumerate(fixed):
        for part in _parts(np.flatnonzero(label == k)):
            rows = draws.batches(draws.anchors(len(part), rng), batch_size, rng)
            vote[part] = scaled[rows].var(axis=1).argmin(-1)
    table = np.zeros((scaled.shape[1], len(fixed)), np.int64)
    np.add.at(table, (vote[:n_train], label[:n_train]), 1)
    hits = int((table.argmax(1)[vote[n_train:]] == label[n_train:]).sum())
    return proportion_metric("factor_vae_score", hits, n_test, definition, seed=seed)


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
