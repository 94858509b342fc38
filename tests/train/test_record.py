"""What a resumed training leaves in TensorBoard."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vaes.train.record import Record


def test_tensorboard_drops_what_lies_beyond_the_checkpoint_of_a_resumed_run_and_nothing_else(tmp_path: Path) -> None:
    training: Any = SimpleNamespace(speed=None)
    killed = Record(tmp_path, 0)
    for step in (3, 4, 5, 6):
        killed.metrics(training, step, "train", {"loss": float(step)})
    killed.end(training)
    resumed = Record(tmp_path, 4)
    resumed.metrics(training, 7, "train", {"loss": 7.0})
    resumed.end(training)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [3, 4, 7]
