"""Checkpoints are written in a thread while training goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import everything, objective, settings, splits, weighting

from vaes import files
from vaes.errors import UserError
from vaes.train import checkpoint, loop
from vaes.train.loop import fit
from vaes.train.state import TrainState
from vaes.train.writer import Writer

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}


class Gate:
    """Holds back the writing of a checkpoint's weights until training has got to a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: int) -> None:
        self.opened, self.waited, self.steps = threading.Event(), False, 0
        write, step = files.write_tensors, loop.advance

        def late(*arguments: Any) -> None:
            self.waited |= not self.opened.is_set()
            assert self.opened.wait(60)
            write(*arguments)

        def counted(state: TrainState, *arguments: Any) -> None:
            step(state, *arguments)
            if state.step >= until:
                self.opened.set()

        monkeypatch.setattr(files, "write_tensors", late)
        monkeypatch.setattr(loop, "advance", counted)


@pytest.fixture
def in_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Checkpoints written by the training's own thread."""
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "start", lambda writer, job: job())
        yield patch


def contents(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted((run / "ckpt").rglob("*")) if p.is_file()}


def test_training_goes_on_while_a_checkpoint_is_written_and_what_is_written_is_the_step_it_was_saved_at(
    tmp_path: Path, in_line: pytest.MonkeyPatch
) -> None:
    options = settings(save_freq=3, keep=9, eval_freq=0, print_freq=4)
    fit(objective(), weighting(), splits(), options, tmp_path / "in line")
    in_line.undo()
    with pytest.MonkeyPatch.context() as patch:
        gate = Gate(patch, until=5)  # the checkpoint of step 3 is written once step 5 is done
        fit(objective(), weighting(), splits(), options, tmp_path / "in a thread")
    assert gate.waited, "the write began only when it was let through"
    assert contents(tmp_path / "in a thread") == contents(tmp_path / "in line")
    assert everything(tmp_path / "in a thread") == everything(tmp_path / "in line")
    assert len(contents(tmp_path / "in line")) == 6


def test_every_kind_of_tensor_of_a_snapshot_is_a_copy() -> None:
    part = objective()
    state = TrainState(part, settings(optimizer="adam", ema=0.5))
    optimizer, sums = state.optimizer, torch.ones(())
    state.sums = {"loss": sums}
    sum(p.sum() for p in part.parameters()).backward()
    optimizer.step()
    taken = state.state_dict({})
    held = {id(tensor): tensor.clone() for tensor in (*taken.weights.values(), *taken.training.values())}
    optimizer.step()
    sums += 1
    with torch.no_grad():
        for buffer in part.buffers():
            buffer += 1
    assert all(torch.equal(held[id(t)], t) for t in (*taken.weights.values(), *taken.training.values()))


@pytest.mark.parametrize("at", [2, 6])
def test_an_error_of_the_writer_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    write = checkpoint.write

    def full(run: Path, taken: checkpoint.Checkpoint) -> Path:
        if taken.step == at:
            raise OSError(28, "No space left on device")
        return write(run, taken)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(OSError, match="No space"):
        fit(objective(), weighting(), splits(), settings(), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_loss_that_is_no_number_waits_for_the_write_before_it_names_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = objective()
    count = iter(range(100))
    next(spoilt.parameters()).register_hook(lambda grad: grad * torch.nan if next(count) == 3 else grad)
    Gate(monkeypatch, until=4)  # the checkpoint of step 2 is still being written when step 4 goes wrong
    with pytest.raises(UserError, match=r"last good checkpoint is .*step000002"):
        fit(spoilt, weighting(), splits(), settings(print_freq=0, eval_freq=0), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "ckpt").iterdir()] == ["step000002"]


def fail() -> None:
    raise OSError(28, "No space left on device")


def run(*actions: Callable[[Writer], object]) -> None:
    with Writer() as writer:
        for action in actions:
            action(writer)


def raise_another(writer: Writer) -> None:
    raise UserError("another")


def test_the_writer_loses_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    begun: list[int] = []
    for rest in ([], [lambda w: w.start(lambda: begun.append(1))], [Writer.wait, Writer.check]):
        with pytest.raises(OSError, match="No space"):
            run(lambda w: w.start(fail), *rest)
    assert not begun, "nothing is written after an error"
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match="another"):
        run(lambda w: w.start(fail), raise_another)
    assert "warning: the last checkpoint was not saved either" in capsys.readouterr().err


def test_one_job_runs_at_a_time_and_the_last_one_is_waited_for() -> None:
    done: list[int] = []
    first = threading.Event()
    with Writer() as writer:
        writer.start(lambda: (first.wait(0.2), done.append(1)))
        writer.start(lambda: (first.wait(0.2), done.append(2)))
        assert done == [1]
    assert done == [1, 2]


SLOW = """
import sys, time
from pathlib import Path
from vaes import cli, files
write, count = files.write_tensors, [0]
def slow(path, *arguments):
    write(path, *arguments)
    count[0] += 1
    if count[0] == 4:  # the second file of the second checkpoint
        Path(sys.argv[1], "slow").touch()
        time.sleep(120)
files.write_tensors = slow
sys.exit(cli.main(sys.argv[2:]))
"""


def test_a_second_ctrl_c_stops_at_once_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--data.image_size=8", "--train.batch_size=8", "--model.network.dim=4", "--train.n_steps=100000"]
    never = [f"--train.{name}_freq=0" for name in ("print", "eval", "sample")]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path, "train", "-e", run, *options, *never, "--train.save_freq=5"],
        env=ENV, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "slow").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)  # it waits for the write before it says that it saved
    asked = time.monotonic()
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert time.monotonic() - asked < 20
    assert process.returncode == 130, error
    assert "stopped at once" in error
    assert checkpoint.read(checkpoint.newest_folder(run)).step == 5
    again = [sys.executable, "-m", "vaes", "train", "-e", run, "--resume", "latest", "--train.n_steps=12"]
    subprocess.run(again, env=ENV, check=True, capture_output=True, timeout=300)
    assert sorted(path.name for path in (run / "ckpt").iterdir()) == ["step000010", "step000012"]
