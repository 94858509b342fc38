"""What goes wrong around a training: its folders, its images, its other processes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainings import objective, settings, weighting

from vaes import cli
from vaes.data import Batches, MemmapSet, Splits
from vaes.train import checkpoint
from vaes.train.loop import fit

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
TINY = ["--data.image_size=8", "--train.batch_size=8", "--model.network.dim=4"]
NEVER = [f"--train.{name}_freq=0" for name in ("print", "eval", "sample")]


def vaes(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vaes", *map(str, arguments)]
    return subprocess.run(command, env={**ENV, **environment}, capture_output=True, text=True, timeout=300)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a mistake."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("parent", ["a file", "/proc"])
def test_a_run_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, parent: str) -> None:
    # Root may write into a folder without write permission; below a file and in /proc nobody can make one.
    (tmp_path / "a file").touch()
    line = said(vaes("train", "-e", tmp_path / parent / "run", *TINY))
    assert line.startswith("error: ")
    assert str(tmp_path / parent / "run") in line or parent in line


def test_a_folder_of_images_that_vanishes_is_a_sentence(tmp_path: Path) -> None:
    root, run = tmp_path / "images", tmp_path / "run"
    root.mkdir()
    for i in range(40):
        Image.new("L", (8, 8), i).save(root / f"{i}.png")
    options = ["--data.kind=folder", f"--data.root={root}", "--train.n_steps=2", "--train.save_freq=1", *TINY]
    first = vaes("train", "-e", run, *options, *NEVER)
    assert first.returncode == 0, first.stderr
    shutil.rmtree(root)
    assert str(root) in said(vaes("train", "-e", run, "--resume", "latest", "--train.n_steps=4"))
    assert checkpoint.read(checkpoint.newest_folder(run)).step == 2


class Vanished(MemmapSet):
    """Images on a disk that goes away after the first read."""

    reads = 0

    def read(self, index: torch.Tensor) -> torch.Tensor:
        type(self).reads += 1
        if self.reads > 2:
            raise OSError(5, "Input/output error", "/mnt/images")
        return super().read(index)


def test_images_that_cannot_be_read_any_more_are_a_sentence_and_the_checkpoint_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The error comes up in the thread that reads ahead.
    images = np.zeros((40, 1, 8, 8), np.uint8)
    splits = Splits(Vanished(images), MemmapSet(images), MemmapSet(images))
    options = settings(save_freq=1, eval_freq=0, sample_freq=0)
    assert cli.guarded(lambda: fit(objective(), weighting(), splits, options, tmp_path / "run") and None) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: /mnt/images: Input/output error"
    assert checkpoint.read(checkpoint.newest_folder(tmp_path / "run")).step >= 1


def test_what_the_reading_thread_raises_reaches_the_training() -> None:
    images = Vanished(np.zeros((40, 1, 8, 8), np.uint8))
    Vanished.reads = 2
    with pytest.raises(OSError, match="Input/output error"):
        Batches(images, 8, seed=0).read(0)


@pytest.mark.parametrize(("name", "value"), [("RANK", "x"), ("RANK", ""), ("WORLD_SIZE", "two"), ("LOCAL_RANK", "1.5")])
def test_an_environment_that_no_launcher_made_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    for command in (["train", "-e", "run"], ["sample", "run"], ["evaluate", "run"]):
        assert cli.main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: {name}: ")


def pair(tmp_path: Path, *arguments: str) -> list["subprocess.Popen[str]"]:
    """Two processes that train together, and no launcher that would end one when the other ends."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(random.randint(20_000, 40_000))}
    command = [sys.executable, "-m", "vaes", "train", *arguments]
    return [
        subprocess.Popen(
            command, cwd=tmp_path, env={**ENV, **together, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip


def test_bad_data_is_a_sentence_in_every_process(tmp_path: Path) -> None:
    first, second = pair(tmp_path, "-e", "run", "--data.kind=folder", "--data.root=nowhere")
    errors = [process.communicate(timeout=120)[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [2, 2], errors
    assert not any("Traceback" in error for error in errors)
    assert "nowhere" in errors[0].splitlines()[-1]
    assert errors[1].splitlines()[-1].startswith("[process 1] error: another process of this training ended")


@pytest.mark.parametrize("killed", [0, 1])
def test_when_one_process_is_killed_the_other_ends_and_the_training_can_go_on(tmp_path: Path, killed: int) -> None:
    run = tmp_path / "run"
    options = [*TINY, *NEVER, "--model.network.norm=none", "--train.n_steps=100000", "--train.save_freq=5"]
    processes = pair(tmp_path, "-e", str(run), *options)
    while not checkpoint.checkpoints(run):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    processes[killed].send_signal(signal.SIGKILL)
    asked = time.monotonic()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert time.monotonic() - asked < 60
    assert processes[1 - killed].returncode == 2, errors
    assert "Traceback" not in errors[1 - killed]
    assert "another process of this training ended" in errors[1 - killed].splitlines()[-1]
    step = checkpoint.read(checkpoint.newest_folder(run)).step
    again = vaes("train", "-e", run, "--resume", "latest", f"--train.n_steps={step + 2}")
    assert again.returncode == 0, again.stderr
    assert checkpoint.read(checkpoint.newest_folder(run)).step == step + 2
