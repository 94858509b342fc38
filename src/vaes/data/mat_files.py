"""Sets that are published as MATLAB files: SVHN, and the cars of 3D models."""

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaes.data.held_out import HeldOut
from vaes.data.images import Annotations
from vaes.data.published import LAST, Chunk, Published, keep, labels_of, splits
from vaes.data.roots import regular
from vaes.data.splits import Splits
from vaes.errors import UserError
from vaes.files import natural
from vaes.memory import available

__all__ = ["cars3d", "svhn"]

SVHN = Published(
    "SVHN",
    "http://ufldl.stanford.edu/housenumbers/",
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
    },
)
CARS = Published(
    "the cars of Reed et al.",
    "http://www.scottreed.info/files/nips2015-analogy-data.tar.gz (unpacked: data/cars)",
    ("", "cars", "data/cars"),
)
ELEVATIONS, AZIMUTHS = 4, 24


def svhn(
    *,
    root: str,
    extra: bool = False,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Street View House Numbers, cropped: 99,289 pictures 32x32 in colour of digits, with the release's own test split.

    "Reading digits in natural images with unsupervised feature learning", Netzer, Wang, Coates, Bissacco, Wu and Ng,
    2011, http://ufldl.stanford.edu/housenumbers/.

    Args:
        root: the folder of train_32x32.mat and test_32x32.mat.
        extra: train on the 531,131 easier pictures of extra_32x32.mat too.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    names = ["train_32x32.mat", *(["extra_32x32.mat"] if extra else []), "test_32x32.mat"]
    paths = SVHN.find(root, names)
    sets, was = [], (0, 0)
    warned: list[str] = []
    for part in (names[:-1], names[-1:]):
        files = [paths[name] for name in part]

        def chunks(files: Sequence[Path] = files) -> Iterator[Chunk]:
            return (_house_numbers(path) for path in files)

        kept = keep(SVHN, files, image_size, chunks)
        labels = labels_of(files[0], kept.labels, [str(i) for i in range(10)])
        sets.append(kept.as_set(Annotations(labels, tuple(map(str, range(10))))))
        warned += kept.warnings
        was = kept.was
    return splits(*sets, was=was, image_size=image_size, n_valid=n_valid, held_out=held_out, seed=seed, warnings=warned)


def cars3d(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = 64,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Pictures 128x128 in colour of 183 models of cars, each from 4 elevations and 24 azimuths: 17,568 images, whose
    factors are elevation, azimuth and the model, in the order of the files' names.

    "Deep visual analogy-making", Reed, Zhang, Zhang and Lee, 2015,
    https://papers.nips.cc/paper/5845-deep-visual-analogy-making.

    Args:
        root: the folder of its .mat files, one a model.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, or their order.
        seed: chooses the images of each split.
    """
    folders = [Path(root, place) for place in CARS.places if os.path.isdir(Path(root, place))]
    files = next(
        (found for folder in folders if (found := sorted(folder.glob("*.mat"), key=_by_number))),
        [],
    )
    if not files:
        raise CARS.missing(root, ["files *.mat"])

    def chunks() -> Iterator[Chunk]:
        for path in files:
            images = _variables(path, "im")["im"]
            if images.ndim != 5 or images.shape[2:] != (3, AZIMUTHS, ELEVATIONS) or images.dtype != np.uint8:
                raise UserError(
                    f"{path}: its im is {images.dtype} {images.shape}, not bytes (H, W, 3, {AZIMUTHS}, {ELEVATIONS}); "
                    "replace it"
                )
            yield LAST.images(images.transpose(3, 4, 0, 1, 2).reshape(-1, *images.shape[:3])), None

    kept = keep(CARS, files, image_size, chunks, lambda: len(files) * AZIMUTHS * ELEVATIONS)
    model, azimuth, elevation = np.indices((len(files), AZIMUTHS, ELEVATIONS)).reshape(3, -1)
    factors = torch.from_numpy(np.stack([elevation, azimuth, model], 1).astype(np.int64))
    names, sizes = ("elevation", "azimuth", "model"), (ELEVATIONS, AZIMUTHS, len(files))
    whole = kept.as_set(Annotations(None, (), factors, names, sizes))
    return splits(
        whole, None, was=kept.was, image_size=image_size, n_valid=n_valid, n_test=n_test, held_out=held_out, seed=seed,
        warnings=kept.warnings,
    )  # fmt: skip


def _house_numbers(path: Path) -> Chunk:
    found = _variables(path, "X", "y")
    images, labels = found["X"], found["y"].reshape(-1)
    if images.ndim != 4 or images.shape[2] != 3 or images.dtype != np.uint8 or len(labels) != images.shape[3]:
        raise UserError(
            f"{path}: its X is {images.dtype} {images.shape} with {len(labels)} labels, not bytes (32, 32, 3, N) and N;"
            " replace it"
        )
    return images.transpose(3, 2, 0, 1), labels.astype(np.int64) % 10  # the label 10 is the digit 0


def _variables(path: Path, *names: str) -> dict[str, Any]:
    """Arrays of numbers in a .mat file, to version 7.2; nothing in it is run."""
    import scipy.io

    regular(path, "data.root")
    if path.stat().st_size > available() // 4:
        raise UserError(f"{path}: {path.stat().st_size:,} bytes, too many for the memory that is free")
    try:
        with path.open("rb") as file:
            found = scipy.io.loadmat(file, variable_names=names)
    except NotImplementedError:
        raise UserError(f"{path}: a MATLAB file of version 7.3, which the release is not; replace it") from None
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        KeyError,
        IndexError,
        MemoryError,
        zlib.error,
        OverflowError,
    ) as e:
        raise UserError(f"{path}: no whole MATLAB file ({' '.join(str(e).split())[:200]}); replace it") from e
    if missing := [name for name in names if not isinstance(found.get(name), np.ndarray)]:
        raise UserError(f"{path}: has no array {' and '.join(missing)}; it is not the release's")
    return found


def _by_number(path: Path) -> list[tuple[float, str]]:
    """car_2 before car_10."""
    return natural(path.name)
