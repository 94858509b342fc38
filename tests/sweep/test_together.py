"""Members of a sweep that share their steps."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sweep_here import RAW, Lines, experiment

import vaes
from vaes.errors import UserError
from vaes.sweep.check import read_images
from vaes.sweep.folder import finished
from vaes.sweep.grid import members
from vaes.sweep.plan import Sweep
from vaes.sweep.together import arranged
from vaes.train import checkpoint


def ordered(way: str, grid: dict[str, Any], seeds: int = 1, jobs: int = 1, **changes: Any) -> Any:
    chosen, _ = members(experiment(**changes), grid, seeds)
    sets = read_images((one.experiment for one in chosen), None)
    stacks, said = arranged(way, chosen, sets, jobs, 1, "cpu", new=True)
    return [[one.name for one in stack] for stack in stacks], said


def swept(folder: Path, *arguments: Any, **options: Any) -> Sweep:
    found = vaes.sweep(experiment(), *arguments, folder=folder, **options)
    assert isinstance(found, Sweep)
    return found


def alike(run: Path, alone: Path) -> None:
    """All numbers of two runs but for rounding, and the same files."""
    ours, theirs = (checkpoint.read(checkpoint.newest_folder(folder)) for folder in (run, alone))
    for name in ("weights", "training"):
        torch.testing.assert_close(dict(getattr(ours, name)), dict(getattr(theirs, name)), rtol=1e-4, atol=1e-5)
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (run, alone)]
    for a, b in zip(*lines, strict=True):
        assert a["split"] == b["split"]
        given, wanted = ({k: v for k, v in one.items() if isinstance(v, int | float)} for one in (a, b))
        assert given == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    kept = [
        sorted(str(path.relative_to(f)).split(".out.")[0] for path in f.rglob("*") if path.is_file())
        for f in (run, alone)
    ]
    assert kept[0] == kept[1]


def test_members_that_share_shapes_share_a_step() -> None:
    grid = {"model.z_dim": [2, 3], "objective.beta": [1, 0.5], "train.lr": [1e-3, 2e-3]}
    stacks, said = ordered("on", grid)
    assert [len(stack) for stack in stacks] == [4, 4]
    assert [{name.split(",")[0] for name in stack} for stack in stacks] == [{"z_dim=2"}, {"z_dim=3"}]
    assert len(said) == 2
    assert [len(stack) for stack in ordered("on", {}, 7, jobs=2)[0]] == [4, 3]
    assert len(ordered("off", grid)[0]) == 8


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"model.z_dim": [2, 3]}, "z_dim=2,seed=0 and z_dim=3,seed=0 cannot share a step: model.z_dim is 2 and 3"),
        ({"train.batch_size": [16, 8]}, "train.batch_size is 16 and 8"),
        ({"train.n_steps": [6, 7]}, "train.n_steps is 6 and 7"),
        ({}, "seed=0 is the only member"),
    ],
)
def test_on_is_refused_with_the_reason_before_anything_starts(tmp_path: Path, grid: Any, said: str) -> None:
    with pytest.raises(UserError, match=f"^--together on: .*{said}"):
        swept(tmp_path / "s", grid, together="on")
    assert not (tmp_path / "s").exists()
    stacks, why = ordered("auto", grid)
    assert {len(stack) for stack in stacks} == {1}
    assert said in why[0]
    assert why[0].endswith("trained alone")


def test_ways_that_there_are_not(tmp_path: Path) -> None:
    for way, engine, said in (("maybe", "local", "must be one of"), ("on", "ray", "--engine local, not ray")):
        with pytest.raises(UserError, match=f"^--together .*{way}.*{said}"):
            swept(tmp_path / "s", {}, 2, together=way, engine=engine)


def test_auto_says_what_it_measured_and_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks, (said,) = ordered("auto", {}, 3)
    assert said.startswith("together auto: 3 members that share their shapes (seed=0, ...): a step of all takes ")
    assert ("stacked, " in said) == (len(stacks) == 1)
    for seconds, n in (((2.0, 3.0), 1), ((1.0, 3.5), 3)):  # of one alone, and of all three stacked
        monkeypatch.setattr("vaes.sweep.together._seconds", lambda *_, found=seconds: found)
        stacks, (said,) = ordered("auto", {}, 3)
        assert len(stacks) == n
    assert said.endswith("alone, 1.17 times as fast")


def test_each_is_the_run_that_it_is_alone_and_one_that_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    told = Lines()
    # The weights of the second are soon no numbers; two seeds are added later.
    grid = {"train.lr": [1e-3, 1e30]}
    done = swept(tmp_path / "s", grid, together="on", jobs=1, watcher=told)
    assert [one.status for one in done.members] == ["done", "failed"]
    assert "is not a number" in done.members[1].why
    assert any("2 to a step" in line for line in told.lines)
    more = swept(tmp_path / "s", {"train.lr": [1e-3]}, 3, together="on", jobs=1)
    assert [one.status for one in more.members] == ["done"] * 3
    for one in (more.members[0], more.members[2]):
        one.experiment.fit(tmp_path / one.name)
        alike(one.folder, tmp_path / one.name)
    history = (more.members[1].folder / "history.jsonl").read_text()
    assert "trained together with 1 others by one stacked step" in history


def test_killed_anywhere_it_goes_on(tmp_path: Path) -> None:
    raw = {**RAW, "train": {**RAW["train"], "n_steps": 200, "save_freq": 20, "eval_freq": 200, "keep": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**raw, "sweep": {"seeds": 3, "together": True, "jobs": 1}}))
    words = [sys.executable, "-m", "vaes", "sweep", "-c", "c.yaml", "-e", "s"]
    runs = [tmp_path / f"s/runs/seed={i}" for i in range(3)]
    with subprocess.Popen(
        words, cwd=tmp_path, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        while not all(checkpoint.checkpoints(run) for run in runs):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not any(finished(run) for run in runs)
    steps = [max(checkpoint.checkpoints(run)) for run in runs]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(finished(run) for run in runs), steps
    vaes.Experiment.of(raw).replace({"seed": 2}).fit(tmp_path / "alone")
    ours, theirs = (checkpoint.read(checkpoint.newest_folder(run)) for run in (runs[2], tmp_path / "alone"))
    torch.testing.assert_close(dict(ours.weights), dict(theirs.weights), rtol=1e-3, atol=1e-4)
