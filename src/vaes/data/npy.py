"""The arrays of a .npy or .npz file, read by pieces and never unpickled."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from vaes.data.picture_files import check_listing
from vaes.errors import UserError
from vaes.memory import available

__all__ = ["Npy", "open_arrays"]

PIECE = 2**26
"""Bytes read at once."""

TROUBLE = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, SyntaxError, struct.error)
TROUBLE += (tokenize.TokenError, zipfile.BadZipFile, zlib.error, OverflowError, MemoryError, RecursionError)  # type: ignore[assignment]


class Npy:
    """One array: its shape and type, and its rows by pieces. Raises UserError for one that is damaged, or of Python
    objects."""

    def __init__(self, path: Path, member: str | None) -> None:
        self._path, self._member = path, member
        self.name = path.name if member is None else member.removesuffix(".npy")
        try:
            with self._open() as file:
                self.shape, self._fortran, self.dtype = _header(file)
                self._begin = file.tell()
        except TROUBLE as error:
            raise self._damaged(error) from error
        self.nbytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if self.dtype.hasobject:
            raise UserError(
                f"{path}: its array {self.name} holds Python objects, which are never unpickled; save"
                " it as numbers or text"
            )
        if not self.shape or 0 in self.shape:
            raise UserError(f"{path}: its array {self.name} is empty, {self.shape}")

    def __len__(self) -> int:
        return self.shape[0]

    def pieces(self) -> Iterator[np.ndarray]:
        """The rows in order, some megabytes of them at a time."""
        row = self.nbytes // len(self)
        # Columns first: its rows are spread over all of it.
        step = len(self) if self._fortran else max(1, PIECE // max(row, 1))
        if (self._fortran and self.nbytes > available() // 4) or row > available() // 4:
            raise UserError(f"{self._path}: {self.name} takes {self.nbytes:,} bytes at once; save it in C order")
        try:
            with self._open() as file:
                file.read(self._begin)
                for first in range(0, len(self), step):
                    n = min(step, len(self) - first)
                    yield self._piece(file, n, n * row)
        except TROUBLE as error:
            raise self._damaged(error) from error

    def whole(self) -> np.ndarray:
        """All of it, where that is not more than a quarter of the memory that is free."""
        if self.nbytes > available() // 4:
            raise UserError(f"{self._path}: {self.name} takes {self.nbytes:,} bytes, too many for labels")
        return np.concatenate(list(self.pieces()))

    def _piece(self, file: IO[bytes], n: int, size: int) -> np.ndarray:
        content = bytearray()
        while len(content) < size and (more := file.read(min(size - len(content), 2**20))):
            content += more
        if len(content) < size:
            raise EOFError(f"{self.shape} announced, but it ends early")
        order = (*self.shape[:0:-1], n) if self._fortran else (n, *self.shape[1:])
        values = np.frombuffer(content, self.dtype).reshape(order)
        return values.T if self._fortran else values

    def _open(self) -> IO[bytes]:
        if self._member is None:
            return self._path.open("rb")
        archive = zipfile.ZipFile(self._path)  # what it opens keeps it
        return archive.open(self._member)

    def _damaged(self, error: BaseException) -> UserError:
        if isinstance(error, UserError):
            return error
        return UserError(
            f"{self._path}: its array {self.name} cannot be read ({' '.join(str(error).split())}); save it anew"
        )


def open_arrays(path: Path) -> dict[str, Callable[[], Npy]]:
    """What opens each array of a file, by name; that of a .npy is called `images`. UserError where it is neither."""
    with path.open("rb") as file:
        begin = file.read(6)
    if begin == b"\x93NUMPY":
        return {"images": partial(Npy, path, None)}
    if not begin.startswith(b"PK"):
        raise UserError(f"data.root: {path} is neither a .npy nor a .npz file; save it by numpy.save or numpy.savez")
    try:
        check_listing(path)
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except TROUBLE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"data.root: {path} is no whole .npz file ({error}); save it anew") from error
    return {name.removesuffix(".npy"): partial(Npy, path, name) for name in members}


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"version {version} of the format")
