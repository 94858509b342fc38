"""One thread that writes checkpoints while training goes on."""

import sys
import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["Writer"]


class Writer:
    """Runs one job at a time in a thread; what a job raises is raised again where the training looks.

    As a context it waits for the last job on leaving, whatever the reason, but for KeyboardInterrupt: the second
    Ctrl-C stops at once. The thread does not keep the process alive then, and what it had begun has a temporary name.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            return
        self.wait()
        if error is None:
            self.check()
        elif self._error is not None and self._error is not error:  # what comes out is said already
            print(f"warning: the last checkpoint was not saved either: {self._error}", file=sys.stderr)

    def start(self, job: Callable[[], object]) -> None:
        """Begin a job, once the one before it has ended. Raises what that one raised."""
        self.wait()
        self.check()
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint writer", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job that runs, if one does; raises nothing of its own."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def check(self) -> None:
        """Raise what a job that has ended raised; does not wait."""
        if self._error is not None:
            raise self._error

    def _run(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # check raises it in the training's thread
            self._error = error
