"""SIGTERM and Ctrl-C end a training between two steps."""

import signal
import threading
from types import FrameType

__all__ = ["Stop"]


class Stop:
    """Remembers the first SIGTERM, SIGINT or SIGHUP (its terminal was closed); the second has its usual effect.

    Signals reach the main thread alone: elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._usual: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._usual[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        while self._usual:
            number, handler = self._usual.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type]
