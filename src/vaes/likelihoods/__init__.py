"""Likelihoods p(x|z): what a decoder's output means. Log-densities are in nats, summed over channels and pixels."""

from vaes.likelihoods.base import Likelihood, Measure, Range
from vaes.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from vaes.likelihoods.gaussian import Gaussian
from vaes.likelihoods.heavy import Laplace, StudentT
from vaes.likelihoods.logistic import DiscretisedLogistic, LogisticMixture

__all__ = [
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogisticMixture",
    "Measure",
    "Range",
    "StudentT",
]
