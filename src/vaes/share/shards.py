"""Codes of images in shards, for models of codes: tensors that any program reads, and a reader of them."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vaes import files
from vaes.code_statistics import Statistics
from vaes.data import ImageSet, to_float
from vaes.data.hashing import content_hashes
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.posteriors import Quantizer
from vaes.run import Run

__all__ = ["FILE", "Latents", "Written", "latents", "write_latents"]

FILE = "latents.json"
FORMAT = 1
BYTES, MOST = 2**26, 10_000
"""Of a shard, by default: about so many bytes, and at most so many images."""


class Written(NamedTuple):
    """What :func:`write_latents` did."""

    images: int
    encoded: int
    """Those that were not there already."""
    shards: int
    kept: int
    seconds: float
    """Of encoding and writing."""


def write_latents(
    run: Run,
    sets: Mapping[str, ImageSet],
    folder: Path,
    *,
    statistics: Statistics | None = None,
    shard: int | None = None,
    batch_size: int = 256,
    progress: bool = False,
) -> Written:
    """Write the codes of sets of images into a folder, in shards of safetensors; where it was begun already, go on.

    ``latents.json`` says whose codes these are and lists the shards, each of which is there whole or not at all, and is
    a function of the run, the images and the options: a folder that was gone on with has the bytes of one that was not.
    A shard holds, a row an image: ``mean`` and ``logvar`` (n, Z...) of q(z|x), or ``indices`` (n, P, Q) int32 of words
    of a codebook; ``index``, the image's number in its set; ``label``, where there are labels; and in its metadata
    (``vaes``, JSON) ``paths``, where images are files.

    Args:
        run: whose weights encode.
        sets: by name, which is the first part of their shards' names.
        folder: to make, or to go on in.
        statistics: channels are normalised by them, as :meth:`Statistics.normalise` does.
        shard: images in a shard; by default as many as make about 64 MB, 10,000 at most.
        batch_size: images at a time.
        progress: show a bar on a terminal.

    Raises:
        UserError: the folder holds something else, or codes of another run, of other images or with other options; or
            codes are not finite; or the disk is full.
    """
    quantized = isinstance(run.model.posterior, Quantizer)
    if statistics is not None and quantized:
        raise UserError("--normalise: codes of this run are indices of words, which no statistics normalise")
    for name, images in sets.items():
        if not len(images):
            raise UserError(f"{name}: there are no images to encode")
        if images.shape != run.image_shape:
            raise UserError(f"{name}: images of {images.shape} where the run takes {run.image_shape}, both (C, H, W)")
    document = _document(run, sets, statistics, shard)
    files.refuse_unwritable(folder)
    with files.locked(folder / ".lock", timeout=0, taken=f"{folder}: another process encodes into it now"):
        _enter(folder, document)
        sign = _sign(document)
        missing = [entry for entry in document["shards"] if not _there(folder, entry, sign)]
        total = sum(entry["count"] for entry in missing)
        begun = time.monotonic()
        with tqdm(total=total, desc="encoding", unit="image", disable=not progress or None) as bar:
            for entry in missing:
                images, index = sets[entry["split"]], torch.arange(entry["first"], entry["first"] + entry["count"])
                tensors = _encoded(run.model, images, index, statistics, batch_size, bar)
                about: dict[str, Any] = {"of": sign, **entry}
                if images.notes.paths is not None:
                    about["paths"] = [_plain(images.notes.paths[i]) for i in index.tolist()]
                _write(folder / entry["file"], tensors, about)
        seconds = time.monotonic() - begun
    shards = document["shards"]
    return Written(sum(e["count"] for e in shards), total, len(shards), len(shards) - len(missing), seconds)


def _document(
    run: Run, sets: Mapping[str, ImageSet], statistics: Statistics | None, shard: int | None
) -> dict[str, Any]:
    model = run.model
    posterior, words, of_one = model.posterior, None, model.z_dim * 8
    if isinstance(posterior, Quantizer):
        words, of_one = posterior.words.shape, posterior.positions * posterior.books * 4
    count = max(1, min(MOST, BYTES // of_one)) if shard is None else shard
    entries = [
        {"file": f"{name}-{i:05d}.safetensors", "split": name, "first": first, "count": min(count, len(x) - first)}
        for name, x in sets.items()
        for i, first in enumerate(range(0, len(x), count))
    ]
    normalised = None if statistics is None else {"mean": list(statistics.mean), "std": list(statistics.std)}
    document = {
        "format": FORMAT,
        "weights": run.sha256,
        "step": run.step,
        "image_shape": list(run.image_shape),
        "z_shape": list(model.z_shape),
        "words": None if words is None else {"books": words[0], "codes": words[1], "channels": words[2]},
        "normalised": normalised,
        "tile": run.tile,
        "data": {key: value for key, value in run.experiment.data.items() if key not in ("root", "changed")},
        "images": {name: {"count": len(x), "content": _content(x)} for name, x in sets.items()},
        "label_names": {name: list(x.notes.label_names) for name, x in sets.items()},
        "images_a_shard": count,
        "shards": entries,
    }
    found: dict[str, Any] = json.loads(json.dumps(document))  # as it is read back
    return found


def _content(images: ImageSet) -> str:
    """Of the images in their order, with their labels: 16 hexadecimal digits."""
    found = hashlib.sha256()
    if images.notes.hashes is not None:
        found.update(images.notes.hashes.numpy().astype("<i8").tobytes())
    elif (definition := images.definition()) is not None:
        found.update(definition.encode())
    else:
        for rows in torch.arange(len(images)).split(1024):
            pixels = images.read(rows.to(images.index_device)).cpu().numpy()
            found.update(np.asarray(content_hashes(pixels)).astype("<i8").tobytes())
    if images.notes.labels is not None:
        found.update(images.notes.labels.numpy().astype("<i8").tobytes())
    return found.hexdigest()[:16]


def _sign(document: Mapping[str, Any]) -> str:
    return files.digest(document, "")


WORDS = {
    "weights": "other weights ({there!s:.8}) than these ({ours:.8})",
    "image_shape": "images of {there} (C, H, W) where these are {ours}",
    "normalised": "codes normalised otherwise (--normalise)",
    "tile": "--tile {there} where {ours} is asked for",
    "data": "images read with other keys of data",
    "images": "other images",
    "images_a_shard": "{there} images a shard where {ours} are asked for (--shard)",
}
"""What a folder that is gone on with may differ in."""


def _enter(folder: Path, document: Mapping[str, Any]) -> None:
    """Take a folder that is empty, or was begun with the same."""
    for name in (FILE, *(entry["file"] for entry in document["shards"])):
        for path in folder.glob(f".{name}.*.tmp"):  # what a process that was killed left half-written
            path.unlink(missing_ok=True)
    if not (folder / FILE).exists():
        if other := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
            raise UserError(f"{folder}: holds {_plain(other[0])} and no {FILE}; give a new folder for the codes")
        files.write_text(folder / FILE, json.dumps(document, indent=1) + "\n")
        return
    files.refuse_links(folder, [FILE, *(entry["file"] for entry in document["shards"])])
    there = _read(folder)
    for key, ours in document.items():
        if there.get(key) != ours:
            words = WORDS.get(key, f"another {key}").format(there=there.get(key), ours=ours)
            raise UserError(f"{folder}: was begun with {words}; give a new folder, or what it was begun with")


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads(files.read_bytes(folder / FILE, files.MAX_JSON).decode("utf-8"))
        if found["format"] != FORMAT:
            raise UserError(f"{folder / FILE}: format {found['format']}, which this version does not know")
        for entry in found["shards"]:
            if Path(entry["file"]).name != entry["file"] or min(entry["first"], entry["count"]) < 0:
                raise ValueError
        _ = found["images"], found["label_names"]
    except FileNotFoundError:
        raise UserError(f"{folder}: holds no {FILE}: no codes of `vaes encode RUN -o FOLDER`") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder / FILE}: cannot be read ({getattr(error, 'strerror', None) or 'damaged'})") from None
    return dict(found)


def _there(folder: Path, entry: Mapping[str, Any], sign: str) -> bool:
    """Whether a shard is there.

    Raises:
        UserError: it is damaged, or another folder's.
    """
    path = folder / entry["file"]
    if not path.exists():
        return False
    _open(path, sign)
    return True


def _open(path: Path, sign: str) -> Any:
    try:
        opened = safetensors.safe_open(path, framework="pt")
        about = json.loads((opened.metadata() or {}).get("vaes", "{}"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path}: is no whole shard ({why}); delete it, and encode again what is missing") from None
    if about.get("of") != sign:
        raise UserError(f"{path}: is no shard of the codes that {FILE} tells of; delete it, or the whole folder")
    return opened


def _encoded(
    model: VAE, images: ImageSet, index: Tensor, statistics: Statistics | None, batch_size: int, bar: Any
) -> dict[str, Tensor]:
    like, parts = next(model.parameters()), []
    with evaluation(model):
        for rows in index.split(batch_size):
            x = to_float(images.read(rows.to(images.index_device)), model.value_range).to(like)
            parts.append(_of_batch(model, x))
            bar.update(len(rows))
    found = {name: torch.cat([part[name] for part in parts]).clone() for name in parts[0]}
    for name, values in found.items():
        if not values.isfinite().all():
            raise UserError(f"{name} of codes is not finite: the training diverged; take an earlier checkpoint")
    if statistics is not None:
        found["mean"] = statistics.normalise(found["mean"].double()).float()
        if "logvar" in found:
            found["logvar"] = statistics.normalise_logvar(found["logvar"].double()).float()
    found["index"] = index
    if images.notes.labels is not None:
        found["label"] = images.notes.labels[index]
    return found


def _of_batch(model: VAE, x: Tensor) -> dict[str, Tensor]:
    latent = model.encode(x)
    if "indices" in latent.aux:
        return {"indices": latent.aux["indices"].int().cpu()}
    mean = latent.z[0] if latent.mean is None else latent.mean
    found = {"mean": mean} if latent.logvar is None else {"mean": mean, "logvar": latent.logvar}
    return {name: value.float().cpu() for name, value in found.items()}


def _write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    try:
        files.write_atomic(path, lambda temporary: files.write_tensors(temporary, tensors, about))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); the shards before are whole") from None


def _plain(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


class Latents(Dataset[dict[str, Tensor]]):
    """Codes that :func:`write_latents` wrote, read by index from the disk: ``mean`` and ``logvar`` (Z...) or
    ``indices`` (P, Q) int64, ``index``, and ``label`` where there are labels. For a ``DataLoader``, too.

    Attributes:
        about: what ``latents.json`` says.
        split: the name of the set, or None for all of them, one after another.
    """

    def __init__(self, folder: Path, split: str | None) -> None:
        self.folder, self.split, self.about = folder, split, _read(folder)
        names = list(self.about["images"])
        if split is not None and split not in names:
            raise UserError(f"{folder}: has no codes of {split}; it has {', '.join(names)}")
        self._shards = [entry for entry in self.about["shards"] if split in (None, entry["split"])]
        self._ends = np.cumsum([entry["count"] for entry in self._shards])
        self._sign, self._opened = _sign(self.about), dict[int, Any]()
        for entry in self._shards:
            if not (folder / entry["file"]).is_file():
                raise UserError(f"{folder / entry['file']}: is missing; give the command again that made {folder}")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return {name: rows[0] for name, rows in self.read(torch.tensor([index % len(self)])).items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}  # files are opened in the process that reads them

    def read(self, index: Tensor) -> dict[str, Tensor]:
        """The rows at ``index`` (B,), in this order."""
        rows = []
        for i in index.tolist():
            shard = int(np.searchsorted(self._ends, i, side="right"))
            row = i - int(self._ends[shard]) + self._shards[shard]["count"]
            opened = self._open(shard)
            rows.append({name: opened.get_slice(name)[row : row + 1] for name in opened.keys()})  # noqa: SIM118
        found = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return {name: x.long() if name == "indices" else x for name, x in found.items()}

    def shards(self) -> Iterator[dict[str, Tensor]]:
        """All rows, a shard at a time."""
        for shard in range(len(self._shards)):
            opened = self._open(shard)
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            yield {name: x.long() if name == "indices" else x for name, x in found.items()}

    @property
    def paths(self) -> list[str] | None:
        """The files of the images; None where they are none."""
        found: list[str] = []
        for shard in range(len(self._shards)):
            about = json.loads(self._open(shard).metadata()["vaes"])
            if "paths" not in about:
                return None
            found += about["paths"]
        return found

    def _open(self, shard: int) -> Any:
        if shard not in self._opened:
            self._opened[shard] = _open(self.folder / self._shards[shard]["file"], self._sign)
        return self._opened[shard]


def latents(folder: str | Path, split: str | None = None) -> Latents:
    """Codes in a folder of ``vaes encode RUN -o FOLDER``; of one set (``train``, ``valid``, ``test``, ``given``) or of
    all.

    Raises:
        UserError: it is no such folder, was not finished, or has no such set.
    """
    return Latents(Path(folder), split)
