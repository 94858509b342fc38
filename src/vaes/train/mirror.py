"""A copy of the run folder elsewhere (``train.mirror``), made in the background of what the disk already has.

Object stores rename nothing. So ``state.json``, without which a checkpoint does not count, is copied last and deleted
first, and no checkpoint is deleted there before the newest one here is whole there: whoever reads the copy, or is left
with it, at any moment finds a whole checkpoint.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vaes import files
from vaes.errors import UserError
from vaes.remote import Store, speaking, why
from vaes.terminal import escape
from vaes.train import checkpoint
from vaes.train.folder import HISTORY, WRITTEN
from vaes.train.listeners import Listener

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["CONFIG", "Found", "Mirror", "look"]

CONFIG = "config.yaml"
FIRST = (CONFIG, "data.safetensors", "perceptual.safetensors")
"""What going on from a checkpoint takes beside it."""

LATER = (HISTORY, "metrics.jsonl", "metrics.json", "metrics.txt", "trackers.json")
FOLDERS = ("samples", "plane")
PARTS = (checkpoint.MODEL, checkpoint.TRAINING)

ROUNDS = 5
"""How often, at most, what failed is tried again at the end, while anything gets through."""

PATIENCE = 600.0
"""Seconds that the end waits while no file gets through; then the thread is left behind, and ends with the process."""

Stamp = tuple[int, ...]

logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """What a place for a copy holds before a training."""

    config: str | None
    """The configuration of the run that is there."""
    step: int | None
    """Of its newest checkpoint."""


def look(url: str, folder: Path | None) -> Found:
    """What is at a URL, to which the run in ``folder`` is to be copied; that files can be written there is tried.

    Raises:
        UserError: it cannot be reached or written, is in the run folder, or holds what is no run.
    """
    where = f"train.mirror: {escape(url)}"
    try:
        store = Store(url)
    except UserError as error:
        raise UserError(f"train.mirror: {error}") from error
    here = store.path.resolve() if store.path is not None else None
    if here is not None and folder is not None and folder.resolve() in (here, *here.parents):
        raise UserError(f"{where}: is the run folder or lies in it; give a place on another disk or machine")
    with speaking(where):
        top = store.top()
        if strangers := sorted(name for name in top if name not in (*WRITTEN, *FIRST) and not name.startswith(".")):
            raise UserError(f"{where}: holds what no training wrote ({escape(strangers[0])}); give a place of its own")
        steps = _whole(store.names("ckpt")) if "ckpt" in top else set()
        config = store.read(CONFIG).decode("utf-8", errors="replace") if CONFIG in top else None
        store.write(b"", ".probe")
        store.delete(".probe")
    return Found(config, max((int(name[4:]) for name in steps), default=None))


def _whole(names: object) -> set[str]:
    """The checkpoint folders among names that have a state."""
    parts = [str(name).split("/") for name in names]  # type: ignore[attr-defined]
    named = {p[1] for p in parts if len(p) == 3 and p[0] == "ckpt" and p[2] == checkpoint.STATE}
    return {name for name in named if checkpoint.FOLDER.fullmatch(name)}


class Mirror(Listener):
    """Copies what the run folder has, after each save and at the end; a copy that fails never ends the training."""

    def __init__(self, url: str) -> None:
        self._url = escape(url)
        self._store = Store(url)
        self._thread: threading.Thread | None = None
        self._copied: dict[str, Stamp] = {}
        """What is there, as it was here when it was copied."""
        self._there: set[str] | None = None
        """What was seen of checkpoints there, or put there."""
        self._moved = 0
        self._missing: list[str] = []
        self._problem = ""
        self._said = False
        self._looked: Stamp | None = None
        self._saved: list[Path] = []

    def start(self, training: "Training") -> None:
        """The run folder is there."""
        self._folder = training.folder

    def stepped(self, training: "Training", step: int) -> None:
        """Begin to copy where a checkpoint was saved or deleted since the last time; never waits."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._tell()
        looked = _stamp(self._folder / "ckpt")
        if looked == self._looked:
            return
        self._looked = looked
        if (saved := checkpoint.checkpoints(self._folder)) and saved != self._saved:
            self._saved = saved
            self._begin(self._round)

    def end(self, training: "Training") -> None:
        """Copy what is left, and say whether all is there."""
        if not hasattr(self, "_folder"):
            return
        if not isinstance(sys.exc_info()[1], KeyboardInterrupt):  # who asks twice is not kept waiting
            with training.clock.on("mirror"):
                if self._waited():
                    self._begin(self._rounds)
                    self._waited()
            if not self._missing:
                training.say(f"train.mirror: the copy at {self._url} is complete")
                return
        self._tell()
        lacks = ", ".join(self._missing[:3]) + ", ..." * (len(self._missing) > 3) or "what was not copied yet"
        logger.warning(
            "train.mirror: the copy at %s is not complete: it lacks %s%s; %s has all", self._url, lacks,
            f" ({self._problem})" if self._problem else "", self._folder,
        )  # fmt: skip

    def _waited(self) -> bool:
        """Wait for the thread while it gets on; whether it is done."""
        thread, moved, since = self._thread, self._moved, time.monotonic()
        while thread is not None and thread.is_alive():
            thread.join(0.2)
            if self._moved != moved:
                moved, since = self._moved, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                self._problem = f"no file got through for {PATIENCE:g} s"
                return False
        return True

    def _tell(self) -> None:
        if self._problem and not self._said:
            self._said = True
            logger.warning(
                "train.mirror: a copy to %s failed: %s; training goes on, and it is tried again after the next save",
                self._url, self._problem,
            )  # fmt: skip

    def _begin(self, job: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=job, name="mirror", daemon=True)
        self._thread.start()

    def _rounds(self) -> None:
        """Rounds, while they bring anything."""
        for _ in range(ROUNDS):
            before = self._moved
            self._round()
            if not self._missing or self._moved == before:
                return

    def _round(self) -> None:
        """Try to copy all that is not there; two failures in a row end it."""
        self._missing = ["what this computer would not list"]
        missing: list[str] = []
        failures = 0
        for name, job in self._jobs():
            if failures < 2:
                try:
                    job()
                    failures = 0
                    continue
                except Exception as error:  # whatever a file system does
                    self._problem = why(error)
                    failures += 1
            missing.append(name)
        self._missing = missing

    def _jobs(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """What is to be copied and deleted, in this order."""
        if self._there is None:
            yield "all checkpoints", self._look
        for name in FIRST:
            yield from self._file(name)
        saved = checkpoint.checkpoints(self._folder)
        for path in saved:
            if not self._has(path):
                yield f"ckpt/{path.name}", partial(self._checkpoint, path)
        for name in LATER:
            yield from self._file(name)
        for folder in FOLDERS:
            for path in sorted((self._folder / folder).glob("[!.]*")):
                yield from self._file(f"{folder}/{path.name}")
        kept = {path.name for path in checkpoint.checkpoints(self._folder)}
        if saved and self._has(saved[0]):
            for old in sorted({name.split("/")[1] for name in self._there or ()} - kept):
                yield f"the deletion of ckpt/{old}", partial(self._delete, old)

    def _file(self, name: str) -> Iterator[tuple[str, Callable[[], object]]]:
        stamp = _stamp(self._folder / name)
        if stamp is not None and self._copied.get(name) != stamp:
            yield name, lambda: self._put(name, stamp)

    def _put(self, name: str, stamp: Stamp) -> None:
        path = self._folder / name
        if name.endswith(".jsonl"):  # lines are being added
            content = files.read_bytes(path)
            self._store.write(content[: content.rfind(b"\n") + 1], name)
        else:
            self._store.put(path, name)
        self._note(name, stamp)

    def _note(self, name: str, stamp: Stamp) -> None:
        self._copied[name] = stamp
        self._moved += 1

    def _look(self) -> None:
        """What an earlier training left there: checkpoints that are those here need no copying."""
        there = self._store.names("ckpt")
        for path in checkpoint.checkpoints(self._folder):
            state = f"ckpt/{path.name}/{checkpoint.STATE}"
            names = [f"ckpt/{path.name}/{part}" for part in PARTS]
            stamps = {name: stamp for name in (*names, state) if (stamp := _stamp(self._folder / name)) is not None}
            same = len(stamps) == 3 and all(there.get(name) == stamps[name][0] for name in names)
            if same and state in there and self._store.read(state) == (path / checkpoint.STATE).read_bytes():
                self._copied |= stamps
        self._there = {name for name in there if checkpoint.FOLDER.fullmatch(name.split("/")[1])}

    def _has(self, path: Path) -> bool:
        state = f"ckpt/{path.name}/{checkpoint.STATE}"
        return state in self._copied and self._copied[state] == _stamp(self._folder / state)

    def _checkpoint(self, path: Path) -> None:
        """Copy a checkpoint, its state last; nothing is wrong where it is deleted here meanwhile."""
        if self._there is None:
            raise OSError("what is there is not known")
        state = f"ckpt/{path.name}/{checkpoint.STATE}"
        with contextlib.ExitStack() as gone:
            gone.push(lambda kind, error, trace: kind is FileNotFoundError and not path.exists())
            content, stamp = (path / checkpoint.STATE).read_bytes(), _stamp(path / checkpoint.STATE)
            if state in self._there and self._copied.get(state) != stamp:
                self._store.delete(state)
                self._there.discard(state)
            for part in PARTS:
                name, of = f"ckpt/{path.name}/{part}", _stamp(path / part)
                if of is None:
                    return
                if self._copied.get(name) != of:
                    self._there.add(name)
                    self._put(name, of)
            if stamp is None or stamp != _stamp(path / checkpoint.STATE):
                return  # another took its place, or none did
            self._store.write(content, state)
            self._there.add(state)
            self._note(state, stamp)

    def _delete(self, old: str) -> None:
        assert self._there is not None
        names = sorted(name for name in self._there if name.startswith(f"ckpt/{old}/"))
        for name in sorted(names, key=lambda name: not name.endswith(f"/{checkpoint.STATE}")):
            self._store.delete(name)
            self._there.discard(name)
            self._copied.pop(name, None)
        self._store.drop(f"ckpt/{old}")


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file is written anew; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino)
