"""Sweeps: what is trained, what is kept, what is refused."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from sweep_here import RAW, Lines, engine, experiment
from trainings import everything

import vaes
from vaes.cli import main
from vaes.data import MemmapSet, arrays
from vaes.errors import UserError
from vaes.sweep import plan
from vaes.sweep.folder import finished
from vaes.sweep.local import share
from vaes.sweep.screen import table
from vaes.train import checkpoint

GRID = {"objective.beta": [1, 4]}


def swept(folder: Path, *arguments: Any, **options: Any) -> vaes.sweep.Sweep:  # type: ignore[name-defined]
    found = vaes.sweep(experiment(), *arguments, folder=folder, **options)
    assert isinstance(found, plan.Sweep)
    return found


def test_members_are_runs_and_what_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = engine(monkeypatch)
    done = swept(tmp_path / "s", GRID, 1)
    assert [one.status for one in done.members] == ["done", "done"]
    assert here.trained == ["beta=1,seed=0", "beta=4,seed=0"]
    experiment(objective__beta=4).fit(tmp_path / "alone")
    assert everything(tmp_path / "s/runs/beta=4,seed=0") == everything(tmp_path / "alone")
    assert (
        done.members[1].numbers["elbo"]
        == json.loads((tmp_path / "alone/metrics.json").read_text())["best"]["test"]["elbo"]["value"]
    )
    # A seed, a value and a key more, in another order: only what is new is trained, and names stay.
    here.trained.clear()
    more = swept(tmp_path / "s", {"model.z_dim": [2], "objective.beta": [8, 4, 1]}, 2)
    assert here.trained == [f"z_dim=2,beta={b},seed={s}" for b, s in ((8, 0), (8, 1), (4, 1), (1, 1))]
    assert {"beta=1,seed=0", "beta=4,seed=0"} < {one.name for one in more.members}
    text = table(more.members)
    assert re.search(r"z_dim=2,beta=8 +2 .* ± ", text)


def test_one_that_fails_is_listed_and_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, told = engine(monkeypatch), Lines()
    taken = tmp_path / "s/runs/beta=1,seed=0/notes"
    with monkeypatch.context() as patch:  # a file that comes into its way once all was checked
        real = plan.SweepFolder.plan
        patch.setattr(plan.SweepFolder, "plan", lambda *a: (real(*a), taken.parent.mkdir(), taken.write_text("x")))
        done = swept(tmp_path / "s", GRID, watcher=told)
    assert [one.status for one in done.members] == ["failed", "done"]
    assert "this run folder exists" in done.members[0].why
    assert "failed: beta=1,seed=0: " in table(done.members)
    here.trained.clear()
    assert [one.status for one in swept(tmp_path / "s", GRID).members] == ["failed", "done"]
    assert here.trained == []
    taken.unlink()
    assert not swept(tmp_path / "s", GRID, retry=True).failed
    assert here.trained == ["beta=1,seed=0"]
    assert json.loads((tmp_path / "s/failures.json").read_text()) == {}


def test_a_fault_of_ours_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch)
    monkeypatch.setattr(vaes.Experiment, "train_in", lambda *a, **k: 1 / 0)
    (one,) = swept(tmp_path / "s").members
    assert one.why.startswith("ZeroDivisionError: division by zero (traceback: ")
    assert "1 / 0" in (tmp_path / "s/logs/seed=0.txt").read_text()


def test_what_would_fail_later_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = engine(monkeypatch)
    for grid, said in (
        ({"data.root": [str(tmp_path / "none.npy")], "data.kind": ["arrays"]}, "none.npy"),
        ({"train.batch_size": [16, 100_000]}, "batch_size=100000,seed=0: train.batch_size: 100000 of"),
        ({"train.accumulate": [1, 3]}, "train.accumulate: 3 does not divide"),
        ({"model.network.kind": ["mlp", "locatello"]}, "network=locatello,seed=0: model.network"),
        ({"objective.beta": [1, -1]}, "beta=-1,seed=0: objective.beta"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            swept(tmp_path / "s", grid)
    for options in ({"jobs": 0}, {"jobs": True}, {"device": "cuda"}, {"engine": "shell"}):
        monkeypatch.undo()
        with pytest.raises(UserError):
            swept(tmp_path / "s", **options)
    assert here.trained == []
    assert not (tmp_path / "s").exists()


def test_folders_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine(monkeypatch)
    swept(tmp_path / "s", GRID)
    run = tmp_path / "s/runs/beta=1,seed=0"
    with pytest.raises(UserError, match=r"is the folder of a run"):
        swept(run, GRID)
    with pytest.raises(UserError, match=r"another experiment.*train.n_steps is 7 in the configuration given and 6"):
        vaes.sweep(experiment(train__n_steps=7), GRID, folder=tmp_path / "s")
    (tmp_path / "notes").write_text("x")
    for folder, said in ((tmp_path / "notes", "is a file"), (tmp_path, "holds other things than a sweep")):
        with pytest.raises(UserError, match=said):
            swept(folder, GRID)
    with pytest.raises(UserError, match="cannot be written"):
        swept(Path("/proc/sweep"), GRID)
    other = tmp_path / "s/runs/beta=8,seed=0"
    (tmp_path / "s/runs/beta=4,seed=0").rename(other)
    with pytest.raises(UserError, match=r"holds a run with another configuration.*objective.beta is 8"):
        swept(tmp_path / "s", {"objective.beta": [8]})
    code = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    lock = [sys.executable, "-c", code, str(tmp_path / "s/.sweep.lock")]
    with subprocess.Popen(lock, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UserError, match=r"another sweep is at work in this folder"):
            swept(tmp_path / "s", GRID, 2)
        other.communicate(b"")
    plain = (tmp_path / "s/sweep.json").read_text()
    (tmp_path / "s/sweep.json").write_text(plain.replace('"beta=1,seed=0"', '"../../beta"'))
    with pytest.raises(UserError, match=r"sweep.json: not what a sweep writes \(a member called ../../beta\)"):
        swept(tmp_path / "s", GRID)
    (tmp_path / "s/sweep.json").write_text("{")
    with pytest.raises(UserError, match=r"sweep.json: cannot be read"):
        swept(tmp_path / "s", GRID)


def test_images_from_python_and_others_than_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = engine(monkeypatch)
    images = [arrays(np.random.default_rng(i).integers(0, 256, (99, 8, 8), dtype=np.uint8)) for i in (0, 1)]
    monkeypatch.setattr(
        here, "run", lambda tasks, watcher: [watcher.ended(plan_perform(task, images[0])) for task in tasks]
    )
    from vaes.sweep.member import perform as plan_perform

    assert not swept(tmp_path / "s", data=images[0]).failed
    with pytest.raises(UserError, match=r"not the images that .* was trained on"):
        swept(tmp_path / "s", seeds=2, data=images[1])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    here = engine(monkeypatch)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**RAW, "sweep": {"grid": GRID, "seeds": 2}}))
    start = ["sweep", "-c", str(tmp_path / "c.yaml")]
    line = [*start, "-e", str(tmp_path / "s"), "--grid", "objective.beta=2,3", "--model.z_dim", "3"]
    assert main(line) == 0
    assert here.trained == [f"beta={b},seed={s}" for b in (2, 3) for s in (0, 1)]
    out, err = capsys.readouterr()
    assert "beta=2     2" in out
    assert "member" in err
    assert "4 members; here" in err
    capsys.readouterr()
    for words, said in (
        (start, "error: -e: missing"),
        ([*line, "--objective.beta", "1"], "error: --objective.beta: a value and a grid over objective.beta"),
        ([*line, "--jobs", "0"], "--jobs: 0; it must be at least 1"),
        ([*line, "--seeds", "0"], "--seeds: 0; it must be at least 1"),
        ([*line, "--together", "maybe"], "--together"),
        ([*line, "--address", "x"], "error: --address goes with --engine ray, not local"),
        ([*line, "--grid", "train.lrr=1"], "error: train.lrr: unknown key: did you mean lr?"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**RAW, "sweep": {"grids": GRID}}))
    assert main(line) == 2
    assert "sweep.grids: unknown key: did you mean grid?" in capsys.readouterr().err


def test_the_sweep_and_its_processes_may_be_killed_and_equal_the_same_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {**RAW, "train": {**RAW["train"], "save_freq": 25, "eval_freq": 200, "keep": 1}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(raw))
    steps = [20, 800, 801]
    words = ["sweep", "-c", "c.yaml", "-e", "s", "--grid", f"train.n_steps={','.join(map(str, steps))}", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vaes", *words], cwd=tmp_path, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    runs = [tmp_path / f"s/runs/n_steps={n},seed=0" for n in steps]
    killed = []
    for run in runs[1:]:
        while not checkpoint.checkpoints(run):
            assert process.poll() is None
            time.sleep(0.02)
        (worker,) = (child for child in psutil.Process(process.pid).children() if "spawn_main" in child.cmdline()[-2])
        killed.append(worker)
        if run == runs[1]:
            assert finished(runs[0])
            worker.kill()  # the sweep goes on with the third
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(killed, timeout=10)[1] == []  # nor is any training left behind
    assert [finished(run) for run in runs] == [True, False, False]
    base, here = vaes.Experiment.of(raw), engine(monkeypatch)
    done = vaes.sweep(base, {"train.n_steps": steps}, folder=tmp_path / "s")
    assert [one.status for one in done.members] == ["done"] * 3, done
    assert here.trained == [run.name for run in runs[1:]]
    for n, run in zip(steps[:2], runs, strict=False):
        base.replace({"train.n_steps": n}).fit(tmp_path / f"alone{n}")
        assert everything(run) == everything(tmp_path / f"alone{n}")


def test_images_in_a_file_go_to_another_process_by_its_name(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 3, 4), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    there = MemmapSet(np.load(tmp_path / "x.npy", mmap_mode="r")).subset(torch.arange(5, 15))
    sent = pickle.dumps(there)
    assert images[5:15].tobytes() not in sent
    assert torch.equal(pickle.loads(sent).read(torch.tensor([9, 0])), torch.from_numpy(images[[14, 5]]))


def test_a_set_in_memory_is_shared_whole_and_once() -> None:
    splits = arrays(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 3)
    before = [images.read(torch.arange(len(images))) for images in splits]
    share({"": splits})
    assert all(tensor.is_shared() for images in splits for tensor in (images._data, images.labels, images.notes.hashes))
    assert len({images._data.untyped_storage().data_ptr() for images in splits}) == 1
    assert all(torch.equal(a, b.read(torch.arange(len(b)))) for a, b in zip(before, splits, strict=True))


def test_help_comes_without_torch() -> None:
    code = (
        "import sys; from vaes.cli import main\ntry: main(['sweep', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'optuna'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, "--grid KEY=A,B" in done.stdout) == (0, True), done.stderr


def test_a_configuration_with_a_sweep_is_for_sweeps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sweep: a section for vaes sweep"):
        vaes.Experiment.of({**RAW, "sweep": {"seeds": 2}})
