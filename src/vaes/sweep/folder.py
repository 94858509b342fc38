"""The folder of a sweep: what was asked for, the members' run folders, and what became of each."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vaes import files
from vaes.compare.runs import SWEEP
from vaes.errors import UserError
from vaes.experiment import SECTIONS, Experiment, refuse_difference
from vaes.start import stored
from vaes.sweep.grid import Member
from vaes.terminal import escape

__all__ = ["RUNS", "SweepFolder", "finished", "numbers", "started"]

FORMAT = "vaes-sweep-1"
RUNS, FAILURES, LOCK = "runs", "failures.json", ".sweep.lock"


def started(run: Path) -> bool:
    """Whether a run folder can be gone on in."""
    return (run / "config.yaml").is_file()


def finished(run: Path) -> bool:
    """Whether a training came to its end: what it writes last is there."""
    return (run / "metrics.json").is_file() and (run / "metrics.txt").is_file()


def numbers(run: Path, split: str = "test") -> dict[str, float | None]:
    """The means of a split that a finished training left, of the best checkpoint where there was a validation.

    Raises:
        UserError: they are damaged.
    """
    path = run / "metrics.json"
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        section = document.get("best") or document
        return {str(name): found["value"] for name, found in section[split].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not what training writes ({type(error).__name__}: {escape(error)})") from None


class SweepFolder:
    """A sweep on the disk.

    Attributes:
        path: its folder.
        known: name -> changes of every member that was ever planned in it.
        failures: name -> sentence of the members that failed.
        more: what else was asked for: what a search looks for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self._experiment: Experiment | None = None
        self.more: dict[str, Any] = {}
        if not (path / SWEEP).exists():
            self._refuse_other_use()
            return
        document = _read(path / SWEEP)
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}")
            self._experiment = Experiment.of(document["experiment"])
            self.known = {str(name): dict(changes) for name, changes in document["members"].items()}
            self.more = dict(document.get("more", {}))
            if odd := [name for name in self.known if name != Path(name).name or name.startswith(".")]:
                raise ValueError(f"a member called {odd[0]}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path / SWEEP}: not what a sweep writes ({escape(error)})") from None
        if (path / FAILURES).exists():
            self.failures = {str(name): str(why) for name, why in _read(path / FAILURES).items()}

    def _refuse_other_use(self) -> None:
        if (self.path / "config.yaml").is_file() or (self.path / "ckpt").is_dir():
            raise UserError(f"{self.path}: is the folder of a run; give a sweep a new folder with -e")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; give a sweep a new folder with -e")
        if self.path.is_dir() and any(not found.name.startswith(".") for found in self.path.iterdir()):
            raise UserError(f"{self.path}: holds other things than a sweep; give a new folder with -e")

    def run(self, member: Member | str) -> Path:
        """The run folder of a member."""
        return self.path / RUNS / (member if isinstance(member, str) else member.name)

    def refuse_other(self, base: Experiment, more: Mapping[str, Any]) -> None:
        """Refuse a sweep of another experiment, or another kind of sweep (``more``: what a search looks for).

        Raises:
            UserError: naming the first key that differs.
        """
        if self._experiment is None:
            return
        what = f"{self.path}: this folder has a sweep of another experiment; give a new one with -e"
        refuse_difference(base, self._experiment, ("seed", "method", *SECTIONS), what)
        for key in sorted({*more, *self.more}):
            ours, theirs = (one.get(key, "nothing") for one in (more, self.more))
            if json.dumps(ours) != json.dumps(theirs):
                raise UserError(f"{what}: {key} is {escape(ours)} in what was asked for and {escape(theirs)} in theirs")

    def adopt(self, members: Sequence[Member]) -> list[Member]:
        """The members by the names that they have here already, whatever the grid that made them was.

        Raises:
            UserError: a member's folder holds a run with another configuration.
        """
        planned = {member.name for member in members}
        others: dict[Experiment, str] = {}
        if self._experiment is not None and any(member.name not in self.known for member in members):
            there = {name: changes for name, changes in self.known.items() if name not in planned}
            others = {self._experiment.replace(changes): name for name, changes in there.items()}
        found = [
            member if member.name in self.known else member._replace(name=others.get(member.experiment, member.name))
            for member in members
        ]
        for member in found:
            if started(run := self.run(member)):
                what = f"{run}: holds a run with another configuration than this member's; move it away"
                before = Experiment.of(stored(run))
                refuse_difference(member.experiment, before, ("seed", "method", *SECTIONS), what)
        return found

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no other sweep works here; the folder is made.

        Raises:
            UserError: one does, or nothing can be written.
        """
        files.refuse_unwritable(self.path)
        taken = f"{self.path}: another sweep is at work in this folder; wait for it, or give another with -e"
        with files.locked(self.path / LOCK, timeout=0, taken=taken):
            files.refuse_unwritable(self.path / RUNS)
            yield

    def plan(self, base: Experiment, members: Sequence[Member], more: Mapping[str, Any]) -> None:
        """Write down what is asked for, beside what was asked for before."""
        self._experiment, self.more = base, dict(more)
        self.known |= {member.name: member.changes for member in members}
        document = {"format": FORMAT, "experiment": base.to_dict(), "more": self.more, "members": self.known}
        files.write_json(self.path / SWEEP, document)

    def failed(self, name: str, why: str | None) -> None:
        """Remember that a member failed, or with None that it did not."""
        before = dict(self.failures)
        if why is None:
            self.failures.pop(name, None)
        else:
            self.failures[name] = why
        if self.failures != before:
            files.write_json(self.path / FAILURES, self.failures)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        if not isinstance(document, dict):
            raise ValueError("no document")
        return document
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or escape(error)
        raise UserError(f"{path}: cannot be read ({why}); give another folder with -e") from None
