"""Gaussian posteriors."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vaes.distributions import log_cholesky, sample_cholesky, split_cholesky
from vaes.functional import LOG_2PI, bounded_logvar, log_normal
from vaes.posteriors.base import Latent, Posterior
from vaes.randomness import Draw

__all__ = ["FullCovariance", "Gaussian"]


class Gaussian(Posterior):
    """q(z|x) = N(mean, diag exp(logvar)), reparameterised: z = mean + exp(logvar / 2) * noise; of a grid, logvar is
    kept within [-30, 20], as latent diffusion's autoencoder keeps it; beyond, it has no gradient.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, section 2.4 and appendix
    B. ``aux["gaussian"]`` is h, means and log-variances (B, 2 D).
    """

    gives = frozenset({"log_q", "mean", "logvar", "log_q_stopped", "gaussian"})

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """The means, then the log-variances."""
        return 2 * Draw(z_shape).size

    def heads(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Two of the code's size."""
        return Draw(z_shape).size, Draw(z_shape).size

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, 2 D) and noise (K, B, Z...) -> Latent."""
        h = _bounded(h, tuple(noise.shape[2:]))
        mean, logvar = _halves(h, tuple(noise.shape[2:]))
        z = mean + torch.exp(0.5 * logvar) * noise
        # From the noise: (z - mean) / exp(logvar / 2) would give its rounding back, magnified where q is narrow.
        log_q = -0.5 * (LOG_2PI + logvar + noise.square()).flatten(2).sum(-1)
        return Latent(z, log_q, mean, logvar, {"gaussian": h})

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The mean."""
        h = _bounded(h, z_shape)
        mean, logvar = _halves(h, z_shape)
        log_q = -0.5 * (LOG_2PI + logvar).flatten(1).sum(-1)
        return Latent(mean[None], log_q[None], mean, logvar, {"gaussian": h})

    def log_prob(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) of codes z (K, B, Z...) -> (K, B), in nats."""
        z_shape = tuple(z.shape[2:])
        return log_normal(z, *_halves(_bounded(h, z_shape), z_shape)).flatten(2).sum(-1)


class FullCovariance(Posterior):
    """q(z|x) = N(mean, L L'), L lower triangular with a positive diagonal: z = mean + L noise.

    Kingma & Welling, An Introduction to Variational Autoencoders, 2019, https://arxiv.org/abs/1906.02691, section
    2.5.1. ``aux["cholesky"]`` is L (B, D, D), ``aux["log_diagonal"]`` (B, D) the logarithms of its diagonal; codes are
    flat.
    """

    gives = frozenset({"log_q", "mean", "log_q_stopped"})

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """The D means, the logarithms of L's squared diagonal, and D times its D (D - 1) / 2 entries below it."""
        d = _flat(z_shape)
        return d * (d + 3) // 2

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D (D + 3) / 2) and noise (K, B, D) -> Latent."""
        q = split_cholesky(h)
        return Latent(*sample_cholesky(q, noise), q.mean, None, {"cholesky": q.factor, "log_diagonal": q.log_diagonal})

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The mean."""
        return self(h, h.new_zeros(1, h.shape[0], _flat(z_shape)))

    def log_prob(self, h: Tensor, z: Tensor) -> Tensor:
        """log q(z|x) of codes z (K, B, D) -> (K, B), in nats."""
        return log_cholesky(z, split_cholesky(h))


def _bounded(h: Tensor, z_shape: tuple[int, ...]) -> Tensor:
    """Of grids alone: a flat code may be as narrow as it learns to be."""
    if len(z_shape) == 1:
        return h
    mean, logvar = h.chunk(2, dim=1)
    return torch.cat([mean, bounded_logvar(logvar)], 1)


def _halves(h: Tensor, z_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    mean, logvar = h.chunk(2, dim=1)
    return mean.unflatten(1, z_shape), logvar.unflatten(1, z_shape)


def _flat(z_shape: tuple[int, ...]) -> int:
    if len(z_shape) != 1:
        raise ValueError(f"a full covariance is of flat codes, and these are {z_shape}: use the posterior gaussian")
    return z_shape[0]
