"""Sets of images through a model in batches: codes, reconstructions, samples, on the CPU."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vaes.data import ImageSet, to_float, to_uint8
from vaes.evaluate.record import NotApplicable
from vaes.functional import to_float32
from vaes.model import VAE, Trace
from vaes.posteriors import Latent
from vaes.priors import Prior
from vaes.randomness import drawn

__all__ = [
    "Codes",
    "Samples",
    "batches",
    "central",
    "choose",
    "decode",
    "draw_samples",
    "encode",
    "fingerprint",
    "join",
    "pixels",
]


class Codes(NamedTuple):
    """What an encoder says of N images."""

    mean: Tensor  # (N, D) the centre of q(z|x)
    logvar: Tensor | None  # (N, D) where q is Gaussian


class Samples(NamedTuple):
    """Images of N codes from the prior, as bytes: rounded, and cut off at black and white."""

    means: Tensor  # (N, C, H, W) uint8, E[x|z]
    draws: Tensor | None  # (N, C, H, W) uint8 from p(x|z) of the same codes; None where not asked for, or not known


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


def central(found: Latent | Trace) -> Codes:
    """The codes of a batch, flattened, on the CPU."""
    mean = found.z[0] if found.mean is None else found.mean
    return Codes(mean.flatten(1).cpu(), None if found.logvar is None else found.logvar.flatten(1).cpu())


def join(parts: Sequence[Codes]) -> Codes:
    """The codes of all parts."""
    logvars = [part.logvar for part in parts if part.logvar is not None]
    return Codes(torch.cat([part.mean for part in parts]), torch.cat(logvars) if logvars else None)


def encode(model: VAE, images: ImageSet, index: Tensor, batch_size: int, progress: bool = False) -> Codes:
    """The codes of the images at an index (N,)."""
    like = next(model.parameters())
    return join(
        [
            central(model.encode(to_float(images.read(part.to(images.index_device)), model.value_range).to(like)))
            for part in batches(index, batch_size, "encoding", progress)
        ]
    )


def decode(model: VAE, codes: Tensor, batch_size: int, progress: bool = False) -> Tensor:
    """Codes (N, D), flattened, -> their mean images (N, C, H, W) in the model's value range."""
    like = next(model.parameters())
    parts = batches(torch.arange(len(codes)), batch_size, "reconstructing", progress)
    return torch.cat([model.decode(model.shaped(codes[part].to(like))).cpu() for part in parts])


def draw_samples(
    model: VAE, n: int, batch_size: int, seed: int, progress: bool = False, *, draws: bool = False,
    prior: Prior | None = None,
) -> Samples:  # fmt: skip
    """Images of n codes from the prior, or another one, which do not depend on the batch size.

    Raises:
        NotApplicable: the model decodes to something that is no number.
    """
    like = next(model.parameters())
    law = model.prior if prior is None else prior.to(like.device)
    noise = drawn(law.noise, (n,), torch.Generator().manual_seed(seed))
    of_pixels = np.random.default_rng((seed, 0, 2))
    means, pictures = [], []
    for part in batches(torch.arange(n), batch_size, "sampling", progress):
        y = to_float32(model.decoder(law.sample(noise[part].to(like), model.encode)))
        mean = model.likelihood.mean(y)
        if not mean.isfinite().all():
            raise NotApplicable("the model decodes to NaN or infinity")
        means.append(to_uint8(mean, model.value_range).cpu())
        if draws:
            shape = (len(y), *model.likelihood.noise_shape((mean.shape[1], mean.shape[2], mean.shape[3])))
            try:
                one = model.likelihood.draw(y, torch.from_numpy(of_pixels.random(shape, np.float32)).to(mean))
            except NotImplementedError:  # a likelihood of the user's own: its means alone are looked at
                continue
            pictures.append(to_uint8(one, model.value_range).cpu())
    return Samples(torch.cat(means), torch.cat(pictures) if pictures else None)


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
