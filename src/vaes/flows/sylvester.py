"""Flows by reflections: Householder's, which turn, and Sylvester's, which bend a whole subspace at once."""

import torch
from torch import Tensor, nn

from vaes.distributions import triangle
from vaes.flows.base import Flow, InvertibleFlow

__all__ = ["Householder", "Sylvester"]

LARGEST_DIAGONAL = 0.999
"""Of each triangular factor: |product| < 1 makes a step invertible, and rounding of tanh would reach 1."""


def _reflect(z: Tensor, v: Tensor) -> Tensor:
    """``z - 2 v (v.z) / |v|^2``, z and v (..., D); v = 0 leaves z alone."""
    square = v.square().sum(-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    return z - 2 * v * ((v * z).sum(-1, keepdim=True) / square)


class Householder(InvertibleFlow):
    """``z' = H_n ... H_1 z``, reflections whose normals come from the encoder: volume is kept, so log |det| = 0.

    Tomczak & Welling, Improving Variational Auto-Encoders using Householder Flow, 2016,
    https://arxiv.org/abs/1611.09630, section 3. A diagonal Gaussian becomes one with a full covariance.

    Args:
        z_dim: latent dimensions D.
        n_steps: reflections; D of them make every rotation.
    """

    def __init__(self, z_dim: int, *, n_steps: int = 8) -> None:
        super().__init__()
        if min(z_dim, n_steps) < 1:
            raise ValueError(f"z_dim and n_steps must be at least 1, got {z_dim} and {n_steps}")
        self.z_dim, self.n_steps = z_dim, n_steps
        self.context_size = n_steps * z_dim

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, n_steps D) -> (..., D), zeros (...)."""
        assert context is not None
        for v in context.chunk(self.n_steps, -1):
            z = _reflect(z, v)
        return z, torch.zeros_like(z[..., 0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same reflections in the other order."""
        assert context is not None
        for v in reversed(context.chunk(self.n_steps, -1)):
            z = _reflect(z, v)
        return z, torch.zeros_like(z[..., 0])


class Sylvester(Flow):
    """``z' = z + Q R tanh(S Q^T z + b)``, n_steps times; Q orthonormal, R and S upper triangular, all from the encoder.

    Van den Berg, Hasenclever, Tomczak & Welling, Sylvester Normalizing Flows for Variational Inference, 2018,
    https://arxiv.org/abs/1803.05649, section 3; ``det = prod_i (1 + tanh'(.)_i R_ii S_ii)`` (theorem 1). Q is the
    first M columns of a product of reflections, orthonormal to rounding. With M reflections it is any D by M such
    matrix but for signs, which the paper's orthogonal flow finds by iteration; M = D is its Householder flow; without
    reflections Q is the identity and the reversal by turns, its triangular flow. A context of zeros is the identity.

    Args:
        z_dim: latent dimensions D.
        n_steps: how many.
        columns: M, the dimensions that a step bends; all where it is null.
        reflections: of which each step's Q is made.
    """

    reverse: Tensor

    def __init__(self, z_dim: int, *, n_steps: int = 4, columns: int | None = None, reflections: int = 8) -> None:
        super().__init__()
        columns = z_dim if columns is None else columns
        if n_steps < 1 or not 1 <= columns <= z_dim or reflections < 0:
            raise ValueError(
                f"expected n_steps >= 1, columns from 1 to z_dim = {z_dim} and reflections >= 0, "
                f"got {n_steps}, {columns} and {reflections}"
            )
        self.z_dim, self.n_steps, self.columns, self.reflections = z_dim, n_steps, columns, reflections
        below = columns * (columns - 1) // 2
        self.parts = (columns, columns, below, below, columns, reflections * z_dim)
        self.context_size = n_steps * sum(self.parts)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., D), context (B, context_size) -> (..., D), (...)."""
        assert context is not None
        log_det = z.new_zeros(())
        for i, step in enumerate(context.chunk(self.n_steps, -1)):
            r, s, r_above, s_above, b, normals = step.split(self.parts, -1)
            r, s = LARGEST_DIAGONAL * torch.tanh(r), LARGEST_DIAGONAL * torch.tanh(s)
            vectors = normals.chunk(self.reflections, -1) if self.reflections else ()
            turned = z.flip(-1) if not vectors and i % 2 else z
            for v in vectors:
                turned = _reflect(turned, v)
            inner = self._times(s, s_above, turned[..., : self.columns]) + b
            bend = torch.tanh(inner)
            log_det = log_det + torch.log1p((1 - bend.square()) * r * s).sum(-1)
            move = nn.functional.pad(self._times(r, r_above, bend), (0, self.z_dim - self.columns))
            for v in reversed(vectors):
                move = _reflect(move, v)
            z = z + (move.flip(-1) if not vectors and i % 2 else move)
        return z, log_det

    def _times(self, diagonal: Tensor, above: Tensor, x: Tensor) -> Tensor:
        """The upper triangle of diagonal (B, M) and above (B, M (M - 1) / 2), times x (..., B, M)."""
        product = diagonal * x
        if self.columns == 1:
            return product
        matrix = triangle(above, self.columns - 1).mT
        return product + nn.functional.pad((matrix @ x[..., 1:, None])[..., 0], (0, 1))
