"""Work that lasts tells a listener how far it is; without one nothing is said."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Listener", "on_progress", "tell"]

Listener = Callable[[int, int], None]
"""Is called with (done, total), in images."""

_listener: ContextVar[Listener | None] = ContextVar("vaes_data_progress", default=None)


@contextmanager
def on_progress(listener: Listener) -> Iterator[None]:
    """Let `listener` hear of the decoding that happens inside the `with`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(done: int, total: int) -> None:
    """Tell the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)
