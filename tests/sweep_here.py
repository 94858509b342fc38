"""A small experiment, and an engine that trains in the test's own process."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from vaes import Experiment
from vaes.sweep import Ended, Watcher, plan
from vaes.sweep.member import Task, perform
from vaes.train.listeners import Listener
from vaes.train.loop import Training

RAW: dict[str, Any] = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"network": {"kind": "mlp", "hidden": [4]}, "likelihood": "bernoulli"},
    "train": {"n_steps": 6, "batch_size": 16, "eval_freq": 2, "print_freq": 3, "save_freq": 2, "sample_freq": 0},
}


def experiment(**changes: Any) -> Experiment:
    return Experiment.of(RAW).replace({key.replace("__", "."): value for key, value in changes.items()})


class Told(Listener):
    def __init__(self, name: str, watcher: Watcher) -> None:
        self.name, self.watcher = name, watcher

    def metrics(self, training: Training, step: int, split: str, values: Mapping[str, float]) -> None:
        if split == "valid" and (why := self.watcher.validated(self.name, step, values)):
            training.stop(why)


class Here:
    """Members one after another, in this process."""

    about = "here"

    def __init__(self, *arguments: object) -> None:
        self.trained: list[str] = []

    def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
        for task in tasks:
            self.trained.append(task.name)
            watcher.began(task.name)
            watcher.ended(perform(task, callbacks=[Told(task.name, watcher)]))


class Lines(Watcher):
    """What was said, and how members ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.ends: dict[str, Ended] = {}

    def said(self, text: str) -> None:
        self.lines.append(text)

    def ended(self, ended: Ended) -> None:
        self.ends[ended.name] = ended


def engine(monkeypatch: pytest.MonkeyPatch, *modules: Any) -> Here:
    made = Here()
    for module in modules or (plan,):
        monkeypatch.setattr(module, "engine_for", lambda *arguments: made)
    return made
