"""What a training leaves behind for people: lines, scalars, pictures."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from vaes import files

__all__ = ["Clock", "Record", "Silent"]


class Clock:
    """Seconds spent per activity; what is not training is not counted against its speed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._activity, self._since = "training", time.perf_counter()

    @contextmanager
    def on(self, activity: str) -> Iterator[None]:
        """Count what happens inside as ``activity``."""
        before = self._activity
        self._switch(activity)
        try:
            yield
        finally:
            self._switch(before)

    def read(self, activity: str) -> float:
        """Seconds spent on an activity so far."""
        self._switch(self._activity)
        return self.seconds.get(activity, 0.0)

    def _switch(self, activity: str) -> None:
        now = time.perf_counter()
        self.seconds[self._activity] = self.seconds.get(self._activity, 0.0) + now - self._since
        self._activity, self._since = activity, now


class Silent:
    """The record of a process that is not the first: it leaves nothing behind."""

    def advance(self, step: int) -> None:
        """Nothing."""

    def scalars(self, step: int, split: str, values: Mapping[str, float], speed: float | None = None) -> None:
        """Nothing."""

    def picture(self, step: int, image: Image.Image) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Record:
    """``metrics.jsonl``, ``tensorboard/``, ``samples/`` and the progress bar of the first process.

    ``metrics.jsonl`` holds nothing that depends on the clock, so that a resumed training leaves the same file as an
    uninterrupted one; the speed goes to TensorBoard and the screen.
    """

    def __init__(self, run: Path, start: int, total: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._run, self._start = run, start
        self._lines = run / "metrics.jsonl"
        self._drop_lines_after(start)
        (run / "samples").mkdir(exist_ok=True)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1 if start else None)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=start, unit="step", dynamic_ncols=True, disable=not self._terminal, mininterval=0.5
        )

    def advance(self, step: int) -> None:
        """Move the bar to a step."""
        self._bar.update(step - self._bar.n)

    def scalars(self, step: int, split: str, values: Mapping[str, float], speed: float | None = None) -> None:
        """Write one line of numbers, all in nats per image but for coefficients and the learning rate."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)
        text = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if speed is not None:
            self._board.add_scalar("speed/images_per_second", speed, step)
            text = f"{speed:,.0f} images/s  {text}"
        if split == "train" and self._terminal:
            self._bar.set_postfix_str(text, refresh=False)
        else:
            self.say(f"step {step}  {split}  {text}")

    def picture(self, step: int, image: Image.Image) -> None:
        """Write the picture of a step."""
        files.write_atomic(self._run / "samples" / f"step{step:06d}.png", lambda path: image.save(path, format="PNG"))
        self._board.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def say(self, text: str) -> None:
        """A line on the screen, above the bar."""
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """Finish the bar and flush TensorBoard."""
        self._bar.close()
        self._board.close()

    def _drop_lines_after(self, step: int) -> None:
        # A killed training may have got further than its last checkpoint, and stopped in the middle of a line.
        if not self._lines.exists():
            return
        kept = [line for line in self._lines.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        files.write_atomic(self._lines, lambda path: path.write_text("".join(line + "\n" for line in kept)))


def _step_of(line: str) -> float:
    try:
        document: Any = json.loads(line)
        return int(document["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
