"""Members in processes of this machine, several at a time, on one copy of the images."""

import contextlib
import logging
import multiprocessing as mp
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.multiprocessing  # tensors are handed over as shared memory
from torch import Tensor

from vaes.data import ImageSet, Splits
from vaes.errors import Stopped, UserError
from vaes.sweep.member import Ended, Task, Watcher, perform
from vaes.sweep.together import perform_together
from vaes.terminal import line
from vaes.train.listeners import Listener
from vaes.train.loop import Training
from vaes.train.stop import Stop

__all__ = ["Local", "share"]

TELL_EVERY = 0.25
"""Seconds between two reports of the step."""


def share(sets: Mapping[str, Splits]) -> None:
    """Move the images to memory that other processes can have without a copy.

    Raises:
        UserError: there is not as much shared memory.
    """
    try:
        for splits in sets.values():
            for images in splits:
                for tensor in _tensors(images):
                    tensor.share_memory_()
    except RuntimeError as error:
        raise UserError(
            f"the images do not fit into this machine's shared memory ({str(error).splitlines()[0]}); make /dev/shm "
            "larger (docker run --shm-size), or take --engine slurm or ray, whose members read them by themselves"
        ) from None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.device.type == "cpu":
            yield value
    elif isinstance(value, tuple):
        for item in value:
            if isinstance(item, Tensor):
                yield from _tensors(item)
    elif isinstance(value, ImageSet):
        for item in vars(value).values():
            yield from _tensors(item)


class Local:
    """So many worker processes, each of which trains one member after another.

    Args:
        jobs: members at a time.
        threads: of each of them.
        sets: the images by name, see :class:`Task`.
    """

    def __init__(self, jobs: int, threads: int, sets: Mapping[str, Splits]) -> None:
        self.jobs, self.threads, self._sets = jobs, threads, dict(sets)
        self.about = f"{jobs} at a time, each with {threads} thread{'s' * (threads > 1)}"
        share(sets)

    def run(self, tasks: Iterator[Task], watcher: Watcher) -> None:
        """Train them all; tasks are asked for as processes come free.

        Raises:
            Stopped: a signal came; those under way saved first.
        """
        workers: list[_Worker] = []
        try:
            with Stop() as stop:
                self._all(tasks, watcher, workers, stop)
        finally:
            for worker in workers:
                worker.close()

    def _all(self, tasks: Iterator[Task], watcher: Watcher, workers: "list[_Worker]", stop: Stop) -> None:
        more, told = True, False
        while True:
            while more and not stop.signal and sum(w.task is not None for w in workers) < self.jobs:
                task = next(tasks, None)
                if task is None:
                    more = False
                    break
                idle = [worker for worker in workers if worker.task is None]
                if not idle:
                    workers.append(_Worker(self.threads, self._sets))
                (idle or workers)[-1].give(task)
                for one in (task, *task.beside):
                    watcher.began(one.name)
            busy = {worker.connection: worker for worker in workers if worker.task is not None}
            if not busy:
                break
            if stop.signal and not told:
                told = True
                watcher.said("stopping: the members that train save first; Ctrl-C again stops at once")
                for worker in busy.values():
                    worker.process.terminate()
            for connection in multiprocessing.connection.wait(list(busy), timeout=0.5):
                worker = busy[connection]  # type: ignore[index]
                if worker.hear(watcher) is False:
                    workers.remove(worker)
                    worker.close()
        if stop.signal:
            raise Stopped("stopped; the same command goes on", 128 + stop.signal)


class _Worker:
    """A process, and the member that it trains, or the members of a stack."""

    def __init__(self, threads: int, sets: Mapping[str, Splits]) -> None:
        context = mp.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.task: Task | None = None
        self._left: list[str] = []  # names of those that have not ended
        self._ready = False
        self.process = context.Process(target=_work, args=(theirs, sets, threads), daemon=True)
        with _environment({"OMP_NUM_THREADS": str(threads)}):  # before torch starts there
            self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        """Let it train a member."""
        self.task, self._left = task, [one.name for one in (task, *task.beside)]
        with contextlib.suppress(OSError):  # it is gone already, which is heard next
            self.connection.send(task)

    def hear(self, watcher: Watcher) -> bool:
        """Take one message; False where the process is gone."""
        try:
            kind, *what = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            for name in self._left:
                watcher.ended(self._gone(name))
            return False
        if kind == "ready":
            self._ready = True
        elif kind == "step":
            watcher.stepped(*what)
        elif kind == "valid":
            why = watcher.validated(*what)
            with contextlib.suppress(OSError):
                self.connection.send(why)
        elif kind == "said":
            watcher.said(f"{', '.join(self._left[:1])}{', ...' * (len(self._left) > 1)}: {what[0]}")
        elif kind == "free":
            self.task = None
        else:
            self._left.remove(what[0].name)
            watcher.ended(what[0])
        return True

    def _gone(self, name: str) -> Ended:
        status = self.process.exitcode
        if not self._ready and status == 1:
            raise UserError(
                "a worker process could not start (what it said is above); a script that calls vaes.sweep does so "
                'under if __name__ == "__main__":'
            )
        if status == -signal.SIGTERM:
            return Ended(name, "stopped", "stopped before its first step")
        how = f"by {signal.Signals(-status).name}" if status is not None and status < 0 else f"with status {status}"
        memory = " (no memory left? fewer --jobs take less)" if status == -signal.SIGKILL else ""
        return Ended(name, "stopped", f"its process was ended {how}{memory}; the same command goes on")

    def close(self) -> None:
        """End the process: at once, if it trains."""
        if self.task is None:
            with contextlib.suppress(OSError):
                self.connection.send(None)
        else:
            self.process.kill()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.connection.close()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Reporter(Listener):
    """Tells the sweep how far a member is."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name, self._connection, self._told = name, connection, 0.0

    def stepped(self, training: Training, step: int) -> None:
        """Now and then."""
        if (now := time.monotonic()) - self._told > TELL_EVERY:
            self._told = now
            self._connection.send(("step", self._name, step))

    def metrics(self, training: Training, step: int, split: str, values: Mapping[str, float]) -> None:
        """Those of the validation images, and whether it goes on after them."""
        if split == "valid":
            self._connection.send(("valid", self._name, step, dict(values)))
            if (why := self._connection.recv()) is not None:
                training.stop(why)


class _Warnings(logging.Handler):
    def __init__(self, connection: Connection) -> None:
        super().__init__(logging.WARNING)
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it to the sweep."""
        self._connection.send(("said", f"warning: {line(record.getMessage())}"))


def _work(connection: Connection, sets: Mapping[str, Splits], threads: int) -> None:
    """The life of a worker. Ctrl-C reaches the whole group, and it is the sweep that decides: by SIGTERM."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    logging.getLogger("vaes").addHandler(_Warnings(connection))
    connection.send(("ready",))
    while (task := connection.recv()) is not None:
        tasks = (task, *task.beside)
        reporters = {one.name: [_Reporter(one.name, connection)] for one in tasks}
        if task.beside:
            for ended in perform_together(tasks, sets[task.images], reporters):
                connection.send(("ended", ended))
        else:
            connection.send(("ended", perform(task, sets.get(task.images), reporters[task.name])))
        connection.send(("free",))


def _leave_with_parent() -> None:
    """A sweep that was killed leaves no training behind, which would keep its folder from the next one."""
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
