"""CIFAR-10 and CIFAR-100, from the binary or the Python release, unpacked or not."""

import io
import os
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vaes.data.held_out import HeldOut
from vaes.data.images import Annotations
from vaes.data.published import Chunk, Published, keep, labels_of, splits
from vaes.data.resize import Size
from vaes.data.splits import Splits
from vaes.data.tar_files import TROUBLE
from vaes.errors import UserError

__all__ = ["cifar10", "cifar100", "load_batch"]

PIXELS = 3 * 32 * 32
MAX_FILE = 2**28
"""Bytes; the largest file of either release has 155 million."""


class Release(NamedTuple):
    """One of a set's two releases."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: str


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEN = (
    Release(
        "cifar-10-binary.tar.gz", "cifar-10-batches-bin", tuple(f"{name}.bin" for name in BATCHES), "test_batch.bin"
    ),
    Release("cifar-10-python.tar.gz", "cifar-10-batches-py", BATCHES, "test_batch"),
)
HUNDRED = (
    Release("cifar-100-binary.tar.gz", "cifar-100-binary", ("train.bin",), "test.bin"),
    Release("cifar-100-python.tar.gz", "cifar-100-python", ("train",), "test"),
)
URL = "https://www.cs.toronto.edu/~kriz/cifar.html"
CIFAR10 = Published(
    "CIFAR-10",
    URL,
    ("", "cifar-10-batches-bin", "cifar-10-batches-py"),
    {
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)
CIFAR100 = Published(
    "CIFAR-100",
    URL,
    ("", "cifar-100-binary", "cifar-100-python"),
    {
        "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
COARSE = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip


def cifar10(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """CIFAR-10: 60,000 pictures 32x32 in colour of ten classes, with the release's own test split.

    The binary release, or the Python release, whose pickles are read for numbers and text alone: nothing in them is
    run.

    "Learning multiple layers of features from tiny images", Krizhevsky, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        root: the folder of its batches, or of its archive, or the archive itself.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    return _read(CIFAR10, TEN, root, CLASSES, (0, "labels", 1), image_size, n_valid, held_out, seed)


def cifar100(
    *,
    root: str,
    labels: Literal["fine", "coarse"] = "fine",
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """CIFAR-100: 60,000 pictures 32x32 in colour of a hundred classes in twenty groups, with the release's own test
    split. Releases are read as those of CIFAR-10.

    "Learning multiple layers of features from tiny images", Krizhevsky, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.

    Args:
        root: the folder of its files, or of its archive, or the archive itself.
        labels: the hundred classes, or their twenty groups.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    names, at = (FINE, 1) if labels == "fine" else (COARSE, 0)
    return _read(CIFAR100, HUNDRED, root, names, (at, f"{labels}_labels", 2), image_size, n_valid, held_out, seed)


def _read(
    published: Published,
    releases: Sequence[Release],
    root: str,
    names: Sequence[str],
    where: tuple[int, str, int],
    image_size: Size,
    n_valid: int | None,
    held_out: HeldOut,
    seed: int,
) -> Splits:
    """``where`` a label lies: which byte of a record, under which key of a pickle, and the bytes of labels a record."""
    release, archive = _choose(published, releases, root)
    wanted = (*release.train, release.test)
    paths = {} if archive is not None else published.find(root, wanted)
    warned: list[str] = []
    sets, was = [], (32, 32)
    for part in (release.train, (release.test,)):
        files = [archive] if archive is not None else [paths[name] for name in part]

        def chunks(part: tuple[str, ...] = part) -> Iterator[Chunk]:
            members = _members(published, root, archive, part) if archive is not None else None
            for name in part:
                path = paths.get(name, Path(f"{archive}/{name}"))
                content = _content(path) if members is None else members[name]
                binary = name.endswith(".bin")
                yield _records(path, content, where) if binary else load_batch(path, content, where[1])

        kept = keep(published, files, image_size, chunks, more=[*part, where[1]])
        labels = labels_of(files[0], kept.labels, names)
        sets.append(kept.as_set(Annotations(labels, tuple(names))))
        warned += kept.warnings
    return splits(*sets, was=was, image_size=image_size, n_valid=n_valid, held_out=held_out, seed=seed, warnings=warned)


def _choose(published: Published, releases: Sequence[Release], root: str) -> tuple[Release, Path | None]:
    """The release of which most is there, and its archive where that is what is there."""
    base = Path(root)
    if os.path.isfile(base):
        return releases["python" in base.name], base
    for release in releases:
        folders = [base / place for place in ("", release.folder)]
        if any(os.path.isfile(folder / name) for folder in folders for name in (*release.train, release.test)):
            return release, None
    for release in releases:
        if os.path.isfile(base / release.archive):
            return release, base / release.archive
    raise published.missing(root, [*releases[0].train, releases[0].test, f"or {releases[0].archive}"])


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise UserError(f"{path}: {size:,} bytes, more than any file of the release; replace it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); replace it") from error


def _members(published: Published, root: str, archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Files of the archive, by the last part of their names, read in memory."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                if name in names and member.isreg():
                    if member.size > MAX_FILE:
                        raise UserError(f"{archive}: its {name} has {member.size:,} bytes; it is not the release's")
                    file = tar.extractfile(member)
                    assert file is not None
                    found[name] = file.read()
    except TROUBLE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{archive}: not a whole archive ({error}); fetch it again from {published.url}") from error
    if missing := [name for name in names if name not in found]:
        raise published.missing(str(archive), missing)
    return found


def _records(path: Path, content: bytes, where: tuple[int, str, int]) -> Chunk:
    """A binary file: records of labels, a byte each, and 3 x 32 x 32 bytes of red, green and blue."""
    size = where[2] + PIXELS
    if not content or len(content) % size:
        raise UserError(f"{path}: {len(content):,} bytes are no whole number of records of {size}; replace it")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return rows[:, where[2] :].reshape(-1, 3, 32, 32), rows[:, where[0]].astype(np.int64)


class _Dtype:
    """What a pickle says of an array's type."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """What a pickle says of an array: numbers are made of its bytes by us, never by the pickle."""

    state: tuple[Any, ...] = ()

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    made = _Array()
    made.state = (1, shape, dtype, order == "F", content)
    return made


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text in an encoding that the release does not use")
    return text.encode("latin1")


KNOWN = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode}
for _core in ("numpy.core", "numpy._core"):
    KNOWN |= {(f"{_core}.multiarray", "_reconstruct"): _Array, (f"{_core}.numeric", "_frombuffer"): _frombuffer}


class _Numbers(pickle.Unpickler):
    """Reads numbers, text, lists and dicts; of what a pickle can name, it knows stand-ins for arrays, and no more."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the release does not")
        return KNOWN[module, name]


def load_batch(path: Path, content: bytes, key: str) -> Chunk:
    """The images and labels of a batch of the Python release; nothing in it is run.

    Raises:
        UserError: it is damaged, names anything but arrays, or is no batch.
    """
    try:
        batch = _Numbers(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(batch, dict):
            raise ValueError("no dict")
        named = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in batch.items()}
        _, shape, dtype, fortran, raw = named["data"].state
        if dtype.code not in ("u1", b"u1", "uint8") or not isinstance(raw, bytes | bytearray):
            raise ValueError("its images are not bytes")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
        labels = [int(number) for number in named[key]]
        if pixels.ndim != 2 or pixels.shape[1] != PIXELS or len(labels) != len(pixels):
            raise ValueError(f"{pixels.shape} numbers with {len(labels)} labels")
    except Exception as error:  # whatever a damaged pickle ends in
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path}: no batch of the Python release ({why}); replace it, or take the binary one"
        ) from error
    return np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32), np.array(labels, np.int64)
