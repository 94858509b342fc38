"""Members that share their shapes, trained by one stacked step: which of them, whether it pays, and the work itself."""

import itertools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vaes.data import Splits
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.sweep.check import built, images_of
from vaes.sweep.folder import started
from vaes.sweep.grid import Member
from vaes.sweep.member import Ended, Task, ended_by, import_once
from vaes.terminal import brief, escape
from vaes.train.lockstep import Lockstep, run_together
from vaes.train.loop import Training
from vaes.train.runtime import Runtime, choose_device
from vaes.train.step import advance
from vaes.train.together import obstacle

if TYPE_CHECKING:
    from vaes.train.listeners import Listener

__all__ = ["WAYS", "arranged", "perform_together", "refuse_way"]

WAYS = ("auto", "on", "off")

MOST = 32
"""Members of one stack."""

OWN = (
    "seed", "train.lr", "train.print_freq", "train.eval_freq", "train.patience", "train.sample_freq", "train.save_freq",
    "train.keep", "train.trackers", "train.mirror", "train.pulls_freq", "train.monitor", "train.monitor_features",
)  # fmt: skip
"""What each member of a stack has for itself, beside the coefficients of its method."""

ROUNDS, STEPS, LONGEST = 4, 3, 20.0
"""Of the measurement: rounds, of which the first does not count, steps in each, seconds after which no other begins."""


class _Kind(NamedTuple):
    """What the members of a stack have in common."""

    shared: dict[str, Any]
    """Dotted keys."""
    parts: tuple[Any, ...]
    """Names of weights and of scheduled options: a coefficient of 0 may leave a term out."""


def refuse_way(way: str, engine: str) -> None:
    """Refuse a way that does not exist, and one that an engine does not know.

    Raises:
        UserError: naming the option.
    """
    if way not in WAYS:
        raise UserError(f"--together {brief(way)}: must be one of {', '.join(WAYS)}")
    if way == "on" and engine != "local":
        raise UserError(f"--together on goes with --engine local, not {engine}, which trains each member by itself")


def arranged(
    way: str, todo: Sequence[Member], sets: Mapping[str, Splits], jobs: int, threads: int, device: str, *, new: bool
) -> tuple[list[list[Member]], list[str]]:
    """The members as they are trained, those of a list by one step, and what has to be said of it.

    Args:
        way: one of ``WAYS``.
        todo: the members that are still to be trained.
        sets: their images.
        jobs: processes at a time.
        threads: of each.
        device: of each.
        new: nothing was trained before; else ``on`` has those trained alone that are left over.

    Raises:
        UserError: ``on`` is asked for, and a member cannot be stacked: naming the key that differs, or the obstacle.
    """
    if way == "off" or not todo:
        return [[one] for one in todo], []
    kinds = {one.name: _kind(one.experiment, sets[images_of(one.experiment)]) for one in todo}
    found: dict[str, list[Member]] = {}
    for one in todo:
        found.setdefault(json.dumps(kinds[one.name], sort_keys=True), []).append(one)
    stacks: list[list[Member]] = []
    said: list[str] = []
    for own in found.values():
        splits = sets[images_of(own[0].experiment)]
        why = _alone(own, todo, kinds) if len(own) == 1 else _obstacle(own[0], splits)
        if why is not None and way == "on" and (new or len(own) > 1):
            raise UserError(f"--together on: {why}; --together auto trains alone what cannot be stacked")
        if why is not None:
            said.append(f"together: {why}: trained alone")
            stacks += [[one] for one in own]
            continue
        parts = _divided(own, jobs)
        if way == "auto":
            pays, text = _pays(own, parts, splits, jobs, threads, device)
            said.append(text)
            parts = parts if pays else [[one] for one in own]
        else:
            said.append(f"together: {_called(own)}, {' + '.join(str(len(part)) for part in parts)} to a step")
        stacks += parts
    return sorted(stacks, key=len, reverse=True), said


def perform_together(
    tasks: Sequence[Task], read: Splits, callbacks: Mapping[str, Sequence["Listener"]]
) -> Iterator[Ended]:
    """Train members by one stacked step, or go on with them; how each ended, as it does."""
    trainings: list[Training] = []
    names: list[Task] = []
    listeners: list[list[Listener]] = []
    with ExitStack() as opened:
        # Their inner contexts are left one by one: what those put back then is what holds for all.
        opened.enter_context(Runtime(tasks[0].device, Experiment.of(tasks[0].keys).settings().precision))
        device = choose_device(tasks[0].device)
        read = replace(read, train=read.train.to(device))  # once, for all
        for task in tasks:
            try:
                import_once(task.imports)
                begun = Experiment.of(task.keys).begun_in(
                    task.folder,
                    resume="latest" if started(task.folder) else None,
                    device=task.device,
                    callbacks=callbacks.get(task.name, ()),
                    read=read,
                    notes=[f"trained together with {len(tasks) - 1} others by one stacked step"],
                )
                training, own = opened.enter_context(begun)
            except Exception as error:  # its own, as in a process of its own
                yield ended_by(task, error)
                continue
            trainings.append(training)
            names.append(task)
            listeners.append(own)
        for left in run_together(trainings, listeners):
            yield (
                Ended(names[left.number].name, "done")
                if left.error is None
                else ended_by(names[left.number], left.error)
            )


def _kind(experiment: Experiment, splits: Splits) -> _Kind:
    training = built(experiment, splits)
    weighting, objective = training.weighting, training.state.objective
    scheduled = sorted((part, name) for part, own in weighting.options.items() for name in own)
    own = {*OWN, *(f"objective.{name}" for name in weighting.names)}
    own |= {f"{_section(part, experiment)}.{name}" for part, name in scheduled}
    flat = {key: value for key, value in _flat(experiment.to_dict()) if not _below(key, own)}
    return _Kind(flat, (sorted(objective.weights), scheduled))


def _section(part: str, experiment: Experiment) -> str:
    if part in ("posterior", "bound"):
        return {"posterior": "model.posterior", "bound": "objective"}[part]
    return f"objective.terms.{part}" if part in experiment.objective["terms"] else f"objective.{part}"


def _below(key: str, sections: set[str]) -> bool:
    words = key.split(".")
    return any(".".join(words[:n]) in sections for n in range(1, len(words) + 1))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _alone(own: Sequence[Member], todo: Sequence[Member], kinds: Mapping[str, _Kind]) -> str:
    """Why a member shares its step with no other: the key in which the nearest differs."""
    one = own[0]
    others = [other for other in todo if other.name != one.name]
    if not others:
        return f"{escape(one.name)} is the only member"
    differing = {other.name: _difference(kinds[one.name], kinds[other.name]) for other in others}
    name = min(differing, key=lambda name: len(differing[name]))
    keys = differing[name]
    if not keys:  # the same keys, other parts
        weights = set(kinds[one.name].parts[0]) ^ set(kinds[name].parts[0])
        what = f"the term {min(weights)} is there in one of them alone" if weights else "other options follow schedules"
        return f"{escape(one.name)} and {escape(name)} cannot share a step: {what}"
    ours, theirs = (kinds[n].shared.get(keys[0], "nothing") for n in (one.name, name))
    return (
        f"{escape(one.name)} and {escape(name)} cannot share a step: {keys[0]} is {escape(ours)} and {escape(theirs)}"
    )


def _difference(a: _Kind, b: _Kind) -> list[str]:
    keys = sorted(a.shared.keys() | b.shared.keys())
    return [key for key in keys if a.shared.get(key, "nothing") != b.shared.get(key, "nothing")]


def _obstacle(one: Member, splits: Splits) -> str | None:
    training = built(one.experiment, splits)
    if training.settings.play == "alternate":
        return f"{escape(one.name)}: train.play alternate: members of a stack play together, not by turns"
    why = obstacle(training.state.objective, splits.train.shape)
    return None if why is None else f"{escape(one.name)}: {why}"


def _divided(own: Sequence[Member], jobs: int) -> list[list[Member]]:
    """Stacks of two members or more, as many as there are jobs where that can be, of nearly the same size."""
    n = max(1, min(jobs, len(own) // 2), math.ceil(len(own) / MOST))
    ends = [round(i * len(own) / n) for i in range(n + 1)]
    return [list(own[a:b]) for a, b in itertools.pairwise(ends)]


def _pays(
    own: Sequence[Member], parts: Sequence[Sequence[Member]], splits: Splits, jobs: int, threads: int, device: str
) -> tuple[bool, str]:
    """Whether stacks are faster than processes of one member each, by a few steps of both, and what was measured."""
    one, stack = _seconds(parts[0], splits, threads, device)
    alone, together = math.ceil(len(own) / jobs) * one, math.ceil(len(parts) / jobs) * stack
    pays = together < alone
    sizes = " + ".join(str(len(part)) for part in parts)
    return pays, (
        f"together auto: {_called(own)}: a step of all takes {1000 * alone:.3g} ms by {min(jobs, len(own))} at a time, "
        f"each alone, and {1000 * together:.3g} ms stacked ({sizes}), measured on {STEPS} steps: "
        + (f"stacked, {alone / together:.2f} times as fast" if pays else f"alone, {together / alone:.2f} times as fast")
    )


def _called(own: Sequence[Member]) -> str:
    return f"{len(own)} members that share their shapes ({escape(own[0].name)}, ...)"


def _seconds(members: Sequence[Member], splits: Splits, threads: int, device: str) -> tuple[float, float]:
    """Of a step of the first alone, and of all of them stacked: the fastest of some rounds."""
    runtime = Runtime(device, members[0].experiment.settings().precision)
    with _threads(threads), runtime, ExitStack() as opened:
        splits = replace(splits, train=splits.train.to(runtime.device))
        trainings = [built(one.experiment, splits, runtime) for one in (members[0], *members)]
        for one in trainings:
            opened.enter_context(one.source)
        alone, *stacked = trainings
        group = Lockstep([one.state for one in stacked])
        times: dict[str, list[float]] = {"alone": [], "stacked": []}
        began = time.perf_counter()
        for _ in range(ROUNDS):
            for name in times:
                since = time.perf_counter()
                for _ in range(STEPS):
                    if name == "alone":
                        advance(alone.state, alone.state.objective, *alone.asked(alone.state.step), runtime)
                    else:
                        group.advance([one.asked(one.state.step) for one in stacked], runtime)
                # Reading a number waits for the device.
                (alone if name == "alone" else stacked[0]).state.sums["loss"].item()
                times[name].append((time.perf_counter() - since) / STEPS)
            if time.perf_counter() - began > LONGEST and len(times["alone"]) > 1:
                break
        return min(times["alone"][1:]), min(times["stacked"][1:])


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
