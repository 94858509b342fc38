"""Estimates from a minibatch: the aggregate posterior, sliced distances, covariance penalties; pure functions, in nats.

B batch, D latent dimensions, P projections. Nothing here draws random numbers or holds state. All of them compare
images with one another, so that what they give depends on the batch that they see.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaes.distributions import log_components, to_sphere
from vaes.functional import LOG_2PI, log_normal

__all__ = [
    "Aggregate",
    "Decomposition",
    "aggregate",
    "capacity",
    "decompose",
    "dip_penalties",
    "latent_covariance",
    "sliced_wasserstein",
    "stratified_log_weights",
    "weighted_log_weights",
]


def weighted_log_weights(batch: int, images: int) -> Tensor:
    """Minibatch-weighted sampling: (B, B) in float64, all ``-log(B images)``.

    Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, https://arxiv.org/abs/1802.04942, equation 5. The
    estimate of log q(z) is low: by log B where only a code's own image explains it, by log images where all do.
    """
    return torch.full((batch, batch), -math.log(batch * images), dtype=torch.float64)


def stratified_log_weights(batch: int, images: int) -> Tensor:
    """Minibatch-stratified sampling: (B, B) in float64, row i for the code of image i.

    The code's own image weighs 1 / N, on the diagonal, every other ``(N - 1) / (N (B - 1))``: an unbiased estimate of
    q(z), and q(z) itself where the batch is the whole set. Chen et al., 2018, appendix C.2, give one of the others
    ``(N - M) / (N M)`` and the rest 1 / M (M = B - 1); the others are exchangeable, so their mean has the same
    expectation and less variance. (The code published with it puts 1 / N into the first column.)
    """
    if not 2 <= batch <= images:
        raise ValueError(f"stratified sampling needs a batch of 2 to all {images} images, got {batch}")
    others = math.log(images - 1) - math.log(images) - math.log(batch - 1)
    weights = torch.full((batch, batch), others, dtype=torch.float64)
    return weights.fill_diagonal_(-math.log(images))


class _MarginalLogSums(torch.autograd.Function):
    """``log sum_j exp(w_ij) N(z_id; mean_jd, exp(logvar_jd))``: (B, D), without holding (B, B, D) in either pass."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, mean: Tensor, logvar: Tensor, log_weights: Tensor) -> Tensor:
        return torch.stack(
            [
                torch.logsumexp(log_weights + log_normal(z[:, d, None], mean[:, d], logvar[:, d]), 1)
                for d in range(z.shape[1])
            ],
            1,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, mean, logvar, log_weights = ctx.saved_tensors
        of_z, of_mean, of_logvar = [], [], []
        for d in range(z.shape[1]):
            log_q = log_weights + log_normal(z[:, d, None], mean[:, d], logvar[:, d])
            share = torch.softmax(log_q, 1) * gradient[:, d, None]
            scaled = (z[:, d, None] - mean[:, d]) * torch.exp(-logvar[:, d])
            pull = share * scaled
            of_z.append(-pull.sum(1))
            of_mean.append(pull.sum(0))
            of_logvar.append(0.5 * (pull * (z[:, d, None] - mean[:, d]) - share).sum(0))
        return torch.stack(of_z, 1), torch.stack(of_mean, 1), torch.stack(of_logvar, 1), None


class Aggregate(NamedTuple):
    """Estimates for each code of a batch."""

    log_q: Tensor  # (B,) log q(z)
    log_marginals: Tensor  # (B, D) log q(z_d)


def aggregate(z: Tensor, mean: Tensor, logvar: Tensor, log_weights: Tensor) -> Aggregate:
    """The aggregate posterior at codes z (B, D), one of each of the posteriors N(mean, exp(logvar)) (B, D), in nats.

    ``log_weights`` (B, B), constant: :func:`weighted_log_weights` or :func:`stratified_log_weights`. Memory is (B, B).
    """
    weights = log_weights.to(z)
    log_q = torch.logsumexp(weights + log_components(z, mean, logvar), 1)
    marginals: Tensor = _MarginalLogSums.apply(z, mean, logvar, weights)
    return Aggregate(log_q, marginals)


class Decomposition(NamedTuple):
    """The rate's parts, image by image (B,), in nats: they sum to ``log q(z|x) - log p(z)`` whatever the weights."""

    information: Tensor  # log q(z|x) - log q(z): index-code mutual information
    correlation: Tensor  # log q(z) - sum_d log q(z_d): total correlation
    dimensions: Tensor  # sum_d log q(z_d) - log p(z_d): dimension-wise KL


def decompose(z: Tensor, mean: Tensor, logvar: Tensor, log_prior: Tensor, log_weights: Tensor) -> Decomposition:
    """Chen et al., 2018, equation 2: z, mean and logvar (B, D), log p(z) (B,) of a factorised prior."""
    estimate = aggregate(z, mean, logvar, log_weights)
    product = estimate.log_marginals.sum(1)
    own = -0.5 * (LOG_2PI + logvar + (z - mean).square() * torch.exp(-logvar)).sum(1)
    return Decomposition(own - estimate.log_q, estimate.log_q - product, product - log_prior)


def sliced_wasserstein(x: Tensor, y: Tensor, projections: Tensor) -> Tensor:
    """Squared sliced 2-Wasserstein distance between samples x and y (B, D), along normal noise (P, D): a scalar.

    The mean over directions of ``mean_i (sorted(x.t)_i - sorted(y.t)_i)^2``: for a shift by m it is ``|m|^2 / D``.
    Kolouri et al., Sliced-Wasserstein Autoencoder, 2018, https://arxiv.org/abs/1804.01947, section 3. From B samples
    it is not 0 between equal distributions.
    """
    if len(x) != len(y):
        raise ValueError(f"the sliced distance pairs sorted samples: got {len(x)} and {len(y)}")
    directions = to_sphere(projections)
    along_x, along_y = (x @ directions.T).sort(0).values, (y @ directions.T).sort(0).values
    return (along_x - along_y).square().mean()


def latent_covariance(mean: Tensor, logvar: Tensor | None = None) -> Tensor:
    """Covariance of posterior means (B, D), unbiased; with logvar (B, D) of the codes themselves: (D, D).

    The second adds the mean of the posteriors' own covariance (law of total covariance).
    """
    if len(mean) < 2:
        raise ValueError(f"a covariance needs two codes, got {len(mean)}")
    centred = mean - mean.mean(0)
    covariance = centred.T @ centred / (len(mean) - 1)
    return covariance if logvar is None else covariance + torch.diag(torch.exp(logvar).mean(0))


def dip_penalties(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """``sum_{i != j} C_ij^2`` and ``sum_i (C_ii - 1)^2`` of a covariance (D, D): scalars, to be weighted apart.

    Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts, 2018,
    https://arxiv.org/abs/1711.00848, equations 6 (DIP-VAE-I: the covariance of the means) and 7 (II: of the codes).
    """
    diagonal = torch.diagonal(covariance)
    off_diagonal = covariance - torch.diag(diagonal)
    return off_diagonal.square().sum(), (diagonal - 1).square().sum()


def capacity(rate: Tensor, target: Tensor | float) -> Tensor:
    """``|mean rate - target|``: rates (B,) or (B, groups) in nats -> () or (groups,), of the batch, not each image.

    Burgess et al., Understanding disentangling in beta-VAE, 2018, https://arxiv.org/abs/1804.03599, equation 8.
    """
    return (rate.mean(0) - target).abs()
