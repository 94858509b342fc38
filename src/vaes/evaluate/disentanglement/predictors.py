"""Scores from predictors of the factors: SAP, explicitness and DCI."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from vaes.evaluate.disentanglement.boosting import boost
from vaes.evaluate.disentanglement.inputs import Floats, Ints, split
from vaes.evaluate.record import Array, Metric, NotApplicable

__all__ = ["dci", "dci_scores", "explicitness", "sap"]


def sap(codes: Array, factors: Array, *, test: tuple[Array, Array] | None = None, seed: int = 0) -> Metric:
    """Separated attribute predictability: ``mean_k S_k,j1 - S_k,j2``, accuracies of the two codes best at factor k.

    Each code alone predicts each factor through a linear support vector machine (C = 0.01, balanced classes);
    accuracies are those on the test rows. A line cannot tell many ordered values apart, and chance is not subtracted,
    so perfect codes of a fair binary factor score about 0.5, not 1. The machines penalise their intercept, so the score
    moves with shift and scale of the codes. The standard error is that of the mean over test rows, with the classifiers
    and the choice of codes held fixed.

    Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled Observations,
    2018, https://arxiv.org/abs/1711.00848, section 3; classifier as in Locatello et al., 2019.

    Args:
        codes: (N, D), D >= 2.
        factors: (N, F) whole numbers.
        test: codes and factors to score on; otherwise a seeded third of the rows is held out.
        seed: of the split and of the solver.

    Raises:
        NotApplicable: see :func:`coded` and :func:`split`.
    """
    train, held = split(codes, factors, test, seed, min_codes=2)
    gaps = []
    for k in range(train.factors.shape[1]):
        hits = np.stack(
            [
                _hits(train.codes[:, [d]], train.factors[:, k], held.codes[:, [d]], held.factors[:, k], seed)
                for d in range(train.codes.shape[1])
            ]
        )
        second, first = np.argsort(hits.mean(1), kind="stable")[-2:]
        gaps.append(hits[first].astype(float) - hits[second])
    per_row = np.mean(gaps, axis=0)
    return Metric(
        "sap",
        float(per_row.mean()),
        len(per_row),
        "mean over factors of the top-two gap in test accuracy (its error of test rows, machines held fixed) of "
        f"one-code linear SVMs (C = 0.01, balanced), fitted on {len(train.codes)} rows; Kumar et al. 2018 "
        "(1711.00848), Locatello et al. 2019",
        stderr=_stderr(per_row),
        seed=seed,
    )


def _hits(x: Floats, y: Ints, x_test: Floats, y_test: Ints, seed: int) -> NDArray[np.bool_]:
    machine = LinearSVC(C=0.01, class_weight="balanced", dual="auto", random_state=seed).fit(x, y)
    return np.asarray(machine.predict(x_test) == y_test)


def _stderr(per_row: Floats) -> float:
    return float(per_row.std(ddof=1)) / math.sqrt(len(per_row))


def explicitness(codes: Array, factors: Array, *, test: tuple[Array, Array] | None = None, seed: int = 0) -> Metric:
    """Explicitness: the area under the ROC curve of one value against the rest, by logistic regression on all codes.

    The mean over factors of the mean over values; codes are standardised by the training rows. Chance is 0.5 (the paper
    rescales it to 0, the published library does not, and neither do we). Values that the test rows never or always take
    have no curve and are left out.

    Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, 2018,
    https://arxiv.org/abs/1802.05312, section 3; classifier as in Locatello et al., 2019, whose tables are of
    scikit-learn before 0.22, when the default classifier was one-vs-rest.

    Args:
        codes: (N, D).
        factors: (N, F) whole numbers.
        test: codes and factors to score on; otherwise a seeded third of the rows is held out.
        seed: of the split.

    Raises:
        NotApplicable: see :func:`coded` and :func:`split`; or the test rows take a single value of a factor.
    """
    train, held = split(codes, factors, test, seed)
    spread = train.codes.std(0)
    spread[spread == 0] = 1.0  # a dead code stays 0 and predicts nothing
    x, x_test = ((part.codes - train.codes.mean(0)) / spread for part in (train, held))
    areas = []
    for k in range(train.factors.shape[1]):
        with warnings.catch_warnings():
            # The stop after 100 iterations belongs to the published definition.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression().fit(x, train.factors[:, k])
        areas.append(_one_against_rest(model.predict_proba(x_test), held.factors[:, k], k))
    return Metric(
        "explicitness",
        float(np.mean(areas)),
        len(x_test),
        "mean over factors and values of the one-against-rest test ROC AUC of logistic regression on standardised "
        f"codes ({len(x)} rows to fit; chance 0.5); Ridgeway & Mozer 2018 (1802.05312) as in Locatello et al. 2019",
        seed=seed,
    )


def _one_against_rest(score: Floats, y: Ints, k: int) -> float:
    """Mean over values of the AUC, from ranks (the Mann-Whitney statistic); score (M, K), y (M,)."""
    own = y[:, None] == np.arange(score.shape[1])
    n_own = own.sum(0)
    usable = (n_own > 0) & (n_own < len(y))
    if not usable.any():
        raise NotApplicable(f"the test rows take a single value of factor {k}: there is nothing to tell apart")
    rank_sum = (rankdata(score, axis=0) * own).sum(0)
    pairs = n_own * (len(y) - n_own)
    return float(((rank_sum - n_own * (n_own + 1) / 2)[usable] / pairs[usable]).mean())


def dci(
    codes: Array, factors: Array, *, test: tuple[Array, Array] | None = None, seed: int = 0
) -> tuple[Metric, Metric, Metric]:
    """Disentanglement, completeness and informativeness from gradient-boosted trees.

    One ensemble per factor predicts it from all codes (see :func:`boost`: scikit-learn's defaults, exact splits); R_jk
    is the importance of code j for factor k. :func:`dci_scores` gives D and C; informativeness is the test accuracy,
    averaged over factors (the paper's is an error). Its standard error is that of the mean over test rows, the trees
    held fixed.

    Eastwood & Williams, A Framework for the Quantitative Evaluation of Disentangled Representations, 2018,
    https://openreview.net/forum?id=By-7dz-AZ, section 2; trees as in Locatello et al., 2019, whose tables are of a
    scikit-learn that normalised importances tree by tree: up to 0.47 away on the same codes.

    Args:
        codes: (N, D), D >= 2.
        factors: (N, F), F >= 2, whole numbers.
        test: codes and factors to score on; otherwise a seeded third of the rows is held out.
        seed: of the split and of ties between codes.

    Raises:
        NotApplicable: see :func:`coded` and :func:`split`.
    """
    parts = split(codes, factors, test, seed, min_codes=2, min_factors=2)
    x, x_test = parts.train.codes.astype(np.float32), parts.test.codes.astype(np.float32)
    fitted = [boost(x, column, x_test, seed=seed) for column in parts.train.factors.T]
    scores = dci_scores(np.stack([model.importances for model in fitted], axis=1))
    hits = [model.test_prediction == parts.test.factors[:, k] for k, model in enumerate(fitted)]
    per_row = np.mean(hits, axis=0)
    n = len(parts.train.codes)
    source = f"{n} rows to fit; Eastwood & Williams 2018, trees as in Locatello et al. 2019"
    trees = "gradient-boosted trees (100 stages, depth 3, exact splits)"
    return (
        Metric(
            "dci_disentanglement",
            scores[0],
            n,
            f"1 - entropy of a code's importances over factors, weighted by importance; {trees}, {source}",
            seed=seed,
        ),
        Metric(
            "dci_completeness",
            scores[1],
            n,
            f"1 - entropy of a factor's importances over codes, weighted by importance; {trees}, {source}",
            seed=seed,
        ),
        Metric(
            "dci_informativeness",
            float(per_row.mean()),
            len(per_row),
            f"mean over factors of test accuracy (its error of test rows, trees held fixed); {trees}, {source}",
            stderr=_stderr(per_row),
            seed=seed,
        ),
    )


def dci_scores(importance: Floats) -> tuple[float, float]:
    """Disentanglement and completeness of importances R (D, F), none negative.

    ``D = sum_j w_j (1 - H_F(R_j. / sum_k R_jk))`` with entropies to base F and weights ``w_j = sum_k R_jk / sum R``; C
    the same by columns, with entropies to base D. Where R is all 0 both are 0.

    Eastwood & Williams, 2018, section 2.
    """
    total = importance.sum()
    if total == 0:
        return 0.0, 0.0
    return _concentration(importance), _concentration(importance.T)


def _concentration(importance: Floats) -> float:
    weight = importance.sum(1)
    share = importance / np.where(weight > 0, weight, 1.0)[:, None]
    entropy = -xlogy(share, share).sum(1) / math.log(importance.shape[1])
    return float((weight * (1 - entropy)).sum() / weight.sum())
