"""From a model and its training images to a prior that is stored: what a command does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaes.code_statistics import Statistics, measure
from vaes.data import ImageSet
from vaes.errors import UserError
from vaes.fitting.codes import draw_codes, refuse_support
from vaes.fitting.indices import draw_indices, fit_indices, words_of
from vaes.fitting.kinds import Fitted, build, check_options, fit
from vaes.fitting.matching import fit_matching
from vaes.fitting.store import ready, write
from vaes.model import VAE, evaluation
from vaes.nn.weightless import weightless

__all__ = ["check", "fit_to"]


def check(model: VAE, kind: str, options: Mapping[str, Any], folder: Path | None = None) -> None:
    """Refuse, before any image is read, what cannot be fitted, or stored in a folder.

    Raises:
        UserError: saying what is not right, and what works.
    """
    chosen = check_options(kind, options)
    words = None
    if kind == "autoregressive":
        _, words = words_of(model)
    else:
        refuse_support(model)
    with weightless():
        build(kind, model.z_shape, chosen, words)
    if folder is not None:
        ready(folder, kind)


def fit_to(
    model: VAE,
    images: ImageSet,
    kind: str,
    options: Mapping[str, Any],
    *,
    folder: Path | None = None,
    seed: int = 0,
    most: int = 100_000,
    weights: str = "",
    step: int = 0,
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit a prior to the codes of images, and put it into a folder. Arguments as in :func:`vaes.fitting.fit`;
    ``statistics`` are what flow matching normalises codes by, those of these images where they are not given.

    Raises:
        UserError: too few images, codes that cannot be fitted so, or a folder that cannot be written.
    """
    if seed < 0:
        raise UserError(f"seed: {seed}; it must be 0 or more")
    like = next(model.parameters())
    about: dict[str, Any] = {
        "options": options, "seed": seed, "weights": weights, "step": step, "device": like.device, "progress": progress,
        "folder": folder,
    }  # fmt: skip
    if kind == "autoregressive":
        _, words = words_of(model)
        indices = draw_indices(model, images, seed=seed, most=most, progress=progress)
        return _kept(fit_indices(indices, model.z_shape, words, **about), folder)
    codes = draw_codes(model, images, seed=seed, most=most, progress=progress)

    def own(z: Tensor) -> Tensor:
        with evaluation(model):
            return torch.cat([model.log_prior(part.to(like)).cpu() for part in z.split(256)])

    if kind == "flow_matching":
        if statistics is None:
            statistics = measure(model, images, weights=weights, step=step, progress=progress)
        return _kept(fit_matching(codes, model.z_shape, statistics, own=own, **about), folder)
    return _kept(fit(kind, codes, model.z_shape, own=own, **about), folder)


def _kept(found: Fitted, folder: Path | None) -> Fitted:
    if folder is not None:
        write(folder, found)
    return found
