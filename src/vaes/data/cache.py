"""Decoded images on disk, so that decoding runs once."""

import atexit
import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import tokenize
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vaes.data.temporary import HOST_FOLDERS, host_folder, remove, sweep, temporary_name
from vaes.errors import UserError

__all__ = ["CacheSize", "Decoded", "RowWriter", "cache_size", "cached", "empty_cache", "place_for", "scratch"]

VERSION = 2
"""Raise it whenever the decoding of any source changes: entries of other versions are never read."""

CHECKED_BYTES = 2**32
"""Entries up to this size are checked in full when opened, larger ones by their length, header and first rows: a full
check would read the disk twice."""

HEAD = 2**26
"""So many bytes of a larger entry are checked."""

MAX_DESCRIPTION = 2**31
"""A description larger than this is damaged: it takes some hundred bytes an image."""

ENTRY = re.compile(r"[a-z]+-[0-9a-f]{24}\.(npy|json)")


class Decoded(NamedTuple):
    """An entry of the cache."""

    images: np.ndarray
    """(N, C, H, W) uint8, memory-mapped."""
    info: dict[str, Any]
    """What the builder returned."""
    warnings: tuple[str, ...] = ()


class CacheSize(NamedTuple):
    """What the cache holds."""

    folder: Path
    entries: int
    bytes: int


class RowWriter:
    """Writes images to a .npy file as they come, without holding them."""

    def __init__(self, file: IO[bytes], folder: Path) -> None:
        self.count = self.crc = self.head = 0
        self._file, self._folder = file, folder
        self._shape: tuple[int, ...] | None = None
        self._header = self._written = 0

    def reserve(self, count: int, shape: tuple[int, int, int]) -> None:
        """Raise UserError where the disk has no room for `count` images (C, H, W)."""
        needed, free = count * int(np.prod(shape)), shutil.disk_usage(self._folder).free
        if needed > free:
            raise UserError(
                f"{self._folder}: {count:,} decoded images of {'x'.join(map(str, shape))} take {_bytes(needed)}, "
                f"{_bytes(free)} are free; make data.image_size smaller, or set VAES_CACHE to another folder"
            )

    def append(self, images: np.ndarray) -> None:
        """Add `images` (n, C, H, W) uint8; C, H and W are the same in every call."""
        if self._shape is None:
            self._shape = images.shape[1:]
            self._write_header()
            self._header = self._file.tell()
        if images.shape[1:] != self._shape or images.dtype != np.uint8:
            raise ValueError(f"rows are uint8 {self._shape}, not {images.dtype} {images.shape[1:]}")
        data = np.ascontiguousarray(images).data.cast("B")
        self._file.write(data)
        self.crc = zlib.crc32(data, self.crc)
        self.head = zlib.crc32(data[: max(0, HEAD - self._written)], self.head)
        self._written += len(data)
        self.count += len(images)

    def close(self) -> tuple[int, ...]:
        """Write the final count into the header, bring the file to the disk and return the shape (N, C, H, W)."""
        if self._shape is None:
            raise ValueError("an entry of the cache needs at least one image")
        self._file.seek(0)
        self._write_header()
        # The .npy format pads its header for a first dimension of any length, so that it can be written again in place.
        assert self._file.tell() == self._header
        self._file.flush()
        os.fsync(self._file.fileno())
        return (self.count, *self._shape)

    def _write_header(self) -> None:
        assert self._shape is not None
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.count, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)


def cached(name: str, key: dict[str, Any], build: Callable[[RowWriter], dict[str, Any]]) -> Decoded:
    """The entry for `key` (whatever the images depend on: files, options), from the cache or else built and stored
    there.

    `build` appends the images to the writer and returns what else is to be remembered, as plain JSON. The folder is the
    environment's `VAES_CACHE`, or the user's cache folder of the system (`~/.cache/vaes` on Linux); `VAES_CACHE=off`
    keeps entries in a temporary folder until the process ends, one for all processes that a launcher started on this
    host. An entry is `NAME-HASH.npy` and, written last, `NAME-HASH.json` with its key, length and checksums; both are
    written under temporary names and renamed, and what killed processes left of them is removed. One process builds an
    entry while others wait for it; where the file system has no locks they all build, and a warning says so. A damaged
    entry, or another's, is built again.

    Raises UserError where the folder cannot be written or the disk is full; nothing half-written stays.
    """
    folder = _folder()
    sweep(folder)
    sweep(Path(tempfile.gettempdir()), HOST_FOLDERS)
    digest = hashlib.sha256(json.dumps([VERSION, name, key], sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}-{digest[:24]}.npy"
    warnings: list[str] = []
    entry = _load(path, digest)
    if entry is None:
        with _writing(path), _locked(path, warnings):
            entry = _load(path, digest)
            if entry is None:
                _store(path, digest, build)
                entry = _load(path, digest)
    if entry is None:
        raise UserError(
            f"{path}: the entry just written cannot be read back; check the disk, or set VAES_CACHE to another folder"
        )
    return entry._replace(warnings=tuple(warnings))


def cache_size() -> CacheSize:
    """How large the cache is."""
    folder = _place()
    files = [path for path in _files(folder) if path.is_file()]
    return CacheSize(folder, sum(path.suffix == ".npy" for path in files), sum(path.stat().st_size for path in files))


def empty_cache() -> CacheSize:
    """Remove the cache's entries, and nothing else that lies in its folder; returns what was removed. Trainings that
    run go on. Raises UserError where something cannot be removed."""
    size = cache_size()
    for path in _files(size.folder):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be removed ({error.strerror}); check the folder's permissions") from None
    sweep(size.folder)
    return size


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*-*.*") if ENTRY.fullmatch(path.name)]


def _place() -> Path:
    """Where the cache lies when it is on."""
    import platformdirs  # not needed where nothing is stored

    setting = os.environ.get("VAES_CACHE")
    default = platformdirs.user_cache_path("vaes", appauthor=False)
    if not setting or setting == "off":
        return default
    try:
        return Path(setting).expanduser()
    except RuntimeError as error:  # no home
        raise UserError(f"VAES_CACHE: {setting} has no meaning here ({error}); give a full path") from None


_temporary: dict[int, Path] = {}
"""The folder of a process while the cache is off; a forked one has its own."""


def _folder() -> Path:
    if os.environ.get("VAES_CACHE") != "off":
        return _place()
    pid = os.getpid()
    if pid not in _temporary or not _temporary[pid].is_dir():
        _temporary[pid], ours = host_folder()
        if ours:
            atexit.register(lambda: remove(_temporary[pid]) if os.getpid() == pid else None)
    return _temporary[pid]


def _load(path: Path, digest: str) -> Decoded | None:
    """The entry at `path`, or None where there is none, it is damaged or it is another's."""
    try:
        described = path.with_suffix(".json")
        if described.stat().st_size > MAX_DESCRIPTION:
            return None
        meta = json.loads(described.read_text())
        # One checksum over all of it: what passes is what was written, types included.
        if meta.pop("check") != _check(meta) or meta["key"] != digest or path.stat().st_size != meta["bytes"]:
            return None
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, SyntaxError, tokenize.TokenError):
        return None
    except (RecursionError, OverflowError, MemoryError):  # what damage can make of nesting and of numbers
        return None
    if list(images.shape) != meta["shape"] or images.dtype != np.uint8:
        return None
    flat = images.reshape(-1)
    whole = images.nbytes <= CHECKED_BYTES
    if zlib.crc32(flat if whole else flat[:HEAD]) != meta["crc" if whole else "head"]:
        return None
    return Decoded(images, meta["info"])


def _check(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _store(path: Path, digest: str, build: Callable[[RowWriter], dict[str, Any]]) -> None:
    made = [path.parent / temporary_name(path.stem) for _ in range(2)]
    try:
        with made[0].open("w+b") as file:
            writer = RowWriter(file, path.parent)
            info = build(writer)
            shape = list(writer.close())
            size = os.fstat(file.fileno()).st_size
        meta = {"key": digest, "bytes": size, "shape": shape, "crc": writer.crc, "head": writer.head, "info": info}
        with made[1].open("w") as file:
            file.write(json.dumps({**meta, "check": _check(meta)}, sort_keys=True))
            file.flush()
            os.fsync(file.fileno())
        # The description last: without it there is no entry.
        made[0].replace(path)
        made[1].replace(path.with_suffix(".json"))
    finally:
        for leftover in made:
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UserError(
            f"{path.parent}: cannot store decoded images ({why}); make room, or set VAES_CACHE to another folder"
        ) from error


@contextlib.contextmanager
def _locked(path: Path, warnings: list[str]) -> Iterator[None]:
    """Hold the entry's lock while it is built; without one where the file system has none."""
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(poll_interval=0.2)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        warnings.append(f"{path.parent}: has no locks ({error}); several processes at once decode the same images each")
        yield
        return
    try:
        yield
    finally:
        # Those who wait notice that the file is gone, and make another.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _bytes(n: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.0f} TB"


def place_for(name: str) -> Path:
    """A folder in the cache's for what is not an entry; it is made by who uses it, and emptying the cache leaves it."""
    return _folder() / name


def scratch(name: str) -> Path:
    """A path for a temporary file in the cache's folder, which is made; a later command removes it if this one dies."""
    folder = _folder()
    with _writing(folder / name):
        return folder / temporary_name(name)
