"""The codes that a prior is fitted to."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vaes.data import ImageSet, to_float
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.posteriors import REAL, WORDS
from vaes.randomness import Use, draw, permutation

__all__ = ["Codes", "chosen_images", "divided", "draw_codes", "refuse_support"]

ENOUGH = 50_000
"""Codes that are made of few images by several draws of each."""
MOST_DRAWS = 16
LEAST_IMAGES = 10
BLOCK = 256


class Codes(NamedTuple):
    """Draws of q(z|x): N images, K draws of each, D numbers of a code; float32 on the CPU."""

    fit: Tensor  # (N, K, D) that a prior is fitted to
    stop: Tensor  # (S, K, D) of other images: by which fitting by gradients ends
    held: Tensor  # (H, D) of yet others, a draw of each: what the outcome is measured on


def refuse_support(model: VAE) -> None:
    """Refuse codes that are not all of R^D.

    Raises:
        UserError: saying what they are, and what works.
    """
    if model.prior.support == WORDS:
        raise UserError(
            f"codes are {WORDS}, and priors of other kinds are over {REAL}: use --kind autoregressive, a prior over "
            "their indices"
        )
    if model.prior.support != REAL:
        raise UserError(
            f"codes are {model.prior.support}, and priors that are fitted afterwards are over {REAL}: such codes are "
            f"drawn from the model's own prior ({type(model.prior).__name__}); a model with model.posterior gaussian "
            "or point can be fitted"
        )


def chosen_images(images: ImageSet, seed: int, most: int) -> Tensor:
    """The places of at most so many images, in a random order.

    Raises:
        UserError: there are fewer than 10.
    """
    index = permutation(len(images), seed, Use.FITTING)[:most]
    if len(index) < LEAST_IMAGES:
        raise UserError(f"{len(index)} images to fit a prior to; at least {LEAST_IMAGES} are needed")
    return index


def divided(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows in a random order -> those to fit to, a tenth to stop by, and a tenth to measure on."""
    tenth = len(rows) // 10
    return rows[2 * tenth :], rows[tenth : 2 * tenth], rows[:tenth]


def draw_codes(model: VAE, images: ImageSet, *, seed: int = 0, most: int = 100_000, progress: bool = False) -> Codes:
    """Draws of q(z|x) of at most so many images at random, the code itself where q is a point.

    A tenth of the images is held out to stop by, and another to measure on. Of fewer than 50,000 images more than one
    draw is made, 16 at most. Noise is a function of (seed, the image's place among those chosen).

    Raises:
        UserError: codes that cannot be fitted, fewer than 10 images, or codes that are not finite.
    """
    refuse_support(model)
    index = chosen_images(images, seed, most)
    noisy, like = "log_q" in model.posterior.gives, next(model.parameters())
    draws = min(MOST_DRAWS, math.ceil(ENOUGH / len(index))) if noisy else 1
    parts = []
    with evaluation(model), tqdm(total=len(index), desc="encoding", unit="image", disable=not progress or None) as bar:
        for block, part in enumerate(index.split(BLOCK), 1):
            h = model.features(to_float(images.read(part.to(images.index_device)), model.value_range).to(like))
            if noisy:
                noise = draw(model.noise, (draws, len(part)), seed, Use.FITTING, block).to(like)
                z = model.posterior(h, noise, {}).z
            else:
                z = model.posterior.centre(h, model.z_shape).z
            parts.append(z.flatten(2).transpose(0, 1).float().cpu())
            bar.update(len(part))
    codes = torch.cat(parts).clone()  # outside of inference mode: a flow learns from them
    if bad := int((~codes.isfinite()).flatten(1).any(1).sum()):
        raise UserError(
            f"the codes of {bad:,} of {len(codes):,} images are not finite: the training diverged; take an earlier "
            "checkpoint"
        )
    fit, stop, held = divided(codes)
    return Codes(fit, stop, held[:, 0])
