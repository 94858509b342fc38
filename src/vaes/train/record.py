"""What a training leaves behind for people: numbers, pictures, and a table of the last ones."""

import io
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaes import files
from vaes.errors import UserError
from vaes.train.listeners import Listener
from vaes.train.validate import Estimate

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Clock", "Record", "metrics_document", "metrics_table", "read_lines", "test_numbers"]

PICTURE = re.compile(r"step(\d{6,18})\.(png|npz)")

logger = logging.getLogger(__name__)

MAX_LINE = 1_000_000
"""Bytes; a longer line of ``metrics.jsonl`` was not written by this program."""


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


class Record(Listener):
    """``metrics.jsonl``, ``samples/`` and, where it is wanted, ``tensorboard/`` of the first process.

    ``metrics.jsonl`` holds nothing that depends on the clock, so that a resumed training leaves the same file as an
    uninterrupted one; the speed goes to TensorBoard.
    """

    def __init__(self, run: Path, step: int, *, board: bool = True) -> None:
        self._run, self._lines = run, run / "metrics.jsonl"
        if self._lines.exists():  # a killed training may have got further than its last checkpoint
            kept = [json.dumps(line) for line in read_lines(self._lines) if line["step"] <= step]
            files.write_text(self._lines, "".join(line + "\n" for line in kept))
        (run / "samples").mkdir(exist_ok=True)
        for picture in (*(run / "samples").iterdir(), *(run / "plane").glob("*")):
            if (match := PICTURE.fullmatch(picture.name)) and int(match[1]) > step:
                picture.unlink()
        self._board: Any = None
        if board:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def metrics(self, training: "Training", step: int, split: str, values: Mapping[str, float]) -> None:
        """Add a line of numbers, all in nats per image but for coefficients and the learning rate."""
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(files.finite({"step": step, "split": split, **values}), allow_nan=False) + "\n")
        if self._board is None:
            return
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)
        if training.speed is not None:
            self._board.add_scalar("speed/images_per_second", training.speed, step)

    def picture(self, training: "Training", step: int, image: Image.Image) -> None:
        """Write the picture of a step."""
        files.write_atomic(self._run / "samples" / f"step{step:06d}.png", lambda path: image.save(path, format="PNG"))
        if self._board is not None:
            self._board.add_image("samples", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def sync(self) -> None:
        """Bring the numbers to the disk: a checkpoint that is saved now comes after them."""
        if self._lines.exists():
            with self._lines.open("rb") as file:
                os.fsync(file.fileno())

    def end(self, training: "Training") -> None:
        """Flush TensorBoard."""
        if self._board is not None:
            self._board.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; one that cannot be read is left out, with a warning: it is only a log."""
    found = []
    with files.open_regular(path) as file:
        for number, line in enumerate(_bounded(file), start=1):
            try:
                if len(line) > MAX_LINE:
                    raise ValueError("too long")
                document = json.loads(line.decode("utf-8"))
                if type(document["step"]) is not int or not isinstance(document["split"], str):
                    raise ValueError("no step or split")
                found.append(files.finite(document))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                why = type(error).__name__ if not str(error) else str(error).splitlines()[0]
                logger.warning("%s: line %d cannot be read (%s) and is left out", path, number, why)
    return found


def _bounded(file: io.BufferedReader) -> Iterator[bytes]:
    """The lines of a file, of which one that is too long is not held."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def metrics_document(
    found: Mapping[str, tuple[int, Mapping[str, Mapping[str, Estimate]]]], seed: int, units: Mapping[str, str]
) -> dict[str, Any]:
    """What ``metrics.json`` holds: the numbers of the ``last`` step at the top, those of the ``best`` below.

    Numbers that are not finite are null, and ``not_finite`` names them.
    """

    def plain(numbers: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
        return {
            split: {
                name: {
                    "value": e.value,
                    "stderr": e.stderr,
                    "n": e.n,
                    "unit": units.get(name, "nats per image"),
                }
                for name, e in estimates.items()
            }
            for split, estimates in numbers.items()
        }

    step, last = found["last"]
    document: dict[str, Any] = {"step": step, "seed": seed, **plain(last)}
    document["best"] = {"step": found["best"][0], **plain(found["best"][1])} if "best" in found else None
    bad = sorted({name for split in last.values() for name, e in split.items() if not math.isfinite(e.value)})
    if bad:
        document["not_finite"] = bad
    cleaned: dict[str, Any] = files.finite(document)
    return cleaned


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The test numbers as people read them: of the last step, and of the best where that is another one."""
    columns, best, step = [("", metrics["test"])], metrics["best"], f"step {metrics['step']:,}"
    which = " (last and best)" if best is not None else ""
    lines = [f"test numbers after {step}{which}, mean over images ± half a 95 % interval"]
    if best is not None and best["step"] != metrics["step"]:
        columns = [(f"{step} (last)", metrics["test"]), (f"step {best['step']:,} (best valid)", best["test"])]
        lines = ["test numbers, mean over images ± half a 95 % interval"]
        lines.append(f"  {'':<12}" + "".join(f"{title:>24}" for title, _ in columns))
    for name, found in metrics["test"].items():
        cells = "".join(f"{_cell(test[name]):>24}" for _, test in columns if name in test)
        lines.append(f"  {name:<12}{cells}  {found['unit']}".rstrip())
    return "\n".join(lines)


def test_numbers(run: Path, step: int) -> list[tuple[str, str, str]]:
    """Names, values with half a 95 % interval, and units of a step's test numbers in ``metrics.json``; none where there
    is no such file yet, or it is of other steps.

    Raises:
        UserError: it cannot be read.
    """
    path = run / "metrics.json"
    if not path.exists():
        return []
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        found = next((d for d in (document, document["best"]) if d is not None and d["step"] == step), None)
        test = {} if found is None else found["test"]
        return [(name, _cell(number), str(number["unit"])) for name, number in test.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is not what a training writes ({type(error).__name__})") from None


def _cell(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "not finite"
    return f"{found['value']:.5g}" + (f" ± {1.96 * found['stderr']:.3g}" if found["stderr"] is not None else "")
