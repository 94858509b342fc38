import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaes import Experiment
from vaes.errors import Stopped
from vaes.train.listeners import Listener
from vaes.train.loop import Training
from vaes.train.stop import Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    usual = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, usual, strict=True):
        assert signal.getsignal(number) is handler
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_launchers_may_ask_twice(number: int) -> None:
    with Stop() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == number


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_a_signal_stops_at_once(first: int) -> None:
    with Stop() as stop:
        os.kill(os.getpid(), first)
        assert stop.signal == first
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so() -> None:
    usual = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, usual)


class Asked(Listener):
    """A signal that comes with the last step, so that the numbers after it are what it meets."""

    def stepped(self, training: Training, step: int) -> None:
        if step == training.settings.n_steps:
            os.kill(os.getpid(), signal.SIGTERM)


def test_the_last_numbers_do_not_keep_a_signal_waiting(tmp_path: Path) -> None:
    model = {"network": {"kind": "mlp", "hidden": [4]}, "likelihood": "bernoulli"}
    train = {"n_steps": 3, "batch_size": 8, "eval_freq": 0, "sample_freq": 0, "trackers": []}
    experiment = Experiment(data={"kind": "digits", "image_size": 8}, model=model, train=train)
    experiment.fit(tmp_path / "whole", device="cpu")
    with pytest.raises(Stopped, match=r"all steps saved; .*--resume latest") as caught:
        experiment.fit(tmp_path / "asked", device="cpu", callbacks=[Asked()])
    assert caught.value.status == 128 + signal.SIGTERM
    assert not (tmp_path / "asked" / "metrics.json").exists()
    experiment.fit(tmp_path / "asked", resume="latest", device="cpu")
    whole, asked = ((tmp_path / name / "metrics.json").read_text() for name in ("whole", "asked"))
    assert asked == whole
