"""The sets that came after MNIST, in files of its format: Fashion-MNIST, KMNIST, EMNIST."""

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from vaes.data.held_out import HeldOut
from vaes.data.idx import read_idx
from vaes.data.images import Annotations
from vaes.data.published import Chunk, Published, keep, labels_of, splits
from vaes.data.resize import Size
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["emnist", "fashion_mnist", "kmnist"]

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

FASHION = Published(
    "Fashion-MNIST",
    "https://github.com/zalandoresearch/fashion-mnist",
    ("", "FashionMNIST/raw"),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

KUZUSHIJI = Published(
    "KMNIST",
    "https://codh.rois.ac.jp/kmnist/",
    ("", "KMNIST/raw"),
    {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    },
)
SYLLABLES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

EXTENDED = Published(
    "EMNIST",
    "https://www.nist.gov/itl/products-and-services/emnist-dataset (gzip.zip, unpacked)",
    ("", "gzip", "EMNIST/raw"),
)
ALL = string.digits + string.ascii_uppercase + string.ascii_lowercase
MERGED = "".join(letter for letter in ALL if letter not in "cijklmopsuvwxyz")
"""Small letters that look like their capitals are one class with them."""
LETTERS = {
    "balanced": MERGED, "byclass": ALL, "bymerge": MERGED, "digits": string.digits, "letters": string.ascii_lowercase,
    "mnist": string.digits,
}  # fmt: skip


def fashion_mnist(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Fashion-MNIST: 70,000 grey pictures 28x28 of ten kinds of garments, with the release's own test split.

    "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", Xiao, Rasul and Vollgraf, 2017,
    https://arxiv.org/abs/1708.07747.

    Args:
        root: the folder of its four IDX files, gzipped or not.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    return _read(FASHION, root, NAMES, GARMENTS, image_size, n_valid, held_out, seed)


def kmnist(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Kuzushiji-MNIST: 70,000 grey pictures 28x28 of ten syllables in cursive Japanese, with the release's own test
    split.

    "Deep learning for classical Japanese literature", Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto and Ha, 2018,
    https://arxiv.org/abs/1812.01718.

    Args:
        root: the folder of its four IDX files, gzipped or not.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    return _read(KUZUSHIJI, root, NAMES, SYLLABLES, image_size, n_valid, held_out, seed)


def emnist(
    *,
    root: str,
    subset: Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"] = "balanced",
    image_size: int | tuple[int, int] | None = None,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """EMNIST: handwritten letters and digits, grey, 28x28 and upright (the files hold them mirrored at their diagonal),
    with the release's own test split.

    "EMNIST: extending MNIST to handwritten letters", Cohen, Afshar, Tapson and van Schaik, 2017,
    https://arxiv.org/abs/1702.05373.

    Args:
        root: the folder of its IDX files, gzipped or not.
        subset: which of its six sets: ``balanced`` has 47 classes, ``byclass`` 62, ``bymerge`` 47, ``letters`` 26,
            ``digits`` and ``mnist`` 10.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    names = tuple(f"emnist-{subset}-{part}-ubyte" for part in parts)
    return _read(
        EXTENDED, root, names, tuple(LETTERS[subset]), image_size, n_valid, held_out, seed,
        turned=True, first=int(subset == "letters"),
    )  # fmt: skip


def _read(
    published: Published,
    root: str,
    names: tuple[str, ...],
    label_names: Sequence[str],
    image_size: Size,
    n_valid: int | None,
    held_out: HeldOut,
    seed: int,
    *,
    turned: bool = False,
    first: int = 0,
) -> Splits:
    """The four files; ``turned`` images have columns for rows, and labels begin with ``first``."""
    paths = published.find(root, names, packed=True)
    sets, was = [], (0, 0)
    warned: list[str] = []
    for images, labels in (names[:2], names[2:]):
        numbers = read_idx(paths[labels], 1).astype(np.int64) - first

        def chunks(path: Path = paths[images]) -> Iterator[Chunk]:
            pixels = read_idx(path, 3)
            yield (pixels.transpose(0, 2, 1) if turned else pixels)[:, None], None

        kept = keep(published, (paths[images], paths[labels]), image_size, chunks, more=turned)
        if len(numbers) != len(kept.images):
            raise UserError(
                f"{paths[images]}: {len(kept.images)} images for {len(numbers)} labels; the files do not belong "
                "together"
            )
        found = labels_of(paths[labels], numbers.tolist(), label_names)
        sets.append(kept.as_set(Annotations(found, tuple(label_names))))
        warned += kept.warnings
        was = kept.was
    return splits(*sets, was=was, image_size=image_size, n_valid=n_valid, held_out=held_out, seed=seed, warnings=warned)
