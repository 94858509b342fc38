"""Priors p(z) over codes."""

from vaes.priors.base import Encode, Prior
from vaes.priors.categorical import Categorical, Joint
from vaes.priors.flow import MAF, RealNVP
from vaes.priors.mixture import Mixture, Vamp
from vaes.priors.normal import StandardNormal
from vaes.priors.sphere import Sphere

__all__ = [
    "MAF",
    "Categorical",
    "Encode",
    "Joint",
    "Mixture",
    "Prior",
    "RealNVP",
    "Sphere",
    "StandardNormal",
    "Vamp",
]
