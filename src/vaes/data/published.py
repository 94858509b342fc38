"""What sets that are published as a few known files have in common: finding them, checking them, keeping the images."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.data.array_values import Layout
from vaes.data.cache import RowWriter, cached
from vaes.data.hashing import content_hashes
from vaes.data.held_out import HeldOut, divide
from vaes.data.images import Annotations, ImageSet, image_set
from vaes.data.picture_files import stamp
from vaes.data.progress import tell
from vaes.data.resize import Size, height_width, resize, resizing
from vaes.data.roots import regular
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["LAST", "Chunk", "Kept", "Published", "keep", "labels_of", "splits"]

Chunk = tuple[np.ndarray, np.ndarray | None]
"""Images (n, C, H, W) uint8, and their labels (n,) where the file has them."""

ROWS = 4096


class Published(NamedTuple):
    """A set's files, where they are published, and what is known of them."""

    title: str
    url: str
    places: tuple[str, ...] = ("",)
    """Folders below the root that are looked into, in this order."""
    md5: Mapping[str, str] = {}
    """Of files as they are published, by name; of one that is not here none is known."""

    def find(self, root: str, names: Iterable[str], *, packed: bool = False) -> dict[str, Path]:
        """Where each of the files lies; ``packed`` takes NAME.gz too. A root that is a file stands for a single name.

        Raises:
            UserError: naming those that are missing, and where they are published.
        """
        base, wanted = Path(root), list(names)
        found: dict[str, Path] = {}
        for name in wanted:
            files = (name, f"{name}.gz") if packed else (name,)
            there = [base / place / file for place in self.places for file in files]
            if len(wanted) == 1 and os.path.isfile(base):
                there = [base]
            if first := next((path for path in there if os.path.isfile(path)), None):
                found[name] = first
        if missing := [name for name in wanted if name not in found]:
            raise self.missing(root, missing, packed=packed)
        for path in found.values():
            regular(path, "data.root")
        return found

    def missing(self, root: str, names: Sequence[str], *, packed: bool = False) -> UserError:
        """The error for files that are not there."""
        also = " (or the same as .gz)" if packed else ""
        return UserError(f"data.root: {root} lacks {', '.join(names)}{also} of {self.title}, published at {self.url}")

    def doubts(self, paths: Iterable[Path]) -> list[str]:
        """Files whose MD5 is not the published one's, in words."""
        found = []
        for path in paths:
            wanted = self.md5.get(path.name)
            if wanted is None:
                continue
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 != wanted:
                found.append(f"{path}: its MD5 is {md5}, and that of the published file {wanted}; is it another set?")
        return found


class Kept(NamedTuple):
    """Images in the cache."""

    images: np.ndarray
    hashes: Tensor
    labels: list[int]
    """Empty where the chunks brought none."""
    was: tuple[int, int]
    """(H, W) before they were resized."""
    warnings: tuple[str, ...]

    def as_set(self, notes: Annotations | None = None) -> ImageSet:
        """As a set of images, annotated."""
        given = notes or Annotations()
        return image_set(self.images, given._replace(hashes=self.hashes))


def keep(
    published: Published,
    files: Sequence[Path],
    image_size: Size,
    chunks: Callable[[], Iterator[Chunk]],
    total: Callable[[], int] | None = None,
    more: Any = None,
) -> Kept:
    """The images that ``chunks`` gives of the files, resized, from the cache or else read and kept there.

    ``total`` counts them beforehand, to see whether the disk has room; ``more`` is what else they depend on.
    """

    def build(writer: RowWriter) -> dict[str, Any]:
        hashes: list[int] = []
        labels: list[int] = []
        was: tuple[int, ...] = ()
        n = None if total is None else total()
        for images, numbers in chunks():
            if not hashes:
                c, was = images.shape[1], images.shape[2:]
                if n is not None:
                    writer.reserve(n, (c, *(height_width(image_size) or was)))
            for first in range(0, len(images), ROWS):
                part = np.ascontiguousarray(images[first : first + ROWS])
                hashes += content_hashes(part).tolist()
                writer.append(resize(torch.from_numpy(np.array(part)), image_size).numpy())
                tell(len(hashes), len(hashes) if n is None else n)
            labels += [] if numbers is None else numbers.tolist()
        if not hashes:
            raise UserError(f"{files[0]}: holds no images")
        return {"hashes": hashes, "labels": labels, "was": list(was), "doubts": published.doubts(files)}

    key = {"of": published.title, "files": [stamp(path) for path in files], "size": height_width(image_size), "x": more}
    images, info, warned = cached("published", key, build)
    h, w = info["was"]
    hashes = torch.tensor(info["hashes"], dtype=torch.int64)
    return Kept(images, hashes, info["labels"], (h, w), (*warned, *info["doubts"]))


def labels_of(path: Path, numbers: Sequence[int], names: Sequence[str]) -> Tensor:
    """Labels as a tensor. UserError where one has no name."""
    labels = torch.tensor(numbers, dtype=torch.int64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        low, high = int(labels.min()), int(labels.max())
        raise UserError(
            f"{path}: its labels go from {low} to {high}, where there are {len(names)}; it is another set's"
        )
    return labels


def splits(
    train: ImageSet,
    test: ImageSet | None,
    *,
    was: tuple[int, int],
    image_size: Size,
    n_valid: int | None,
    n_test: int | None = None,
    held_out: HeldOut,
    seed: int,
    said: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Splits:
    """The three splits, those that were not published held out."""
    if test is not None and train.shape != test.shape:
        raise UserError(f"data.root: the training images are {train.shape}, those for testing {test.shape}")
    divided = divide(train, None, test, n_valid, n_test, seed, held_out)
    return divided.splits(more=[*said, *resizing(was, image_size)], warnings=list(dict.fromkeys(warnings)))


LAST = Layout((0, 0, 0), True)
"""Channels come last: ``LAST.images(x)``."""
