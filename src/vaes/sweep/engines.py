"""The engines by their names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from vaes.data import Splits
from vaes.errors import UserError
from vaes.sweep.member import Task, Watcher
from vaes.terminal import brief
from vaes.train.runtime import choose_device

__all__ = ["ENGINES", "Engine", "Options", "engine_for", "refuse_options"]

ENGINES = ("local", "slurm", "ray")


class Options(NamedTuple):
    """What the engines of clusters are told."""

    address: str | None = None
    """Of a Ray cluster; a local one is started where there is none."""
    gpus: float | None = None
    """Of each member, for Ray a fraction too; by default one where the device is an accelerator."""
    slurm: Mapping[str, Any] = {}
    """Parameters of submitit: partition, timeout_min, mem_gb, ..."""


class Engine(Protocol):
    """Where members are trained."""

    about: str
    """In words."""

    def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
        """Train them all; tasks are asked for as there is room."""


def refuse_options(name: str, jobs: int | None, options: Options, given: bool) -> None:
    """Refuse an engine that does not exist, and options that are not its own; ``given``: images come from Python,
    which other machines cannot read.

    Raises:
        UserError: naming the option.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {brief(name)}: must be one of {', '.join(ENGINES)}")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise UserError(f"jobs: {brief(jobs)} is not right; it must be a whole number from 1 on")
    for option, engines in (("address", ("ray",)), ("gpus", ("ray", "slurm")), ("slurm", ("slurm",))):
        if getattr(options, option) not in (None, {}) and name not in engines:
            raise UserError(f"--{option} goes with --engine {' or '.join(engines)}, not {name}")
    if name != "local" and given:
        raise UserError(f"--engine {name}: images given in Python are trained on by --engine local alone")


def engine_for(
    name: str, jobs: int | None, sets: Mapping[str, Splits], device: str, folder: Path, options: Options
) -> Engine:
    """The engine of a name, for a sweep's folder.

    Raises:
        UserError: it is not installed, cannot be reached, or does not know a parameter.
    """
    on_cpu = choose_device(device).type == "cpu"
    budget = torch.get_num_threads()
    if name == "local":
        from vaes.sweep.local import Local

        n = jobs or (budget if on_cpu else 1)
        return Local(n, max(1, budget // n), sets)
    gpus = options.gpus if options.gpus is not None else 0 if on_cpu else 1
    if name == "slurm":
        from vaes.sweep.on_slurm import Slurm

        return Slurm(folder, jobs, gpus, options.slurm)
    from vaes.sweep.on_ray import Ray

    return Ray(jobs, budget, gpus, options.address)
