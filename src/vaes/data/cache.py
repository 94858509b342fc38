"""Decoded images on disk, so that decoding runs once."""

import atexit
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vaes.errors import UserError

__all__ = ["Decoded", "RowWriter", "cached"]

VERSION = 1
"""Raise it whenever the decoding of any source changes: entries of other versions are never read."""

CHECKED_BYTES = 2**32
"""Entries up to this size are checked in full when opened, larger ones by their length and header alone: a full check
would read the disk twice."""


class Decoded(NamedTuple):
    """An entry of the cache."""

    images: np.ndarray
    """(N, C, H, W) uint8, memory-mapped."""
    info: dict[str, Any]
    """What the builder returned."""


class RowWriter:
    """Writes images to a .npy file as they come, without holding them."""

    def __init__(self, file: IO[bytes]) -> None:
        self.count = 0
        self.crc = 0
        self._file = file
        self._shape: tuple[int, ...] | None = None
        self._header = 0

    def append(self, images: np.ndarray) -> None:
        """Add `images` (n, C, H, W) uint8; C, H and W are the same in every call."""
        if self._shape is None:
            self._shape = images.shape[1:]
            self._write_header()
            self._header = self._file.tell()
        if images.shape[1:] != self._shape or images.dtype != np.uint8:
            raise ValueError(f"rows are uint8 {self._shape}, not {images.dtype} {images.shape[1:]}")
        data = np.ascontiguousarray(images)
        self._file.write(data.data)
        self.crc = zlib.crc32(data.data, self.crc)
        self.count += len(images)

    def close(self) -> None:
        """Write the final count into the header and bring the file to the disk."""
        if self._shape is None:
            raise ValueError("an entry of the cache needs at least one image")
        self._file.seek(0)
        self._write_header()
        # The .npy format pads its header for a first dimension of any length, so that it can be written again in place.
        assert self._file.tell() == self._header
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        assert self._shape is not None
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def cached(name: str, key: dict[str, Any], build: Callable[[RowWriter], dict[str, Any]]) -> Decoded:
    """The entry for `key` (whatever the images depend on: files, options), from the cache or else built and stored
    there.

    `build` appends the images to the writer and returns what else is to be remembered, as plain JSON. The folder is the
    environment's `VAES_CACHE`, `~/.cache/vaes` by default; `VAES_CACHE=off` keeps entries in a temporary folder until
    the process ends. An entry is `NAME-HASH.npy` and, written last, `NAME-HASH.json` with its length and checksum; both
    are written under temporary names and renamed, so that processes may build the same entry at once. A damaged entry
    is built again. Raises UserError where the folder cannot be written or the disk is full; nothing half-written stays.
    """
    folder = _folder()
    digest = hashlib.sha256(json.dumps([VERSION, name, key], sort_keys=True).encode()).hexdigest()[:24]
    path = folder / f"{name}-{digest}.npy"
    entry = _load(path)
    if entry is None:
        _store(path, build)
        entry = _load(path)
    if entry is None:
        raise UserError(
            f"{path}: the entry just written cannot be read back; check the disk, or set VAES_CACHE to another folder"
        )
    return entry


def _folder() -> Path:
    setting = os.environ.get("VAES_CACHE") or "~/.cache/vaes"
    if setting == "off":
        folder = tempfile.mkdtemp(prefix="vaes-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)
    return Path(setting).expanduser()


def _load(path: Path) -> Decoded | None:
    """The entry at `path`, or None where there is none or it is damaged."""
    try:
        meta = json.loads(path.with_suffix(".json").read_text())
        if path.stat().st_size != meta["bytes"]:
            return None
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        info, crc, shape = meta["info"], meta["crc"], meta["shape"]
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if list(images.shape) != shape or images.dtype != np.uint8:
        return None
    if images.nbytes <= CHECKED_BYTES and zlib.crc32(images.data) != crc:
        return None
    return Decoded(images, info)


def _store(path: Path, build: Callable[[RowWriter], dict[str, Any]]) -> None:
    temporary: list[Path] = []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with _temporary(path, temporary) as file:
            writer = RowWriter(file)
            info = build(writer)
            writer.close()
            file.seek(0)
            shape = _header_shape(file)
        meta = {"bytes": temporary[0].stat().st_size, "crc": writer.crc, "shape": list(shape), "info": info}
        with _temporary(path, temporary) as file:
            file.write(json.dumps(meta).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary[0], path)
        os.replace(temporary[1], path.with_suffix(".json"))
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UserError(
            f"{path.parent}: cannot store decoded images ({why}); make room, or set VAES_CACHE to another folder"
        ) from error
    finally:
        for leftover in temporary:
            leftover.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left: temporary files not written to for a day."""
    for leftover in folder.glob(".*-*"):
        with contextlib.suppress(OSError):  # another process sweeps too
            if time.time() - leftover.stat().st_mtime > 24 * 3600:
                leftover.unlink()


def _temporary(path: Path, made: list[Path]) -> IO[bytes]:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    made.append(Path(name))
    return os.fdopen(handle, "w+b")


def _header_shape(file: IO[bytes]) -> tuple[int, ...]:
    np.lib.format.read_magic(file)
    shape, _, _ = np.lib.format.read_array_header_1_0(file)
    return shape
