"""Approximate posteriors q(z|x): what an encoder's output means."""

from vaes.posteriors.base import REAL, Latent, Posterior
from vaes.posteriors.categorical import Joint, RelaxedCategorical, corners, equal_variables, unequal_variables, words
from vaes.posteriors.flow import IAF, Householder, Planar, Sylvester
from vaes.posteriors.gaussian import FullCovariance, Gaussian
from vaes.posteriors.point import Point
from vaes.posteriors.sphere import UNIT, VonMisesFisher

__all__ = [
    "IAF",
    "REAL",
    "UNIT",
    "FullCovariance",
    "Gaussian",
    "Householder",
    "Joint",
    "Latent",
    "Planar",
    "Point",
    "Posterior",
    "RelaxedCategorical",
    "Sylvester",
    "VonMisesFisher",
    "corners",
    "equal_variables",
    "unequal_variables",
    "words",
]
