"""The run folder: made once, never written over, one training at a time."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaes import files
from vaes.errors import UserError
from vaes.train import checkpoint

__all__ = ["HISTORY", "WRITTEN", "add_segment", "history", "locked", "open_run", "refuse_existing"]

HISTORY = "history.jsonl"
"""One line a segment: from which step on, with which settings, versions, machine and data."""

WRITTEN = (
    ".lock", ".history.lock", "ckpt", "config.yaml", "data.safetensors", HISTORY, "metrics.json", "metrics.jsonl",
    "metrics.txt", "plane", "samples", "tensorboard", "trackers.json", "wandb",
)  # fmt: skip
"""What a training writes into a run folder."""

LEFTOVER = re.compile(
    r"\.(config\.yaml|history\.jsonl|metrics\.jsonl?|metrics\.txt|trackers\.json|data\.safetensors|step[0-9]{6,18}\.(png|npz))\.[0-9]+\.tmp"
)
"""What a training that was killed may leave, there, in ``samples`` and in ``plane``."""

logger = logging.getLogger(__name__)


def refuse_existing(run: Path) -> None:
    """Refuse a run folder that holds anything, or has a name that TensorBoard cannot write below.

    Raises:
        UserError: it does, or it is no folder.
    """
    _refuse_bytes(run)
    if run.exists() and (not run.is_dir() or any(_shown(path) for path in run.iterdir())):
        raise UserError(f"{run}: this run folder exists; choose another with -e, or go on in it with --resume latest")


def _shown(path: Path) -> bool:
    """Whether it is more than the lock, and what a run that was killed while its folder was made leaves."""
    if path.name == "ckpt" and path.is_dir() and not path.is_symlink():
        return any(not below.name.startswith(".") for below in path.iterdir())
    return not path.name.startswith(".")


def _refuse_bytes(run: Path) -> None:
    try:
        str(run).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{run}: a path with bytes that are no UTF-8; give another with -e, or rename it") from None


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep every other training out of a run folder; this process may enter again while it is inside.

    Raises:
        UserError: another one is at work in it, or what a training writes in it is a link.
    """
    _refuse_bytes(run)
    files.refuse_links(run, WRITTEN, ("ckpt", "plane", "samples", "tensorboard"))
    taken = f"{run}: another training is at work in this run folder; choose another with -e"
    with files.locked(run / ".lock", timeout=0, taken=taken):
        yield


@contextmanager
def open_run(
    run: Path, config: str, *, resume: int | None, first: Callable[[], object] | None = None
) -> Iterator[None]:
    """Make the run folder, or enter it to go on from the step ``resume``, and keep every other training out of it.
    ``first`` writes the checkpoint of weights that a new one begins with, before it can be gone on in without them.

    Raises:
        UserError: it exists (and ``resume`` is None), has a whole checkpoint beyond that step, or another training is
            at work in it.
    """
    if resume is None:
        refuse_existing(run)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        for leftover in (*run.iterdir(), *(run / "samples").glob(".*"), *(run / "plane").glob(".*")):
            if LEFTOVER.fullmatch(leftover.name):
                leftover.unlink()
        if resume is None:
            refuse_existing(run)
        else:
            checkpoint.set_aside(run, resume)
        if first is not None:
            (run / "ckpt").mkdir(exist_ok=True)
            first()
        if config and not (run / "config.yaml").exists():  # a folder with it can be gone on in
            files.write_text(run / "config.yaml", config)
        (run / "ckpt").mkdir(exist_ok=True)
        yield


def add_segment(run: Path, segment: Mapping[str, Any]) -> None:
    """Add a line to the history of a run; what is there stays, whoever else writes at this moment."""
    files.refuse_links(run, [HISTORY])
    with files.locked(run / ".history.lock"):
        before = _text(run / HISTORY)
        if before and not before.endswith("\n"):
            before += "\n"  # of a process that was killed in the middle of the line
        line = json.dumps(files.finite(segment), sort_keys=False)
        files.write_text(run / HISTORY, f"{before}{line}\n")


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's history, the first one first; one that cannot be read is left out, with a warning.

    A line with ``config`` is a segment of training; one without tells what was accepted when the run was used.
    """
    found = []
    for number, line in enumerate(_text(run / HISTORY).splitlines(), start=1):
        try:
            segment = json.loads(line)
            found.append({**segment, "step": int(segment["step"])})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            logger.warning("%s: line %d cannot be read and is left out", run / HISTORY, number)
    return found


def _text(path: Path) -> str:
    try:
        return files.read_bytes(path, files.MAX_JSON).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
