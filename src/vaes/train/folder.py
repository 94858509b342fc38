"""The run folder: made once, never written over, one training at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaes import files
from vaes.errors import UserError
from vaes.train import checkpoint

__all__ = ["locked", "open_run", "refuse_existing"]


def refuse_existing(run: Path) -> None:
    """Refuse a run folder that holds anything.

    Raises:
        UserError: it does, or it is no folder.
    """
    # Hidden are the lock, and what a run that was killed while its folder was made leaves.
    if run.exists() and (not run.is_dir() or any(not path.name.startswith(".") for path in run.iterdir())):
        raise UserError(f"{run}: this run folder exists; choose another with -e, or go on in it with --resume latest")


@contextmanager
def locked(run: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep every other training out of a run folder; ``shared`` lets others look in at the same time.

    Raises:
        UserError: another one is at work in it.
    """
    with (run / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run}: another training is at work in this run folder; choose another with -e") from None
        yield


@contextmanager
def open_run(run: Path, config: str, *, resume: int | None) -> Iterator[None]:
    """Make the run folder, or enter it to go on from the step ``resume``, and keep every other training out of it.

    Raises:
        UserError: it exists (and ``resume`` is None), has a whole checkpoint beyond that step, or another training is
            at work in it.
    """
    if resume is None:
        refuse_existing(run)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        if resume is None:
            refuse_existing(run)
        else:
            checkpoint.set_aside(run, resume)
        if config:  # first of all: a folder with it can be gone on in
            files.write_atomic(run / "config.yaml", lambda path: path.write_text(config, encoding="utf-8"))
        (run / "ckpt").mkdir(exist_ok=True)
        yield
