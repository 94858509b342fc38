"""The VAE itself: five parts glued together."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vaes.errors import UserError
from vaes.functional import lerp, slerp, to_float32
from vaes.likelihoods import Likelihood
from vaes.nn import output_range
from vaes.posteriors import Latent, Posterior
from vaes.priors import Prior
from vaes.randomness import Draw

__all__ = ["VAE", "Trace", "evaluation", "refuse_device"]


class Trace(NamedTuple):
    """One pass of a batch through the model: K importance samples, B batch, Z... the shape of a code; nats."""

    x: Tensor  # (B, C, H, W) the images
    z: Tensor  # (K, B, Z...) codes
    y: Tensor  # (K, B, C', H, W) the decoder's output
    log_px: Tensor  # (K, B) log p(x|z)
    log_pz: Tensor  # (K, B) log p(z)
    log_q: Tensor | None  # (K, B) log q(z|x)
    rate: Tensor | None  # (B,) KL(q(z|x) || p(z)): the closed form, or else the mean of log q - log p over K
    mean: Tensor | None  # (B, Z...)
    logvar: Tensor | None  # (B, Z...)
    kl: Tensor | None = None  # (B, Z...) the rate per dimension, where it has a closed form
    log_q_stopped: Tensor | None = None  # (K, B) log q(z|x) whose gradient goes through z alone; made where asked for
    x_mean: Tensor | None = None  # (K, B, C, H, W) E[x|z], in the pixels' range; made where asked for
    aux: Mapping[str, Tensor] = {}  # what else the posterior has to tell


class VAE(nn.Module):
    """encoder, decoder, posterior, prior and likelihood: the composition that every method shares.

    Args:
        encoder: any module, images (B, C, H, W) -> (B, posterior.outputs(z_shape)).
        decoder: any module, codes (B, Z...) -> (B, likelihood.channels(C), H, W).
        posterior: what the encoder's output means.
        prior: over codes, whose shape Z... is the prior's.
        likelihood: what the decoder's output means.
        value_range: the lowest and highest pixel value that the model sees; by default what the likelihood is meant
        for.

    Raises:
        TypeError: a part is not of its kind.
        ValueError: the decoder's range does not fit the pixels', or the posterior the prior or the shape of its codes.
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
                raise TypeError(f"{_home(kind)} wanted, got {_home(type(part))}")
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        low, high = value_range or likelihood.default_range
        if not low < high:
            raise ValueError(f"value_range must be a lowest and a highest pixel value, got ({low}, {high})")
        self.value_range = (float(low), float(high))
        misfit = likelihood.misfit(output_range(decoder), self.value_range)
        if misfit:
            raise ValueError(misfit)
        posterior.outputs(prior.z_shape)  # refuses codes of a shape that it cannot give
        given, wanted = posterior.support(prior.z_shape), prior.support
        if given != wanted:
            raise ValueError(
                f"the prior {type(prior).__name__} is over {wanted}, the posterior {type(posterior).__name__} gives "
                f"{given}: use the posterior {prior.partner} or the prior {posterior.partner}"
            )
        missing = sorted(prior.needs - posterior.gives)
        if missing:
            raise ValueError(
                f"the prior {type(prior).__name__} needs {' and '.join(missing)} of the posterior, which "
                f"{type(posterior).__name__} does not give: use a Gaussian posterior or a standard normal prior"
            )

        prior.bind(posterior)

    @property
    def z_shape(self) -> tuple[int, ...]:
        """The shape of a code: (D,) for a flat one."""
        return self.prior.z_shape

    @property
    def z_dim(self) -> int:
        """How many numbers a code is."""
        return self.prior.z_dim

    @property
    def noise(self) -> Draw:
        """What noise a sample of q(z|x) takes."""
        return self.posterior.noise(self.z_shape)

    @property
    def gives(self) -> frozenset[str]:
        """The optional fields of :class:`Trace` that are not None for this composition, if they are asked for."""
        found = self.posterior.gives | {"x_mean"} | ({"rate"} if "log_q" in self.posterior.gives else set())
        like = next(self.parameters(), torch.zeros(()))
        with torch.no_grad():
            latent = self.posterior.centre(like.new_zeros(1, self.posterior.outputs(self.z_shape)), self.z_shape)
            return found | ({"kl"} if self.prior.kl(latent) is not None else set())

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        wants: frozenset[str] = frozenset(),
        options: Mapping[str, float] | None = None,
    ) -> Trace:
        """Images x (B, C, H, W) and noise (K, B, ...) as :attr:`noise` wants it -> Trace.

        ``wants`` names fields that are made only where they are asked for; ``options`` is the posterior's, as in
        :meth:`vaes.posteriors.Posterior.forward`.
        """
        h = self.features(x)
        trace = self.trace(x, self.posterior(h, noise, options or {}))
        if "x_mean" in wants:
            trace = trace._replace(x_mean=self.likelihood.mean(trace.y))
        if "log_q_stopped" not in wants:
            return trace
        return trace._replace(log_q_stopped=self.posterior.log_prob(h.detach(), trace.z))

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> what the posterior is made of (B, outputs), float32 or wider."""
        h = to_float32(self.encoder(x))
        wanted = (x.shape[0], self.posterior.outputs(self.z_shape))  # len(x) would fix the batch of a traced model
        if h.shape != wanted:
            raise ValueError(
                f"the encoder made {tuple(h.shape)} of {len(x)} images; {type(self.posterior).__name__} in "
                f"{self.z_dim} dimensions needs {wanted}"
            )
        return h

    def trace(self, x: Tensor, latent: Latent) -> Trace:
        """Images (B, C, H, W) and their Latent, whatever it was made of -> Trace."""
        z, log_q, mean, logvar, aux = latent
        y = self._decode(z)
        wanted = (self.likelihood.channels(x.shape[1]), *x.shape[2:])
        if y.shape[2:] != wanted:
            raise ValueError(
                f"the decoder made {tuple(y.shape[2:])} where images of {tuple(x.shape[1:])} need {wanted}"
            )
        log_px, log_pz, kl = self.likelihood.log_prob(y, x), self.log_prior(z), self.prior.kl(latent)
        drawn = None if log_q is None else (log_q - log_pz).mean(0)
        rate = drawn if kl is None else kl.flatten(1).sum(-1)
        return Trace(x, z, y, log_px, log_pz, log_q, rate, mean, logvar, kl, aux=aux)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> Latent:
        """Images (B, C, H, W) -> Latent. Without noise, one sample per image: the centre of q(z|x)."""
        h = self.features(x)
        return self.posterior.centre(h, self.z_shape) if noise is None else self.posterior(h, noise, {})

    def log_prior(self, z: Tensor) -> Tensor:
        """Codes (..., Z...) -> log p(z) (...), in nats."""
        return self.prior.log_prob(z, self.encode)

    def sample_codes(self, noise: Tensor) -> Tensor:
        """Noise (N, ...) as ``prior.noise`` wants it -> codes from the prior (N, Z...)."""
        return self.prior.sample(noise, self.encode)

    def shaped(self, z: Tensor) -> Tensor:
        """Codes (N, Z...) or, flattened, (N, D) -> (N, Z...). Tables, walks and metrics hold them flattened."""
        return z.reshape(len(z), *self.z_shape)

    def decode(self, z: Tensor) -> Tensor:
        """Codes (..., Z...) -> mean images E[x|z] (..., C, H, W), in ``value_range``."""
        return self.likelihood.mean(self._decode(z))

    def sample(self, noise: Tensor) -> Tensor:
        """Noise (N, ...) as ``prior.noise`` wants it -> mean images of codes from the prior (N, C, H, W)."""
        return self.decode(self.sample_codes(noise))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> mean images of their central codes (B, C, H, W)."""
        return self.decode(self.encode(x).z[0])

    def interpolate(self, a: Tensor, b: Tensor, n: int, *, path: Literal["linear", "spherical"] = "linear") -> Tensor:
        """Mean images (N, n, C, H, W) along the path from codes a (N, Z...) to codes b (N, Z...), ends included; what
        lies between codes is shown by the nearest code."""
        t = torch.linspace(0, 1, n, dtype=a.dtype, device=a.device)[None, :, None]
        a, b = a.flatten(1), b.flatten(1)
        if path not in ("linear", "spherical"):
            raise ValueError(f"path must be 'linear' or 'spherical', got {path!r}")
        between = lerp if path == "linear" else slerp
        z = self.prior.project(self.shaped(between(a[:, None], b[:, None], t).flatten(0, 1)))
        return self.decode(z).unflatten(0, (len(a), n))

    def _decode(self, z: Tensor) -> Tensor:
        lead = z.shape[: z.dim() - len(self.z_shape)]
        y = to_float32(self.decoder(z.reshape(math.prod(lead), *self.z_shape)))
        return y.reshape(*lead, *y.shape[1:])


def _home(kind: type) -> str:
    """Where a class is imported from: ``vaes.posteriors.Gaussian``."""
    module = kind.__module__.split(".")
    return ".".join([*(module[:2] if module[0] == "vaes" else module), kind.__name__])


def refuse_device(model: VAE, device: torch.device) -> None:
    """Refuse a device that cannot do what the model needs.

    Raises:
        UserError: float64, on Apple's GPU.
    """
    if model.posterior.needs_float64 and device.type == "mps":
        raise UserError(
            f"--device {device.type}: the posterior {type(model.posterior).__name__} is computed in float64, which "
            "this device has not; use --device cpu"
        )


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
