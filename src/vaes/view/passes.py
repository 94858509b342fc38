"""Images through a model in batches: pixels in, pixels or codes out, on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data.batches import to_float, to_uint8
from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE
from vaes.posteriors import Latent

__all__ = ["MAX_CODES", "UNUSED", "Usage", "decode", "encode", "evaluation", "random_index", "random_noise", "usage"]

UNUSED = 0.01
"""A dimension with less KL than this (in nats), or whose mean codes vary less, carries nothing.

The second is the criterion of Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016,
https://arxiv.org/abs/1509.00519, section 5.1.
"""

MAX_CODES = 5000
"""Test images that averages and maps of codes are taken over, at most."""


class Usage(NamedTuple):
    """How much each latent dimension carries."""

    value: Tensor  # (D,)
    unit: str  # "nats" where the value is a KL, "var" where it is the variance of the central codes


@contextmanager
def evaluation(model: VAE) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module returns to its own mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def random_noise(rows: int, model: VAE, seed: int) -> Tensor:
    """Standard normal noise (rows, D), drawn on the CPU so that every device sees the same."""
    return torch.randn(rows, model.z_dim, generator=torch.Generator().manual_seed(seed))


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
        x = model.decode(chunk.to(like))
        if not x.isfinite().all():
            raise UserError("the model decodes to NaN or infinity: its training diverged; take an earlier checkpoint")
        pictures.append(to_uint8(x, model.value_range).cpu())
    return torch.cat(pictures)


def encode(model: VAE, images: ImageSet, index: Tensor, batch_size: int) -> Latent:
    """The images at index (N,) -> their Latent with central codes z (1, N, D), on the CPU and without densities."""
    like = next(model.parameters())
    parts = []
    for chunk in index.split(batch_size):
        x = to_float(images.read(chunk.to(images.index_device)), model.value_range)
        parts.append(model.encode(x.to(like)))
    means, logvars = [p.mean for p in parts if p.mean is not None], [p.logvar for p in parts if p.logvar is not None]
    return Latent(
        torch.cat([p.z for p in parts], dim=1).float().cpu(),
        None,
        torch.cat(means).float().cpu() if means else None,
        torch.cat(logvars).float().cpu() if logvars else None,
    )


def usage(model: VAE, latent: Latent) -> Usage:
    """KL per dimension averaged over the images, in nats; without a closed form, the variance of the central codes."""
    if latent.mean is not None and latent.logvar is not None:
        device = next(model.parameters()).device
        kl = model.prior.kl_from_gaussian(latent.mean.to(device), latent.logvar.to(device))
        if kl is not None:
            return Usage(kl.mean(0).cpu(), "nats")
    return Usage(latent.z[0].var(0, correction=0), "var")
