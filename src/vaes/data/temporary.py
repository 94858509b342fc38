"""Temporary files whose names say which process they belong to, so that what a killed one left can be told from what is
in use."""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

from vaes.errors import UserError

__all__ = ["HOST_FOLDERS", "host_folder", "owner", "remove", "sweep", "temporary_name"]

OWNED = re.compile(r"-([0-9a-f]{8})-(\d+)-(\d+)-[^-]*$")
HOST_FOLDERS = "vaes-*"
"""What `host_folder` makes, in the system's temporary folder."""

DAY = 24 * 3600


def owner(pid: int | None = None) -> str:
    """The host, number and start of a process (None: this one), as a part of a name."""
    import psutil  # not needed where nothing is stored

    process = psutil.Process(pid or os.getpid())
    return f"{_host()}-{process.pid}-{int(process.create_time())}"


def temporary_name(stem: str) -> str:
    """A hidden name that no other process takes; `sweep` knows it."""
    return f".{stem}-{owner()}-{secrets.token_hex(4)}"


def sweep(folder: Path, pattern: str = ".*-*") -> None:
    """Remove from `folder` what matches and belongs to a process that is gone, or cannot be told and is a day old."""
    with contextlib.suppress(OSError):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # another process sweeps too
                status = path.lstat()
                gone = _gone(path.name)
                if status.st_uid == _user() and (time.time() - status.st_mtime > DAY if gone is None else gone):
                    remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder of ours; what is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def host_folder() -> tuple[Path, bool]:
    """A temporary folder for this process, or for all that one launcher started on this host; and whether this process
    is the one that removes it."""
    base = Path(tempfile.gettempdir())
    shared = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and os.getppid() > 0
    port = os.environ.get("MASTER_PORT", "") if shared else ""
    name = f"vaes-{_user()}-{owner(os.getppid() if shared else None)}-{port}"
    path = base / name
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be made ({error.strerror}); set TMPDIR to a folder that can be written"
        ) from None
    # The name can be guessed: what another user has put there is not ours to trust.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != _user() or stat.S_IMODE(status.st_mode) & 0o022:
        raise UserError(f"{path}: is there and belongs to another; remove it, or set TMPDIR to another folder")
    return path, not shared or os.environ.get("LOCAL_RANK", "0") == "0"


def _gone(name: str) -> bool | None:
    """Whether the process that a name belongs to is gone; None where the name does not say, or says another host."""
    import psutil

    found = OWNED.search(name)
    if found is None or found[1] != _host():
        return None
    try:
        return abs(psutil.Process(int(found[2])).create_time() - int(found[3])) > 2  # the number was given again
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return None


def _host() -> str:
    """A name for where process numbers mean something: the machine, since it was started, and the container."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):  # not Linux
            parts.append(read())
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:8]


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
