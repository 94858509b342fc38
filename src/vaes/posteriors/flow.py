"""A diagonal Gaussian that a normalizing flow carries on: q(z|x) beyond independent dimensions."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vaes import flows
from vaes.posteriors.base import Latent, Posterior
from vaes.posteriors.gaussian import Gaussian
from vaes.randomness import Draw

__all__ = ["IAF", "Householder", "Planar", "Sylvester"]


class _Flow(Posterior):
    """``z = f(z_0; context)``, z_0 from a diagonal Gaussian: log q(z|x) = log q(z_0|x) - log |det df/dz_0|.

    Encoder: the Gaussian's means and log-variances, then the context. E[z|x] has no closed form: the central code is
    where the flow carries the Gaussian's mean. A flow of no steps is the Gaussian. ``aux["gaussian"]`` is the one that
    the flow starts from, means and log-variances (B, 2 D).
    """

    def __init__(self, z_shape: tuple[int, ...], n_steps: int, flow: Callable[[int], flows.Flow]) -> None:
        super().__init__()
        if len(z_shape) != 1:
            raise ValueError(f"a flow is of flat codes, and these are {z_shape}: use the posterior gaussian")
        self.start, self.flow = Gaussian(), flow(z_shape[0]) if n_steps else None
        self.gives = frozenset({"log_q", "gaussian"} if n_steps else {"log_q", "mean", "logvar", "gaussian"})

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """Means, log-variances, context."""
        return sum(self.heads(z_shape))

    def heads(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Two of the code's size, and the context's."""
        context = self.flow.context_size if self.flow else 0
        return (*self.start.heads(z_shape), *((context,) if context else ()))

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, outputs) and noise (K, B, D) -> Latent."""
        d = noise.shape[-1]
        return self._carry(self.start(h[:, : 2 * d], noise), h[:, 2 * d :])

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """Where the flow carries the Gaussian's mean."""
        d = Draw(z_shape).size
        return self._carry(self.start.centre(h[:, : 2 * d], z_shape), h[:, 2 * d :])

    def _carry(self, start: Latent, context: Tensor) -> Latent:
        if self.flow is None:
            return start
        assert start.log_q is not None
        with torch.autocast(start.z.device.type, enabled=False):  # a volume change in bfloat16 has three digits
            z, log_det = self.flow(start.z, context)
        return Latent(z, start.log_q - log_det, None, None, start.aux)


class IAF(_Flow):
    """q(z|x) of a Gaussian and inverse autoregressive steps, gated, whose networks see what the encoder says of x.

    Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016,
    https://arxiv.org/abs/1606.04934, algorithm 1.

    Args:
        z_shape: of a code.
        n_steps: of the flow; 0 is the Gaussian.
        width: of the two hidden layers of each step, at least z_dim.
        context: numbers that the encoder makes for the flow.
    """

    def __init__(self, z_shape: tuple[int, ...], *, n_steps: int = 4, width: int = 256, context: int = 64) -> None:
        super().__init__(
            z_shape, n_steps, lambda d: flows.InverseAutoregressive(d, context, n_steps=n_steps, width=width)
        )


class Planar(_Flow):
    """q(z|x) of a Gaussian and planar steps, all of whose numbers come from the encoder.

    Rezende & Mohamed, Variational Inference with Normalizing Flows, 2015, https://arxiv.org/abs/1505.05770, section
    4.1.

    Args:
        z_shape: of a code.
        n_steps: of the flow; 0 is the Gaussian.
    """

    def __init__(self, z_shape: tuple[int, ...], *, n_steps: int = 8) -> None:
        super().__init__(z_shape, n_steps, lambda d: flows.Planar(d, n_steps=n_steps))


class Householder(_Flow):
    """q(z|x) of a Gaussian and reflections from the encoder: a full covariance, of fewer numbers.

    Tomczak & Welling, Improving Variational Auto-Encoders using Householder Flow, 2016,
    https://arxiv.org/abs/1611.09630, section 3.

    Args:
        z_shape: of a code.
        n_steps: reflections; z_dim of them make every rotation, 0 is the Gaussian.
    """

    def __init__(self, z_shape: tuple[int, ...], *, n_steps: int = 8) -> None:
        super().__init__(z_shape, n_steps, lambda d: flows.Householder(d, n_steps=n_steps))


class Sylvester(_Flow):
    """q(z|x) of a Gaussian and Sylvester steps, all of whose numbers come from the encoder.

    Van den Berg, Hasenclever, Tomczak & Welling, Sylvester Normalizing Flows for Variational Inference, 2018,
    https://arxiv.org/abs/1803.05649, section 3.

    Args:
        z_shape: of a code.
        n_steps: of the flow; 0 is the Gaussian.
        columns: dimensions that a step bends; null is all.
        reflections: that each step's orthonormal matrix is made of; 0 takes the identity and the reversal by turns.
    """

    def __init__(
        self, z_shape: tuple[int, ...], *, n_steps: int = 4, columns: int | None = None, reflections: int = 8
    ) -> None:
        super().__init__(
            z_shape,
            n_steps,
            lambda d: flows.Sylvester(d, n_steps=n_steps, columns=columns, reflections=reflections),
        )
