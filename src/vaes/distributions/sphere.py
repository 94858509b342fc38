"""The unit sphere in R^D: the uniform distribution and the von Mises-Fisher."""

import math

import numpy as np
import torch
from torch import Tensor

from vaes.distributions.bessel import log_moment, mean_resultant

__all__ = ["kl_von_mises_fisher", "log_uniform_sphere", "log_von_mises_fisher", "sample_von_mises_fisher", "to_sphere"]

CELLS = 32
REACH = 12.0
"""Standard deviations at the mode that the sampler's tables reach to either side: what lies beyond weighs < 1e-12."""
NEWTON_STEPS = 8
FARTHEST = 7.0
"""Standard deviations at which the angle stays: one draw in 10^12 lies farther, and 1 - Phi(-8) has no digits."""


def log_uniform_sphere(dimension: int) -> float:
    """Log-density of the uniform on the unit sphere of R^dimension, in nats: ``log Gamma(D/2) - log 2 - D/2 log pi``.

    >>> round(log_uniform_sphere(3) + math.log(4 * math.pi), 12)
    0.0
    """
    if dimension < 2:
        raise ValueError(f"a sphere needs at least 2 dimensions, got {dimension}")
    return math.lgamma(dimension / 2) - math.log(2) - dimension / 2 * math.log(math.pi)


def to_sphere(x: Tensor) -> Tensor:
    """x (..., D) over its length. Of standard normal noise it is uniform on the sphere."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)


def log_von_mises_fisher(z: Tensor, mean: Tensor, kappa: Tensor) -> Tensor:
    """Log-density on the sphere: unit z and mean (..., D), kappa >= 0 (...) -> (...), in nats.

    ``kappa mean.z - log E exp(kappa mean.u) - log |S|``, u uniform. Davidson et al., Hyperspherical Variational
    Auto-Encoders, 2018, https://arxiv.org/abs/1804.00891, section 3. ``kappa (mean.z - 1)`` is taken from the
    difference, ``-kappa |z - mean|^2 / 2``, which keeps its digits where kappa is large.
    """
    dimension = z.shape[-1]
    kappa64 = kappa.double()
    at_mean = kappa64 - log_moment(kappa64, dimension) + log_uniform_sphere(dimension)
    return at_mean.to(kappa.dtype) - 0.5 * kappa * (z - mean).square().sum(-1)


def kl_von_mises_fisher(kappa: Tensor, dimension: int) -> Tensor:
    """KL(vMF(., kappa) || uniform) on the unit sphere of R^dimension, kappa (...) -> (...), in nats.

    ``kappa A(kappa) - log E exp(kappa mean.u)``. Davidson et al., 2018, appendix B. Worked out in
    float64: for large kappa it is about ``(D - 1) / 2 log kappa``, the difference of two numbers near kappa.
    """
    kappa64 = kappa.double()
    return (kappa64 * mean_resultant(kappa64, dimension) - log_moment(kappa64, dimension)).to(kappa.dtype)


def sample_von_mises_fisher(mean: Tensor, kappa: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draws z (K, B, D) and their log-densities (K, B) in nats, from unit mean (B, D), kappa (B,), noise (K, B, D).

    The noise (K, B, D) is standard normal. Its part along the mean, one standard normal, decides the angle to the mean
    by the inverse of its distribution function; the rest, whose direction is uniform, the way in which z leaves it. So
    there is nothing to reject (Davidson et al., 2018, algorithm 1, do), z turns with mean and noise together, and
    gradients with respect to mean and kappa are pathwise: Figurnov et al., Implicit Reparameterization Gradients,
    2018, https://arxiv.org/abs/1805.08498, section 2.
    """
    along = (noise * mean).sum(-1)  # (K, B)
    across = noise - along[..., None] * mean
    across = to_sphere(across - (across * mean).sum(-1, keepdim=True) * mean)  # the first leaves rounding along mean
    angle = _Angle(kappa.detach().double(), mean.shape[-1])(along, kappa)
    z = torch.cos(angle)[..., None].to(mean.dtype) * mean + torch.sin(angle)[..., None].to(mean.dtype) * across
    kappa64 = kappa.double()
    at_mean = kappa64 - log_moment(kappa64, mean.shape[-1]) + log_uniform_sphere(mean.shape[-1])
    log_q = at_mean - 2 * kappa64 * torch.sin(angle / 2).square()
    return z, log_q.to(mean.dtype)


class _Angle:
    """The angle to the mean, whose density on [0, pi] goes as ``exp(kappa cos a) sin(a)^(D - 2)``; kappa (B,).

    Gauss-Legendre rules in CELLS cells around the mode give the distribution function, to float64 in every cell.
    """

    def __init__(self, kappa: Tensor, dimension: int) -> None:
        log_uniform_sphere(dimension)  # refuses a sphere of no dimensions
        self.kappa, self.power = kappa[..., None, None], dimension - 2
        # At the mode cos(a) = kappa / m with m as below, and the log-density curves by -(kappa cos(a) + m).
        m = (self.power + torch.sqrt(self.power**2 + 4 * kappa.square())) / 2
        m = m.clamp_min(1e-300)
        self.mode = torch.acos((kappa / m).clamp(max=1.0))[..., None, None]
        reach = REACH / torch.sqrt(kappa.square() / m + m)
        low = (self.mode[..., 0, 0] - reach).clamp_min(0.0)
        high = (self.mode[..., 0, 0] + reach).clamp_max(math.pi)
        nodes, weights = np.polynomial.legendre.leggauss(8)
        self.nodes = torch.tensor((nodes + 1) / 2, dtype=torch.float64, device=kappa.device)
        self.weights = torch.tensor(weights / 2, dtype=torch.float64, device=kappa.device)
        self.width = (high - low) / CELLS  # (B,)
        cell = torch.arange(CELLS, dtype=torch.float64, device=kappa.device)
        self.edges = low[..., None] + self.width[..., None] * cell  # (B, CELLS), the left ones
        at = self.edges[..., None] + self.width[..., None, None] * self.nodes
        density = self._density(at)
        mass = (density * self.weights).sum(-1) * self.width[..., None]
        self.total = mass.sum(-1)  # (B,)
        excess = -2 * torch.sin(at / 2).square()  # cos(a) - 1
        moment = (density * excess * self.weights).sum(-1) * self.width[..., None]
        self.mean_excess = moment.sum(-1) / self.total
        self.mass = mass
        self.below = mass.cumsum(-1) - mass
        centred = moment - self.mean_excess[..., None] * mass
        self.centred_below = centred.cumsum(-1) - centred

    def _density(self, angle: Tensor) -> Tensor:
        """Relative to the mode's; angle (..., B, cells or 1, nodes)."""

        def log_density(a: Tensor) -> Tensor:
            bend = -2 * self.kappa * torch.sin(a / 2).square()
            return bend + self.power * torch.log(torch.sin(a).clamp_min(1e-300)) if self.power else bend

        return torch.exp(log_density(angle) - log_density(self.mode))

    def __call__(self, along: Tensor, kappa: Tensor) -> Tensor:
        """Standard normals (K, B) -> angles (K, B) in float64, with the gradient to both arguments."""
        s = along.detach().double().clamp(-FARTHEST, FARTHEST)
        wanted = torch.special.ndtr(-s) * self.total
        cell = ((wanted[..., None] >= self.below).sum(-1, keepdim=True) - 1).clamp(0, CELLS - 1)

        def of_cell(table: Tensor) -> Tensor:
            return table.expand(*cell.shape[:-1], CELLS).gather(-1, cell)  # (K, B, 1)

        left, width = of_cell(self.edges), self.width[..., None]
        rest, mass = wanted[..., None] - of_cell(self.below), of_cell(self.mass)
        part = (rest / mass.clamp_min(1e-300)).clamp(0.0, 1.0)  # of the cell's width
        # At the poles the mass grows as a power of the distance, where Newton's steps from the straight line halve.
        root = 1 / (self.power + 1)
        part = torch.where(left <= 0, part.pow(root), part)
        part = torch.where(left + 1.5 * width >= math.pi, 1 - (1 - part).pow(root), part)
        for _ in range(NEWTON_STEPS):
            inside = self._density(left[..., None] + (part * width)[..., None] * self.nodes)
            integral = (inside * self.weights).sum(-1) * part * width
            here = self._density((left + part * width)[..., None])[..., 0]
            part = (part - (integral - rest) / (here * width).clamp_min(1e-300)).clamp(0.0, 1.0)
        angle = left + part * width
        at = left[..., None] + (part * width)[..., None] * self.nodes
        excess = -2 * torch.sin(at / 2).square() - self.mean_excess[..., None, None]
        centred = of_cell(self.centred_below) + (self._density(at) * excess * self.weights).sum(-1) * part * width
        here = self._density(angle[..., None])[..., 0].clamp_min(1e-300)
        by_kappa = -(centred / here)[..., 0]
        normal = torch.exp(-0.5 * s.square()) / math.sqrt(2 * math.pi)
        by_along = -(normal * self.total) / here[..., 0]
        # Implicit gradients: the added terms are zero, their derivatives are not.
        return (
            angle[..., 0]
            + by_along * (along.double() - along.detach().double())
            + by_kappa * (kappa.double() - kappa.detach().double())
        )
