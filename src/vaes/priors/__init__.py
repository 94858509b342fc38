"""Priors p(z) over codes."""

from vaes.priors.base import Encode, Prior
from vaes.priors.mixture import Mixture, Vamp
from vaes.priors.normal import StandardNormal

__all__ = ["Encode", "Mixture", "Prior", "StandardNormal", "Vamp"]
