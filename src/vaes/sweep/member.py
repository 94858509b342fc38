"""One member of a sweep, trained in whatever process it is given to."""

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from vaes import config as configuration
from vaes import files
from vaes.data import Splits
from vaes.errors import Stopped, UserError
from vaes.experiment import Experiment
from vaes.sweep.folder import started
from vaes.terminal import line

if TYPE_CHECKING:
    from vaes.train.listeners import Listener

__all__ = ["Ended", "Task", "Watcher", "ended_by", "import_once", "perform", "perform_apart"]

_imported: set[Path] = set()
_read: dict[str, Splits] = {}


class Task(NamedTuple):
    """A member as it is handed to a process, perhaps on another machine."""

    name: str
    keys: dict[str, Any]
    """The experiment's."""
    folder: Path
    n_steps: int
    device: str = "auto"
    imports: tuple[Path, ...] = ()
    images: str = ""
    """Which of the sets of images that were read before."""
    log: Path | None = None
    """Where a fault of ours leaves its traceback."""
    beside: tuple["Task", ...] = ()
    """Others that are trained with it, by one stacked step."""


class Ended(NamedTuple):
    """What became of a member."""

    name: str
    status: Literal["done", "failed", "stopped", "pruned"]
    """Stopped: it goes on with the next command."""
    why: str = ""


class Watcher:
    """What an engine tells of members while they train."""

    def planned(self, steps: Mapping[str, int]) -> None:
        """These members are about to be trained, each so many steps long."""

    def began(self, name: str) -> None:
        """A process took it up."""

    def stepped(self, name: str, step: int) -> None:
        """So many steps are done; told now and then."""

    def validated(self, name: str, step: int, values: Mapping[str, float]) -> str | None:
        """Numbers of the validation images; a text that is returned ends the member, and says why."""
        return None

    def ended(self, ended: Ended) -> None:
        """It came to an end."""

    def said(self, text: str) -> None:
        """A line for people."""


def perform(task: Task, read: Splits | None = None, callbacks: Sequence["Listener"] = ()) -> Ended:
    """Train a member, or go on with it; ``read`` are its images, where they were read before."""
    try:
        import_once(task.imports)
        experiment = Experiment.of(task.keys)
        resume = "latest" if started(task.folder) else None
        experiment.train_in(task.folder, resume=resume, device=task.device, callbacks=callbacks, read=read)
    except Exception as error:  # the other members go on
        return ended_by(task, error)
    return Ended(task.name, "done")


def ended_by(task: Task, error: BaseException) -> Ended:
    """What became of a member whose training raised this; a fault of ours leaves its traceback."""
    if isinstance(error, UserError):
        return Ended(task.name, "failed", line(error))
    if isinstance(error, Stopped):
        return Ended(task.name, "stopped", line(error).partition(";")[0])
    if isinstance(error, OSError):  # a full disk
        where = f"{error.filename}: " if error.filename else ""
        return Ended(task.name, "failed", line(f"{where}{error.strerror or error}"))
    return Ended(task.name, "failed", line(f"{type(error).__name__}: {error}{_kept(task, error)}"))


def perform_apart(task: Task, threads: int) -> Ended:
    """Train a member in a process of a cluster, which may have trained others on the same images before."""
    torch.set_num_threads(threads)
    try:
        import_once(task.imports)
        if task.images not in _read:
            splits = Experiment.of(task.keys).build_data()
            _read.clear()
            _read[task.images] = splits
    except UserError as error:
        return Ended(task.name, "failed", line(error))
    return perform(task, _read[task.images])


def import_once(paths: Sequence[Path]) -> None:
    """Run the files that register networks, those that this process has not run yet.

    Raises:
        UserError: one is missing, or fails.
    """
    for path in paths:
        if path.absolute() not in _imported:
            configuration.import_file(path)
            _imported.add(path.absolute())


def _kept(task: Task, error: BaseException) -> str:
    if task.log is None:
        return ""
    task.log.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(task.log, "".join(traceback.format_exception(error)))
    return f" (traceback: {task.log})"
