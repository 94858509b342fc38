"""The files of a directory or an archive, by name."""

import abc
import hashlib
import io
import json
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

from vaes.errors import UserError

__all__ = [
    "MAX_FILES",
    "DirectoryFiles",
    "Files",
    "ZipFiles",
    "check_inside",
    "check_listing",
    "digest",
    "hidden",
    "stamp",
    "suffix",
]

MAX_FILE_BYTES = 2**28
"""A picture's file larger than this is refused unread: in an archive, a few bytes can claim to be any number."""

MAX_FILES = 2**22
"""No more files than this are listed."""

MAX_LISTING = 2**28
"""No more bytes of a zip's list of members are read: the list alone can be as long as a disk."""


class Files(abc.ABC):
    """The regular files under `root`, hidden ones and `__MACOSX` left out, by names that are relative and use slashes.

    `fingerprint` tells them from any others; it changes when any of them does.
    """

    fingerprint: str

    def __init__(self, root: Path) -> None:
        self.root = root
        self.label = str(root)
        """What messages call it."""
        self.sizes: dict[str, int] = {}
        """The length of each file in bytes, sorted by name."""
        self.unusable: dict[str, str] = {}
        """What has a name but cannot be read (dangling links, pipes, closed folders, which end in a slash), and why."""
        self.folders: tuple[str, ...] = ()

    def where(self, name: str) -> str:
        """The path of a file, as messages say it."""
        return f"{self.label}/{name}" if name else self.label

    def begin(self) -> None:  # noqa: B027
        """List the files, where that was left for later because it is dear."""

    @abc.abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A file to read in; OSError where it cannot be. Threads may call it at once."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError where it cannot be read or is larger than `MAX_FILE_BYTES`."""
        if self.sizes[name] > MAX_FILE_BYTES:
            raise OSError(f"{self.sizes[name]:,} bytes, more than {MAX_FILE_BYTES:,}")
        with self.open(name) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(f"more than {MAX_FILE_BYTES:,} bytes")
        return content

    def close(self) -> None:  # noqa: B027
        """Let go of what was opened."""

    def _list(self, sizes: dict[str, int]) -> None:
        if len(sizes) > MAX_FILES:
            raise UserError(f"{self.root}: holds more than {MAX_FILES:,} files; give a part of them")
        self.sizes = dict(sorted(sizes.items()))


class DirectoryFiles(Files):
    """The files in a directory and below it, links followed; told from others by path, names, sizes and times of
    change."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        found: dict[str, tuple[int, int]] = {}
        folders = []
        begin = len(os.path.join(root, ""))

        def relative(path: str) -> str:
            return path[begin:].replace(os.sep, "/")

        def closed(error: OSError) -> None:
            if Path(error.filename) == root:
                raise UserError(f"{root}: cannot be read ({error.strerror}); check its permissions") from error
            self.unusable[relative(error.filename) + "/"] = error.strerror or str(error)

        try:
            for folder, below, names in os.walk(root, onerror=closed, followlinks=True):
                # A link to a folder that it lies in would be followed for ever; one to a folder beside it is a folder.
                above = [Path(folder), *Path(folder).parents]
                chain = {path.resolve() for path in above[: len(above) - len(root.parents)]}
                below[:] = sorted(b for b in below if not hidden(b) and Path(folder, b).resolve() not in chain)
                folders += [relative(os.path.join(folder, name)) for name in below]
                for name in names:
                    if not hidden(name):
                        self._look(os.path.join(folder, name), relative(os.path.join(folder, name)), found)
                if len(found) > MAX_FILES:
                    break
        except RecursionError:
            raise UserError(f"{root}: its folders are nested too deeply; move what is deepest") from None
        except OSError as error:
            raise UserError(
                f"{error.filename or root}: cannot be read ({error.strerror}); check permissions"
            ) from error
        self._list({name: size for name, (size, _) in found.items()})
        self.folders = tuple(sorted(folders))
        self.fingerprint = digest([str(root.resolve()), sorted(found.items()), sorted(self.unusable)])

    def _look(self, path: str, name: str, found: dict[str, tuple[int, int]]) -> None:
        try:
            status = os.stat(path)
        except OSError as error:
            why = "a link to nothing" if os.path.islink(path) and error.errno == 2 else error.strerror or str(error)
            self.unusable[name] = why
            return
        if stat.S_ISREG(status.st_mode):
            found[name] = (status.st_size, status.st_mtime_ns)
        else:
            self.unusable[name] = "not a regular file"

    def open(self, name: str) -> IO[bytes]:
        """A file to read in; OSError where it cannot be."""
        # What was a file when it was listed may be a pipe by now, which must not be waited for.
        descriptor = os.open(self.root / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("not a regular file")
        return os.fdopen(descriptor, "rb")


class ZipFiles(Files):
    """The members of a zip, read in memory and never extracted; told from others by the names, sizes and checksums that
    the zip lists."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        try:
            check_listing(root)
            self._zip = zipfile.ZipFile(root)
        except UserError:
            raise
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise UserError(f"{root}: not a zip that can be read ({error}); give a directory or a whole zip") from error
        members, folders = {}, []
        for info in self._zip.infolist():
            name = check_inside(root, info.filename)
            if not name or hidden(name):
                continue
            if info.filename.endswith(("/", "\\")):
                folders.append(name)
            else:
                members[name] = info
        self._members = members
        self._list({name: info.file_size for name, info in members.items()})
        self.folders = tuple(sorted(folders))
        self.fingerprint = digest([(name, info.file_size, info.CRC) for name, info in sorted(members.items())])

    def open(self, name: str) -> IO[bytes]:
        """A member to read in; OSError where it cannot be."""
        try:
            return cast(IO[bytes], _Member(self._zip.open(self._members[name])))
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError) as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        """Let go of the zip."""
        self._zip.close()


class _Member(io.BufferedIOBase):
    """A member of a zip, whose errors are OSErrors."""

    def __init__(self, member: IO[bytes]) -> None:
        self._member = member

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._member.read(-1 if size is None else size)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError) as error:
            raise OSError(str(error)) from error

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return self._member.seek(offset, whence)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(str(error)) from error

    def tell(self) -> int:
        return self._member.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._member.close()
        super().close()


def check_listing(root: Path) -> None:
    """Refuse a zip whose list of members is too long, before it is read."""
    with root.open("rb") as file:
        file.seek(max(0, root.stat().st_size - 2**16 - 100))
        tail = file.read()
    for mark, at, width in ((b"PK\5\6", 12, 4), (b"PK\6\6", 40, 8)):
        place = tail.rfind(mark)
        field = tail[place + at : place + at + width]
        length = int.from_bytes(field, "little")
        if place >= 0 and MAX_LISTING < length != 2 ** (8 * width) - 1:
            raise UserError(f"{root}: lists its members in {length:,} bytes, more than {MAX_LISTING:,}; give a part")


def check_inside(root: Path, name: str) -> str:
    """The name of an archive's member with slashes and without a dot in front; UserError where it points outside."""
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or ".." in parts:
        raise UserError(f"{root}: its member {name!r} points outside of it; such an archive is not to be trusted")
    return "/".join(parts)


def stamp(path: Path) -> list[str | int]:
    """What tells a file from its other versions: its full path, size and time of change."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def hidden(name: str) -> bool:
    """Whether a name, or a folder that it lies in, is not meant to be seen."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def suffix(name: str) -> str:
    """What a name ends in, from its last dot on, in small letters; empty where that is no suffix."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if stem and dot and 0 < len(end) <= 12 else ""


def digest(listing: object) -> str:
    """A hash of plain JSON."""
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
