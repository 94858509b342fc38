"""The VAE itself: five parts glued together."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vaes.functional import lerp, slerp, to_float32
from vaes.likelihoods import Likelihood
from vaes.nn import output_range
from vaes.posteriors import Latent, Posterior
from vaes.priors import Prior

__all__ = ["VAE", "Trace", "evaluation"]


class Trace(NamedTuple):
    """One pass of a batch through the model: K importance samples, B batch, D latent dimensions; nats."""

    x: Tensor  # (B, C, H, W) the images
    z: Tensor  # (K, B, D) codes
    y: Tensor  # (K, B, C', H, W) the decoder's output
    log_px: Tensor  # (K, B) log p(x|z)
    log_pz: Tensor  # (K, B) log p(z)
    log_q: Tensor | None  # (K, B) log q(z|x)
    rate: Tensor | None  # (B,) KL(q(z|x) || p(z)): the closed form, or else the mean of log q - log p over K
    mean: Tensor | None  # (B, D)
    logvar: Tensor | None  # (B, D)


class VAE(nn.Module):
    """encoder, decoder, posterior, prior and likelihood: the composition that every method shares.

    Args:
        encoder: any module, images (B, C, H, W) -> (B, posterior.heads * D).
        decoder: any module, codes (B, D) -> (B, likelihood.channels(C), H, W).
        posterior: what the encoder's output means.
        prior: over codes of D dimensions.
        likelihood: what the decoder's output means.
        value_range: the lowest and highest pixel value that the model sees; by default what the likelihood is meant
        for.

    Raises:
        TypeError: a part is not of its kind.
        ValueError: the decoder's range does not fit the pixels'.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: Posterior,
        prior: Prior,
        likelihood: Likelihood,
        *,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        for part, kind in ((posterior, Posterior), (prior, Prior), (likelihood, Likelihood)):
            if not isinstance(part, kind):  # two parts are called Gaussian
                raise TypeError(
                    f"{kind.__module__}.{kind.__name__} wanted, got {type(part).__module__}.{type(part).__name__}"
                )
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        low, high = value_range or likelihood.default_range
        if not low < high:
            raise ValueError(f"value_range must be a lowest and a highest pixel value, got ({low}, {high})")
        self.value_range = (float(low), float(high))
        misfit = likelihood.misfit(output_range(decoder), self.value_range)
        if misfit:
            raise ValueError(misfit)

    @property
    def z_dim(self) -> int:
        """Latent dimensions D."""
        return self.prior.z_dim

    @property
    def gives(self) -> frozenset[str]:
        """The optional fields of :class:`Trace` that are not None for this composition."""
        return self.posterior.gives | ({"rate"} if "log_q" in self.posterior.gives else set())

    def forward(self, x: Tensor, noise: Tensor) -> Trace:
        """Images x (B, C, H, W) and standard normal noise (K, B, D) -> Trace."""
        z, log_q, mean, logvar = self.encode(x, noise)
        y = self._decode(z)
        wanted = (self.likelihood.channels(x.shape[1]), *x.shape[2:])
        if y.shape[2:] != wanted:
            raise ValueError(
                f"the decoder made {tuple(y.shape[2:])} where images of {tuple(x.shape[1:])} need {wanted}"
            )
        log_px = self.likelihood.log_prob(y, x)
        log_pz = self.prior.log_prob(z)
        return Trace(x, z, y, log_px, log_pz, log_q, self._rate(log_pz, log_q, mean, logvar), mean, logvar)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Latent:
        """Images (B, C, H, W) -> Latent. Without noise, one sample per image: the centre of q(z|x)."""
        h = to_float32(self.encoder(x))
        wanted = (len(x), self.posterior.heads * self.z_dim)
        if h.shape != wanted:
            raise ValueError(
                f"the encoder made {tuple(h.shape)} of {len(x)} images; {type(self.posterior).__name__} in "
                f"{self.z_dim} dimensions needs {wanted}"
            )
        if noise is None:
            noise = h.new_zeros(1, len(x), self.z_dim)
        return self.posterior(h, noise)

    def decode(self, z: Tensor) -> Tensor:
        """Codes (..., D) -> mean images E[x|z] (..., C, H, W), in ``value_range``."""
        return self.likelihood.mean(self._decode(z))

    def sample(self, noise: Tensor) -> Tensor:
        """Standard normal noise (N, D) -> mean images of codes from the prior (N, C, H, W)."""
        return self.decode(self.prior.sample(noise))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> mean images of their central codes (B, C, H, W)."""
        return self.decode(self.encode(x).z[0])

    def interpolate(self, a: Tensor, b: Tensor, n: int, *, path: Literal["linear", "spherical"] = "linear") -> Tensor:
        """Mean images (N, n, C, H, W) along the path from codes a (N, D) to codes b (N, D), ends included."""
        t = torch.linspace(0, 1, n, dtype=a.dtype, device=a.device)[None, :, None]
        if path not in ("linear", "spherical"):
            raise ValueError(f"path must be 'linear' or 'spherical', got {path!r}")
        between = lerp if path == "linear" else slerp
        return self.decode(between(a[:, None], b[:, None], t))

    def _decode(self, z: Tensor) -> Tensor:
        y = to_float32(self.decoder(z.reshape(-1, z.shape[-1])))
        return y.reshape(*z.shape[:-1], *y.shape[1:])

    def _rate(self, log_pz: Tensor, log_q: Tensor | None, mean: Tensor | None, logvar: Tensor | None) -> Tensor | None:
        if mean is not None and logvar is not None:
            kl = self.prior.kl_from_gaussian(mean, logvar)
            if kl is not None:
                return kl.sum(-1)
        return None if log_q is None else (log_q - log_pz).mean(0)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module returns to its own mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
