"""Steps whose loss or gradient is no number are skipped, up to ``train.skip_non_finite`` in a row."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from parts import small_vae
from trainings import Said, everything, settings, splits

from vaes import likelihoods
from vaes.data import Batches, to_float
from vaes.errors import UserError
from vaes.objectives import ELBO, MMD, Context, Noise, Objective
from vaes.randomness import Use, normal
from vaes.train import checkpoint, loop
from vaes.train.loop import fit
from vaes.train.muon import Muon
from vaes.train.weighting import Weighting

WEIGHTING = Weighting(lambda pixels: {"rate": 1.0, "mmd": 1.0}, {})


def objective() -> Objective:
    # Batch norm and the optimal scale have running statistics, which a bad batch would spoil too.
    model = small_vae(network="conv", likelihood=likelihoods.Gaussian(scale="optimal"))
    return Objective(model, ELBO(), {"mmd": MMD()})


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps (indices) whose batch is infinite in one pixel."""
    steps: list[int] = []
    read, at = Batches.read, [-1]

    def remember(batches: Batches, step: int, flips: bool = False) -> torch.Tensor:
        at[0] = step
        return read(batches, step, flips)

    def spoil(images: torch.Tensor, value_range: tuple[float, float]) -> torch.Tensor:
        x = to_float(images, value_range)
        if at[0] in steps:
            x[-1, 0, 0, 0] = math.inf
        return x

    monkeypatch.setattr(Batches, "read", remember)
    monkeypatch.setattr(loop, "to_float", spoil)
    return steps


def by_hand(part: Objective, kind: str, left_out: Iterable[int], n_steps: int = 6) -> list[float]:
    """The losses of a training that does not know the steps left out."""
    optimizer: torch.optim.Optimizer = Muon(part.parameters(), lr=2e-3)
    if kind == "adam":
        optimizer = torch.optim.Adam(part.parameters(), lr=2e-3, fused=True)
    batches, losses = Batches(splits().train, 8, seed=0), []
    for step in range(n_steps):
        if step in left_out:
            continue
        x = to_float(batches.read(step), (-1.0, 1.0))
        noise = Noise(normal((1, 8, 3), 0, Use.POSTERIOR, step), normal((8, 3), 0, Use.PRIOR, step))
        optimizer.zero_grad()
        loss = part(x, noise, Context({"rate": 1.0, "mmd": 1.0}))["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@pytest.mark.parametrize("bad", [[0], [2], [2, 3], [1, 2, 4, 5]])
def test_a_training_with_infinite_batches_equals_one_written_by_hand_without_them(
    tmp_path: Path, poisoned: list[int], bad: list[int], optimizer: str
) -> None:
    expected = objective()
    losses = by_hand(expected, optimizer, bad)
    poisoned += bad
    trained = objective()
    options = settings(optimizer=optimizer, lr=2e-3, skip_non_finite=2, print_freq=3, eval_freq=0)
    fit(trained, WEIGHTING, splits(), options, tmp_path / "run")
    for (name, a), b in zip(trained.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [sum(3 * i <= step < 3 * i + 3 for step in bad) for i in (0, 1)]
    good = 3 - lines[0]["skipped"]
    assert lines[0]["loss"] == pytest.approx(sum(losses[:good]) / good, rel=1e-5)


def test_a_gradient_that_is_no_number_under_a_finite_loss_is_skipped_too(tmp_path: Path) -> None:
    spoilt, count = objective(), iter(range(100))
    next(spoilt.parameters()).register_hook(lambda grad: grad * math.nan if next(count) == 3 else grad)
    fit(spoilt, WEIGHTING, splits(), settings(skip_non_finite=1, clip_grad=1.0), tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in spoilt.state_dict().values())


def test_one_bad_step_more_in_a_row_than_the_bound_stops_with_its_step(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += [0, 2, 3, 4]
    with pytest.raises(UserError, match="step 5: the loss or a parameter is not a number") as caught:
        fit(objective(), WEIGHTING, splits(), settings(skip_non_finite=2), tmp_path / "run")
    assert "step000004" in str(caught.value)
    fit(objective(), WEIGHTING, splits(), settings(skip_non_finite=3), tmp_path / "three")


def test_without_the_setting_the_first_stops(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += [2]
    with pytest.raises(UserError, match="step 3: the loss or a parameter is not a number"):
        fit(objective(), WEIGHTING, splits(), settings(), tmp_path / "run")


def test_an_interval_that_was_skipped_whole_has_no_means_and_says_so(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += [2, 3]
    options, lines_said = settings(lr=2e-3, skip_non_finite=2, eval_freq=0), Said()
    fit(objective(), WEIGHTING, splits(), options, tmp_path / "run", callbacks=[lines_said])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 4, "split": "train", "skipped": 2, "lr": 2e-3}
    assert "2 steps whose loss or gradient was no number were skipped" in lines_said.text


@pytest.mark.parametrize("saved", [2, 4])
def test_a_training_resumed_between_bad_steps_equals_an_uninterrupted_one(
    tmp_path: Path, poisoned: list[int], saved: int
) -> None:
    poisoned += [1, 2, 4]
    options = settings(skip_non_finite=2, keep=9, print_freq=3, eval_freq=0)
    fit(objective(), WEIGHTING, splits(), options, tmp_path / "whole")
    run = tmp_path / "cut"
    fit(objective(), WEIGHTING, splits(), options, run)
    for folder in checkpoint.checkpoints(run):
        if int(folder.name[4:]) > saved:
            (folder / "state.json").unlink()
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.step == saved
    fit(objective(), WEIGHTING, splits(), options, run, resume=start, within=True)
    assert everything(run) == everything(tmp_path / "whole")


def test_a_line_begun_with_skipped_steps_is_finished_without_the_setting(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += [1]
    options = {"lr": 2e-3, "print_freq": 6, "eval_freq": 0}
    fit(objective(), WEIGHTING, splits(), settings(**options, skip_non_finite=2), tmp_path / "whole")
    run = tmp_path / "cut"
    fit(objective(), WEIGHTING, splits(), settings(**options, skip_non_finite=2), run)
    shutil.rmtree(run / "ckpt" / "step000006")
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.step == 4
    fit(objective(), WEIGHTING, splits(), settings(**options), run, resume=start, within=True)
    whole, cut = (json.loads((tmp_path / name / "metrics.jsonl").read_text()) for name in ("whole", "cut"))
    assert whole.pop("skipped") == 1
    assert cut == whole


def test_bad_steps_before_and_after_resuming_count_as_one_row(tmp_path: Path, poisoned: list[int]) -> None:
    poisoned += [2, 3, 4]
    options = settings(skip_non_finite=2)
    with pytest.raises(UserError, match="step 5"):
        fit(objective(), WEIGHTING, splits(), options, tmp_path / "run")
    start = checkpoint.read(checkpoint.newest_folder(tmp_path / "run"))
    assert start.step == 4
    with pytest.raises(UserError, match="step 5"):
        fit(objective(), WEIGHTING, splits(), options, tmp_path / "run", resume=start, within=True)


POISONED = """
import math, os, sys
from vaes import cli
from vaes.objectives import Objective
forward, count = Objective.forward, [0]
def spoil(self, *arguments):
    out = forward(self, *arguments)
    count[0] += 1
    if count[0] == 3 and os.environ.get("RANK", "1") == "1":  # in the second process, or the only one
        out["loss"] = out["loss"] + math.inf  # with finite gradients, from which the first cannot tell
    return out
Objective.forward = spoil
sys.exit(cli.main(sys.argv[1:]))
"""


def test_two_processes_skip_together_what_one_of_them_meets(tmp_path: Path) -> None:
    script = tmp_path / "poisoned.py"
    script.write_text(POISONED)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    tiny = ["--data.image_size=8", "--train.batch_size=8", "--model.network.dim=4", "--model.network.norm=none"]
    never = [f"--train.{name}_freq=0" for name in ("print", "eval", "sample")]
    options = [*tiny, *never, "--train.optimizer=adam", "--train.n_steps=5", "--train.skip_non_finite=1"]
    ports = ["--nproc_per_node", "2", "--master_port", str(random.randint(20_000, 40_000))]
    torchrun = [str(Path(sys.executable).parent / "torchrun"), *ports]
    found = []
    for name, launcher in (("one", [sys.executable]), ("two", torchrun)):
        arguments = [*launcher, str(script), "train", "-e", str(tmp_path / name), *options]
        done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "1 steps whose loss or gradient was no number were skipped" in done.stderr
        found.append(checkpoint.read(checkpoint.newest_folder(tmp_path / name)))
    for name, weights in found[0].weights.items():
        torch.testing.assert_close(weights, found[1].weights[name], rtol=1e-4, atol=1e-6)
