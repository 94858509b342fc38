"""Autoregressive flows: each dimension is scaled and shifted by what a masked network makes of those before it."""

import abc

import torch
from torch import Tensor, nn

from vaes.flows.base import InvertibleFlow, bounded

__all__ = ["InverseAutoregressive", "MaskedAutoregressive", "MaskedNetwork"]

OPEN = 2.0
"""The gate's bias: a new step keeps sigmoid(2) = 0.88 of its input, as the paper advises (1 to 2)."""


class _MaskedLinear(nn.Linear):
    """A linear layer with weights left out; mask (out, in)."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class MaskedNetwork(nn.Module):
    """Numbers (..., D) -> ``outputs`` per dimension (..., outputs, D); those of i depend on inputs before i alone.

    Germain et al., MADE: Masked Autoencoder for Distribution Estimation, 2015, https://arxiv.org/abs/1502.03509,
    section 3. Hidden unit k counts the inputs that it may see, 0 to D - 1, evenly; the context reaches all of them.
    The last layer starts at 0.

    Args:
        z_dim: latent dimensions D.
        context_size: numbers of context.
        outputs: per dimension.
        width: of the two hidden layers, at least D so that no dependence is lost.
    """

    def __init__(self, z_dim: int, context_size: int, outputs: int, *, width: int) -> None:
        super().__init__()
        if width < z_dim:
            raise ValueError(f"width must be at least z_dim = {z_dim}, got {width}: dependences would be lost")
        self.outputs = outputs
        seen, rank = torch.arange(width) * z_dim // width, torch.arange(z_dim)
        self.first = _MaskedLinear((rank < seen[:, None]).float())
        self.context = nn.Linear(context_size, width, bias=False) if context_size else None
        self.second = _MaskedLinear((seen <= seen[:, None]).float())
        self.last = _MaskedLinear((seen <= rank[:, None]).float().repeat(outputs, 1))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """(..., D), context (B, context_size) -> (..., outputs, D)."""
        h = self.first(z)
        if self.context is not None:
            assert context is not None
            h = h + self.context(context)
        h = self.second(nn.functional.silu(h))
        return self.last(nn.functional.silu(h)).unflatten(-1, (self.outputs, -1))


class _Autoregressive(InvertibleFlow):
    """``z_i' = exp(scale_i) z_i + shift_i``, of those before i; the order is reversed between steps.

    Args:
        z_dim: latent dimensions D.
        context_size: numbers that the encoder makes for it.
        n_steps: how many.
        width: of the two hidden layers, at least D.
    """

    def __init__(self, z_dim: int, context_size: int = 0, *, n_steps: int = 4, width: int = 256) -> None:
        super().__init__()
        if min(z_dim, n_steps) < 1 or context_size < 0:
            raise ValueError(
                f"expected z_dim and n_steps >= 1 and context_size >= 0, got {z_dim}, {n_steps} and {context_size}"
            )
        self.z_dim, self.context_size = z_dim, context_size
        self.steps = nn.ModuleList(MaskedNetwork(z_dim, context_size, 2, width=width) for _ in range(n_steps))

    @abc.abstractmethod
    def _scale_and_shift(self, s: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """A network's numbers -> log-scale and shift."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, context_size) -> (..., D), (...): a pass a step."""
        log_det = z.new_zeros(())
        for i, step in enumerate(self.steps):
            z = z.flip(-1) if i else z
            scale, shift = self._scale_and_shift(*step(z, context).unbind(-2))
            z = torch.exp(scale) * z + shift
            log_det = log_det + scale.sum(-1)
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One dimension after another, D passes a step."""
        log_det = z.new_zeros(())
        for i in reversed(range(len(self.steps))):
            found: list[Tensor] = []
            for d in range(self.z_dim):
                known = torch.cat([*found, torch.zeros_like(z[..., d:])], -1)
                numbers = self.steps[i](known, context)[..., d : d + 1]
                scale, shift = self._scale_and_shift(*numbers.unbind(-2))
                found.append((z[..., d : d + 1] - shift) * torch.exp(-scale))
                log_det = log_det - scale[..., 0]
            z = torch.cat(found, -1)
            z = z.flip(-1) if i else z
        return z, log_det


class InverseAutoregressive(_Autoregressive):
    """``z' = g z + (1 - g) m`` with ``g = sigmoid(s)``: for a posterior, whose draws cost one pass a step.

    Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016,
    https://arxiv.org/abs/1606.04934, algorithm 1. Gates only narrow; the Gaussian before them has its own width.
    """

    def _scale_and_shift(self, s: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return nn.functional.logsigmoid(s + OPEN), torch.sigmoid(-s - OPEN) * m


class MaskedAutoregressive(_Autoregressive):
    """``z' = exp(s) z + t``, s bounded: for a prior, codes to noise. A density costs one pass a step, a sample D.

    Papamakarios, Pavlakou & Murray, Masked Autoregressive Flow for Density Estimation, 2017,
    https://arxiv.org/abs/1705.07057, section 3. It starts as the identity, but for the reversals.
    """

    def _scale_and_shift(self, s: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        return bounded(s), m
