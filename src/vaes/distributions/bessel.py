"""Modified Bessel functions of the first kind, as the von Mises-Fisher distribution needs them."""

import math
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

__all__ = ["log_moment", "mean_resultant"]

ASYMPTOTIC_ORDER = 30.0
"""From this order on the expansion below is exact to float64; smaller orders are reached from there by recurrence."""
TERMS = 10


@cache
def _debye_polynomials() -> tuple[dict[int, Fraction], ...]:
    """U_0 ... U_TERMS, power -> coefficient: DLMF 10.41.9, https://dlmf.nist.gov/10.41."""
    polynomials: list[dict[int, Fraction]] = [{0: Fraction(1)}]
    for _ in range(TERMS):
        following: dict[int, Fraction] = {}
        for power, c in polynomials[-1].items():
            rise = c * (Fraction(power, 2) + Fraction(1, 8 * (power + 1)))
            fall = -c * (Fraction(power, 2) + Fraction(5, 8 * (power + 3)))
            following[power + 1] = following.get(power + 1, Fraction(0)) + rise
            following[power + 3] = following.get(power + 3, Fraction(0)) + fall
        polynomials.append(following)
    return tuple(polynomials)


@cache
def _series(order: float) -> tuple[float, ...]:
    """Coefficients of ``sum_k U_k(p) / order^k`` as one polynomial in p."""
    total = [0.0] * (3 * TERMS + 1)
    for k, polynomial in enumerate(_debye_polynomials()):
        for power, c in polynomial.items():
            total[power] += float(c) / order**k
    return tuple(total)


def _asymptotic(kappa: Tensor, order: float) -> tuple[Tensor, Tensor]:
    """(g, q) of :func:`_moments` for a large order: Debye's expansion, uniform in kappa (DLMF 10.41.3).

    With ``s = sqrt(1 + (kappa / order)^2)`` and Stirling's series for the Gamma function, both of which
    share their sum at kappa = 0, everything that cancels is taken out by hand, so that g(0) is 0 and not its rounding.
    """
    t = (kappa / order).square()
    s = torch.sqrt(1 + t)
    excess = t / (1 + s)  # s - 1
    p = 1 / s
    coefficients = _series(order)
    powers = torch.arange(len(coefficients), dtype=kappa.dtype, device=kappa.device)
    c = torch.tensor(coefficients, dtype=kappa.dtype, device=kappa.device)
    value = (torch.pow(p[..., None], powers) * c).sum(-1)
    slope = (torch.pow(p[..., None], powers[:-1]) * (c * powers)[1:]).sum(-1)
    at_zero = c.sum()
    g = order * (excess - torch.log1p(excess / 2)) - 0.5 * torch.log1p(excess) + torch.log(value / at_zero)
    q = 1 / (order * (1 + s)) - (0.5 * p.square() + slope / value * p**3) / order**2
    return g, q


def _moments(kappa: Tensor, dimension: int) -> tuple[Tensor, Tensor]:
    """``g = log Gamma(v + 1) (2 / kappa)^v I_v(kappa)`` and ``q = I_{v+1} / (kappa I_v)``, v = dimension / 2 - 1.

    Orders below the asymptotic ones follow from ``I_{j+1} / I_j = 1 / (2 (j + 1) / kappa + I_{j+2} / I_{j+1})``
    (DLMF 10.29.1), downwards, where every term is positive and nothing cancels.
    """
    order = dimension / 2 - 1
    steps = max(0, math.ceil(ASYMPTOTIC_ORDER - order))
    g, q = _asymptotic(kappa, order + steps)
    for j in reversed(range(steps)):
        twice = 2 * (order + j + 1)
        ahead = kappa.square() * q
        g, q = g + torch.log1p(ahead / twice), 1 / (twice + ahead)
    return g, q


def log_moment(kappa: Tensor, dimension: int) -> Tensor:
    """``log E exp(kappa u.z)`` for z uniform on the sphere in R^dimension and any unit u, in nats; kappa >= 0 (...).

    It is ``log Gamma(v + 1) (2 / kappa)^v I_v(kappa)`` with v = dimension / 2 - 1: 0 at kappa = 0, about kappa where
    kappa is large. Its derivative is :func:`mean_resultant`. Worked out in float64 and given in kappa's type; the error
    is below 1e-13 of the value or 1e-15 nats, for dimensions from 2 to a thousand and kappa up to a million.
    """
    return _moments(kappa.double(), dimension)[0].to(kappa.dtype)


def mean_resultant(kappa: Tensor, dimension: int) -> Tensor:
    """``A = I_{d/2}(kappa) / I_{d/2-1}(kappa)``, the length of E z under a von Mises-Fisher, in [0, 1); kappa (...)."""
    kappa64 = kappa.double()
    return (kappa64 * _moments(kappa64, dimension)[1]).to(kappa.dtype)
