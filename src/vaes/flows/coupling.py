"""Coupling flows: one half of the dimensions scales and shifts the other."""

import torch
from torch import Tensor, nn

from vaes.flows.base import InvertibleFlow, bounded

__all__ = ["Coupling"]


def _network(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers, and a last one that starts at 0."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)


class Coupling(InvertibleFlow):
    """``z_b' = exp(s(z_a)) z_b + t(z_a)``, the halves changing places after each step; it starts as that.

    Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017, https://arxiv.org/abs/1605.08803, equations
    7 and 8. Both directions cost one pass a step.

    Args:
        z_dim: latent dimensions D, at least 2.
        context_size: numbers that the encoder makes for it.
        n_steps: how many; two of them change every dimension.
        width: of the two hidden layers.
    """

    def __init__(self, z_dim: int, context_size: int = 0, *, n_steps: int = 6, width: int = 128) -> None:
        super().__init__()
        if z_dim < 2:
            raise ValueError(f"a coupling needs 2 dimensions, one to scale the other, got {z_dim}")
        if min(n_steps, width) < 1 or context_size < 0:
            raise ValueError(f"n_steps and width must be at least 1, got {n_steps} and {width}")
        self.z_dim, self.context_size, self.kept = z_dim, context_size, z_dim // 2
        self.steps = nn.ModuleList(
            _network(self.kept + context_size, width, 2 * (z_dim - self.kept)) for _ in range(n_steps)
        )

    def _scale_and_shift(self, step: nn.Module, a: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.context_size:
            assert context is not None
            a = torch.cat([a, context.expand(*a.shape[:-1], -1)], -1)
        s, t = step(a).chunk(2, -1)
        return bounded(s), t

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, context_size) -> (..., D), (...)."""
        log_det = z.new_zeros(())
        for step in self.steps:
            a, b = z.split((self.kept, self.z_dim - self.kept), -1)
            s, t = self._scale_and_shift(step, a, context)
            z = torch.cat([a, torch.exp(s) * b + t], -1).flip(-1)
            log_det = log_det + s.sum(-1)
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, context_size) -> (..., D), (...)."""
        log_det = z.new_zeros(())
        for step in reversed(self.steps):
            a, b = z.flip(-1).split((self.kept, self.z_dim - self.kept), -1)
            s, t = self._scale_and_shift(step, a, context)
            z = torch.cat([a, (b - t) * torch.exp(-s)], -1)
            log_det = log_det - s.sum(-1)
        return z, log_det
