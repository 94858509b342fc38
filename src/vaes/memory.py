"""What is asked of the C library's allocator."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE, _LARGEST_OF_OLD = 1 << 30, 32 << 20


def keep_freed_memory() -> bool:
    """Let this process keep memory that it has freed, for its next allocation; whether that could be had.

    By default glibc hands large blocks back to the system, and every activation of every step is then mapped and
    zeroed again, page by page: a sixth of a training step on the CPU, and more where page faults are dear (virtual
    machines). What the process uses at most does not change, only that it holds it until it ends. Other C libraries
    have no such option, and are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # musl
        return False
    kept = set_option(_M_MMAP_THRESHOLD, _LARGE) or set_option(_M_MMAP_THRESHOLD, _LARGEST_OF_OLD)
    return bool(kept and set_option(_M_TRIM_THRESHOLD, 2 * _LARGE - 1))
