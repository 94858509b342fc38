"""What memory there is, and what is asked of the C library's allocator."""

import ctypes
import sys
from pathlib import Path

__all__ = ["available", "keep_freed_memory"]

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


def available(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: what the machine has free, or less where the control group of a container
    or a scheduler's job allows less. (``root`` is where ``proc`` and ``sys`` lie.)"""
    import psutil  # not needed to read a command's arguments

    limits = [_left(folder, v2) for folder, v2 in _groups(root)]
    return min([psutil.virtual_memory().available, *(left for left in limits if left is not None)])


def _groups(root: Path) -> list[tuple[Path, bool]]:
    """The folders of the memory control groups that hold this process, the innermost first, and whether their version
    is 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mounted = root / "sys/fs/cgroup" / ("" if not controllers else "memory")
        if not controllers or "memory" in controllers.split(","):
            inner = mounted / path.lstrip("/")
            # Inside a container the path may be the host's, and the group's own folder is the mounted one.
            found += [(folder, not controllers) for folder in (inner, *inner.parents) if folder.is_relative_to(mounted)]
    return found


def _left(group: Path, v2: bool) -> int | None:
    """Bytes left to a control group, what it could drop of the files it has read included; None for no limit."""
    limit, used, idle = (
        ("memory.max", "memory.current", "inactive_file")
        if v2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        allowed, taken = (group / limit).read_text().strip(), int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the root of version 2 has none, and a container may not show it
        return None
    return None if allowed == "max" else max(int(allowed) - taken + int(stat.get(idle, 0)), 0)
