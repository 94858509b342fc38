"""A run as the page sees it: what can be said of it, and what is asked of it, whatever of it is missing or damaged."""

import io
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vaes.data import ImageSet, TensorSet
from vaes.data.decode import Recipe, decode_image, lossless_white, raw_brightest, read_header
from vaes.data.survey import reason
from vaes.encoding import Codes, encode
from vaes.errors import UserError
from vaes.evaluate.disentanglement.information import discretize, mutual_information
from vaes.explore import embedding, numbers
from vaes.model import evaluation
from vaes.run import Run, load
from vaes.train import checkpoint
from vaes.view.decoding import UNUSED, Usage, prior_codes, random_index, usage
from vaes.view.decoding import decode as decode_codes
from vaes.view.decoding import encode as encode_images
from vaes.view.plane import project

__all__ = ["MOST_CODES", "MOST_IMAGES", "PRIOR", "Source", "Table", "sentence"]

MOST_IMAGES = 100_000
"""Test images whose codes are shown, at most."""
MOST_CODES = 4096
"""Codes decoded, or images given, by one request at most."""
MOST_BYTES = 20_000_000
"""Of a picture that is handed in."""
MOST_TRAINING = 200_000
"""Training images that a picture is looked for among."""
PRIOR = 256
"""Draws from the prior that the page starts from; those of seed 0, as :meth:`vaes.Run.sample` makes them."""
FIRST, CHUNK = 512, 2048
KEPT = 3
"""Checkpoints beside the run's own that stay in memory."""

T = TypeVar("T")


class Table(NamedTuple):
    """Codes of the first n test images in a random order, with what is known of each."""

    at: Tensor  # (n,) where in the test set they stand
    codes: Codes
    images: ImageSet  # the whole test set


def sentence(error: Exception) -> str:
    """What went wrong, in one sentence for the page."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Source:
    """A run that is looked at. The model is held in memory; all else is read again from the folder whenever it is asked
    for, and may be gone.

    Args:
        path: as :func:`vaes.load` takes it.
        checkpoint: likewise.
        device: likewise.
        changes: keys of the data section.
    """

    def __init__(
        self,
        path: Path,
        *,
        checkpoint: str | None = None,
        device: str = "cpu",
        changes: tuple[str, ...] = (),
    ) -> None:
        self.path, self.name = path, path.resolve().name
        self._asked, self._device, self._changes = checkpoint, device, changes
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._others: dict[int, Source] = {}
        self._choosing = threading.Lock()
        self.run: Run | None = None
        self.error: str | None = None
        self.data_error: str | None = None
        self._embedding = embedding.Embedding()
        self.reload()

    @property
    def folder(self) -> Path:
        """The run folder, or what stands for it."""
        return self.path if self.run is None else self.run.folder

    def reload(self) -> None:
        """Load the checkpoint anew: a training may have written a better one. Where that fails, what was there stays,
        and ``error`` says why."""
        try:
            run = load(self.path, checkpoint=self._asked, device=self._device).elsewhere(self._changes)
        except (UserError, OSError, MemoryError) as error:
            self.error = sentence(error)
            return
        with self._lock:
            if self.run is not None and self.run.sha256 == run.sha256:
                self.error = None
                return
            if self.run is not None and self.run._splits is not None:
                run._splits = self.run._splits
            self._stop.set()
            self._stop = threading.Event()
            self.run, self.error, self.data_error = run, None, None
            self._table: Table | None = None
            self._wanted: int | None = None
            self._usage: Usage | None = None

    def begin(self, most: int = MOST_IMAGES) -> threading.Thread:
        """Encode the test images in a thread, a few at first, so that the page need not wait for all."""
        thread = threading.Thread(target=self._encode, args=(self.run, self._stop, most), daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return thread

    def at(self, step: int) -> "Source":
        """The same run at another of its checkpoints, which stays for whoever asks next.

        Raises:
            UserError: it has none of that step.
        """
        with self._choosing:
            found = self._others.pop(step, None)
            if found is None:
                there = self.steps()
                if step not in there:
                    raise UserError(f"there is no checkpoint of step {step:,}; there are {', '.join(map(str, there))}")
                found = Source(self.folder, checkpoint=str(step), device=self._device, changes=self._changes)
                found.name = self.name
                if self.run is not None and found.run is not None:
                    found.run._splits = self.run._splits
                found.begin()
            self._others[step] = found  # the newest is the last that is let go
            if len(self._others) > KEPT:
                self._others.pop(next(iter(self._others))).close()
            return found

    def close(self) -> None:
        """End the threads: a process that ends while torch computes in one aborts."""
        for other in self._others.values():
            other.close()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _encode(self, run: Run | None, stop: threading.Event, most: int) -> None:
        if run is None:
            return
        try:
            images = run.data.test
            if not len(images):
                raise UserError("the run has no test images")
            order = random_index(images, 0)[:most]
            self._wanted = len(order)
            with evaluation(run.model):
                latent = encode_images(run.model, images, order[: 4 * FIRST], 256)
                self._usage = usage(run.model, latent)
            found: Codes | None = None
            at = 0
            while at < len(order) and not stop.is_set():
                part = order[at : at + (FIRST if found is None else CHUNK)]
                new = encode(run.model, images.subset(part))
                found = new if found is None else _joined(found, new)
                at += len(part)
                with self._lock:
                    if self.run is run:
                        self._table = Table(order[:at], found, images)
        except (UserError, OSError, MemoryError) as error:
            with self._lock:
                if self.run is run:
                    self.data_error = sentence(error)

    @property
    def table(self) -> Table | None:
        """The codes of as many test images as there are so far."""
        return self._table if self.run is not None else None

    @property
    def progress(self) -> dict[str, int | None]:
        """How many test images are encoded, and of how many."""
        done = 0 if self.table is None else len(self.table.at)
        return {"done": done, "of": self._wanted if self.run is not None else None}

    # What is said

    def info(self) -> dict[str, Any]:
        """All that the page shows in words and numbers; plain values, of which every text is foreign."""
        run, said = self.run, dict[str, Any](name=self.name, error=self.error, data_error=self.data_error)
        said |= {**self._of_files(), "checkpoints": self.steps()}
        if run is None:
            return said
        e = run.experiment
        said |= {
            "method": e.method,
            "data": e.data["kind"],
            "which": run.which,
            "step": run.step,
            "asked": run.asked,
            "sha256": run.sha256,
            "shape": list(run.image_shape),
            "range": list(run.model.value_range),
            "z_dim": run.model.z_dim,
            "z_shape": list(run.model.z_shape),
            "support": run.model.prior.support,
            "prior": e.model["prior"]["kind"],
            "standard": e.model["prior"]["kind"] == "standard_normal",
            "config": e.to_yaml(),
            "encoded": self.progress,
            "dims": self._dims(),
        }
        table = self.table
        if table is not None:
            said |= self._of_table(table)
        said["diagnosis"] = numbers.diagnosis(
            run, said.get("curves") or {}, None if table is None else table.codes, said["dims"]
        )
        return said

    def _of_files(self) -> dict[str, Any]:
        """Curves, numbers and history, each or the reason why there is none."""
        sha256 = None if self.run is None else self.run.sha256
        wanted: dict[str, Callable[[], Any]] = {
            "curves": lambda: numbers.curves(self.folder),
            "numbers": lambda: numbers.evaluated(self.folder, sha256),
            "tested": lambda: numbers.tested(self.folder),
            "history": lambda: numbers.segments(self.folder),
            "film": lambda: numbers.film(self.folder),
            "units": lambda: numbers.units(self.folder),
            "planes": lambda: numbers.planes(self.folder),
        }
        said: dict[str, Any] = {}
        for name, read in wanted.items():
            try:
                said[name] = read()
            except (UserError, OSError) as error:
                said[name], said[f"{name}_error"] = None, sentence(error)
        return said

    def _dims(self) -> dict[str, Any]:
        assert self.run is not None
        if self._usage is None:
            return {"order": list(range(self.run.model.z_dim)), "value": None, "unit": None, "unused": UNUSED}
        value = self._usage.value.flatten()
        order = value.argsort(descending=True, stable=True).tolist()
        return {"order": order, "value": value.tolist(), "unit": self._usage.unit, "unused": UNUSED}

    def _of_table(self, table: Table) -> dict[str, Any]:
        """Labels, factors, and how the codes lie."""
        images, n = table.images, len(table.at)
        said: dict[str, Any] = {"labels": None, "factors": None, "plane": None, "information": None}
        if images.labels is not None:
            most = int(images.labels.max()) + 1
            names = [images.label_names[k] if k < len(images.label_names) else str(k) for k in range(most)]
            said["labels"] = names
        if images.factors is not None:
            said["factors"] = {"names": list(images.factor_names), "sizes": list(images.factor_sizes)}
        mean = torch.from_numpy(table.codes.mean)
        if mean.shape[1] > 2 and n > 1:
            plane = project(mean, "pca", 0)
            assert plane.inverse is not None
            origin, axes = plane.inverse
            said["umap"] = None if embedding.installed() else embedding.NEEDED
            said["plane"] = {"origin": origin.tolist(), "axes": axes.tolist(), "names": list(plane.names)}
        columns: dict[str, Tensor] = {}
        if images.factors is not None:
            columns = dict(zip(images.factor_names, images.factors[table.at].T, strict=True))
        elif images.labels is not None:
            columns = {"label": images.labels[table.at]}
        if columns and n > 1:
            said["information"] = _information(table.codes.mean, columns)
        return said

    def columns(self, first: int | None = None) -> dict[str, NDArray[Any]]:
        """What is known of each encoded image, as arrays of n rows; ``prior`` holds draws from the prior instead.

        Raises:
            UserError: there is no model.
        """
        run, table = self._needed(), self.table
        with evaluation(run.model):
            found: dict[str, NDArray[Any]] = {"prior": prior_codes(run.model, PRIOR, 0).flatten(1).numpy()}
        if table is None:
            return found
        index = table.at[:first]
        n, codes, images = len(index), table.codes, table.images
        found |= {"index": index.numpy().astype(np.int32), "codes": codes.mean[:n]}
        found |= {name: getattr(codes, name)[:n] for name in ("elbo", "rate", "distortion", "mse", "score")}
        if codes.logvar is not None:
            found["logvar"] = codes.logvar[:n]
        if images.labels is not None:
            found["labels"] = images.labels[index].numpy().astype(np.int32)
        if images.factors is not None:
            found["factors"] = images.factors[index].numpy().astype(np.int32)
        return found

    def umap(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The codes' places in a map by UMAP once all images are encoded, as :meth:`Embedding.look` tells them.

        Raises:
            UserError: umap-learn is missing, there are too few codes, or there is no model.
        """
        self._needed()
        table = self.table
        if table is None or len(table.at) != self._wanted:
            return {}, {"seconds": 0}
        return self._embedding.look(table.codes.mean)

    # What is asked

    def decode(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Codes (N, D) -> mean images (N, C, H, W) uint8, as :meth:`vaes.Run.decode` makes them.

        Raises:
            UserError: of another D, too many, not finite, or there is no model.
        """
        run = self._needed()
        if z.ndim != 2 or z.shape[1] != run.model.z_dim or len(z) > MOST_CODES:
            raise UserError(f"codes are (N, {run.model.z_dim}), at most {MOST_CODES:,} at a time")
        if not np.isfinite(z).all():
            raise UserError("a code holds NaN or infinity")
        if not len(z):
            return np.zeros((0, *run.image_shape), np.uint8)
        with evaluation(run.model):
            return decode_codes(run.model, torch.from_numpy(z.copy()), 256).numpy()

    def encode(self, content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """A picture's file -> its pixels as the model sees them, its code, and what the model says of it.

        Raises:
            UserError: it is too large, no picture that this package reads, or there is no model.
        """
        run = self._needed()
        pixels = torch.from_numpy(_decoded(content, run.image_shape).copy())[None]
        codes = encode(run.model, TensorSet(pixels))
        said = {name: float(getattr(codes, name)[0]) for name in ("elbo", "rate", "distortion", "mse", "score")}
        return {"pixels": pixels.numpy(), "codes": codes.mean}, said

    def originals(self, at: list[int]) -> NDArray[np.uint8]:
        """The test images at these places of the set, (N, C, H, W).

        Raises:
            UserError: there is none at one of them.
        """
        run = self._needed()
        images = run.data.test if self.table is None else self.table.images
        if len(at) > MOST_CODES or not all(0 <= i < len(images) for i in at):
            raise UserError(f"images are asked for by number, 0 to {len(images) - 1:,}, {MOST_CODES:,} at a time")
        return images.read(torch.tensor(at, dtype=torch.int64)).cpu().numpy()

    def neighbours(self, pixels: NDArray[np.uint8], count: int = 12) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """The training images nearest to a picture (C, H, W), by mean squared error of pixels in [0, 1].

        Raises:
            UserError: the picture is of another shape, or the training images are gone.
        """
        run = self._needed()
        images = run.data.train
        if pixels.shape != run.image_shape or not len(images):
            raise UserError(f"a picture of {run.image_shape} is looked for, and training images are needed")
        index = random_index(images, 0)[:MOST_TRAINING].sort().values
        picture = torch.from_numpy(pixels.astype(np.float32)).flatten() / 255
        errors = torch.cat(
            [
                (images.read(part.to(images.index_device)).cpu().float().flatten(1) / 255 - picture).square().mean(1)
                for part in index.split(CHUNK)
            ]
        )
        best = errors.topk(min(count, len(errors)), largest=False)
        at = index[best.indices]
        said = {"index": at.tolist(), "mse": best.values.tolist(), "among": len(index)}
        return images.read(at.to(images.index_device)).cpu().numpy(), said

    def steps(self) -> list[int]:
        """The steps of the checkpoints in the folder, ascending."""
        try:
            found = map(checkpoint.step_of, checkpoint.checkpoints(self.folder))
            return sorted(step for step in found if step is not None)
        except OSError:
            return []

    def _needed(self) -> Run:
        if self.run is None:
            raise UserError(self.error or "there is no model")
        return self.run


def _joined(a: Codes, b: Codes) -> Codes:
    parts = zip(a, b, strict=True)
    return Codes(*(None if x is None or y is None else np.concatenate([x, y]) for x, y in parts))  # type: ignore[arg-type]


def _information(codes: NDArray[np.float32], columns: Mapping[str, Tensor]) -> dict[str, Any]:
    """Mutual information of each dimension, in 20 bins, with each factor, as a share of the factor's entropy."""
    bins = discretize(codes.astype(np.float64))
    shares = []
    for column in columns.values():
        values = column.numpy()
        counts = np.zeros((bins.shape[1], 20, int(values.max()) + 1))
        for dim in range(bins.shape[1]):
            np.add.at(counts[dim], (bins[:, dim], values), 1)
        p = np.bincount(values) / len(values)
        entropy = -sum(q * np.log(q) for q in p if q > 0)
        shares.append((mutual_information(counts) / max(entropy, 1e-12)).tolist())
    return {"names": list(columns), "shares": np.array(shares).T.tolist()}


def _decoded(content: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A picture's file -> (C, H, W): its middle, as large as the model wants it."""
    if len(content) > MOST_BYTES:
        raise UserError(f"a picture of {len(content):,} bytes; at most {MOST_BYTES:,} are taken")
    channels, height, width = shape
    if channels not in (1, 3):
        raise UserError(f"the model takes images of {channels} channels, which no picture has")
    try:
        header = read_header(io.BytesIO(content))
        white = lossless_white(raw_brightest(content)) if header.deep else 65535
        return decode_image(content, Recipe(channels, (height, width), "crop", white=white)).pixels
    except MemoryError:
        raise UserError("the picture is too large for the memory that is free") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"the picture cannot be read: {reason(error)}") from None
    except Exception as error:  # Pillow's many readers raise nearly every exception there is on bytes that are no image
        raise UserError(f"the picture cannot be read: {reason(error)}") from None
