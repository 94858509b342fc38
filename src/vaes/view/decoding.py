"""Images through a model in batches: pixels in, pixels or codes out, on the CPU."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data.batches import to_float, to_uint8
from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE
from vaes.posteriors import REAL, Latent
from vaes.priors import Prior
from vaes.randomness import drawn

__all__ = [
    "MAX_CODES",
    "UNUSED",
    "Usage",
    "decode",
    "encode",
    "on_support",
    "prior_codes",
    "random_index",
    "said_of_support",
    "usage",
]

UNUSED = 0.01
"""A dimension with less KL than this (in nats), or whose mean codes vary less, carries nothing.

The second is the criterion of Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016,
https://arxiv.org/abs/1509.00519, section 5.1.
"""

FAR = 100.0
"""No code of a model that learned something lies so far out, in standard deviations of the prior."""

MAX_CODES = 5000
"""Test images that averages and maps of codes are taken over, at most."""


class Usage(NamedTuple):
    """How much each latent dimension carries."""

    value: Tensor  # (D,)
    unit: str  # "nats" where the value is a KL, "var" where it is the variance of the central codes


def prior_codes(model: VAE, count: int, seed: int, prior: Prior | None = None) -> Tensor:
    """Draws from the prior (count, D), flattened, the model's own unless another is given, on the CPU; the noise is
    drawn there, so that every device sees the same."""
    like = next(model.parameters())
    law = model.prior if prior is None else prior.to(like.device)
    noise = drawn(law.noise, (count,), torch.Generator().manual_seed(seed))
    return law.sample(noise.to(like), model.encode).flatten(1).float().cpu()


def random_index(images: ImageSet, seed: int) -> Tensor:
    """The indices (N,) of all the images in a random order."""
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))


def decode(model: VAE, z: Tensor, batch_size: int) -> Tensor:
    """Codes (N, D) -> mean images (N, C, H, W) uint8 on the CPU.

    Raises:
        UserError: the model decodes to something that is no number.
    """
    like = next(model.parameters())
    pictures = []
    for chunk in z.split(batch_size):
        x = model.decode(model.shaped(chunk.to(like)))
        if not x.isfinite().all():
            raise UserError(_why_not_finite(z))
        pictures.append(to_uint8(x, model.value_range).cpu())
    return torch.cat(pictures)


def on_support(model: VAE, z: Tensor) -> Tensor:
    """Codes of a walk (N, D) -> those nearest to them where the prior's codes lie."""
    return model.prior.project(model.shaped(z)).flatten(1)


def said_of_support(model: VAE) -> tuple[str, ...]:
    """A line for walks through codes that are not all of R^D."""
    if model.prior.support == REAL:
        return ()
    return (f"codes are {model.prior.support}; what lies between them is shown by the nearest",)


def _why_not_finite(z: Tensor) -> str:
    farthest = z.abs().max().item()
    if farthest > FAR:
        return f"the model decodes to NaN or infinity: the codes reach to {farthest:.3g}; give some nearer to 0"
    return "the model decodes to NaN or infinity: its training diverged; take an earlier checkpoint"


def encode(model: VAE, images: ImageSet, index: Tensor, batch_size: int) -> Latent:
    """The images at index (N,) -> their Latent with central codes z (1, N, D), flattened, on the CPU and without
    densities."""
    like = next(model.parameters())
    parts = []
    for chunk in index.split(batch_size):
        x = to_float(images.read(chunk.to(images.index_device)), model.value_range)
        parts.append(model.encode(x.to(like)))
    means, logvars = [p.mean for p in parts if p.mean is not None], [p.logvar for p in parts if p.logvar is not None]
    return Latent(
        torch.cat([p.z for p in parts], dim=1).flatten(2).float().cpu(),
        None,
        torch.cat(means).flatten(1).float().cpu() if means else None,
        torch.cat(logvars).flatten(1).float().cpu() if logvars else None,
        {name: torch.cat([p.aux[name] for p in parts]).float().cpu() for name in parts[0].aux},
    )


def usage(model: VAE, latent: Latent) -> Usage:
    """KL per dimension averaged over the images, in nats; without a closed form, the variance of the central codes."""
    device = next(model.parameters()).device
    mean, logvar = (None if part is None else part.to(device) for part in (latent.mean, latent.logvar))
    aux = {name: part.to(device) for name, part in latent.aux.items()}
    kl = model.prior.kl(latent._replace(mean=mean, logvar=logvar, aux=aux))
    if kl is not None:
        return Usage(kl.mean(0).cpu(), "nats")
    return Usage(latent.z[0].var(0, correction=0), "var")
