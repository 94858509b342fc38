"""Normalizing flows: bijections of codes with the logarithm of their volume change, in nats.

K importance samples, B batch, D latent dimensions. No flow draws random numbers.
"""

from vaes.flows.autoregressive import InverseAutoregressive, MaskedAutoregressive, MaskedNetwork
from vaes.flows.base import Flow, FlowDensity, InvertibleFlow
from vaes.flows.coupling import Coupling
from vaes.flows.planar import Planar
from vaes.flows.sylvester import Householder, Sylvester

__all__ = [
    "Coupling",
    "Flow",
    "FlowDensity",
    "Householder",
    "InverseAutoregressive",
    "InvertibleFlow",
    "MaskedAutoregressive",
    "MaskedNetwork",
    "Planar",
    "Sylvester",
]
