"""Distributions beyond the diagonal Gaussian, as pure functions of tensors and noise, in nats.

K importance samples, B batch, D dimensions, C classes or components. Nothing here draws random numbers or holds state.
"""

from vaes.distributions.bessel import log_moment, mean_resultant
from vaes.distributions.categorical import (
    Joint,
    choose,
    gumbel,
    gumbel_of_normal,
    kl_categorical,
    kl_joint,
    log_categorical,
    log_relaxed,
    relaxed,
    split_joint,
    straight_through,
)
from vaes.distributions.covariance import (
    Cholesky,
    kl_cholesky,
    log_cholesky,
    sample_cholesky,
    split_cholesky,
    triangle,
)
from vaes.distributions.mixture import log_components, log_mixture, sample_mixture
from vaes.distributions.sphere import (
    kl_von_mises_fisher,
    log_uniform_sphere,
    log_von_mises_fisher,
    sample_von_mises_fisher,
    to_sphere,
)

__all__ = [
    "Cholesky",
    "Joint",
    "choose",
    "gumbel",
    "gumbel_of_normal",
    "kl_categorical",
    "kl_cholesky",
    "kl_joint",
    "kl_von_mises_fisher",
    "log_categorical",
    "log_cholesky",
    "log_components",
    "log_mixture",
    "log_moment",
    "log_relaxed",
    "log_uniform_sphere",
    "log_von_mises_fisher",
    "mean_resultant",
    "relaxed",
    "sample_cholesky",
    "sample_mixture",
    "sample_von_mises_fisher",
    "split_cholesky",
    "split_joint",
    "straight_through",
    "to_sphere",
    "triangle",
]
