"""Priors that are learned: a flow carries codes to standard normal noise."""

import torch
from torch import Tensor

from vaes import flows
from vaes.priors.base import Encode, Prior

__all__ = ["MAF", "RealNVP"]


class _Flow(Prior):
    """log p(z) = log N(f(z); 0, I) + log |det df/dz|. Its mean has no closed form: noise 0 gives the centre."""

    density: flows.FlowDensity

    def __init__(self, z_shape: int | tuple[int, ...]) -> None:
        super().__init__(z_shape)
        if len(self.z_shape) != 1:
            raise ValueError(f"a flow is of flat codes, and these are {self.z_shape}: use the prior standard_normal")

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., D) -> (...), in nats."""
        with torch.autocast(z.device.type, enabled=False):  # a volume change in bfloat16 has three digits
            return self.density.log_prob(z)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Standard normal noise (N, D) -> codes (N, D)."""
        with torch.autocast(noise.device.type, enabled=False):
            return self.density.sample(noise)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The code of noise 0."""
        like = next(self.parameters())
        return self.density.sample(like.new_zeros(1, self.z_dim))[0]


class RealNVP(_Flow):
    """p(z) by coupling steps, learned with the rest; it starts as N(0, I).

    Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017, https://arxiv.org/abs/1605.08803, equations
    7 and 8.

    Args:
        z_shape: of a code, of 2 dimensions or more.
        n_steps: of the flow; two change every dimension.
        width: of the two hidden layers of each step.
    """

    def __init__(self, z_shape: int | tuple[int, ...], *, n_steps: int = 6, width: int = 128) -> None:
        super().__init__(z_shape)
        self.density = flows.FlowDensity(flows.Coupling(self.z_dim, n_steps=n_steps, width=width))


class MAF(_Flow):
    """p(z) by masked autoregressive steps, learned with the rest; it starts as N(0, I). Sampling takes z_dim passes.

    Papamakarios, Pavlakou & Murray, Masked Autoregressive Flow for Density Estimation, 2017,
    https://arxiv.org/abs/1705.07057, section 3.

    Args:
        z_shape: of a code.
        n_steps: of the flow.
        width: of the two hidden layers of each step, at least z_dim.
    """

    def __init__(self, z_shape: int | tuple[int, ...], *, n_steps: int = 4, width: int = 256) -> None:
        super().__init__(z_shape)
        self.density = flows.FlowDensity(flows.MaskedAutoregressive(self.z_dim, n_steps=n_steps, width=width))
