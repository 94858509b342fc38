"""The MNIST family: four IDX files, local or fetched."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.idx import read_idx, unpack
from vaes.data.images import Annotations, ImageSet, Splits, image_set
from vaes.data.picture_files import stamp
from vaes.data.resize import Size, height_width, resize
from vaes.data.splits import hold_out
from vaes.errors import UserError
from vaes.randomness import Use

__all__ = ["FILES", "MIRRORS", "mnist"]

FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""The four files, and the MD5 of MNIST's own, unpacked."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def mnist(
    *,
    root: str = "data/mnist",
    image_size: int | tuple[int, int] | None = 32,
    download: bool = True,
    n_valid: int = 5000,
    seed: int = 0,
    mirrors: tuple[str, ...] = MIRRORS,
) -> Splits:
    """MNIST, or any set in its four files (Fashion-MNIST, KMNIST): grey images with labels.

    The files are looked for in `root` and `root/MNIST/raw`, gzipped or not, and taken as they are. Missing ones are
    fetched into `root` from `mirrors` (tried in order) where `download` allows it, and must have the MD5 of MNIST.
    `n_valid` training images chosen by `seed` are held out. `image_size` resizes bilinearly with antialiasing, None
    keeps 28x28.

    "Gradient-based learning applied to document recognition", LeCun, Bottou, Bengio and Haffner, 1998.
    """
    paths = [path or _fetch(Path(root), name, mirrors) for name, path in _locate(Path(root), download).items()]
    # The labels first: they are small, and a mistake in them should not wait for the images.
    labels = [torch.from_numpy(read_idx(path, 1).astype(np.int64)) for path in (paths[1], paths[3])]
    names = tuple(str(i) for i in range(1 + max(int(y.max()) for y in labels)))
    whole, test = (_part(paths[2 * i], Annotations(labels[i], names), image_size) for i in range(2))
    train, valid = hold_out(whole, n_valid, seed, Use.VALID, "data.n_valid")
    return Splits(train, valid, test)


def _locate(root: Path, download: bool) -> dict[str, Path | None]:
    found: dict[str, Path | None] = {}
    for name in FILES:
        places = [folder / file for folder in (root, root / "MNIST" / "raw") for file in (name, f"{name}.gz")]
        found[name] = next((path for path in places if os.path.isfile(path)), None)
    missing = [name for name, path in found.items() if path is None]
    if missing and not download:
        raise UserError(
            f"data.root: {root} lacks {', '.join(missing)} (or the same as .gz); put them there, or set data.download"
        )
    return found


def _part(images: Path, notes: Annotations, image_size: Size) -> ImageSet:
    def build(writer: RowWriter) -> dict[str, str]:
        for chunk in torch.from_numpy(read_idx(images, 3)[:, None].copy()).split(8192):
            writer.append(resize(chunk, image_size).numpy())
        return {}

    decoded = cached("mnist", {"file": stamp(images), "size": height_width(image_size)}, build).images
    assert notes.labels is not None
    if len(decoded) != len(notes.labels):
        raise UserError(
            f"{images}: {len(decoded)} images for {len(notes.labels)} labels; the files do not belong together"
        )
    return image_set(decoded, notes)


def _fetch(root: Path, name: str, mirrors: tuple[str, ...]) -> Path:
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}.gz"
        try:
            return _download(url, root, name)
        # The network's errors are OSErrors too.
        except UserError as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            failures.append(f"{url}: {error.strerror or type(error).__name__}")
    files = ", ".join(f"{file}.gz" for file in FILES)
    raise UserError(
        f"data.root: {name} is not in {root} and could not be fetched ({'; '.join(failures)}); put {files} into {root}"
    )


def _download(url: str, root: Path, name: str) -> Path:
    """Fetch one file under a temporary name and rename it once its unpacked bytes have the right MD5."""
    import pooch  # a quarter of a second, and rarely needed

    root.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=root)
    os.close(handle)
    try:
        pooch.HTTPDownloader(progressbar=True, timeout=30)(url, temporary, None)
        found = hashlib.md5(unpack(Path(temporary), 3 if "images" in name else 1), usedforsecurity=False).hexdigest()
        if found != FILES[name]:
            raise UserError(f"MD5 {found} of the unpacked bytes, not {FILES[name]}")
        os.replace(temporary, root / f"{name}.gz")
    finally:
        Path(temporary).unlink(missing_ok=True)
    return root / f"{name}.gz"
