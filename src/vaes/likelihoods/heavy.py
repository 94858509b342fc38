"""Likelihoods with heavier tails than the Gaussian's: a pixel that is far off costs less."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vaes.likelihoods.base import Link, LocationScale, inside

__all__ = ["Laplace", "StudentT"]


class Laplace(LocationScale):
    """p(x|z) = prod exp(-|x - m| / s) / (2 s) with m = link(y): the absolute error, as a density.

    Kotz, Kozubowski & Podgorski, The Laplace Distribution and Generalizations, 2001, equation 2.1.1.

    Args:
        scale: s, a number, fixed; ``learned``, one parameter trained with the rest; or ``per_pixel``, made by the
            decoder (twice the channels: centres, then log-scales).
        link: maps the decoder's output to the mean, as in the Gaussian: ``tanh``, ``sigmoid`` or ``identity``.
    """

    def __init__(self, *, scale: float | Literal["learned", "per_pixel"] = 1.0, link: Link = "tanh") -> None:
        super().__init__(scale, link)

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) -> (K, B), in nats."""
        error, log_scale = self.standardise(y, x)
        return -(error.abs() + log_scale + math.log(2)).flatten(2).sum(-1)

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """m - s sign(v) log(1 - 2 |v|) with v = noise - 1/2."""
        centred = inside(noise) - 0.5
        return self.spread(y, -torch.sign(centred) * torch.log1p(-2 * centred.abs()))


class StudentT(LocationScale):
    """p(x|z) = prod t_dof((x - m) / s) / s with m = link(y): Student's t about the mean; dof -> inf is the Gaussian.

    Takahashi, Iwata, Yamanaka, Yamada & Yagi, Student-t Variational Autoencoder for Robust Density Estimation, IJCAI
    2018, https://doi.org/10.24963/ijcai.2018/374. Their decoder makes dof for each pixel; here it is one number. It is
    above 1, below which there is no mean.

    Args:
        dof: degrees of freedom, a number above 1; or ``learned``, one parameter trained with the rest, from 5.
        scale: s, a number, fixed; ``learned``, one parameter trained with the rest; or ``per_pixel``, made by the
            decoder (twice the channels: means, then log-scales).
        link: maps the decoder's output to the mean, as in the Gaussian: ``tanh``, ``sigmoid`` or ``identity``.
    """

    FIRST = 5.0
    HIGH_DOF = 14.0
    """Of log(dof - 1) where it is learned: a million is a Gaussian."""

    def __init__(
        self,
        *,
        dof: float | Literal["learned"] = 5.0,
        scale: float | Literal["learned", "per_pixel"] = 1.0,
        link: Link = "tanh",
    ) -> None:
        super().__init__(scale, link)
        if dof != "learned" and (isinstance(dof, str) or not (math.isfinite(dof) and dof > 1)):
            raise ValueError(f"dof must be a number above 1 or 'learned', got {dof!r}")
        self.dof = dof
        if dof == "learned":
            self.log_dof = nn.Parameter(torch.tensor(math.log(self.FIRST - 1)))
        else:
            self._constant = float(_log_constant(torch.tensor(dof, dtype=torch.float64, device="cpu")))

    def noise_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Two numbers a pixel: (2, C, H, W)."""
        return (2, *image_shape)

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        """y (K, B, C', H, W) and x (B, C, H, W) -> (K, B), in nats."""
        error, log_scale = self.standardise(y, x)
        dof = self._dof()
        constant = _log_constant(dof) if isinstance(dof, Tensor) else self._constant
        return (constant - log_scale - (dof + 1) / 2 * torch.log1p(error.square() / dof)).flatten(2).sum(-1)

    def draw(self, y: Tensor, noise: Tensor) -> Tensor:
        """m + s sqrt(dof (u^(-2 / dof) - 1)) cos(2 pi v) for the two numbers u and v of each pixel.

        Bailey, Polar Generation of Random Variates with the t-Distribution, Mathematics of Computation 1994, theorem 1.
        """
        u, v = inside(noise).unbind(-4)
        dof = self._dof()
        radius = (dof * torch.expm1(-2 / dof * torch.log(u))).sqrt()
        return self.spread(y, radius * torch.cos(2 * math.pi * v))

    def _dof(self) -> Tensor | float:
        return 1 + self.log_dof.clamp_max(self.HIGH_DOF).exp() if isinstance(self.dof, str) else self.dof


def _log_constant(dof: Tensor) -> Tensor:
    """log Gamma((dof + 1) / 2) - log Gamma(dof / 2) - log(dof pi) / 2.

    From 40 degrees of freedom on by Stirling's series of the ratio: in single precision the difference of two
    logarithms of a million would have no digits left.
    """
    half = dof / 2
    few, many = half.clamp_max(20), half.clamp_min(20)
    direct = torch.lgamma(few + 0.5) - torch.lgamma(few) - 0.5 * torch.log(few)
    series = -1 / (8 * many) + 1 / (192 * many**3) - 1 / (640 * many**5)
    return torch.where(half < 20, direct, series) - 0.5 * math.log(2 * math.pi)
