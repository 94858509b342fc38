"""Approximate posteriors q(z|x): what an encoder's output means."""

import abc
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaes.functional import LOG_2PI

__all__ = ["Gaussian", "Latent", "Point", "Posterior"]


class Latent(NamedTuple):
    """Codes of a batch; K importance samples, B batch, D latent dimensions."""

    z: Tensor  # (K, B, D) samples
    log_q: Tensor | None  # (K, B) log q(z|x) in nats; None where q has no density
    mean: Tensor | None  # (B, D) E[z|x]
    logvar: Tensor | None  # (B, D) log Var[z|x], where q is a diagonal Gaussian


class Posterior(nn.Module, abc.ABC):
    """Turns an encoder's output and noise into codes."""

    heads: int
    """How many numbers the encoder makes per latent dimension."""
    gives: frozenset[str]
    """Which of the optional fields of :class:`Latent` are not None."""

    @abc.abstractmethod
    def forward(self, h: Tensor, noise: Tensor) -> Latent:
        """h (B, heads * D) and standard normal noise (K, B, D) -> Latent."""


class Gaussian(Posterior):
    """q(z|x) = N(mean, diag exp(logvar)), reparameterised: z = mean + exp(logvar / 2) * noise.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, section 2.4 and appendix
    B.
    """

    heads = 2
    gives = frozenset({"log_q", "mean", "logvar"})

    def forward(self, h: Tensor, noise: Tensor) -> Latent:
        """h (B, 2 D), the means then the log-variances, and noise (K, B, D) -> Latent."""
        mean, logvar = h.chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * noise
        # From the noise: (z - mean) / exp(logvar / 2) would give its rounding back, magnified where q is narrow.
        log_q = -0.5 * (LOG_2PI + logvar + noise.square()).sum(-1)
        return Latent(z, log_q, mean, logvar)


class Point(Posterior):
    """A deterministic code: z = h. It has no density, so no rate and no ELBO: the posterior of an autoencoder."""

    heads = 1
    gives = frozenset({"mean"})

    def forward(self, h: Tensor, noise: Tensor) -> Latent:
        """h (B, D) and noise (K, B, D), of which only K is used -> Latent."""
        return Latent(h.expand(len(noise), *h.shape), None, h, None)
