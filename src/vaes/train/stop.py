"""SIGTERM and Ctrl-C end a training between two steps."""

import signal
import threading
from types import FrameType

__all__ = ["Stop"]


class Stop:
    """Remembers the first SIGTERM, SIGINT or SIGHUP (its terminal was closed). Ctrl-C after that has its usual effect,
    and stops at once; the others come twice from launchers and schedulers, and change nothing any more.

    A signal that is ignored already stays so: ``nohup`` wants that. Signals reach the main thread alone: elsewhere this
    does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._usual: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._usual[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in list(self._usual):
            self._restore(number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self._restore(signal.SIGINT)

    def _restore(self, number: int) -> None:
        if number in self._usual:
            signal.signal(number, self._usual.pop(number))  # type: ignore[arg-type]
