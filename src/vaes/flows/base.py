"""What a normalizing flow is."""

import abc

import torch
from torch import Tensor, nn

from vaes.functional import log_normal

__all__ = ["Flow", "FlowDensity", "InvertibleFlow", "bounded"]

LARGEST_LOG_SCALE = 3.0
"""A step multiplies by e^-3 to e^3 at most: unbounded scales are what makes such flows diverge."""


def bounded(log_scale: Tensor) -> Tensor:
    """Any number -> a log-scale within LARGEST_LOG_SCALE of 0, the number itself near 0."""
    return LARGEST_LOG_SCALE * torch.tanh(log_scale / LARGEST_LOG_SCALE)


class Flow(nn.Module, abc.ABC):
    """A bijection of codes that may depend on a context, with the volume change that it makes."""

    z_dim: int
    context_size: int
    """How many numbers the context has: what an encoder makes for it. 0 where there is none."""

    @abc.abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (..., D) and context (B, context_size) -> z' (..., D) and log |det dz'/dz| (...), in nats.

        With z (K, B, D) the context is that of each of B images. Of z with log-density ``log_q``, z' has
        ``log_q - log |det|``.
        """


class InvertibleFlow(Flow):
    """A flow whose inverse can be worked out."""

    @abc.abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z' (..., D) -> z (..., D) and log |det dz/dz'| (...), in nats: what undoes :meth:`forward`."""


class FlowDensity(nn.Module):
    """The density of codes that a flow carries to N(0, I): a prior.

    Args:
        flow: z -> noise, without a context. Its forward pass is the density's, its inverse the sampler's.
    """

    def __init__(self, flow: InvertibleFlow) -> None:
        super().__init__()
        if flow.context_size:
            raise ValueError(f"a prior sees no image, but its flow wants {flow.context_size} numbers of context")
        self.flow = flow
        self.z_dim = flow.z_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., D) -> (...), in nats: ``log N(f(z); 0, I) + log |det df/dz|``."""
        noise, log_det = self.flow(z)
        zero = torch.zeros((), dtype=z.dtype, device=z.device)
        return log_normal(noise, zero, zero).sum(-1) + log_det

    def sample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (..., D) -> codes (..., D)."""
        return self.flow.inverse(noise)[0]
