"""A mixture of Gaussians with full covariances, as they are fitted to codes after training."""

import torch
from torch import Tensor

from vaes.functional import LOG_2PI
from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["FullMixture"]


class FullMixture(Prior):
    """p(z) = sum_c w_c N(mean_c, L_c L_c^T), none of it learned by gradients; it starts as N(0, I).

    Args:
        z_shape: of a code; a covariance is over all its numbers.
        components: how many.
    """

    log_weights: Tensor  # (C,)
    mean: Tensor  # (C, D)
    factor: Tensor  # (C, D, D) L, lower triangular with a positive diagonal

    def __init__(self, z_shape: int | tuple[int, ...], *, components: int = 10) -> None:
        super().__init__(z_shape)
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        self.register_buffer("log_weights", torch.zeros(components).log_softmax(0))
        self.register_buffer("mean", torch.zeros(components, self.z_dim))
        self.register_buffer("factor", torch.eye(self.z_dim).repeat(components, 1, 1))

    @property
    def noise(self) -> Draw:
        """One number chooses the component, the others a code of it."""
        return Draw((1 + self.z_dim,), "uniform")

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> (...), in nats; component by component, so that nothing is (N, C, D)."""
        lead = z.shape[: z.dim() - len(self.z_shape)]
        flat = z.reshape(-1, self.z_dim)
        found = []
        for log_weight, mean, factor in zip(self.log_weights, self.mean, self.factor, strict=True):
            noise = torch.linalg.solve_triangular(factor, (flat - mean).T, upper=False)
            log_det = factor.diagonal().log().sum()
            found.append(log_weight - 0.5 * (LOG_2PI + noise.square()).sum(0) - log_det)
        return torch.logsumexp(torch.stack(found), 0).reshape(lead)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Uniform noise (N, 1 + D) -> codes (N, Z...): by the weights' cumulative sums, and the normal quantile."""
        ends = self.log_weights.exp().cumsum(0)
        chosen = torch.searchsorted(ends, noise[:, 0].contiguous() * ends[-1]).clamp_max(len(ends) - 1)
        normal = torch.special.ndtri(noise[:, 1:])
        z = torch.empty_like(normal)
        for c in range(len(ends)):  # (N, D, D) would be the factor of every code
            z[chosen == c] = self.mean[c] + normal[chosen == c] @ self.factor[c].T
        return z.unflatten(1, self.z_shape)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The mixture's mean."""
        return (self.log_weights.exp() @ self.mean).unflatten(0, self.z_shape)
