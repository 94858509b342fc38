"""Planar flows: one hyperbolic tangent across a plane per step."""

import math

import torch
from torch import Tensor

from vaes.flows.base import Flow

__all__ = ["Planar"]

SLOPE = 1 - 1 / math.e


def _above_minus_one(x: Tensor) -> Tensor:
    """``log(1 + (e - 1) exp(x)) - 1``: rises from -1, is 0 at 0, and is exact to the last digits around it."""
    below, above = x.clamp(max=0.0), x.clamp(min=0.0)
    return torch.where(
        x > 0, above + torch.log1p((1 - SLOPE) * torch.expm1(-above)), torch.log1p(SLOPE * torch.expm1(below))
    )


class Planar(Flow):
    """``z' = z + u tanh(w.z + b)``, n_steps times; u, w and b of every step come from the encoder.

    Rezende & Mohamed, Variational Inference with Normalizing Flows, 2015, https://arxiv.org/abs/1505.05770, section
    4.1; appendix A.1 keeps it invertible by ``w.u > -1``: the part of u along w is moved by ``m(w.u) - w.u``. Theirs
    is ``m(x) = softplus(x) - 1``; ours is moved along x so that m(0) = 0, and a context of zeros is the identity.

    Args:
        z_dim: latent dimensions D.
        n_steps: how many.
    """

    def __init__(self, z_dim: int, *, n_steps: int = 8) -> None:
        super().__init__()
        if min(z_dim, n_steps) < 1:
            raise ValueError(f"z_dim and n_steps must be at least 1, got {z_dim} and {n_steps}")
        self.z_dim, self.n_steps = z_dim, n_steps
        self.context_size = n_steps * (2 * z_dim + 1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, n_steps (2 D + 1)) -> (..., D), (...)."""
        assert context is not None
        log_det = z.new_zeros(())
        for step in context.chunk(self.n_steps, -1):
            u, w, b = step.split((self.z_dim, self.z_dim, 1), -1)
            along = (w * u).sum(-1, keepdim=True)
            square = w.square().sum(-1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
            u = u + (_above_minus_one(along) - along) * w / square
            bend = torch.tanh((w * z).sum(-1, keepdim=True) + b)
            # 1 + (1 - bend^2) m, written as a sum of what is positive.
            one_more = torch.nn.functional.softplus(along + math.log(math.e - 1))  # 1 + m
            det = bend.square() + (1 - bend.square()) * one_more
            log_det = log_det + torch.log(det.clamp_min(torch.finfo(det.dtype).tiny))[..., 0]
            z = z + u * bend
        return z, log_det
