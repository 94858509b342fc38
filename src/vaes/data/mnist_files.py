"""The MNIST family: four IDX files, local or fetched."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.hashing import content_hashes
from vaes.data.held_out import Held, HeldOut, hold_out, hold_out_by_content
from vaes.data.idx import read_idx, unpack
from vaes.data.images import Annotations, ImageSet, image_set
from vaes.data.picture_files import stamp
from vaes.data.resize import Size, height_width, resize, resizing
from vaes.data.splits import Splits, report
from vaes.data.temporary import remove, sweep, temporary_name
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
    held_out: HeldOut = "content",
    seed: int = 0,
    mirrors: tuple[str, ...] = MIRRORS,
) -> Splits:
    """MNIST, or any set in its four files (Fashion-MNIST, KMNIST): grey images with labels.

    The files are looked for in `root` and `root/MNIST/raw`, gzipped or not, and taken as they are. Where there is none
    of them and `download` allows it, all are fetched into `root` from `mirrors` (tried in order), and must have the MD5
    of MNIST; where some are missing they are named. `n_valid` training images are held out, by `held_out` and `seed`:
    see `folder`. `image_size` resizes bilinearly with antialiasing, None keeps 28x28.

    "Gradient-based learning applied to document recognition", LeCun, Bottou, Bengio and Haffner, 1998.

    Args:
        root: the folder of the four files.
        image_size: a side, or height and width, that images are resized to; null keeps 28x28.
        download: fetch the files where none of them is there.
        n_valid: how many training images are held out for validation.
        held_out: by what validation images are chosen: their content, so that none moves where a set grows, or
            their order, as in runs made before that was possible.
        seed: chooses the images that are held out.
        mirrors: where the files are fetched, the first that has them.
    """
    paths = _locate(Path(root), download) or _fetch(Path(root), mirrors)
    # The labels first: they are small, and a mistake in them should not wait for the images.
    labels = [torch.from_numpy(read_idx(path, 1).astype(np.int64)) for path in (paths[1], paths[3])]
    names = tuple(str(i) for i in range(1 + max(int(y.max()) for y in labels)))
    (whole, was, warned), (test, *_) = (_part(paths[2 * i], labels[i], names, image_size) for i in range(2))
    if whole.shape != test.shape:
        raise UserError(f"{paths[2]}: its images are {test.shape}, those of {paths[0].name} {whole.shape}; they differ")
    use, key = Use.VALID, "data.n_valid"
    train, valid, note = (
        hold_out_by_content(whole, n_valid, 0, seed, use, key)
        if held_out == "content"
        else Held(*hold_out(whole, n_valid, seed, use, key))
    )
    more = [text for text in (note, *resizing(was, image_size)) if text]
    reading = report(train, valid, test, f"valid held out by {held_out}", more=more, warnings=warned)
    return Splits(train, valid, test, reading)


def _locate(root: Path, download: bool) -> list[Path]:
    """The four files, or none where none is there."""
    found: dict[str, Path] = {}
    for name in FILES:
        places = [folder / file for folder in (root, root / "MNIST" / "raw") for file in (name, f"{name}.gz")]
        if there := [path for path in places if os.path.isfile(path)]:
            found[name] = there[0]
    missing = [name for name in FILES if name not in found]
    if missing and found:
        raise UserError(
            f"data.root: {root} lacks {', '.join(missing)} (or the same as .gz); they are not fetched,"
            " because those that are there may be another set's; put them there"
        )
    if missing and not download:
        raise UserError(
            f"data.root: {root} lacks {', '.join(missing)} (or the same as .gz); put them there, or set data.download"
        )
    return [found[name] for name in FILES if found]


def _part(
    images: Path, labels: torch.Tensor, names: tuple[str, ...], image_size: Size
) -> tuple[ImageSet, tuple[int, int], tuple[str, ...]]:
    """A part, the size that its images had, and warnings."""

    def build(writer: RowWriter) -> dict[str, Any]:
        pixels = read_idx(images, 3)[:, None]
        for chunk in torch.from_numpy(pixels.copy()).split(8192):
            writer.append(resize(chunk, image_size).numpy())
        return {"hashes": content_hashes(pixels).tolist(), "size": pixels.shape[2:]}

    decoded, info, warned = cached("mnist", {"file": stamp(images), "size": height_width(image_size)}, build)
    if len(decoded) != len(labels):
        raise UserError(f"{images}: {len(decoded)} images for {len(labels)} labels; the files do not belong together")
    hashes = torch.tensor(info["hashes"], dtype=torch.int64)
    h, w = info["size"]
    return image_set(decoded, Annotations(labels, names, hashes=hashes)), (h, w), warned


def _fetch(root: Path, mirrors: tuple[str, ...]) -> list[Path]:
    """Fetch the four files; they come into `root` once all are whole, so that none is there without the others."""
    _made(root)
    sweep(root)
    held = root / temporary_name("fetch")
    try:
        _made(held)
        paths = [_fetch_one(root, held, name, mirrors) for name in FILES]
        return [path.replace(root / path.name) for path in paths]
    except OSError as error:
        raise UserError(f"data.root: {root} cannot be written ({error.strerror}); give another folder") from error
    finally:
        remove(held)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.root: {folder} cannot be made ({error.strerror}); give another folder") from error


def _fetch_one(root: Path, held: Path, name: str, mirrors: tuple[str, ...]) -> Path:
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}.gz"
        try:
            return _download(url, held / f"{name}.gz", name)
        # The network's errors are OSErrors too.
        except UserError as error:
            failures.append(f"{url}: {error}")
        except OSError as error:
            failures.append(f"{url}: {error.strerror or type(error).__name__}")
    files = ", ".join(f"{file}.gz" for file in FILES)
    raise UserError(
        f"data.root: {name} is not in {root} and could not be fetched ({'; '.join(failures)}); put {files} into {root}"
    )


def _download(url: str, path: Path, name: str) -> Path:
    """Fetch one file, whose unpacked bytes must have the right MD5."""
    import pooch  # a quarter of a second, and rarely needed

    pooch.HTTPDownloader(timeout=30)(url, str(path), None)
    found = hashlib.md5(unpack(path, 3 if "images" in name else 1), usedforsecurity=False).hexdigest()
    if found != FILES[name]:
        raise UserError(f"MD5 {found} of the unpacked bytes, not {FILES[name]}")
    return path
