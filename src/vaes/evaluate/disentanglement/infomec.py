"""InfoMEC: modularity, explicitness and compactness from information normalised by each factor's entropy."""

import math
import warnings

import numpy as np
from scipy.special import xlogy
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression

from vaes.evaluate.disentanglement.inputs import Floats, Ints, coded
from vaes.evaluate.record import Array, Metric, NotApplicable, mean_metric, parts_stderr

__all__ = ["concentration", "infomec"]

NEIGHBOURS = 10
INACTIVE = 20  # a code whose range is the largest range over this, or less, is left out of modularity and compactness
SOURCE = "Hsu et al. 2023 (2305.18378)"


def infomec(codes: Array, factors: Array, *, seed: int = 0) -> tuple[Metric, Metric, Metric]:
    """InfoM, InfoE and InfoC: does a code know one factor, can a line read the factors, does one code know a factor?

    With ``N_jk = I(z_j; v_k) / H(v_k)``, the information estimated from 10 nearest neighbours of continuous codes:
    InfoM is the mean over codes of ``max_k N_jk / sum_k N_jk`` and InfoC the mean over factors of
    ``max_j N_jk / sum_j N_jk``, each rescaled so that an even spread is 0 and a single entry 1 (see
    :func:`concentration`). Codes that hardly move, over a 20th of the largest range or less, are left out of both.
    InfoE is the mean over factors of ``1 - loss / log K``, the loss that of a logistic regression on standardised codes
    (unpenalised, classes balanced, 100 iterations) on the rows that it was fitted on, and log K that of knowing nothing
    of K balanced values; with few rows it is too high. Codes are taken for continuous: those of a quantised latent
    space need another estimator.

    The standard errors of InfoM and InfoC are of other rows (:func:`vaes.evaluate.record.parts_stderr`), that of InfoE
    of other rows with the fit held fixed.

    Hsu, Dorrell, Whittington, Wu & Finn, Disentanglement via Latent Quantization, 2023,
    https://arxiv.org/abs/2305.18378, section 4; range, neighbours and regression as in their released code. The
    estimator: Ross, Mutual Information between Discrete and Continuous Data Sets, PLoS ONE 2014.

    Args:
        codes: (N, D), D >= 2.
        factors: (N, F), F >= 2, whole numbers.
        seed: of the estimator's jitter and of the parts of rows.

    Raises:
        NotApplicable: see :func:`coded`; or fewer than two codes move.
    """
    z, v = coded(codes, factors, min_codes=2, min_factors=2)
    ranges = np.ptp(z, axis=0)
    moving = z[:, ranges > ranges.max() / INACTIVE]
    if moving.shape[1] < 2:
        raise NotApplicable("a single code moves: compactness compares at least 2")

    def both(rows: Ints) -> Floats:
        known = _normalised(moving[rows], v[rows], seed)
        return np.array([concentration(known), concentration(known.T)])

    modular, compact = both(np.arange(len(z)))
    errors = parts_stderr((len(z),), both, repeats=8 if len(z) <= 2_000 else 2, seed=seed)
    about = f"I(z_j; v_k) / H(v_k) ({NEIGHBOURS} neighbours), {moving.shape[1]} of {z.shape[1]} codes moving; {SOURCE}"
    return (
        Metric(
            "infom", float(modular), len(z), f"mean over codes of the largest share over factors, rescaled, of {about}",
            stderr=float(errors[0]), seed=seed,
        ),
        mean_metric(
            "infoe",
            _explicit(z, v),
            "mean over factors of 1 - loss / log K of logistic regression (unpenalised, balanced) on the rows it was "
            f"fitted on (its error with the fit held fixed); {SOURCE}",
            seed=seed,
        ),
        Metric(
            "infoc", float(compact), len(z), f"mean over factors of the largest share over codes, rescaled, of {about}",
            stderr=float(errors[1]), seed=seed,
        ),
    )  # fmt: skip


def concentration(known: Floats) -> float:
    """Mean over rows of R (A, B), none negative, of ``(max_b R_ab / sum_b R_ab - 1/B) / (1 - 1/B)``; a row of zeros
    counts 0."""
    even = 1 / known.shape[1]
    total = known.sum(1)
    share = np.divide(known.max(1), total, out=np.full(len(known), even), where=total > 0)
    return float((share.mean() - even) / (1 - even))


def _normalised(z: Floats, v: Ints, seed: int) -> Floats:
    """I(z_j; v_k) / H(v_k), (D, F)."""
    spread = z.std(0)
    z = (z - z.mean(0)) / np.where(spread > 0, spread, 1.0)
    columns = []
    for column in v.T:
        share = np.bincount(column) / len(column)
        known = mutual_info_classif(z, column, discrete_features=False, n_neighbors=NEIGHBOURS, random_state=seed)
        columns.append(known / -xlogy(share, share).sum())
    return np.stack(columns, axis=1)


def _explicit(z: Floats, v: Ints) -> Floats:
    """Mean over factors of 1 - loss / log K of each row, (N,)."""
    spread = z.std(0)
    x = (z - z.mean(0)) / np.where(spread > 0, spread, 1.0)
    gains = []
    for column in v.T:
        with warnings.catch_warnings():
            # The stop after 100 iterations belongs to the published definition.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(x, column)
        p = model.predict_proba(x)[np.arange(len(x)), column].clip(np.finfo(float).eps)
        gains.append(1 + np.log(p) / math.log(column.max() + 1))
    return np.asarray(np.mean(gains, axis=0))
