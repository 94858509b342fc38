"""Approximate posteriors q(z|x): what an encoder's output means."""

from vaes.posteriors.base import REAL, Latent, Posterior
from vaes.posteriors.categorical import Joint, RelaxedCategorical, corners, equal_variables, unequal_variables, words
from vaes.posteriors.flow import IAF, Householder, Planar, Sylvester
from vaes.posteriors.gaussian import FullCovariance, Gaussian
from vaes.posteriors.lattice import FSQ, LFQ
from vaes.posteriors.point import Point
from vaes.posteriors.quantizer import WORDS, Quantizer, look_up, nearest, use_of, vectors_of
from vaes.posteriors.sphere import UNIT, VonMisesFisher
from vaes.posteriors.vq import RVQ, VQ, SimVQ

__all__ = [
    "FSQ",
    "IAF",
    "LFQ",
    "REAL",
    "RVQ",
    "UNIT",
    "VQ",
    "WORDS",
    "FullCovariance",
    "Gaussian",
    "Householder",
    "Joint",
    "Latent",
    "Planar",
    "Point",
    "Posterior",
    "Quantizer",
    "RelaxedCategorical",
    "SimVQ",
    "Sylvester",
    "VonMisesFisher",
    "corners",
    "equal_variables",
    "look_up",
    "nearest",
    "unequal_variables",
    "use_of",
    "vectors_of",
    "words",
]
