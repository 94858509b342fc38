"""A copy of the run folder elsewhere (``train.mirror``), made in the background of what the disk already has.

Object stores rename nothing. So ``state.json``, without which a checkpoint does not count, is copied last and deleted
first, and no checkpoint is deleted there before the newest one here is whole there: whoever reads the copy, or is left
with it, at any moment finds a whole checkpoint, and all that it goes on with.
"""

import logging
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vaes import files
from vaes.errors import Stopped, UserError
from vaes.remote import Store, speaking, why
from vaes.terminal import escape
from vaes.train import checkpoint
from vaes.train.folder import HISTORY, WRITTEN
from vaes.train.listeners import Listener

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["COPIED", "FILES", "PICTURES", "WHOLE", "Mirror", "refuse_other"]

FILES = (
    "config.yaml", "data.safetensors", "perceptual.safetensors", HISTORY, "metrics.jsonl", "trackers.json",
    "metrics.json", "metrics.txt",
)  # fmt: skip
PICTURES = ("samples", "plane")
COPIED = (*FILES, *PICTURES, "ckpt")
"""What is copied of a run folder: all but what trackers keep for themselves."""

PARTS = (checkpoint.MODEL, checkpoint.TRAINING)
WHOLE = re.compile(rf"ckpt/step([0-9]{{6,18}})/{re.escape(checkpoint.STATE)}", re.ASCII)
"""What says that a checkpoint is there."""

WAIT = 600.0
"""Seconds that the end of a training waits for the copy, at most."""

Stamp = tuple[int, ...]

logger = logging.getLogger(__name__)


def refuse_other(url: str, folder: Path, step: int | None) -> None:
    """Refuse a place for the copy of a run that cannot be written, or holds what is not an earlier copy of it.

    Args:
        url: the place.
        folder: the run's.
        step: that it goes on from; None for a new run.

    Raises:
        UserError: naming the place.
    """
    where = f"train.mirror: {escape(url)}"
    try:
        store = Store(url)
    except UserError as error:
        raise UserError(f"train.mirror: {error}") from error
    here = folder.resolve()
    if store.path is not None and ((there := store.path.resolve()) in (here, *here.parents) or here in there.parents):
        raise UserError(f"{where}: is not apart from the run folder {folder}; give a place on another disk or machine")
    with speaking(where):
        top = store.top()
        names = store.names("ckpt") if "ckpt" in top else {}
        reached = max((int(match[1]) for name in names if (match := WHOLE.fullmatch(name))), default=None)
        go_on = f"go on with it by --resume {escape(url)} and a new run folder -e, or give another place"
        strangers = sorted(name for name in top - {*WRITTEN, *COPIED} if not name.startswith("."))
        if step is None and reached is not None:
            raise UserError(f"{where}: holds a run at step {reached}; {go_on}")
        if step is None and strangers:
            raise UserError(f"{where}: holds what no training wrote ({escape(strangers[0])}); give a place of its own")
        if step is not None and reached is not None:
            history = files.read_bytes(folder / HISTORY, files.MAX_JSON) if (folder / HISTORY).is_file() else b""
            if _began(history) != _began(store.read(HISTORY) if HISTORY in top else b""):
                raise UserError(f"{where}: holds another run than {folder}; give another place")
            if reached > step:
                raise UserError(f"{where}: is at step {reached}, and {folder} at step {step}; {go_on}")
        store.write(b"", ".probe")
        store.delete(".probe")


def _began(history: bytes) -> bytes:
    """By what a run is known: the first line of its history, which says when it began."""
    return history.split(b"\n")[0]


class Mirror(Listener):
    """Copies what the run folder has, after each save and at the end; a copy that fails never ends the training.

    Args:
        url: where to.
        copies: whether this process is the one that does; the others only wait for it at the end.
    """

    def __init__(self, url: str, *, copies: bool = True) -> None:
        self._url, self._store = escape(url), Store(url) if copies else None
        self._folder: Path | None = None
        self._thread: threading.Thread | None = None
        self._copied: dict[str, Stamp] = {}
        """What is there, as it was here when it was copied."""
        self._there: set[str] | None = None
        """The files of checkpoints that are there, whole or not; None before they were looked at."""
        self._looked: Stamp | None = None
        self._saved: list[Path] = []
        self._problem = self._said = ""
        self._ended = False

    def start(self, training: "Training") -> None:
        """The run folder is there."""
        self._folder = training.folder

    def stepped(self, training: "Training", step: int) -> None:
        """Begin to copy where a checkpoint was saved or deleted since the last time; never waits."""
        if self._store is None or self._folder is None or (self._thread is not None and self._thread.is_alive()):
            return
        if self._problem and not self._said:
            logger.warning(
                "train.mirror: a copy to %s failed: %s; training goes on, and it is tried again after the next save",
                self._url, self._problem,
            )  # fmt: skip
        elif self._said and not self._problem:
            training.say(f"train.mirror: copies to {self._url} succeed again")
        self._said = self._problem
        if (looked := _stamp(self._folder / "ckpt")) != self._looked:
            self._looked, saved = looked, checkpoint.checkpoints(self._folder)
            if saved != self._saved:
                self._saved = saved
                self._begin()

    def end(self, training: "Training") -> None:
        """Copy what is left, and say whether all is there; all processes wait for the one that copies, since a launcher
        ends them with the first."""
        if self._folder is None:
            return
        error = sys.exc_info()[1]
        if self._store is not None:
            left = self._last(self._folder, patient=not isinstance(error, KeyboardInterrupt))
            if not left:
                training.say(f"train.mirror: the copy at {self._url} is complete")
            else:
                logger.warning(
                    "train.mirror: the copy at %s is not complete (%s): it lacks %s; %s has all, and going on in it, "
                    "by --resume latest, copies the rest", self._url, self._problem or "there was no more time",
                    ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else ""), self._folder,
                )  # fmt: skip
        if error is None or isinstance(error, Stopped):
            training.runtime.wait()

    def _last(self, folder: Path, *, patient: bool) -> list[str]:
        """Rounds, while they bring anything; what then is not as it is here."""
        until, before = time.monotonic() + WAIT * patient, [""]
        try:
            self._wait(until)
            left = self._left(folder)
            while left != before and time.monotonic() < until:
                before = left
                self._begin()
                self._wait(until)
                left = self._left(folder)
                if not left:
                    break
        finally:
            self._ended = True
        return left

    def _wait(self, until: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))

    def _left(self, folder: Path) -> list[str]:
        """What is to be copied or deleted there, for people."""
        copies = dict.fromkeys("/".join(name.split("/")[:2]) for name in self._pending(folder))
        deletions = dict.fromkeys(f"the deletion of {name.rpartition('/')[0]}" for name in self._old(folder))
        return [*sorted(copies, key=lambda name: not name.startswith("ckpt/")), *deletions]

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._round, name="mirror", daemon=True)
        self._thread.start()

    def _round(self) -> None:
        """Copy and delete what is to be; the first failure ends it."""
        folder, store = self._folder, self._store
        assert folder is not None
        assert store is not None
        try:
            if self._there is None:
                self._there = self._look(folder, store)
            for name in self._pending(folder):
                if self._ended:
                    return
                self._copy(folder, store, name, self._there)
            newest = [f"ckpt/{path.name}/{checkpoint.STATE}" for path in checkpoint.checkpoints(folder)[:1]]
            if newest and self._copied.get(newest[0]) == _stamp(folder / newest[0]):
                for name in self._old(folder):
                    store.delete(name)
                    self._there.discard(name)
            self._problem = ""
        except Exception as error:  # whatever a file system does
            self._problem = why(error)

    def _pending(self, folder: Path) -> list[str]:
        """What is not there as it is here, in the order in which it is copied."""
        names = [*FILES]
        for pictures in PICTURES:
            names += [f"{pictures}/{path.name}" for path in sorted((folder / pictures).glob("[!.]*"))]
        for path in checkpoint.checkpoints(folder):
            names += [f"ckpt/{path.name}/{part}" for part in (*PARTS, checkpoint.STATE)]
        return [name for name in names if (stamp := _stamp(folder / name)) and self._copied.get(name) != stamp]

    def _old(self, folder: Path) -> list[str]:
        """Files there of checkpoints that are not here any more, the one that says that it is whole first."""
        kept = {path.name for path in checkpoint.checkpoints(folder)}
        old = (name for name in [*(self._there or ())] if name.split("/")[1] not in kept)
        return sorted(old, key=lambda name: (not WHOLE.fullmatch(name), name))

    def _look(self, folder: Path, store: Store) -> set[str]:
        """What an earlier training left there: the pictures and checkpoints that are those here need no copying."""
        there = store.names()
        same = {name: stamp for name in self._pending(folder) if (stamp := _stamp(folder / name)) is not None}
        same = {name: stamp for name, stamp in same.items() if there.get(name) == stamp[0] and "/" in name}
        for path in checkpoint.checkpoints(folder):
            state = f"ckpt/{path.name}/{checkpoint.STATE}"
            if state not in same or store.read(state) != (folder / state).read_bytes():
                for part in (*PARTS, checkpoint.STATE):
                    same.pop(f"ckpt/{path.name}/{part}", None)
        self._copied |= same
        return {name for name in there if re.match(r"ckpt/step[0-9]{6,18}/", name)}

    def _copy(self, folder: Path, store: Store, name: str, there: set[str]) -> None:
        """Copy a file; nothing is wrong where it is deleted here meanwhile, with the checkpoint that it is of."""
        path, stamp = folder / name, _stamp(folder / name)
        parts, state = [str(Path(name).with_name(part)) for part in PARTS], str(Path(name).with_name(checkpoint.STATE))
        try:
            if name == state:
                content = path.read_bytes()
                if any(self._copied.get(part) != _stamp(folder / part) for part in parts):
                    return  # another took its place
                there.add(name)
                store.write(content, name)
            elif name in parts:
                if state in there:
                    store.delete(state)
                    there.discard(state)
                there.add(name)
                store.put(path, name)
            elif name.endswith(".jsonl"):  # lines are being added
                content = files.read_bytes(path)
                store.write(content[: content.rfind(b"\n") + 1], name)
            else:
                store.put(path, name)
        except FileNotFoundError:
            if path.exists():
                raise
            return
        if stamp is not None:
            self._copied[name] = stamp


def _stamp(path: Path) -> Stamp | None:
    """What changes when a file is written anew; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns, status.st_ino)
