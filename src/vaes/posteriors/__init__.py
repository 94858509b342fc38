"""Approximate posteriors q(z|x): what an encoder's output means."""

from vaes.posteriors.base import Latent, Posterior
from vaes.posteriors.gaussian import FullCovariance, Gaussian
from vaes.posteriors.point import Point

__all__ = ["FullCovariance", "Gaussian", "Latent", "Point", "Posterior"]
