"""Splits and labels from the folders that images lie in."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data.splits import some
from vaes.errors import UserError

__all__ = ["FIRST_SPLITS", "SPLITS", "Layout", "lay_out", "split_of"]

SPLITS = {
    name + end: split
    for split, names in {
        "train": ("train", "training"),
        "valid": ("val", "valid", "validation"),
        "test": ("test", "testing"),
    }.items()
    for name in names
    for end in ("", "set")
}
"""What folders are called that hold a split: in small letters, without `_`, `-` and spaces."""

FIRST_SPLITS = {name: SPLITS[name] for name in ("train", "valid", "validation", "val", "test")}
"""Those that the first version knew."""

Parts = tuple[str, ...]


class Layout(NamedTuple):
    """What the names of N images say."""

    splits: tuple[str, ...]
    """The split of each image; all are empty where no folders are splits."""
    labels: Tensor | None
    """(N,) int64."""
    label_names: tuple[str, ...]
    no_labels: str
    """Why there are none, where some folders look like it."""
    warnings: tuple[str, ...]

    def rows(self, split: str) -> Tensor:
        """The positions of a split's images."""
        return torch.tensor([i for i, name in enumerate(self.splits) if name == split], dtype=torch.int64)


def lay_out(root: str, names: Sequence[str], folders: Sequence[str], known: dict[str, str] = SPLITS) -> Layout:
    """Read splits and labels off the images' `names`; `folders` are all folders there are.

    A single folder at the top that holds everything is looked through. Splits are the folders at the top that `known`
    has, or those below the classes where all images lie in such. Labels are the names of the folders that hold every
    image, below those of the splits. Raises UserError for images beside folders of splits, and where train is missing.
    """
    parts, depth = _look_through([tuple(name.split("/")) for name in names], known)
    inside = [tuple(name.split("/"))[depth:] for name in folders]
    turned = all(len(part) > 2 and split_of(part[1], known) and not split_of(part[0], known) for part in parts)
    if turned:  # class/split/image
        parts = [(part[1], part[0], *part[2:]) for part in parts]
        inside = []
    splits = [split_of(part[0], known) if len(part) > 1 else "" for part in parts]
    if any(splits):
        _check(root, parts, splits)
    classes = [part[1:-1] if any(splits) else part[:-1] for part in parts]
    stray = ["/".join(part) for part, path in zip(parts, classes, strict=True) if not path]
    if stray:
        return _without(splits, stray, len(parts))
    label_names = tuple(sorted({path[0] for path in classes}))
    number = {name: i for i, name in enumerate(label_names)}
    at = 1 if any(splits) else 0
    empty = {part[at] for part in inside if len(part) == at + 1 and (not at or split_of(part[0], known))}
    empty -= {*label_names, *(name for name in empty if not at and split_of(name, known))}
    warnings = [f"labels: folder {name} holds no images, and is none of the labels" for name in sorted(empty)[:5]]
    labels = torch.tensor([number[path[0]] for path in classes])
    return Layout(tuple(splits), labels, label_names, "", tuple(warnings))


def _without(splits: list[str], stray: list[str], total: int) -> Layout:
    if len(stray) == total:
        return Layout(tuple(splits), None, (), "", ())
    why = f"{len(stray):,} image{'s' * (len(stray) != 1)} in no class folder: {some(stray, 1)}"
    warning = f"labels: dropped, because {why}; move {'it' if len(stray) == 1 else 'them'} into one to keep labels"
    return Layout(tuple(splits), None, (), why, (warning,))


def split_of(name: str, known: dict[str, str] = SPLITS) -> str:
    """The split that a name stands for: `val` is valid; empty where it stands for none."""
    return known.get(name.lower().translate({ord(mark): None for mark in "_- "}), "")


def _look_through(parts: list[Parts], known: dict[str, str]) -> tuple[list[Parts], int]:
    depth = 0
    while all(len(part) > depth + 1 and part[depth] == parts[0][depth] for part in parts):
        if split_of(parts[0][depth], known):
            break
        depth += 1
    return [part[depth:] for part in parts], depth


def _check(root: str, parts: Sequence[Parts], splits: Sequence[str]) -> None:
    if "" in splits:
        part = parts[splits.index("")]
        found = [name for name in ("train", "valid", "test") if name in splits]
        beside = f"beside the folder{'s' * (len(found) != 1)} of {' and '.join(found)}"
        if len(part) == 1:
            raise UserError(f"{root}: {part[0]} lies {beside}; move it into one of them")
        raise UserError(
            f"{root}: the folder {part[0]} holds images {beside}, and its name is none that a split has; call it train,"
            " val or test, or move it elsewhere"
        )
    if "train" not in splits:
        raise UserError(f"{root}: has {', '.join(sorted(set(splits)))} but no folder train; add one")
