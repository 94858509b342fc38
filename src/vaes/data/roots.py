"""What a path given for images is: a directory, an archive, or something with an advice."""

import os
import stat
import zipfile
from collections import Counter
from pathlib import Path

from vaes.data.decode import FORMATS, image_suffixes, read_header
from vaes.data.picture_files import DirectoryFiles, Files, ZipFiles, suffix
from vaes.data.tar_files import TarFiles, is_tar
from vaes.errors import UserError

__all__ = ["heif_advice", "is_picture", "no_images", "open_files", "regular"]

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst")


def open_files(root: Path, key: str = "data.root") -> Files:
    """The files of a directory, a zip or a tar; UserError, naming `key`, where it is none of them."""
    status = _status(root, key)
    if stat.S_ISDIR(status.st_mode):
        return DirectoryFiles(root)
    regular(root, key)
    with root.open("rb") as file:
        begin = file.read(8)
    if (begin.startswith(b"PK\3\4") and _is_npz(root)) or begin.startswith(b"\x93NUMPY"):
        what = "set data.kind to arrays" if key.startswith("data.") else "give it alone"
        raise UserError(f"{key}: {root} holds arrays, not pictures; {what}")
    if begin.startswith(b"PK") or zipfile.is_zipfile(root):
        return ZipFiles(root)
    if is_tar(root):
        return TarFiles(root)
    if is_picture(root):
        raise UserError(f"{key}: {root} is a single picture; give the folder that it lies in")
    if suffix(root.name) == ".zip":
        return ZipFiles(root)  # says what is wrong with it
    raise UserError(
        f"{key}: {root} is neither a directory nor a zip or tar of images; unpack it, and give the directory"
    )


def regular(path: Path, key: str) -> None:
    """UserError unless `path` is a file that can be read to an end: pipes and devices have none."""
    status = _status(path, key)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{key}: {path} is no regular file (a pipe, a device or the like); give a directory or a file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{key}: {path} cannot be opened (Permission denied); check its permissions")


def is_picture(path: Path) -> bool:
    """Whether a file begins as a picture of a format known."""
    try:
        with path.open("rb") as file:
            read_header(file)
    except Exception:  # as many as there are formats
        return False
    return True


def no_images(files: Files, skipped: dict[str, int]) -> UserError:
    """The error for files of which none is an image."""
    nested = [name for name in files.sizes if suffix(name) in ARCHIVES]
    if nested:
        return UserError(
            f"data.root: {files.root} holds no images but {len(nested):,} archive{'s' * (len(nested) != 1)}"
            f" ({nested[0]}); unpack, or give one as data.root"
        )
    arrays = [name for name in files.sizes if suffix(name) in (".npy", ".npz")]
    if arrays:
        return UserError(
            f"data.root: {files.root} holds no images but arrays ({arrays[0]}); set data.kind to arrays,"
            " and data.root to one of them"
        )
    kinds = ", ".join(sorted(image_suffixes()))
    found = ", ".join(f"{n:,} {end or 'without a suffix'}" for end, n in Counter(skipped).most_common(5))
    there = (f"; it has {found}" if found else "") + heif_advice(skipped)
    return UserError(f"data.root: {files.root} holds no images ({kinds}){there}")


def heif_advice(skipped: dict[str, int]) -> str:
    """How to read those of the `skipped` (by suffix) that are HEIC; empty where there are none."""
    n = sum(skipped.get(end, 0) for end in FORMATS["HEIF"])
    return f"; to read {n:,} HEIC: pip install pillow-heif" if n else ""


def _status(path: Path, key: str) -> os.stat_result:
    try:
        return path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{key}: {path} cannot be opened ({why}); give a directory of images, or a zip or tar of one"
        ) from error


def _is_npz(root: Path) -> bool:
    try:
        with zipfile.ZipFile(root) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)
