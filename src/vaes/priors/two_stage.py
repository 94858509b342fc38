"""A second VAE, of the codes of the first, as the first one's prior."""

import itertools
import math

import torch
from torch import Tensor, nn

from vaes.functional import LOG_2PI, kl_normal, log_normal
from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["TwoStage"]

FIRST_LOG_SCALE = -1.5
"""Of codes with variance 1: from a scale of 1 the second VAE ends with decoders that see nothing of u."""
LEAST_LOG_SCALE = -6.0
"""A decoder that draws a finite set of codes without error would make its scale smaller without end."""


class _Network(nn.Module):
    """Three hidden layers; the last one sees the input again, as in the authors' code."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        sizes = (inputs, width, width, width)
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(width + inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.hidden:
            h = torch.relu(layer(h))
        return self.last(torch.cat([h, x], -1))


class TwoStage(Prior):
    """u ~ N(0, I), z ~ N(decoder(u), gamma^2 I), with an encoder q(u|z) and gamma learned. u has z's dimension.

    Dai & Wipf, Diagnosing and Enhancing VAE Models, 2019, https://arxiv.org/abs/1903.05789, section 4.

    Its density has no closed form: :meth:`log_prob` is a bound, and must not be taken for one.

    Args:
        z_shape: of a code.
        width: of the three hidden layers of encoder and decoder.
        draws: importance samples of the bound.
    """

    exact = False
    draws: Tensor  # (K, D) normal

    def __init__(self, z_shape: int | tuple[int, ...], *, width: int = 256, draws: int = 64) -> None:
        super().__init__(z_shape)
        if min(width, draws) < 1:
            raise ValueError(f"width and draws must be at least 1, got {width} and {draws}")
        self.encoder = _Network(self.z_dim, width, 2 * self.z_dim)
        self.decoder = _Network(self.z_dim, width, self.z_dim)
        self.log_scale = nn.Parameter(torch.tensor(FIRST_LOG_SCALE))
        self.register_buffer("draws", torch.randn(draws, self.z_dim))

    @property
    def scale(self) -> Tensor:
        """gamma."""
        return self.log_scale.clamp_min(LEAST_LOG_SCALE).exp()

    @property
    def noise(self) -> Draw:
        """A code's normals for u, and as many for z given u."""
        return Draw((2 * self.z_dim,))

    def elbo(self, z: Tensor, noise: Tensor) -> Tensor:
        """Flat codes z (N, D) and normal noise (N, D) -> a draw of the ELBO (N,), in nats: what training raises."""
        mean, logvar = self.encoder(z).chunk(2, -1)
        u = mean + torch.exp(0.5 * logvar) * noise
        return self._log_likelihood(z, u) - kl_normal(mean, logvar).sum(-1)

    def _log_likelihood(self, z: Tensor, u: Tensor) -> Tensor:
        error = (z - self.decoder(u)) / self.scale
        return -0.5 * (LOG_2PI + error.square()).sum(-1) - self.z_dim * self.scale.log()

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> a lower bound on log p(z) (...), in nats: importance-weighted by the K draws of q(u|z) that
        the noise ``draws`` gives, the same for every code; the bound holds in the mean over such noise."""
        lead = z.shape[: z.dim() - len(self.z_shape)]
        flat = z.reshape(-1, self.z_dim)
        mean, logvar = self.encoder(flat).chunk(2, -1)
        zero = flat.new_zeros(())
        found = []
        for noise in self.draws:
            u = mean + torch.exp(0.5 * logvar) * noise
            log_q = log_normal(noise, zero, zero).sum(-1) - 0.5 * logvar.sum(-1)
            found.append(self._log_likelihood(flat, u) + log_normal(u, zero, zero).sum(-1) - log_q)
        return (torch.logsumexp(torch.stack(found), 0) - math.log(len(self.draws))).reshape(lead)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Standard normal noise (N, 2 D) -> codes (N, Z...), the second decoder's noise in them."""
        u, error = noise.chunk(2, -1)
        return (self.decoder(u) + self.scale * error).unflatten(1, self.z_shape)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The mean of z given u = 0."""
        centre: Tensor = self.decoder(self.draws.new_zeros(1, self.z_dim))[0]
        return centre.unflatten(0, self.z_shape)
