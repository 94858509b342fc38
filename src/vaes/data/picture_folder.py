"""Anyone's images: a directory, or a zip of one."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.decode import Recipe, decode_all
from vaes.data.images import Annotations, Splits, image_set
from vaes.data.picture_files import open_files
from vaes.data.resize import height_width
from vaes.data.splits import divide
from vaes.errors import UserError

__all__ = ["folder"]

logger = logging.getLogger(__name__)

SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}


def folder(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    channels: Literal["auto", 1, 3] = "auto",
    skip_bad: bool = False,
    n_valid: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Splits:
    """The images (jpg, png, webp, bmp, gif, tiff) in a directory or a zip, any depth; hidden files and `__MACOSX` are
    passed over.

    Splits: the folders `train`, `test` and `valid` (or `val`, `validation`) at the top, where there are any; all images
    must then lie in them. Without `test`, `n_test` images chosen by `seed` are held out (None: a tenth); without
    `valid`, `n_valid` of the training images (None: a twentieth, 5,000 at most). Labels: where every image lies in a
    folder of its split, those folders' names, sorted, are the labels; else there are none. A single folder at the top
    that holds everything is looked through.

    `image_size` is a side, or (height, width): images are cropped centrally to that aspect and resized bilinearly with
    antialiasing; None takes them as they are, all of one size. `channels`: "auto" is 1 if all images are grey, else 3.
    See `decode_image` for transparency, 16 bits and the like. `skip_bad` leaves out images that do not decode, and
    warns. What is decoded is cached.

    Raises UserError for a missing or empty root, an image that does not decode, sizes that differ, and an archive that
    is damaged or points outside.
    """
    files = open_files(Path(root))
    recipe = Recipe(channels, height_width(image_size))
    paths = _look_through([tuple(name.split("/")) for name in files.names])

    def build(writer: RowWriter) -> dict[str, Any]:
        return {"bad": decode_all(files, files.names, recipe, writer, skip_bad)}

    key = {"files": files.fingerprint, "recipe": recipe, "skip_bad": skip_bad}
    decoded = cached("folder", key, build)
    bad = set(decoded.info["bad"])
    if bad:
        logger.warning("%s: left out %d images that cannot be decoded: %s", root, len(bad), _some(sorted(bad)))
    kept = [part for part, name in zip(paths, files.names, strict=True) if name not in bad]
    splits = _split_names(kept, root)
    labels, names = _labels(kept, any(splits))
    whole = image_set(decoded.images, Annotations(labels, names))
    parts = {name: whole.subset(torch.tensor(rows)) for name, rows in _rows(splits).items()}
    return divide(parts.get("train", whole), parts.get("valid"), parts.get("test"), n_valid, n_test, seed)


def _look_through(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while all(len(part) > 1 and part[0] == parts[0][0] for part in parts) and parts[0][0].lower() not in SPLITS:
        parts = [part[1:] for part in parts]
    return parts


def _split_names(parts: Sequence[tuple[str, ...]], root: str) -> list[str]:
    """The split of each image; all are empty where there are no folders for splits."""
    splits = [SPLITS.get(part[0].lower(), "") if len(part) > 1 else "" for part in parts]
    if not any(splits):
        return splits
    if "" in splits:
        stray = "/".join(parts[splits.index("")])
        raise UserError(
            f"{root}: {stray} lies beside the folders {', '.join(sorted(set(splits) - {''}))}; move it into one of them"
        )
    if "train" not in splits:
        raise UserError(f"{root}: has {', '.join(sorted(set(splits)))} but no folder train; add one")
    return splits


def _labels(parts: Sequence[tuple[str, ...]], below_split: bool) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    classes = [part[1:-1] if below_split else part[:-1] for part in parts]
    if not all(classes):
        return None, ()
    names = tuple(sorted({path[0] for path in classes}))
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[path[0]] for path in classes]), names


def _rows(splits: Sequence[str]) -> dict[str, list[int]]:
    return {name: [i for i, split in enumerate(splits) if split == name] for name in set(splits) - {""}}


def _some(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
