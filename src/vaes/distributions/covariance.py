"""Gaussians with a full covariance, by its Cholesky factor."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaes.functional import LOG_2PI

__all__ = ["Cholesky", "kl_cholesky", "log_cholesky", "sample_cholesky", "split_cholesky", "triangle"]


def triangle(numbers: Tensor, size: int) -> Tensor:
    """(..., size (size + 1) / 2) numbers, row after row, into lower triangles (..., size, size)."""
    rows, columns = torch.tril_indices(size, size, device=numbers.device)
    place = torch.zeros(size, size, dtype=torch.long, device=numbers.device)
    place[rows, columns] = torch.arange(len(rows), device=numbers.device)
    return numbers[..., place].tril()


class Cholesky(NamedTuple):
    """N(mean, L L^T): B batch, D dimensions."""

    mean: Tensor  # (B, D)
    factor: Tensor  # (B, D, D) L, lower triangular with a positive diagonal
    log_diagonal: Tensor  # (B, D) log L_ii, which has digits where L_ii has none


def split_cholesky(h: Tensor) -> Cholesky:
    """h (B, D (D + 3) / 2): the means, the logarithms of L's squared diagonal, D times L below it row after row.

    The first 2 D numbers mean what they mean for a diagonal Gaussian; L is the identity where all but the means are 0.
    D times, because rows of D numbers of the size of 1 would drown the diagonal when a network begins: on MNIST in 20
    dimensions that costs 11 nats after 1,500 steps.
    """
    # D (D + 3) / 2 = n has one positive root, whose floor is D where n is such a number.
    size = int(((9 + 8 * h.shape[-1]) ** 0.5 - 3) / 2 + 0.5)
    if size * (size + 3) // 2 != h.shape[-1]:
        raise ValueError(f"a full covariance takes D (D + 3) / 2 numbers, got {h.shape[-1]}")
    mean, log_diagonal, below = h[..., :size], 0.5 * h[..., size : 2 * size], h[..., 2 * size :]
    factor = torch.diag_embed(torch.exp(log_diagonal))
    if size > 1:
        factor = factor + torch.nn.functional.pad(triangle(below / size, size - 1), (0, 1, 1, 0))
    return Cholesky(mean, factor, log_diagonal)


def sample_cholesky(q: Cholesky, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Normal noise (K, B, D) -> draws ``mean + L noise`` (K, B, D) and their log-densities (K, B) in nats.

    Kingma & Welling, An Introduction to Variational Autoencoders, 2019, https://arxiv.org/abs/1906.02691, algorithm 2.
    """
    z = q.mean + torch.einsum("bij,kbj->kbi", q.factor, noise)
    return z, -0.5 * (LOG_2PI + noise.square()).sum(-1) - q.log_diagonal.sum(-1)


def log_cholesky(z: Tensor, q: Cholesky) -> Tensor:
    """Log-density of z (K, B, D) -> (K, B), in nats."""
    noise = torch.linalg.solve_triangular(q.factor, (z - q.mean)[..., None], upper=False)[..., 0]
    return -0.5 * (LOG_2PI + noise.square()).sum(-1) - q.log_diagonal.sum(-1)


def kl_cholesky(q: Cholesky) -> Tensor:
    """KL(N(mean, L L^T) || N(0, I)) per dimension (B, D) in nats, exact at 0.

    Dimension i has E KL(q(z_i|z_1 .. z_i-1) || N(0, 1)) = ``(mean_i^2 + sum_j L_ij^2 - 1) / 2 - log L_ii``, which the
    chain rule adds up to the whole.
    """
    own = torch.expm1(2 * q.log_diagonal) - 2 * q.log_diagonal
    return 0.5 * (q.mean.square() + own + q.factor.tril(-1).square().sum(-1))
