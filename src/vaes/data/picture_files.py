"""Image files by name, in a directory or in a zip."""

import abc
import hashlib
import json
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from vaes.errors import UserError

__all__ = ["DirectoryFiles", "Files", "ZipFiles", "open_files", "stamp"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

MAX_FILE_BYTES = 2**28
"""An image file larger than this is refused unread: in a zip, a few bytes can claim to be any number."""


class Files(abc.ABC):
    """The image files (by suffix, hidden ones left out) under `root`, sorted by `names`, which are relative and use
    slashes."""

    def __init__(self, root: Path, sizes: dict[str, int], fingerprint: str) -> None:
        self.root = root
        self.names = tuple(sorted(sizes))
        self.mean_bytes = sum(sizes.values()) / max(1, len(sizes))
        self.fingerprint = fingerprint
        """Tells these files from any others; it changes when any of them does."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError where it cannot be read. Threads may call it at once."""


class DirectoryFiles(Files):
    """The image files in a directory and below it, links followed; told from others by path, names, sizes and times of
    change."""

    def __init__(self, root: Path) -> None:
        found: dict[str, tuple[int, int]] = {}
        try:
            for folder, below, names in os.walk(root, onerror=_raise, followlinks=True):
                # A link to a folder that it lies in would be followed for ever; one to a folder beside it is a folder.
                above = [Path(folder), *Path(folder).parents]
                chain = {path.resolve() for path in above[: len(above) - len(root.parents)]}
                below[:] = [name for name in below if Path(folder, name).resolve() not in chain]
                below.sort()
                for name in names:
                    path = os.path.join(folder, name)
                    relative = path[len(os.path.join(root, "")) :].replace(os.sep, "/")
                    if _is_image(relative):
                        status = os.stat(path)
                        if stat.S_ISREG(status.st_mode):
                            found[relative] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            raise UserError(
                f"{error.filename or root}: cannot be read ({error.strerror}); check that it exists and its permissions"
            ) from error
        fingerprint = _digest([str(root.resolve()), sorted(found.items())])
        super().__init__(root, {name: size for name, (size, _) in found.items()}, fingerprint)

    def read(self, name: str) -> bytes:
        """The bytes of a file; OSError where it cannot be read."""
        path = self.root / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OSError(f"larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()


class ZipFiles(Files):
    """The image files in a zip, read in memory and never extracted; told from others by the names, sizes and checksums
    that the zip lists."""

    def __init__(self, root: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(root)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise UserError(f"{root}: not a zip that can be read ({error}); give a directory or a whole zip") from error
        members = {}
        for info in self._zip.infolist():
            name = info.filename.replace("\\", "/")
            if name.startswith("/") or ".." in name.split("/"):
                raise UserError(
                    f"{root}: its member {info.filename!r} points outside of it; such an archive is not to be trusted"
                )
            if _is_image(name):  # by its suffix, which no folder and no empty name has
                members[name] = info
        self._members = members
        listing = [(name, info.file_size, info.CRC) for name, info in sorted(members.items())]
        super().__init__(root, {name: info.file_size for name, info in members.items()}, _digest(listing))

    def read(self, name: str) -> bytes:
        """The bytes of a member; OSError where it cannot be read."""
        info = self._members[name]
        if info.file_size > MAX_FILE_BYTES:
            raise OSError(f"it claims {info.file_size:,} bytes, more than {MAX_FILE_BYTES:,}")
        try:
            # The listed size bounds what is unpacked.
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError) as error:
            raise OSError(str(error)) from error


def open_files(root: Path) -> Files:
    """The image files of a directory or a zip; UserError where it is neither or holds none."""
    try:
        is_directory = stat.S_ISDIR(root.stat().st_mode)
    except OSError as error:
        raise UserError(
            f"data.root: {root} cannot be opened ({error.strerror}); give a directory of images or a zip of one"
        ) from error
    files: Files = DirectoryFiles(root) if is_directory else ZipFiles(root)
    if not files.names:
        raise UserError(f"data.root: {root} holds no images ({', '.join(SUFFIXES)})")
    return files


def stamp(path: Path) -> list[str | int]:
    """What tells a file from its other versions: its full path, size and time of change."""
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _is_image(name: str) -> bool:
    if not name.lower().endswith(SUFFIXES):
        return False
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _digest(listing: object) -> str:
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _raise(error: OSError) -> None:
    raise error
