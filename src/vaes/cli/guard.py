"""How a command ends: whatever goes wrong is one line on standard error and an exit status."""

import errno
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from vaes import terminal
from vaes.errors import Stopped, UserError
from vaes.memory import keep_freed_memory

__all__ = ["guarded", "rank"]


def guarded(command: Callable[[], None]) -> int:
    """Run a command; a mistake of the user's becomes one line on stderr and status 2."""
    # Threads that wait spin for some microseconds, then sleep: a third faster on idle cores than sleeping at once, and
    # several times faster than spinning for long on cores that others use too (docs/performance.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    threading.excepthook = _say_of_thread
    _show_warnings()
    with terminal.outputs():
        status = _status(command)
    if status and _among_others():
        # Said, and everything is closed. Threads of gloo may be dropping tensors of what failed, which aborts the
        # process if the interpreter is being taken down meanwhile: so it is not.
        os._exit(status)
    return status


def _among_others() -> bool:
    """Whether this process has begun to speak to others."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _status(command: Callable[[], None]) -> int:
    prefix = ""
    try:
        prefix = f"[process {rank()}] " if rank() else ""
        with _unwinding():
            command()
            sys.stdout.flush()
    except UserError as error:
        terminal.note(f"{prefix}error: {terminal.line(error)}")
        return 2
    except Stopped as stopped:
        terminal.note(f"{prefix}{terminal.line(stopped)}")
        return stopped.status
    except terminal.ReaderGone:
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        terminal.note(f"{prefix}stopped")
        return 128 + signal.SIGINT
    except MemoryError as error:
        what = f" ({terminal.line(error)})" if str(error) else ""
        terminal.note(f"{prefix}error: not enough memory{what}; a smaller batch_size takes less")
        return 2
    except OSError as error:  # a full disk, a folder that cannot be written
        if error.strerror is None:
            raise
        terminal.note(f"{prefix}error: {terminal.line(_sentence(error))}")
        return 2
    return 0


ADVICE = {
    errno.ENOSPC: "make room on that disk, then try again; a training goes on with --resume latest",
    errno.EDQUOT: "make room in your quota, then try again; a training goes on with --resume latest",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a file system that takes larger ones",
    errno.EACCES: "choose another place, or ask for the right to use this one",
    errno.EROFS: "choose another place",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EISDIR: "a file is wanted here",
    errno.ENOTDIR: "a folder is wanted here",
}


def _sentence(error: OSError) -> str:
    """What, where, what to do; an error of writing carries no path, and then what was done stands in its place."""
    if error.filename is not None:
        where = str(error.filename)
    else:
        doing = [
            frame.name for frame in traceback.extract_tb(error.__traceback__) if "vaes" in Path(frame.filename).parts
        ]
        where = f"while at {doing[-1].strip('_')}" if doing else "somewhere"
    advice = ADVICE.get(error.errno or 0)
    return f"{where}: {error.strerror}{f'; {advice}' if advice else ''}"


@contextmanager
def _unwinding() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the command by an exception, so that nothing half-written stays; while a training
    runs, it sees to them itself."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    usual = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(f"stopped by {signal.Signals(number).name}", 128 + number)

    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, signal.SIG_DFL)


def rank() -> int:
    """This process's place among those of a launcher, 0 without one."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        if not re.fullmatch(r"-?\d+", text := os.environ.get(name, "0")):
            raise UserError(f"{name}: the environment holds {text!r} where a launcher puts a whole number; unset it")
    return int(os.environ.get("RANK", "0"))


class _Warnings(logging.Handler):
    """Warnings of the library, which prints nothing itself."""

    def emit(self, record: logging.LogRecord) -> None:
        terminal.note(f"warning: {terminal.line(record.getMessage())}")


def _show_warnings() -> None:
    logger = logging.getLogger("vaes")
    if not any(isinstance(handler, _Warnings) for handler in logger.handlers):
        logger.addHandler(_Warnings(logging.WARNING))


def _say_of_thread(args: threading.ExceptHookArgs) -> None:
    """A disk that fails under a library's thread (TensorBoard's writer) is a line, as it is under ours."""
    if isinstance(args.exc_value, OSError):
        terminal.note(f"warning: {terminal.line(args.exc_value)}")
    else:
        threading.__excepthook__(args)
