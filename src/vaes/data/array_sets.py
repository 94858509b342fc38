"""Images that are arrays: in memory, or in a .npy or .npz file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.data.array_values import encode_labels, hashes, layout, range_of
from vaes.data.cache import RowWriter, cached
from vaes.data.held_out import HeldOut, divide
from vaes.data.images import Annotations, ImageSet, TensorSet, image_set
from vaes.data.npy import open_arrays
from vaes.data.picture_files import stamp
from vaes.data.progress import tell
from vaes.data.resize import height_width, resize, resizing
from vaes.data.roots import regular
from vaes.data.splits import Reading, Splits, kind_of, some
from vaes.errors import UserError

__all__ = ["Look", "array_file", "array_images", "arrays", "look_at"]

Array = np.ndarray | Tensor

PIECE = 2**24
"""Numbers converted at once."""

IMAGES = {
    "train": ("images", "train_images", "x_train", "train", "x", "data", "imgs", "arr_0"),
    "valid": ("valid_images", "val_images", "x_valid", "x_val", "valid", "val"),
    "test": ("test_images", "x_test", "test"),
}
LABELS = {
    "train": ("labels", "train_labels", "y_train", "y", "targets", "target", "label"),
    "valid": ("valid_labels", "val_labels", "y_valid", "y_val"),
    "test": ("test_labels", "y_test"),
}
"""The names by which an .npz's arrays are known, in any case, the first that is there."""


def arrays(
    train: Array,
    test: Array | None = None,
    *,
    valid: Array | None = None,
    labels: Any = None,
    test_labels: Any = None,
    valid_labels: Any = None,
    label_names: tuple[str, ...] = (),
    value_range: tuple[float, float] | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Images in memory: (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3, or vectors (N, D), which become images
    of one row; from Python alone (a file: `array_file`).

    `value_range` is what is black and what is white; see `range_of` for what its types tell without one (floats tell
    nothing). Values become 256 levels. `labels` (N,) are whole numbers from 0 on or texts, for `train`; the other
    splits have their own. A split that is not given is held out of `train`: see `folder`.
    """
    given = {"train": (train, labels), "valid": (valid, valid_labels), "test": (test, test_labels)}
    there = {name: (_usable(x), y) for name, (x, y) in given.items() if x is not None}
    images = {name: layout(tuple(x.shape), name).images(x) for name, (x, _) in there.items()}
    raw = {name: x.cpu().numpy() if isinstance(x, Tensor) else x for name, x in images.items()}
    _alike({name: (x.dtype, x.shape[1:]) for name, x in raw.items()})
    span = range_of(raw["train"].dtype, (p for x in raw.values() for p in _pieces(x)), value_range, _named(raw))
    numbers, names = encode_labels({name: (y, len(x)) for name, (x, y) in there.items()}, label_names)
    sets: dict[str, ImageSet] = {}
    brightest = 0
    for name, x in raw.items():
        keys = torch.from_numpy(np.concatenate([hashes(piece) for piece in _pieces(x)]))
        notes = Annotations(numbers[name], names if numbers[name] is not None else (), hashes=keys)
        if x.dtype == np.uint8 and span.plain:
            sets[name] = TensorSet(torch.as_tensor(images[name]), notes)
        else:
            sets[name] = TensorSet(torch.from_numpy(np.concatenate([span.scale(p) for p in _pieces(x)])), notes)
        brightest = max(brightest, int(span.scale(np.array([x.max()])).max()))
    return _divided(sets, n_valid, n_test, seed, held_out, span.said, _dim(brightest))


def array_file(
    *,
    root: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """The arrays of a .npy file, or of an .npz: `images` with `labels`, and where they are there `valid_images`,
    `valid_labels`, `test_images` and `test_labels`; `x_train`, `y_train` and the like will do, and a single array under
    any name.

    Layouts, types, `value_range` and splits are those of `arrays`; `image_size` is that of `mnist`. Files are read by
    pieces, and never unpickled; what is converted is cached. Raises UserError for anything else.

    Args:
        root: a .npy or .npz file; null where images are given in Python.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        value_range: the values that are black and white; null is what the type tells, which floats do not.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, so that none moves where a set grows, or
            their order, as in runs made before that was possible.
        seed: chooses the images that are held out.
    """
    if root is None:
        raise UserError("data.root: missing; it must be a .npy or .npz file, unless images are given in Python")
    read = _read(Path(root), "data.root", image_size, value_range)
    return _divided(read.sets, n_valid, n_test, seed, held_out, read.said, read.warnings)


def array_images(
    path: Path, *, image_size: int | tuple[int, int] | None = None, value_range: tuple[float, float] | None = None
) -> tuple[ImageSet, Reading]:
    """All images of an array file, whatever splits it has, and how it was read; options are those of `array_file`.

    `notes.paths` are the file and the row, `x.npy[0]`, or of an .npz the array too, `x.npz:x_train[0]`.
    """
    read = _read(path, str(path), image_size, value_range)
    labels = [part.notes.labels for part in read.sets.values()]
    joined = None if any(y is None for y in labels) else torch.cat([y for y in labels if y is not None])
    whole = read.whole.annotated(
        read.whole.notes._replace(
            labels=joined, label_names=() if joined is None else read.sets["train"].label_names, paths=read.paths
        )
    )
    return whole, Reading("; ".join([f"{len(whole):,} {kind_of(whole.shape)}", *read.said]), tuple(read.warnings))


class _Read(NamedTuple):
    """An array file that was read."""

    whole: ImageSet
    paths: tuple[str, ...]
    sets: dict[str, ImageSet]
    """Its parts, by split."""
    said: list[str]
    warnings: list[str]


def _read(
    path: Path, what: str, image_size: int | tuple[int, int] | None, value_range: tuple[float, float] | None
) -> _Read:
    regular(path, what)
    found = open_arrays(path)
    images_of, labels_of = _choose(path, found)
    chosen = {split: found[name]() for split, name in images_of.items()}
    plans = {name: layout(array.shape, array.name) for name, array in chosen.items()}
    _alike({array.name: (array.dtype, plans[name].shape) for name, array in chosen.items()})
    listed = {split: found[name]().whole() for split, name in labels_of.items()}
    numbers, names = encode_labels({name: (listed.get(name), len(array)) for name, array in chosen.items()}, ())

    def pieces() -> Iterator[np.ndarray]:
        return (plans[name].images(piece) for name, array in chosen.items() for piece in array.pieces())

    def build(writer: RowWriter) -> dict[str, Any]:
        span = range_of(chosen["train"].dtype, pieces(), value_range, _named([a.name for a in chosen.values()]))
        total, (c, *was) = sum(map(len, chosen.values())), plans["train"].shape
        writer.reserve(total, (c, *(height_width(image_size) or was)))
        keys, brightest = [], 0
        for piece in pieces():
            scaled = span.scale(piece)
            keys += hashes(piece).tolist()
            brightest = max(brightest, int(scaled.max()))
            writer.append(resize(torch.from_numpy(np.array(scaled)), image_size).numpy())
            tell(len(keys), total)
        return {"hashes": keys, "said": span.said, "brightest": brightest}

    key = {"file": stamp(path), "arrays": images_of, "size": height_width(image_size), "range": value_range}
    images, info, warned = cached("arrays", key, build)
    whole = image_set(images, Annotations(hashes=torch.tensor(info["hashes"], dtype=torch.int64)))
    sets: dict[str, ImageSet] = {}
    first = 0
    for name, array in chosen.items():
        part = whole.subset(torch.arange(first, first + len(array)))
        first += len(array)
        labelled = part.notes._replace(labels=numbers[name], label_names=names)
        sets[name] = part if numbers[name] is None else part.annotated(labelled)
    said = [*info["said"], *resizing(plans["train"].shape[1:], image_size)]
    unused = sorted(set(found) - {name for table in (images_of, labels_of) for name in table.values()})
    said += [f"arrays not used: {some(unused)}"] if unused else []
    prefix = {name: f"{path}:{array.name}" if len(found) > 1 else str(path) for name, array in chosen.items()}
    paths = tuple(f"{prefix[name]}[{i}]" for name, array in chosen.items() for i in range(len(array)))
    return _Read(whole, paths, sets, said, [*warned, *_dim(info["brightest"])])


class Look(NamedTuple):
    """What the images of an array file are, before they are made images."""

    shape: tuple[int, int, int]
    """(C, H, W)."""
    dtype: str
    span: tuple[float, float] | None
    """The lowest and the highest value, where these do not tell what is black and what is white."""


def look_at(path: Path) -> Look:
    """Shape, type and values of the images in a .npy or .npz file. Raises UserError where there are none."""
    regular(path, "data.root")
    found = open_arrays(path)
    images = [found[name]() for name in _choose(path, found)[0].values()]
    shape, dtype = layout(images[0].shape, images[0].name).shape, images[0].dtype
    if dtype.kind not in "iuf" or dtype == np.uint8:
        return Look(shape, dtype.name, None)
    ends = [(float(piece.min()), float(piece.max())) for array in images for piece in array.pieces()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    tells = not np.isfinite([low, high]).all() or (dtype.kind != "f" and low >= 0 and high <= 65535)
    return Look(shape, dtype.name, None if tells else (low, high))


def _usable(x: Any) -> Array:
    """An array as torch takes it: not read-only, not backwards, its bytes in this machine's order."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return native if native.flags.writeable and min((*native.strides, 0)) >= 0 else np.array(native, order="C")


def _pieces(x: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, PIECE // int(np.prod(x.shape[1:])))
    return (x[first : first + step] for first in range(0, len(x), step))


def _named(names: Iterable[str]) -> str:
    return " and ".join(names)


def _alike(arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
    if len(set(arrays.values())) > 1:
        found = ", ".join(f"{name} {dtype} {'x'.join(map(str, shape))}" for name, (dtype, shape) in arrays.items())
        raise UserError(f"arrays: the splits differ in shape or type: {found}")


def _choose(path: Path, found: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The names of the arrays of images and of labels, by split."""
    small = {name.lower(): name for name in reversed(list(found))}

    def known(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        first = {split: next((small[name] for name in names if name in small), None) for split, names in table.items()}
        return {split: name for split, name in first.items() if name is not None}

    images, labels = known(IMAGES), known(LABELS)
    if "train" not in images and len(others := [name for name in found if name not in labels.values()]) == 1:
        images = {"train": others[0]}
    if "train" not in images:
        raise UserError(
            f"data.root: {path} has the arrays {some(sorted(found)) or 'none'}; call that of the images `images`"
            " (and their labels `labels`)"
        )
    return images, {split: name for split, name in labels.items() if split in images}


def _divided(
    sets: Mapping[str, ImageSet],
    n_valid: int | None,
    n_test: int | None,
    seed: int,
    held_out: HeldOut,
    said: Sequence[str],
    warned: Sequence[str] = (),
) -> Splits:
    divided = divide(sets["train"], sets.get("valid"), sets.get("test"), n_valid, n_test, seed, held_out)
    return divided.splits(more=said, warnings=warned)


def _dim(brightest: int) -> list[str]:
    if brightest >= 64:
        return []
    return [
        f"data.value_range: the brightest value is {brightest} of 255, so that the images are nearly black; where that"
        " is not meant, set data.value_range to what is black and what is white"
    ]
