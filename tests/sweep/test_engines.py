"""Engines of clusters: jobs of submitit on this machine, and a real Ray of one node."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_here import Lines, experiment
from trainings import everything

import vaes
from vaes.errors import UserError
from vaes.sweep import Options, plan
from vaes.sweep.engines import engine_for
from vaes.sweep.folder import finished


def swept(folder: Path, seeds: tuple[int, ...] = (0, 1), **options: Any) -> plan.Sweep:
    found = vaes.sweep(experiment(), None, seeds, folder=folder, **options)
    assert isinstance(found, plan.Sweep)
    return found


@pytest.mark.parametrize(("cluster", "seeds"), [("debug", (0, 1)), ("local", (1,))])
def test_jobs_of_submitit_are_the_same_runs(cluster: str, seeds: tuple[int, ...], tmp_path: Path) -> None:
    told = Lines()
    done = swept(tmp_path / "s", seeds, engine="slurm", options=Options(slurm={"cluster": cluster}), watcher=told)
    assert {one.status for one in done.members} == {"done"}, told.ends
    experiment(seed=1).fit(tmp_path / "alone")
    assert everything(tmp_path / "s/runs/seed=1") == everything(tmp_path / "alone")
    assert f"{len(seeds)} members; jobs of {cluster}, at most 720 minutes each" in told.lines[0]


def test_a_job_that_is_lost_is_gone_on_with_and_one_under_way_is_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import submitit

    from vaes.sweep.on_slurm import Slurm

    class Lost:
        """A job whose process is gone without a result."""

        job_id, _process = str(os.getpid()), object()
        paths = submitit.core.utils.JobPaths(tmp_path, "7")

        def done(self) -> bool:
            return True

        def result(self) -> None:
            raise submitit.core.utils.UncompletedJobError("job 7 has not produced any output\nmore")

    submitted: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(submitit.AutoExecutor, "submit", lambda self, job: submitted.append(job) or Lost())
        options = Options(slurm={"cluster": "local"})
        lost = swept(tmp_path / "s", engine="slurm", options=options)
    assert len(submitted) == 2
    assert [one.status for one in lost.members] == ["waiting", "waiting"]
    engine = Slurm(tmp_path / "s", None, 0, {"cluster": "local"})
    task = plan.task_of("seed=1", experiment(seed=1), plan.SweepFolder(tmp_path / "s"), "cpu", ())
    assert engine._submitted_before(task) is None  # the process of that number is no job
    monkeypatch.setattr("psutil.Process.cmdline", lambda self: ["python", "-m", "submitit.local._local"])
    assert engine._submitted_before(task).job_id == str(os.getpid())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("slurm", Options(), "there is no Slurm here"),
        ("slurm", Options(slurm={"cluster": "moon"}), "moon"),
        ("slurm", Options(slurm={"cluster": "local", "partitions": "x"}), "partitions"),
        ("slurm", Options(slurm={"cluster": "local", "timeout_min": "long"}), "timeout_min"),
        ("slurm", Options(slurm={"cluster": "local"}, gpus=0.5), "Slurm gives whole ones"),
        ("slurm", Options(address="x"), "--address goes with --engine ray"),
        ("ray", Options(address="moon"), "must be auto, HOST:PORT"),
        ("ray", Options(address="127.0.0.1:1"), "127.0.0.1:1 cannot be reached"),
        ("ray", Options(address="ray://[::1]:70000"), "cannot be reached"),
        ("local", Options(gpus=1), "--gpus goes with --engine ray or slurm"),
        ("ray", Options(slurm={"a": 1}), "--slurm goes with --engine slurm"),
    ],
)
def test_engines_that_cannot_be_reached_and_options_of_others(
    name: str, options: Options, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=said):
        swept(tmp_path / "s", engine=name, options=options)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("name", "module"), [("slurm", "submitit"), ("ray", "ray")])
def test_engines_that_are_not_installed(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"not installed; pip install 'vaes\[{name}\]'"):
        engine_for(name, 1, {}, "cpu", tmp_path, Options())


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'vaes[ray]'")
def test_a_real_ray_of_one_node_trains_the_same_runs(tmp_path: Path) -> None:
    told = Lines()
    done = swept(tmp_path / "s", engine="ray", jobs=1, watcher=told)
    assert [one.status for one in done.members] == ["done", "done"], told.ends
    experiment(seed=1).fit(tmp_path / "alone")
    assert everything(tmp_path / "s/runs/seed=1") == everything(tmp_path / "alone")
    assert "on Ray, 1 node" in told.lines[0]
    assert finished(tmp_path / "s/runs/seed=0")
