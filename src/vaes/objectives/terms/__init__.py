"""Terms: what a method adds to its bound, one scalar for the whole batch."""

from vaes.objectives.terms.base import Term
from vaes.objectives.terms.correlation import MutualInformation, TotalCorrelation
from vaes.objectives.terms.critics import PriorCritic, TotalCorrelationCritic
from vaes.objectives.terms.discrepancy import MMD, SlicedWasserstein
from vaes.objectives.terms.grids import Alignment, Equivariance
from vaes.objectives.terms.image_critic import ImageCritic
from vaes.objectives.terms.moments import DIP
from vaes.objectives.terms.norms import GradientPenalty, LatentNorm
from vaes.objectives.terms.patch_critic import PatchCritic
from vaes.objectives.terms.quantized import Codebook, CodeEntropy, Commitment
from vaes.objectives.terms.rate import Capacity, FreeBits, JointCapacity
from vaes.objectives.terms.similarity import MSSSIM, Perceptual, Wavelet

__all__ = [
    "DIP",
    "MMD",
    "MSSSIM",
    "Alignment",
    "Capacity",
    "CodeEntropy",
    "Codebook",
    "Commitment",
    "Equivariance",
    "FreeBits",
    "GradientPenalty",
    "ImageCritic",
    "JointCapacity",
    "LatentNorm",
    "MutualInformation",
    "PatchCritic",
    "Perceptual",
    "PriorCritic",
    "SlicedWasserstein",
    "Term",
    "TotalCorrelation",
    "TotalCorrelationCritic",
    "Wavelet",
]
