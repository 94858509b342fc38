"""Files that are whole or absent, and tensors that are never unpickled."""

import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
from torch import Tensor

from vaes.errors import UserError
from vaes.memory import available

__all__ = [
    "MAX_JSON",
    "checksum",
    "digest",
    "finite",
    "hold_tensors",
    "locked",
    "open_regular",
    "read_bytes",
    "read_tensors",
    "refuse_links",
    "refuse_unwritable",
    "remove",
    "replace_folder",
    "sync_folder",
    "write_atomic",
    "write_json",
    "write_tensors",
    "write_text",
]

logger = logging.getLogger(__name__)

MAX_JSON = 100_000_000
"""Bytes; a larger document or history of a run was not written by this program."""

UMASK = os.umask(0)
"""What this process keeps from others in the files that it makes."""
os.umask(UMASK)


@contextmanager
def locked(path: Path, *, timeout: float = 60, taken: str = "") -> Iterator[None]:
    """Hold the lock file ``path``, which is made and stays, so that one process at a time is inside; wait ``timeout``
    seconds for the others. This process may enter again while it is inside. A file system without locks is warned of,
    and one goes on without.

    Raises:
        UserError: the others took too long (``taken`` says so in its place), the path is a link, or its folder cannot
            be written.
    """
    refuse_links(path.parent, [path.name])
    lock = filelock.FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        why = f"{path}: another process has held this lock for {timeout:g} s; wait for it to end"
        raise UserError(taken or why) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
        logger.warning("%s: this file system has no locks (%s); let nothing else write there now", path, error)
    try:
        yield
    finally:
        lock.release()


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path``, sync it to disk, and put it in place in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~UMASK)  # some libraries write for their owner alone
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # one of writing, a full disk's, carries no name
        error.filename = path if error.filename in (None, str(temporary)) else error.filename
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, document: Any) -> None:
    """Write a document as JSON, whole or not at all; numbers that are not finite, which JSON lacks, as null."""
    write_text(path, json.dumps(finite(document), indent=1, allow_nan=False) + "\n")


def finite(document: Any) -> Any:
    """The document with None for every number that is not finite."""
    if isinstance(document, Mapping):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def digest(document: Mapping[str, Any], without: str) -> str:
    """SHA-256 of what a document says, but for the key ``without``, in whatever order and spacing it is written."""
    text = json.dumps(finite({key: value for key, value in document.items() if key != without}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_links(folder: Path, names: Iterable[str], below: Iterable[str] = ()) -> None:
    """Refuse links among the ``names`` in a folder, and among all that lies in its folders ``below``: what is
    written or deleted there would be somebody else's.

    Raises:
        UserError: naming the first one.
    """
    candidates = [folder / name for name in names]
    for name in below:
        if not (folder / name).is_symlink() and (folder / name).is_dir():
            candidates += (folder / name).iterdir()
    for path in candidates:
        if path.is_symlink():
            raise UserError(
                f"{path}: is a symbolic link, and what it leads to is not this run's to write or delete; put the "
                "file or folder itself there, or remove the link"
            )


def refuse_unwritable(folder: Path) -> None:
    """Make a folder if it is missing, and refuse one in which no file can be made: before the work, not after it.

    Raises:
        UserError: naming it, and what the system says.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".vaes-"):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read it to its end. Pipes and devices have none, and are not waited for.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def natural(name: str) -> list[tuple[float, str]]:
    """A key that sorts names by the numbers in them.

    >>> sorted(["beta=16", "beta=4", "beta=0.5", "beta=1e-3"], key=natural)
    ['beta=1e-3', 'beta=0.5', 'beta=4', 'beta=16']
    """
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", name)
    return [(float(part), "") if i % 2 else (-1.0, part) for i, part in enumerate(parts)]


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """All of a regular file of at most so many bytes, by default half of the memory that is free.

    Raises:
        OSError: it is larger, no regular file, or cannot be read.
    """
    with open_regular(path) as file:
        limit = available() // 2 if most is None else most
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise OSError(errno.EINVAL, f"{size:,} bytes, where {limit:,} are the most that can be right", str(path))
        return file.read(limit)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder into place; a folder that was there goes afterwards."""
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a folder so that a half-deleted one is never taken for a whole one."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
    *,
    plain: dict[str, str] | None = None,
) -> None:
    """Write tensors as safetensors; a name, a shape and numbers, nothing that could run. ``plain`` metadata take the
    place of ours, for programs that ask for them.

    Raises:
        UserError: the disk is full, or the folder cannot be written or is gone.
    """
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key: safetensors writes several in an order that changes from process to process.
    try:
        safetensors.torch.save_file(held, path, metadata=plain or {"vaes": json.dumps(dict(metadata or {}))})
    except safetensors.SafetensorError as error:  # which hides the OSError in its text
        raise UserError(f"{path}: cannot be written ({error}); what was written before is whole") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file; the metadata are empty if :func:`write_tensors` did not write them.

    Raises:
        UserError: it is missing or no such file.
    """
    try:
        open_regular(path).close()
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = _document((file.metadata() or {}).get("vaes", ""))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise _not_whole(path, error) from None


def hold_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """What :func:`read_tensors` gives, and the SHA-256 of the very bytes that it was read from, whatever becomes of the
    file since.

    Raises:
        UserError: it is missing or no such file.
    """
    try:
        content = read_bytes(path)
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__") or {}
        return tensors, _document(metadata.get("vaes", "")), hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _not_whole(path, error) from None


def _not_whole(path: Path, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or _why(error)
    return UserError(f"{path}: not a whole safetensors file ({why}); pickled weights are never read")


def _why(error: Exception) -> str:
    """What a library says, as a clause of bounded length: it may quote a whole file."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
