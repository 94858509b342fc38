"""One runner on top of the pure metrics: a model, its data and a budget in, records out."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from vaes.data import ImageSet, Splits
from vaes.errors import UserError
from vaes.evaluate.features import TRAINED, Features
from vaes.evaluate.groups import GROUPS
from vaes.evaluate.job import Budget, Job
from vaes.evaluate.passes import fingerprint
from vaes.evaluate.record import Metric, NotApplicable, Skipped
from vaes.evaluate.report import Group, group
from vaes.fitting import Fitted
from vaes.model import VAE

__all__ = ["DEFAULT_GROUPS", "Budget", "check", "evaluate", "evaluate_groups"]

DEFAULT_GROUPS = tuple(name for name in GROUPS if name != "ais")
"""All but annealed importance sampling, which takes minutes for a handful of images."""
SPLITS = ("train", "valid", "test")


def evaluate(
    model: VAE,
    splits: Splits,
    *,
    only: Sequence[str] = DEFAULT_GROUPS,
    split: str = "test",
    budget: Budget | None = None,
    seed: int = 0,
    features: Features | str = "auto",
    cache: Path | None = None,
    outliers: ImageSet | None = None,
    progress: bool = False,
    fitted: Sequence[Fitted] = (),
    perceptual: str = "auto",
) -> list[Metric | Skipped]:
    """Every metric of the groups named, or the reason why it has no meaning here.

    Args:
        model: any encoder and decoder in a :class:`vaes.VAE`; where its parameters are is where it runs.
        splits: images to train on (for probes, features and memorisation), to validate on, to test on.
        only: groups: likelihood, ais, reconstruction, generation, predictive, disentanglement, latent,
            downstream.
        split: which of the three is evaluated.
        budget: images, samples and steps.
        seed: of every choice and draw.
        features: for sample quality: a name (see :func:`vaes.evaluate.features.find_features`) or one's own.
        cache: the folder that a network trained for features is kept in.
        outliers: images of another source, for outlier detection.
        progress: show bars on a terminal.
        fitted: priors that samples are drawn from too, for rows beside those of the model's own.
        perceptual: in which feature maps reconstructions are held against images, see
            :func:`vaes.evaluate.likeness.find_distance`.

    Raises:
        UserError: an unknown group or split, an empty one, images that the model does not take, a budget below 1.
    """
    found = evaluate_groups(
        model, splits, only=only, split=split, budget=budget, seed=seed, features=features, cache=cache,
        outliers=outliers, progress=progress, fitted=fitted, perceptual=perceptual,
    )  # fmt: skip
    every: list[Metric | Skipped] = []
    for one in found.values():
        every += [*one.metrics, *one.skipped]
    return every


def evaluate_groups(
    model: VAE,
    splits: Splits,
    *,
    only: Sequence[str] = DEFAULT_GROUPS,
    split: str = "test",
    budget: Budget | None = None,
    seed: int = 0,
    features: Features | str = "auto",
    cache: Path | None = None,
    outliers: ImageSet | None = None,
    progress: bool = False,
    fitted: Sequence[Fitted] = (),
    perceptual: str = "auto",
) -> dict[str, Group]:
    """What :func:`evaluate` returns, by group, with what it rests on and the numbers of single images."""
    budget = budget or Budget()
    check(only, split, budget, seed)
    job = Job(model, splits, split, budget, seed, progress, features, cache, outliers, only, fitted, perceptual)
    if len(job.index) == 0:
        raise UserError(f"the {split} split is empty; take another of {', '.join(SPLITS)}")
    if "generation" in only and features not in TRAINED:
        _ = job.features  # what is misspelt or not installed is told before minutes of other work
    if "generation" in only and perceptual not in TRAINED:
        _ = job.distance
    training = [module for module in model.modules() if module.training]
    model.eval()
    found: dict[str, Group] = {}
    try:
        with torch.inference_mode():
            _check_shape(job)
            images, chosen = fingerprint(job.images), fingerprint(job.images, job.index)
            with tqdm(only, disable=None if progress else True, leave=False) as bar:
                for name in bar:
                    bar.set_description(name)
                    metrics = _run(name, job)
                    found[name] = group(metrics, split, images, budget._asdict(), chosen, seed, job.columns)
    finally:
        for module in training:
            module.training = True
    return found


def _run(name: str, job: Job) -> list[Metric | Skipped]:
    job.columns = {}
    try:
        return GROUPS[name](job)
    except NotApplicable as reason:
        return [Skipped(name, str(reason))]


def check(only: Sequence[str], split: str, budget: Budget, seed: int) -> None:
    """Refuse what :func:`evaluate` cannot do before anything is loaded.

    Raises:
        UserError: an unknown group or split, or a number that is too small.
    """
    for what, names, allowed in (("group of metrics", only, tuple(GROUPS)), ("split", [split], SPLITS)):
        for name in names:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UserError(f"{name!r}: no such {what}; {hint}allowed: {', '.join(allowed)}")
    if not only:
        raise UserError(f"no group of metrics was named; allowed: {', '.join(GROUPS)}")
    for name, value in budget._asdict().items():
        if value < 1:
            raise UserError(f"{name}: {value}; it must be at least 1")
    if seed < 0:
        raise UserError(f"seed: {seed}; it must be 0 or more")


def _check_shape(job: Job) -> None:
    x = job.floats(job.images, job.index[:1])
    try:
        y = job.model.reconstruct(x)
    except RuntimeError as error:
        raise UserError(f"the model does not take images of {tuple(x.shape[1:])}: {error}".splitlines()[0]) from None
    if y.shape != x.shape:
        raise UserError(f"the model makes images of {tuple(y.shape[1:])}, and these are {tuple(x.shape[1:])}")
