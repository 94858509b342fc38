"""What training would refuse before its first step, found for all members before any of them trains."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vaes import config as configuration
from vaes.config import DATA_OF_PYTHON
from vaes.data import Splits
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.sweep.grid import Member
from vaes.terminal import escape
from vaes.train.loop import Training
from vaes.train.state import TrainState
from vaes.train.validate import validate

__all__ = ["built", "check", "images_of", "read_images", "validation_names"]

CPU: Any = SimpleNamespace(device=torch.device("cpu"), rank=0, world=1, precision="fp32")
"""What a training asks of its runtime before it runs."""


def images_of(experiment: Experiment) -> str:
    """A name for the images that an experiment reads: members with the same share them."""
    data = {key: value for key, value in experiment.to_dict()["data"].items() if key not in ("flip", "changed")}
    return json.dumps(data, sort_keys=True)


def read_images(experiments: Iterable[Experiment], given: Splits | None = None) -> dict[str, Splits]:
    """Every set of images that the experiments name, read once; ``given`` are images from Python.

    Raises:
        UserError: they are not there, or cannot be read.
    """
    sets: dict[str, Splits] = {}
    for experiment in experiments:
        if (name := images_of(experiment)) in sets:
            continue
        if experiment.data["kind"] == DATA_OF_PYTHON and experiment.data["root"] is None and given is not None:
            sets[name] = configuration.drawn(experiment, given)
        else:
            sets[name] = experiment.build_data()
    return sets


def check(members: Sequence[Member], sets: dict[str, Splits]) -> None:
    """Build every member against its images, those that differ in their seed alone once.

    Raises:
        UserError: naming the member, the key, and what is wrong.
    """
    places = [url for member in members if (url := member.experiment.train["mirror"]) is not None]
    if len(places) > len(set(places)):
        raise UserError(f"train.mirror: {escape(places[0])} is the place of one run, and not of several; leave it out")
    seen: set[Experiment] = set()
    for member in members:
        one = member.experiment.replace({"seed": 0})
        if one in seen:
            continue
        seen.add(one)
        try:
            built(one, sets[images_of(one)])
        except UserError as error:
            raise UserError(f"{member.name}: {error}" if len(members) > 1 else str(error)) from None


def validation_names(experiment: Experiment, splits: Splits) -> list[str]:
    """The numbers that a validation of this experiment gives."""
    training = built(experiment, splits)
    few = splits.valid.subset(torch.arange(min(4, len(splits.valid))))
    return sorted(validate(training.state.objective, few, training.context(experiment.train["n_steps"] - 1), seed=0))


def built(experiment: Experiment, splits: Splits, runtime: Any = CPU) -> Training:
    """The training of an experiment, in no folder."""
    settings, shape = experiment.settings(), splits.train.shape
    objective, weighting = configuration.build_objective(experiment, experiment.build_model(shape), shape)
    state = TrainState(objective.to(runtime.device), settings)
    flip = experiment.data["flip"]
    return Training(state, weighting, splits, Path(), experiment.seed, runtime, flip=flip, config="")
