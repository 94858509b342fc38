"""Real processes: two of them at once, and one that is killed."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vaes.train import checkpoint

BIN = Path(sys.executable).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
TINY = [
    "--data.image_size=8",
    "--train.batch_size=8",
    "--train.print_freq=2",
    "--train.eval_freq=4",
    "--train.sample_freq=4",
]


def command(run: Path, *options: str) -> list[str]:
    return [str(BIN / "vaes"), "train", "-e", str(run), *TINY, "--model.network.dim=4", *options]


def finish(arguments: list[str], cwd: Path, status: int = 0) -> str:
    done = subprocess.run(arguments, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    return done.stderr


TERM = "--objective.terms.patch_critic."
UNET = [f"{TERM}weight=5", f"{TERM}network=unet", f"{TERM}lecam=0.1", f"{TERM}width=2", f"{TERM}layers=2"]


@pytest.mark.parametrize(
    "method", ["vae", "wae_gan", "aae", "vq_vae", "unet"]
)  # a critic or none, turns, words, running means
def test_two_processes_equal_one_on_the_same_global_batch(method: str, tmp_path: Path) -> None:
    # Without batch statistics: with them each process normalises by its own share. Adam, because orthogonalising a
    # gradient magnifies the rounding of its smallest directions.
    options = ["--model.network.norm=none", "--train.n_steps=6", "--train.accumulate=2", "--train.optimizer=adam"]
    # A critic's pull is small at the start, and Adam would magnify its rounding.
    options += [
        *(UNET if method == "unet" else ["--method", method]),
        *([] if method == "vae" else ["--train.eps=1e-3"]),
    ]
    if method == "unet":  # whose running means follow micro-batches
        options += ["--train.accumulate=1"]
    if method == "vq_vae":  # whose words follow micro-batches, and those are others with two processes
        options += ["--model.posterior.learn=ema", "--model.posterior.codes=32", "--train.accumulate=1"]
        options += ["--model.posterior.decay=0.5", "--model.posterior.restart=0.5"]
    finish(command(tmp_path / "one", *options), tmp_path)
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(random.randint(20_000, 40_000))]
    said = finish([*torchrun, "-m", "vaes", *command(tmp_path / "two", *options)[1:]], tmp_path)
    assert "UserWarning" not in said
    one, two = (checkpoint.read(checkpoint.newest_folder(tmp_path / name)) for name in ("one", "two"))
    for name in one.weights:
        torch.testing.assert_close(one.weights[name], two.weights[name], rtol=1e-4, atol=1e-6)
    critic = [name for name in one.training if name.startswith("terms.")]
    assert bool(critic) == ("vae" not in method)
    for name in critic:
        torch.testing.assert_close(one.training[name], two.training[name], rtol=1e-4, atol=1e-6)
    lines = [
        [json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in ("one", "two")
    ]
    assert len(lines[0]) == len(lines[1]) > 0
    for a, b in zip(*lines, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"split"}:  # one vector of thousands between two words may go either way
            assert a[key] == pytest.approx(b[key], rel=1e-3 if key == "code_perplexity" else 1e-4, abs=1e-5), key


def test_two_processes_resume_also_what_lies_elsewhere_and_one_copies_it(tmp_path: Path) -> None:
    run, url = tmp_path / "run", f"file://{tmp_path}/copy"
    finish(command(tmp_path / "lost", "--train.n_steps=3", f"--train.mirror={url}"), tmp_path)
    shutil.rmtree(tmp_path / "lost")
    torchrun = [str(BIN / "torchrun"), "--nproc_per_node", "2", "--master_port", str(random.randint(20_000, 40_000))]
    said = finish([*torchrun, "-m", "vaes", "train", "-e", str(run), "--resume", url, "--train.n_steps=5"], tmp_path)
    assert said.count(f"train.mirror: the copy at {url} is complete") == 1
    assert checkpoint.read(checkpoint.newest_folder(run)).step == 5
    assert outcome(tmp_path / "copy") == outcome(run)


def outcome(run: Path) -> dict[str, object]:
    last = checkpoint.checkpoints(run)[0]
    names = (checkpoint.MODEL, checkpoint.TRAINING, checkpoint.STATE)
    return {
        "step": last.name,
        "files": {name: (last / name).read_bytes() for name in names},
        "lines": (run / "metrics.jsonl").read_text(),
        "metrics": (run / "metrics.json").read_text(),
        "pictures": {path.name: path.read_bytes() for path in (run / "samples").glob("step*.png")},
    }


def started(run: Path, arguments: list[str], cwd: Path) -> "subprocess.Popen[str]":
    """A training that has written its first checkpoint since it was started."""
    before = checkpoint.checkpoints(run)[:1]
    process = subprocess.Popen(arguments, cwd=cwd, env=ENV, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if checkpoint.checkpoints(run)[:1] != before or process.poll() is not None:
            return process
        time.sleep(0.02)
    process.kill()
    raise AssertionError("no checkpoint within a minute")


LONG = [
    "--train.n_steps=150",
    "--train.save_freq=3",
    "--train.print_freq=2",
    "--train.eval_freq=30",
    "--train.sample_freq=50",
]


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("vae", "optimizer=muon"),
        ("mmd_vae", "ema=0.9 accumulate=2"),
        ("aae", "optimizer=adam"),
        ("unet", "pulls_freq=7"),
    ],
)
def test_a_training_killed_at_random_moments_ends_as_one_never_killed(tmp_path: Path, method: str, option: str) -> None:
    options = [*LONG, *(UNET if method == "unet" else [f"--method={method}"]), "--data.flip=true"]
    options += [f"--train.{each}" for each in option.split()]
    finish(command(tmp_path / "whole", *options), tmp_path)
    run, dice = tmp_path / "killed", random.Random(method)
    kills = 0
    for attempt in range(2):
        arguments = (
            command(run, *options)
            if attempt == 0
            else [str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest"]
        )
        process = started(run, arguments, tmp_path)
        time.sleep(dice.uniform(0, 0.6))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills, "every attempt had ended before it could be killed"
    finish([str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest"], tmp_path)
    assert outcome(run) == outcome(tmp_path / "whole")


@pytest.mark.parametrize("keep", [1, 2])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(tmp_path: Path, keep: int) -> None:
    options = ["--train.n_steps=6", "--train.save_freq=2", "--train.eval_freq=0"]
    finish(command(tmp_path / "whole", *options, f"--train.keep={keep}"), tmp_path)
    run = tmp_path / "run"
    finish(command(run, *options, "--train.keep=9"), tmp_path)
    with (run / "ckpt" / "step000006" / checkpoint.TRAINING).open("ab") as file:
        file.write(b"x")
    again = [str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest", f"--train.keep={keep}"]
    assert "step000006/training.safetensors: damaged" in finish(again, tmp_path)
    assert outcome(run) == outcome(tmp_path / "whole")
    left = ["damaged-step000006", "step000004", "step000006"]
    assert sorted(path.name for path in (run / "ckpt").iterdir()) == [left[i] for i in (0, 1, 2) if i != 1 or keep > 1]


def test_a_training_that_ignores_the_hangup_of_its_terminal_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["nohup", *command(run, "--train.n_steps=300", "--train.save_freq=5", "--train.eval_freq=0")]
    process = started(run, arguments, tmp_path)
    process.send_signal(signal.SIGHUP)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 0, error
    assert checkpoint.read(checkpoint.newest_folder(run)).step == 300


def test_a_training_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(run, "--train.n_steps=100000", "--train.save_freq=0", "--train.eval_freq=0"),
        cwd=tmp_path,
        env=ENV,
        stderr=subprocess.DEVNULL,
    )
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not checkpoint.checkpoints(run)
    finish([str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest", "--train.n_steps=6"], tmp_path)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_says_how_to_go_on_and_exits_as_it_should(tmp_path: Path, number: int, status: int) -> None:
    run = tmp_path / "run"
    n_steps = 10_000_000  # hours away
    process = started(run, command(run, f"--train.n_steps={n_steps}", "--train.save_freq=5"), tmp_path)
    process.send_signal(number)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == status, error
    assert "--resume latest" in error
    assert "Traceback" not in error
    step = checkpoint.read(checkpoint.newest_folder(run)).step
    assert step < n_steps // 100
    assert f"stopped after step {step}" in error


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, command(run, "--train.n_steps=100000", "--train.save_freq=5"), tmp_path)
    try:
        again = [str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest"]
        assert "another training is at work" in finish(again, tmp_path, status=2)
    finally:
        process.kill()
        process.communicate()


def limited(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_disk_that_fills_up_is_a_sentence_and_the_last_checkpoint_stands(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: writing beyond it fails in the same place.
    run = tmp_path / "run"
    finish(command(run, "--train.n_steps=4", "--train.save_freq=2"), tmp_path)
    before = {path.name: (path / checkpoint.MODEL).read_bytes() for path in checkpoint.checkpoints(run)}
    again = [str(BIN / "vaes"), "train", "-e", str(run), "--resume", "latest", "--train.n_steps=8"]
    done = subprocess.run(
        again, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=300, preexec_fn=lambda: limited(20_000)
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert {path.name: (path / checkpoint.MODEL).read_bytes() for path in checkpoint.checkpoints(run)} == before
    finish(again, tmp_path)
    assert checkpoint.read(checkpoint.newest_folder(run)).step == 8


def test_a_folder_that_vanishes_is_a_sentence(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = started(run, command(run, "--train.n_steps=100000", "--train.save_freq=5"), tmp_path)
    run.rename(tmp_path / "elsewhere")
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 2, error
    assert "Traceback" not in error
    assert checkpoint.newest_folder(tmp_path / "elsewhere")
