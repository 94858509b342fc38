"""Sets of images through a model in batches: codes, reconstructions, samples, on the CPU."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vaes.data import ImageSet, to_float, to_uint8
from vaes.evaluate.record import NotApplicable
from vaes.model import VAE
from vaes.randomness import drawn

__all__ = ["Codes", "batches", "choose", "decode_samples", "encode", "fingerprint", "pixels", "reconstruct"]


class Codes(NamedTuple):
    """What an encoder says of N images."""

    mean: Tensor  # (N, D) the centre of q(z|x)
    logvar: Tensor | None  # (N, D) where q is Gaussian


def choose(images: ImageSet, n: int, seed: int) -> Tensor:
    """The indices of n images at random (all of them, in order, if there are no more), ascending."""
    if n >= len(images):
        return torch.arange(len(images))
    return torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n].sort().values


def batches(index: Tensor, size: int, what: str, progress: bool) -> Iterator[Tensor]:
    """The index in parts, with a bar on a terminal."""
    with tqdm(total=len(index), desc=what, unit="image", disable=None if progress else True, leave=False) as bar:
        for part in index.split(size):
            yield part
            bar.update(len(part))


def pixels(images: ImageSet, index: Tensor) -> Tensor:
    """The images at an index (N,) as (N, C, H, W) uint8 on the CPU."""
    return torch.cat([images.read(part.to(images.index_device)).cpu() for part in index.split(4096)])


def encode(model: VAE, images: ImageSet, index: Tensor, batch_size: int, progress: bool = False) -> Codes:
    """The codes of the images at an index (N,)."""
    like = next(model.parameters())
    means, logvars = [], []
    for part in batches(index, batch_size, "encoding", progress):
        latent = model.encode(to_float(images.read(part.to(images.index_device)), model.value_range).to(like))
        means.append((latent.z[0] if latent.mean is None else latent.mean).cpu())
        if latent.logvar is not None:
            logvars.append(latent.logvar.cpu())
    return Codes(torch.cat(means), torch.cat(logvars) if logvars else None)


def reconstruct(model: VAE, x: Tensor, batch_size: int, progress: bool = False) -> Tensor:
    """Images (N, C, H, W) in the model's value range -> mean images of their central codes."""
    like = next(model.parameters())
    index = torch.arange(len(x))
    return torch.cat(
        [model.reconstruct(x[part].to(like)).cpu() for part in batches(index, batch_size, "reconstructing", progress)]
    )


def decode_samples(model: VAE, n: int, batch_size: int, seed: int, progress: bool = False) -> Tensor:
    """Mean images of n codes from the prior, (n, C, H, W) uint8.

    Raises:
        NotApplicable: the model decodes to something that is no number.
    """
    like = next(model.parameters())
    noise = drawn(model.prior.noise, (n,), torch.Generator().manual_seed(seed))
    found = []
    for part in batches(torch.arange(n), batch_size, "sampling", progress):
        x = model.sample(noise[part].to(like))
        if not x.isfinite().all():
            raise NotApplicable("the model decodes to NaN or infinity")
        found.append(to_uint8(x, model.value_range).cpu())
    return torch.cat(found)


def fingerprint(images: ImageSet, index: Tensor | None = None) -> str:
    """A short name for images: a hash of those at an index (N,), each of them; without one, of the set's size and of at
    most 1,000 of its images, evenly spaced."""
    if index is None:
        rows, about = torch.linspace(0, len(images) - 1, min(1_000, len(images))).long(), str(len(images))
    else:
        rows, about = index, f"{len(index)} chosen"
    digest = hashlib.sha256(f"{about} {tuple(images.shape)} ".encode())
    for part in rows.split(4096):
        digest.update(pixels(images, part).numpy().tobytes())
    return digest.hexdigest()[:16]
