"""Numbers one can trust: pure functions of arrays, for any encoder and decoder of anybody.

Every metric is a :class:`Metric` that says what was computed, from how many rows, with which seed and error; one that
has no meaning on its inputs raises :class:`NotApplicable` with the reason. :func:`evaluate` runs them all on a model.
"""

from vaes.evaluate.annealed import annealed
from vaes.evaluate.disentanglement import (
    beta_vae_score,
    dci,
    disentanglement_metrics,
    explicitness,
    factor_vae_score,
    gaussian_total_correlation,
    gaussian_wasserstein,
    infomec,
    irs,
    mig_chen,
    mig_locatello,
    modularity,
    mutual_information_of_codes,
    sap,
)
from vaes.evaluate.features import Features
from vaes.evaluate.generation import fid, fid_bias, kid, memorisation, precision_recall
from vaes.evaluate.latent import active_units, aggregate_mmd, kl_per_dimension, log_det_covariance, rate_split
from vaes.evaluate.likelihood import elbo, importance_weighted
from vaes.evaluate.predictive import predictive_checks
from vaes.evaluate.probes import auroc, knn_probe, linear_probe
from vaes.evaluate.reconstruction import mse, psnr, reconstruction_metrics, ssim
from vaes.evaluate.record import Metric, NotApplicable, Skipped, attempt
from vaes.evaluate.runner import Budget, evaluate

__all__ = [
    "Budget",
    "Features",
    "Metric",
    "NotApplicable",
    "Skipped",
    "active_units",
    "aggregate_mmd",
    "annealed",
    "attempt",
    "auroc",
    "beta_vae_score",
    "dci",
    "disentanglement_metrics",
    "elbo",
    "evaluate",
    "explicitness",
    "factor_vae_score",
    "fid",
    "fid_bias",
    "gaussian_total_correlation",
    "gaussian_wasserstein",
    "importance_weighted",
    "infomec",
    "irs",
    "kid",
    "kl_per_dimension",
    "knn_probe",
    "linear_probe",
    "log_det_covariance",
    "memorisation",
    "mig_chen",
    "mig_locatello",
    "modularity",
    "mse",
    "mutual_information_of_codes",
    "precision_recall",
    "predictive_checks",
    "psnr",
    "rate_split",
    "reconstruction_metrics",
    "sap",
    "ssim",
]
