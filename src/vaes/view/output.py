"""How pictures get to disk: a sheet, and single pictures where they are asked for; all of them, or none."""

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import psutil

from vaes import files
from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE
from vaes.view.layout import grid
from vaes.view.modes import check_mode, make
from vaes.view.picture import Options, check

__all__ = ["Drawn", "draw", "refuse_folder"]

LOCK = ".pictures.lock"


class Drawn(NamedTuple):
    """What :func:`draw` wrote, and what it decided."""

    paths: list[Path]  # the sheet is the last
    remarks: list[str]  # a sentence each, for the user


def draw(
    mode: str, model: VAE, save_dir: str | Path, options: Options, images: ImageSet | None = None, caption: str = ""
) -> Drawn:
    """Draw one mode and write `<mode>-sheet.png` and, if `options.singles`, `<mode>-000.png`, ...

    Everything is written into a temporary folder first and then renamed: a full disk leaves no half-written picture.
    A sheet replaces all of an earlier one: single pictures of the same mode in this folder that do not belong to it
    are deleted, and a remark says so.

    Args:
        mode: a key of :data:`MODES`.
        model: on any device; each of its modules keeps the mode (training or evaluation) that it came in.
        save_dir: made if it is missing.
        options: what to draw.
        images: test images, or the user's own (`options.whose`), for the modes that show some.
        caption: set below the sheet: which model, method and step.

    Raises:
        UserError: an option is out of range, the folder cannot be written, the disk is full, or images or codes are
            missing or of another shape.
    """
    check_mode(mode)
    check(options)
    folder = Path(save_dir)
    refuse_folder(folder / f"{mode}-sheet.png")
    _sweep(mode, folder)
    picture = make(mode, model, options, images, caption)
    pages = {}
    if options.singles:
        digits = max(3, len(str(len(picture.singles) - 1)))
        pages = {f"{mode}-{i:0{digits}d}.png": grid(single[None], 1) for i, single in enumerate(picture.singles)}
    pages[f"{mode}-sheet.png"] = picture.sheet
    temporary = folder / f".{mode}.{os.getpid()}.tmp"
    temporary.mkdir(exist_ok=True)
    try:
        for name, page in pages.items():
            page.save(temporary / name)
        with files.locked(folder / LOCK):  # or another's single pictures would be taken for an earlier sheet's
            for name in pages:
                os.replace(temporary / name, folder / name)
            stale = [path for path in _singles(mode, folder) if path.name not in pages]
            for path in stale:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: the pictures cannot be written ({error.strerror}); give another folder") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    said = [f"{len(stale)} single pictures of an earlier {mode} were removed from {folder}"] if stale else []
    return Drawn([folder / name for name in pages], [*picture.remarks, *said])


def refuse_folder(path: Path) -> None:
    """Make the folder of a picture, and refuse one that cannot be written, or holds a folder of the picture's name."""
    files.refuse_unwritable(path.parent)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give another --save_dir")


def _singles(mode: str, folder: Path) -> list[Path]:
    """The single pictures of a mode in a folder: numbers of three digits; of more only where 0 is among them, as it is
    where there were more than 1,000 (`sample-2024.png` alone is somebody else's)."""
    found = []
    for path in folder.iterdir():
        number = re.fullmatch(rf"{mode}-([0-9]{{3,7}})\.png", path.name)
        if number and path.is_file() and not path.is_symlink():
            digits = len(number[1])
            if digits == 3 or (folder / f"{mode}-{0:0{digits}d}.png").exists():
                found.append(path)
    return found


def _sweep(mode: str, folder: Path) -> None:
    """Remove the temporary folders of processes that were killed."""
    for path in folder.iterdir():
        process = re.fullmatch(rf"\.{mode}\.([0-9]{{1,9}})\.tmp", path.name)
        if process and path.is_dir() and not path.is_symlink() and not psutil.pid_exists(int(process[1])):
            shutil.rmtree(path, ignore_errors=True)
