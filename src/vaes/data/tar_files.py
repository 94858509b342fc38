"""The files of a tar archive, compressed or not."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import IO

from vaes.data.cache import scratch
from vaes.data.picture_files import MAX_FILES, Files, check_inside, digest, hidden, stamp
from vaes.data.temporary import remove
from vaes.errors import UserError

__all__ = ["TROUBLE", "TarFiles", "is_tar", "window"]

PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}

PIECE = 2**20

TROUBLE = (OSError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError, tarfile.TarError)


class TarFiles(Files):
    """The members of a tar, read where they lie; told from others by the archive's path, size and time of change.

    A compressed one has no order to read in but its own, and is unpacked into the cache's folder while it is open.
    Nothing of it is listed before `begin`.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._at: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        self._unpacked: Path | None = None
        self.fingerprint = digest(["tar", *stamp(root)])

    def begin(self) -> None:
        """List the members. Raises UserError for an archive that is damaged, points outside or is too large."""
        try:
            self._file = (self._unpack() or self.root).open("rb")
            sizes = self._members(self._file)
        except TROUBLE as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.root}: not a tar that can be read ({error}); give a whole one") from error
        self._list(sizes)

    def _unpack(self) -> Path | None:
        opener = _packer(self.root)
        if opener is None:
            return None
        self._unpacked = scratch("tar")
        free = shutil.disk_usage(self._unpacked.parent).free // 2
        with opener(self.root, "rb") as packed, self._unpacked.open("wb") as plain:
            while piece := packed.read(PIECE):
                free -= plain.write(piece)
                if free < 0:
                    raise UserError(
                        f"{self.root}: unpacks to more than half of what is free in {self._unpacked.parent};"
                        " unpack it yourself and give the folder, or set VAES_CACHE to another disk"
                    )
        return self._unpacked

    def _members(self, file: IO[bytes]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        folders = []
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if len(sizes) > MAX_FILES:
                    break
                name = check_inside(self.root, member.name)
                if not name or hidden(name):
                    continue
                if member.isdir():
                    folders.append(name)
                elif member.isreg() and not member.issparse():
                    sizes[name], self._at[name] = member.size, member.offset_data
                elif member.islnk() and (other := check_inside(self.root, member.linkname)) in sizes:
                    sizes[name], self._at[name] = sizes[other], self._at[other]
                else:
                    self.unusable[name] = "not a regular file"
        self.folders = tuple(sorted(folders))
        return sizes

    def open(self, name: str) -> IO[bytes]:
        """A member to read in."""
        assert self._file is not None
        return window(self._file.fileno(), self._at[name], self.sizes[name])

    def close(self) -> None:
        """Let go of the archive, and of what was unpacked."""
        if self._file is not None:
            self._file.close()
        if self._unpacked is not None:
            remove(self._unpacked)


def window(descriptor: int, begin: int, size: int) -> IO[bytes]:
    """A part of an open file, as a file of its own."""
    return io.BufferedReader(_Window(descriptor, begin, size))


class _Window(io.RawIOBase):
    """A part of a file, with a position of its own."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._descriptor, self._begin, self._size, self._position = descriptor, begin, size, 0

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._position))
        got = os.pread(self._descriptor, wanted, self._begin + self._position)
        buffer[: len(got)] = got
        self._position += len(got)
        return len(got)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def is_tar(path: Path) -> bool:
    """Whether a file is a tar, compressed or not."""
    opener = _packer(path)
    try:
        with opener(path, "rb") if opener else path.open("rb") as file:
            return file.read(512)[257:262] == b"ustar"
    except TROUBLE:
        return False


def _packer(path: Path):  # type: ignore[no-untyped-def]  # what the three have in common has no name
    with path.open("rb") as file:
        begin = file.read(6)
    return next((opener for mark, opener in PACKED.items() if begin.startswith(mark)), None)
