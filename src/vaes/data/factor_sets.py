"""Sets with ground-truth factors, from their official files: dSprites, 3D Shapes, MPI3D, small NORB."""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaes.data.held_out import HeldOut
from vaes.data.idx import read_packed
from vaes.data.images import Annotations
from vaes.data.npy import open_arrays
from vaes.data.published import LAST, Chunk, Published, keep, splits
from vaes.data.resize import Size
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["dsprites", "mpi3d", "shapes3d", "smallnorb"]

DSPRITES = Published("dSprites", "https://github.com/google-deepmind/dsprites-dataset")
DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32}

SHAPES = Published("3D Shapes", "https://github.com/google-deepmind/3d-shapes")
SHAPES_FACTORS = {"floor_hue": 10, "wall_hue": 10, "object_hue": 10, "scale": 8, "shape": 4, "orientation": 15}

MPI = Published("MPI3D", "https://github.com/rr-learning/disentanglement_dataset")
MPI_FACTORS = {"colour": 6, "shape": 6, "size": 2, "height": 3, "background": 3, "horizontal": 40, "vertical": 40}
MPI_COMPLEX = {**MPI_FACTORS, "colour": 4, "shape": 4}
"""Of mpi3d_real_complex, whose 460,800 images tell it from the others."""

NORB = Published("small NORB", "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/", ("", "NORB", "smallnorb"))
NORB_FILES = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training-{}.mat",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing-{}.mat",
}
NORB_FACTORS = {"category": 5, "instance": 10, "elevation": 9, "azimuth": 18, "lighting": 6}
CATEGORIES = ("animal", "human", "airplane", "truck", "car")
NORB_TYPES = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


def dsprites(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """dSprites: 737,280 white shapes on black, 64x64, one for each combination of shape, scale, orientation, x and y;
    labels are the shapes. Its file's metadata, a pickle, are never read.

    "dSprites: disentanglement testing sprites dataset", Matthey, Higgins, Hassabis and Lerchner, 2017,
    https://github.com/google-deepmind/dsprites-dataset.

    Args:
        root: the folder of dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz, or the file.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, or their order.
        seed: chooses the images of each split.
    """
    path = DSPRITES.find(root, [DSPRITES_FILE])[DSPRITES_FILE]
    arrays = _arrays(path, "imgs", "latents_classes")
    classes = arrays["latents_classes"].whole()
    names = tuple(DSPRITES_FACTORS)
    if classes.ndim != 2 or classes.shape[1] != 1 + len(names):
        raise UserError(f"{path}: its latents_classes are {classes.shape}, not (N, 6); it is not the release's")
    images = arrays["imgs"]

    def chunks() -> Iterator[Chunk]:
        for piece in images.pieces():
            if piece.ndim != 3 or piece.dtype != np.uint8 or piece.max() > 1:
                raise UserError(f"{path}: its imgs are {piece.dtype} {images.shape}, not (N, 64, 64) of 0 and 1")
            yield piece[:, None] * np.uint8(255), None

    notes = _notes(path, classes[:, 1:], DSPRITES_FACTORS, "shape", ("square", "ellipse", "heart"))
    return _whole(DSPRITES, path, chunks, len(images), notes, image_size, n_valid, n_test, held_out, seed)


def shapes3d(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """3D Shapes: 480,000 pictures 64x64 in colour, one for each combination of the hues of floor, wall and object,
    scale, shape and orientation; labels are the shapes, by number. Needs h5py: pip install 'vaes[h5]'.

    "Disentangling by factorising", Kim and Mnih, 2018, https://arxiv.org/abs/1802.05983.

    Args:
        root: the folder of 3dshapes.h5, or the file.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, or their order.
        seed: chooses the images of each split.
    """
    path = SHAPES.find(root, ["3dshapes.h5"])["3dshapes.h5"]
    if importlib.util.find_spec("h5py") is None:
        raise UserError("data.kind: shapes3d needs a package more: pip install 'vaes[h5]'")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            shape, dtype, values = file["images"].shape, file["images"].dtype, np.asarray(file["labels"])
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no whole HDF5 file with images and labels ({_line(error)}); replace it") from error
    wanted = (len(shape) == 4 and shape[3] == 3 and dtype == np.uint8, values.shape == (shape[0], len(SHAPES_FACTORS)))
    if not all(wanted):
        raise UserError(f"{path}: images {dtype} {shape} and labels {values.shape}, not bytes (N, H, W, 3) and (N, 6)")

    def chunks() -> Iterator[Chunk]:
        try:
            with h5py.File(path, "r") as file:
                for first in range(0, shape[0], 4096):
                    yield LAST.images(np.asarray(file["images"][first : first + 4096])), None
        except OSError as error:
            raise UserError(f"{path}: cannot be read to its end ({_line(error)}); replace it") from error

    notes = _notes(path, _ranks(path, values), SHAPES_FACTORS, "shape", ("0", "1", "2", "3"))
    return _whole(SHAPES, path, chunks, shape[0], notes, image_size, n_valid, n_test, held_out, seed)


def mpi3d(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """MPI3D: 1,036,800 pictures 64x64 in colour of a robot's arm, one for each combination of the object's colour,
    shape and size, the camera's height, the background, and the arm's two angles (toy, realistic or real; of
    real_complex 460,800, with fewer colours and shapes). Labels are the object's shapes (of
    real_complex by number).

    "On the transfer of inductive bias from simulation to the real world: a new disentanglement dataset", Gondal et al.,
    2019, https://arxiv.org/abs/1906.03292.

    Args:
        root: the .npz file, or a folder with one that is called mpi3d_*.npz or real3d_*.npz.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, or their order.
        seed: chooses the images of each split.
    """
    base = Path(root)
    found = [base] if base.is_file() else sorted([*base.glob("mpi3d_*.npz"), *base.glob("real3d_*.npz")])
    if len(found) > 1:
        raise UserError(f"data.root: {root} holds {', '.join(path.name for path in found)}; give one of them")
    if not found:
        raise MPI.missing(root, ["mpi3d_toy.npz, or another mpi3d_*.npz,"])
    path = found[0]
    images = _arrays(path, "images")["images"]
    counts = {math.prod(table.values()): table for table in (MPI_FACTORS, MPI_COMPLEX)}
    if len(images.shape) != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or len(images) not in counts:
        raise UserError(
            f"{path}: its images are {images.dtype} {images.shape}, not bytes (N, H, W, 3) with N one of "
            f"{', '.join(f'{n:,}' for n in counts)}, one for each combination of factors; it is not the release's"
        )
    table = counts[len(images)]

    def chunks() -> Iterator[Chunk]:
        return ((LAST.images(piece), None) for piece in images.pieces())

    values = np.indices(tuple(table.values())).reshape(len(table), -1).T
    shapes: tuple[str, ...] = ("cone", "cube", "cylinder", "hexagonal", "pyramid", "sphere")
    if table is MPI_COMPLEX:
        shapes = ("0", "1", "2", "3")
    notes = _notes(path, values, table, "shape", shapes)
    return _whole(MPI, path, chunks, len(images), notes, image_size, n_valid, n_test, held_out, seed)


def smallnorb(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = 64,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Small NORB: 48,600 grey pictures 96x96 of toys (those of the first of its two cameras), with the release's own
    test split, whose toys are others. Factors are category, instance, elevation, azimuth and lighting; labels are the
    categories.

    "Learning methods for generic object recognition with invariance to pose and lighting", LeCun, Huang and Bottou,
    2004, https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/.

    Args:
        root: the folder of its six .mat files (dat, cat and info for training and testing), gzipped or not.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    names = {split: [name.format(part) for part in ("dat", "cat", "info")] for split, name in NORB_FILES.items()}
    paths = NORB.find(root, [*names["train"], *names["test"]], packed=True)
    sets, was = [], (0, 0)
    warned: list[str] = []
    for split in ("train", "test"):
        data, category, info = (paths[name] for name in names[split])

        def chunks(path: Path = data) -> Iterator[Chunk]:
            yield _norb(path, "u1", 4)[:, :1], None

        kept = keep(NORB, (data, category, info), image_size, chunks)
        of, rest = _norb(category, "<i4", 1), _norb(info, "<i4", 2)
        if rest.shape[1] != 4 or not len(of) == len(rest) == len(kept.images):
            raise UserError(f"{data}: {len(kept.images)} images, {len(of)} categories and {rest.shape} of info differ")
        # Azimuths are 0, 2, ..., 34: tens of degrees.
        values = np.stack([of, rest[:, 0], rest[:, 1], rest[:, 2] // 2, rest[:, 3]], 1)
        sets.append(kept.as_set(_notes(info, values, NORB_FACTORS, "category", CATEGORIES)))
        warned += kept.warnings
        was = kept.was
    return splits(*sets, was=was, image_size=image_size, n_valid=n_valid, held_out=held_out, seed=seed, warnings=warned)


def _norb(path: Path, kind: str, ndim: int) -> np.ndarray:
    """A binary matrix: magic number, number of dimensions, at least three of them, all little-endian, then the data."""
    header = np.frombuffer(read_packed(path, 8 + 4 * max(ndim, 3)), "<u4")
    if len(header) < 2 + max(ndim, 3) or NORB_TYPES.get(int(header[0])) != np.dtype(kind) or header[1] != ndim:
        raise UserError(f"{path}: no matrix of {ndim} dimensions of {np.dtype(kind)} in NORB's format; replace it")
    shape = tuple(int(n) for n in header[2 : 2 + ndim])
    begin, size = 8 + 4 * max(ndim, 3), math.prod(shape) * np.dtype(kind).itemsize
    if not 0 < size < 2**32:
        raise UserError(f"{path}: announces {size:,} bytes, which no such file has; replace it")
    content = read_packed(path, begin + size + 1)
    if len(content) != begin + size:
        raise UserError(f"{path}: announces {size:,} bytes after its header, and has others; replace it")
    return np.frombuffer(content, kind, offset=begin).reshape(shape)


def _arrays(path: Path, *names: str) -> dict[str, Any]:
    """Arrays of an .npz by name; the others are not opened."""
    found = open_arrays(path)
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{path}: has no array {' and '.join(missing)}; it is not the release's")
    return {name: found[name]() for name in names}


def _ranks(path: Path, values: np.ndarray) -> np.ndarray:
    """Values of factors as numbers of their order among all that occur."""
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise UserError(f"{path}: its labels are {values.dtype}, or not finite; it is not the release's")
    return np.stack([np.unique(column, return_inverse=True)[1] for column in values.T], 1)


def _notes(
    path: Path, values: np.ndarray, table: dict[str, int], label: str, label_names: Sequence[str]
) -> Annotations:
    sizes = np.array(list(table.values()))
    if values.dtype.kind not in "iu" or (values < 0).any() or (values >= sizes).any():
        wrong = ", ".join(f"{name} {n}" for name, n in table.items())
        raise UserError(f"{path}: its factors have more values than the release's ({wrong}); it is another set")
    factors = torch.from_numpy(values.astype(np.int64))
    labels = factors[:, list(table).index(label)].contiguous()
    return Annotations(labels, tuple(label_names), factors, tuple(table), tuple(table.values()))


def _whole(
    published: Published,
    path: Path,
    chunks: Any,
    total: int,
    notes: Annotations,
    image_size: Size,
    n_valid: int | None,
    n_test: int | None,
    held_out: HeldOut,
    seed: int,
) -> Splits:
    """A set without splits of its own."""
    assert notes.factors is not None
    if len(notes.factors) != total:
        raise UserError(f"{path}: {total:,} images with the factors of {len(notes.factors):,}; it is not the release's")
    kept = keep(published, (path,), image_size, chunks, lambda: total)
    return splits(
        kept.as_set(notes), None, was=kept.was, image_size=image_size, n_valid=n_valid, n_test=n_test,
        held_out=held_out, seed=seed, warnings=kept.warnings,
    )  # fmt: skip


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
