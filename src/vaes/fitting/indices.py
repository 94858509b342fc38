"""Fitting a prior to the indices of quantized codes."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vaes.data import ImageSet, to_float
from vaes.errors import UserError
from vaes.fitting.codes import BLOCK, chosen_images, divided
from vaes.fitting.descent import Partial, descend
from vaes.fitting.kinds import Fitted, Numbers, check_options
from vaes.model import VAE, evaluation
from vaes.posteriors import Quantizer
from vaes.priors import Autoregressive

__all__ = ["Indices", "draw_indices", "fit_indices"]

BATCH, WARM_UP, CLIP = 64, 100, 1.0


class Indices(NamedTuple):
    """The indices (n, P, Q) of images, int64 on the CPU: to be fitted to, to stop by, and to measure the outcome on."""

    fit: Tensor
    stop: Tensor
    held: Tensor


def draw_indices(
    model: VAE, images: ImageSet, *, seed: int = 0, most: int = 100_000, progress: bool = False
) -> Indices:
    """The indices of at most so many images at random, of which a tenth is held out to stop by, and another to measure
    on.

    Raises:
        UserError: fewer than 10 images, or codes that are not finite.
    """
    index, like = chosen_images(images, seed, most), next(model.parameters())
    parts = []
    with evaluation(model), tqdm(total=len(index), desc="encoding", unit="image", disable=not progress or None) as bar:
        for part in index.split(BLOCK):
            x = to_float(images.read(part.to(images.index_device)), model.value_range).to(like)
            latent = model.encode(x)
            if not latent.z.isfinite().all():
                raise UserError("codes are not finite: the training diverged; take an earlier checkpoint")
            parts.append(latent.aux["indices"].cpu())
            bar.update(len(part))
    return Indices(*divided(torch.cat(parts).clone()))


def fit_indices(
    indices: Indices,
    z_shape: tuple[int, ...],
    words: Tensor,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    weights: str = "",
    step: int = 0,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit :class:`vaes.priors.Autoregressive` by maximum likelihood, with Adam; what was best on the indices to stop by
    is kept, the uniform law among it. Its numbers stand beside each index by its own frequencies (of each place, one
    added to each count), and the uniform law.

    Args:
        indices: see :func:`draw_indices`.
        z_shape: of a code.
        words: (Q, K, C) of the codebook.
        options: of :data:`vaes.fitting.KINDS`.
        seed: of first weights and batches.
        weights: SHA-256 of the weights file that the indices come from.
        step: of the weights.
        device: where it learns.
        folder: where what it has is left now and then, so that a fit that was killed goes on.
        progress: show a bar on a terminal.
    """
    chosen = check_options("autoregressive", options or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = Autoregressive(z_shape, indices.fit.shape[1], words.cpu().float(), width=chosen["width"]).to(device)
    numbers = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        batch = torch.randint(len(indices.fit), (min(BATCH, len(indices.fit)),), generator=numbers)
        return -prior.log_mass(indices.fit[batch].to(device)).mean()

    def score() -> float:
        return -float(_log_mass(prior, indices.stop).mean())

    partial = Partial.of(folder, "autoregressive", indices.fit, chosen, seed)
    descend(
        prior, loss, score, chosen["steps"], numbers, clip=CLIP, warm_up=WARM_UP, partial=partial, progress=progress
    )
    prior.requires_grad_(False).eval()
    n, k = len(indices.fit), prior.classes
    nats, apart = _log_mass(prior, indices.held), _apart(indices, k)
    gain = nats - apart
    stderr = float(gain.std(correction=0)) / math.sqrt(len(gain))
    found = Numbers(n, n, len(gain), float(nats.mean()), float(apart.mean()), -prior.length * math.log(k), stderr)
    return Fitted("autoregressive", prior, chosen, found, seed, weights, step, time.time_ns())


@torch.no_grad()
def _log_mass(prior: Autoregressive, indices: Tensor) -> Tensor:
    device = prior.words.device
    return torch.cat([prior.log_mass(part.to(device)).double().cpu() for part in indices.split(BLOCK)])


def _apart(indices: Indices, classes: int) -> Tensor:
    """log-mass (H,) of the held-out indices, each place by its own frequencies."""
    seen, held = indices.fit.flatten(1), indices.held.flatten(1)
    found = torch.zeros(len(held), dtype=torch.float64)
    for place, these in zip(seen.T, held.T, strict=True):
        counts = torch.bincount(place, minlength=classes).double() + 1
        found += (counts / counts.sum()).log()[these]
    return found


def words_of(model: VAE) -> tuple[int, Tensor]:
    """Positions of a model's codes, and the words (Q, K, C) that they are made of.

    Raises:
        UserError: they are not quantized.
    """
    if not isinstance(model.posterior, Quantizer):
        raise UserError(
            f"kind: autoregressive is fitted to indices of a codebook, and the posterior "
            f"{type(model.posterior).__name__} has none; use --kind gmm, or train with vq_vae or another quantizer"
        )
    with torch.no_grad():
        return model.posterior.positions, model.posterior.words.detach()
