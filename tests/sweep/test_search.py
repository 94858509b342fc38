"""Searches: what may be chosen, going on, pruning, and what is refused."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from sweep_here import RAW, Here, Lines, engine, experiment

from vaes.cli import main
from vaes.errors import UserError
from vaes.sweep import Found, Range, Watcher, search
from vaes.sweep.member import Task
from vaes.sweep.searching import parse_ranges

SEARCHING = sys.modules["vaes.sweep.searching"]
RANGES = {"train.lr": "1e-4..1e-1:log", "model.z_dim": "2..4", "model.network.hidden": "[4],[3,3]"}


def searched(folder: Path, trials: int, ranges: Mapping[str, Any] = RANGES, **options: Any) -> Found:
    return search(experiment(train__n_steps=4), ranges, folder=folder, trials=trials, **options)


def test_ranges_are_whole_or_not_logarithmic_or_values() -> None:
    found = parse_ranges({**RANGES, "train.coef_kl": ".5..2", "method": ["vae", "ae"], "seed": Range(1, 3)})
    assert found == {
        "train.lr": Range(1e-4, 0.1, log=True),
        "model.z_dim": Range(2, 4),
        "model.network.hidden": Range(choices=([4], [3, 3])),
        "objective.beta": Range(0.5, 2),
        "method": Range(choices=("vae", "ae")),
        "seed": Range(1, 3),
    }


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({}, "none is given"),
        ({"train.lr": "1..0.1"}, "LOW must be below HIGH"),
        ({"train.lr": "0..0.1:log"}, "a logarithm needs a LOW above 0"),
        ({"train.lr": "a..b"}, "its ends are not numbers"),
        ({"train.lr": "0.1"}, "neither LOW..HIGH"),
        ({"train.lr": 3}, "neither LOW..HIGH"),
        ({"train.lr": [1, 1]}, "there twice"),
        ({"train.coef_kl": "1..2", "objective.beta": "1..3"}, "two ranges over objective.beta"),
        ({"train.lrr": "1..2"}, "train.lrr: unknown key: did you mean lr?"),
        ({"model.z_dim": "0.5..2.5"}, "model.z_dim: 0.5 is not right; it must be a whole number"),
        ({"train.batch_size": "8..100000"}, "train.batch_size: 100000 of"),
    ],
)
def test_ranges_that_are_refused(
    ranges: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = engine(monkeypatch, SEARCHING)
    with pytest.raises(UserError, match=re.escape(said)):
        searched(tmp_path / "s", 2, ranges)
    assert (here.trained, (tmp_path / "s").exists()) == ([], False)


def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine(monkeypatch, SEARCHING)
    whole = searched(tmp_path / "whole", 10, prune=True)

    class Cut(Here):
        """Killed after a trial was trained, and before that was told."""

        def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
            class Deaf(Watcher):
                def validated(self, name: str, step: int, values: Mapping[str, float]) -> str | None:
                    return watcher.validated(name, step, values)

            super().run((next(tasks) for _ in range(3)), watcher)
            super().run((next(tasks) for _ in range(1)), Deaf())
            raise KeyboardInterrupt

    monkeypatch.setattr(SEARCHING, "engine_for", lambda *arguments: Cut())
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "cut", 10, prune=True)
    here = engine(monkeypatch, SEARCHING)
    cut = searched(tmp_path / "cut", 10, prune=True)
    assert here.trained == [f"trial-{i:04d}" for i in range(4, 10)]
    assert [(one.experiment, one.status, one.numbers) for one in cut.members] == [
        (one.experiment, one.status, one.numbers) for one in whole.members
    ]
    assert {one.status for one in whole.members} == {"done", "pruned"}
    values = optuna.load_study(study_name="vaes", storage=f"sqlite:///{tmp_path / 'whole/study.db'}")
    assert whole.value == max(trial.value for trial in values.trials if trial.value is not None) == cut.value
    assert sum(whole.importances.values()) == pytest.approx(1)
    assert whole.best is not None
    assert yaml.safe_load((tmp_path / "whole/best.yaml").read_text()) == whole.best.experiment.to_dict()
    assert whole.best.experiment.train.lr == whole.values["train.lr"]


def test_trials_that_cannot_be_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch, SEARCHING)
    told = Lines()
    ranges = {"objective.beta": [1, 2], "train.accumulate": "1..4"}  # 3 does not divide 16, which the ends do
    found = searched(tmp_path / "s", 8, ranges, watcher=told, metric="loss", maximise=False)
    failed = [one for one in found.members if one.status == "failed"]
    assert failed
    assert all("3 does not divide" in one.why for one in failed)
    assert len(found.members) == 8
    with pytest.raises(UserError, match=r"metric is 'mse'|metric is mse in what was asked for and loss in theirs"):
        searched(tmp_path / "s", 8, ranges, metric="mse", maximise=False)
    with pytest.raises(UserError, match=r"--maximise 'fid': must be one of distortion, elbo, loss, mse, rate"):
        searched(tmp_path / "t", 2, metric="fid")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engine(monkeypatch, SEARCHING)
    section = {"search": {"trials": 3, "minimise": "mse", "ranges": {"train.lr": "1e-3..1e-1:log"}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**RAW, "sweep": section}))
    line = ["sweep", "-c", str(tmp_path / "c.yaml"), "-e", str(tmp_path / "s")]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert "3 trials: 3 done" in out
    assert "what the keys matter" in out
    assert re.search(r"best: trial-000[012], validation mse 0\.\d+ \(test images: ", out)
    assert err.count("trial-") >= 3
    for more, said in (
        (["--seeds", "2"], "--seeds: a search chooses"),
        (["--search", "optuna", "--grid", "train.lr=1,2"], "--grid: a search chooses"),
        (["--maximise", "elbo"], "maximise is True in what was asked for"),
        (["--maximise", "elbo", "--minimise", "mse"], "both are given"),
        (["--train.lr", "1"], "--train.lr: a value and a range over train.lr"),
        (["--prune", "--engine", "ray"], "--prune goes with --engine local"),
        (["--trials", "0"], "--trials: 0; it must be at least 1"),
        (["--retry"], "--retry: a search tries other values"),
        (["--range", "train.lr"], "--range train.lr: not KEY=VALUE"),
    ):
        assert main([*line, *more]) == 2, more
        assert said in capsys.readouterr().err
    assert main([*line, "--grid", "train.lr=1", "--trials", "3"]) == 2
    assert "--trials goes with --search optuna" in capsys.readouterr().err
