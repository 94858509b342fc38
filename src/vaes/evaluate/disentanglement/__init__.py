"""How well codes line up with ground-truth factors: pure functions of codes (N, D) and factors (N, F).

The definitions are those of Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of
Disentangled Representations, 2019, https://arxiv.org/abs/1811.12359, and of the library released with it, except where
a name says otherwise. Codes are the posterior's means, or samples from it: say which, for the scores differ.
"""

from collections.abc import Callable

from vaes.evaluate.disentanglement.infomec import infomec
from vaes.evaluate.disentanglement.information import mig_chen, mig_locatello, modularity
from vaes.evaluate.disentanglement.intervention import beta_vae_score, factor_vae_score, irs
from vaes.evaluate.disentanglement.predictors import dci, dci_scores, explicitness, sap
from vaes.evaluate.disentanglement.unsupervised import (
    gaussian_total_correlation,
    gaussian_wasserstein,
    mutual_information_of_codes,
)
from vaes.evaluate.record import Array, Metric, Skipped, attempt

__all__ = [
    "beta_vae_score",
    "dci",
    "dci_scores",
    "disentanglement_metrics",
    "explicitness",
    "factor_vae_score",
    "gaussian_total_correlation",
    "gaussian_wasserstein",
    "infomec",
    "irs",
    "mig_chen",
    "mig_locatello",
    "modularity",
    "mutual_information_of_codes",
    "sap",
]


def disentanglement_metrics(
    codes: Array, factors: Array, *, logvar: Array | None = None, seed: int = 0
) -> list[Metric | Skipped]:
    """Every score on codes (N, D) and factors (N, F); the posteriors' ``logvar`` (N, D) adds :func:`mig_chen`."""
    scores: dict[str, Callable[[], Metric | tuple[Metric, ...]]] = {
        "beta_vae_score": lambda: beta_vae_score(codes, factors, seed=seed),
        "factor_vae_score": lambda: factor_vae_score(codes, factors, seed=seed),
        "mig_locatello": lambda: mig_locatello(codes, factors),
        "dci": lambda: dci(codes, factors, seed=seed),
        "sap": lambda: sap(codes, factors, seed=seed),
        "modularity": lambda: modularity(codes, factors),
        "explicitness": lambda: explicitness(codes, factors, seed=seed),
        "irs": lambda: irs(codes, factors),
        "infomec": lambda: infomec(codes, factors, seed=seed),
    }
    found: list[Metric | Skipped] = [one for name, score in scores.items() for one in attempt(name, score)]
    if logvar is None:
        return [
            *found,
            Skipped("mig_chen", "there are no log-variances: it is defined on draws from Gaussian posteriors"),
        ]
    return found + attempt("mig_chen", lambda: mig_chen(codes, logvar, factors, seed=seed))
