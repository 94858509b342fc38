"""Priors p(z) over codes."""

from vaes.priors.affine import Affine
from vaes.priors.autoregressive import Autoregressive
from vaes.priors.base import Encode, Prior
from vaes.priors.categorical import Categorical, Joint
from vaes.priors.codes import Codes
from vaes.priors.flow import MAF, RealNVP
from vaes.priors.flow_matching import FlowMatching
from vaes.priors.full_mixture import FullMixture
from vaes.priors.mixture import Mixture, Vamp
from vaes.priors.normal import StandardNormal
from vaes.priors.sphere import Sphere
from vaes.priors.two_stage import TwoStage

__all__ = [
    "MAF",
    "Affine",
    "Autoregressive",
    "Categorical",
    "Codes",
    "Encode",
    "FlowMatching",
    "FullMixture",
    "Joint",
    "Mixture",
    "Prior",
    "RealNVP",
    "Sphere",
    "StandardNormal",
    "TwoStage",
    "Vamp",
]
