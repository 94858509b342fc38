"""Latent planes that a training keeps."""

import shutil
from pathlib import Path

import pytest
from trainings import everything

from vaes import Experiment
from vaes.train.settings import Settings
from vaes.view import planes


def experiment(z_dim: int = 2, **train: object) -> Experiment:
    given = {"n_steps": 60, "batch_size": 16, "save_freq": 20, "print_freq": 20, "trackers": [], **train}
    model = {"z_dim": z_dim, "network": {"kind": "mlp", "hidden": [8]}, "likelihood": "bernoulli"}
    return Experiment.of({"data": {"kind": "digits", "image_size": 8}, "model": model, "train": given})


@pytest.mark.parametrize("n_steps", [1, 7, 60, 5000])
def test_planes_are_kept_early_and_often_and_at_the_end(n_steps: int) -> None:
    s = Settings(n_steps=n_steps)
    kept = [step for step in range(n_steps + 1) if s.shows_plane(step)]
    assert {0, n_steps} <= set(kept)
    assert min(30, n_steps + 1) <= len(kept) <= 41
    early = sum(step <= n_steps / 2 for step in kept)
    assert early >= len(kept) - early


def test_a_training_that_was_killed_leaves_the_same_planes(tmp_path: Path) -> None:
    whole = experiment().fit(tmp_path / "whole").folder
    steps = [step for step in range(61) if Settings(n_steps=60).shows_plane(step)]
    assert planes(whole) == steps
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    for later in (cut / "ckpt").glob("step*"):
        if int(later.name[4:]) > 40:
            shutil.rmtree(later)
    (cut / "metrics.json").unlink()
    stale = cut / "plane" / "step000055.npz"
    stale.write_bytes(b"of a training that went on another way")
    experiment().fit(cut, resume="latest")
    assert not stale.exists()
    assert everything(cut) == everything(whole)


@pytest.mark.parametrize(
    ("z_dim", "train", "kept"),
    [(3, {}, []), (2, {"sample_freq": 0}, []), (2, {"plane_freq": 0}, []), (2, {"plane_freq": 25}, [0, 25, 50, 60])],
)
def test_who_wants_none_gets_none(tmp_path: Path, z_dim: int, train: dict[str, object], kept: list[int]) -> None:
    assert planes(experiment(z_dim, **train).fit(tmp_path / "run").folder) == kept
