"""Sets of decoded uint8 images, read by index."""

import abc
import copy
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.memory import available

__all__ = ["Annotations", "ImageSet", "MemmapSet", "TensorSet", "image_set"]

RAM_SHARE = 0.4
"""A set takes at most this share of the memory that is free when it is opened or moved, in RAM and on an accelerator
alike; the processes that a launcher started on this host divide the RAM's among them."""

READERS = 8
"""Reads of a file that are under way at once: a disk that is asked for one row after another waits most of the time."""


class Annotations(NamedTuple):
    """What is known about each image of a set; all of it may be missing."""

    labels: Tensor | None = None
    """(N,) int64 on the CPU."""
    label_names: tuple[str, ...] = ()
    factors: Tensor | None = None
    """(N, F) int64 on the CPU: the value of each factor, as an index into its values."""
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    """How many values each of the F factors has."""
    paths: tuple[str, ...] | None = None
    """The name of each image's file, relative to the root, with slashes; None where images are no files."""
    hashes: Tensor | None = None
    """(N,) int64 on the CPU: `content_hash` of each image as it was stored, before it was cut, resized or scaled."""

    def take(self, index: Tensor) -> "Annotations":
        """The annotations of the images at `index` (B,)."""
        index = index.cpu()
        labels, factors, hashes = (None if x is None else x[index] for x in (self.labels, self.factors, self.hashes))
        paths = None if self.paths is None else tuple(self.paths[i] for i in index.tolist())
        return self._replace(labels=labels, factors=factors, paths=paths, hashes=hashes)


class ImageSet(abc.ABC):
    """N uint8 images of one shape, read by index.

    `ahead` says that a read waits for the disk or a copy, and is better begun before it is needed. `shape` is (C, H,
    W); `read` returns on `device`. `index_device` is where `read` takes its index without a copy (it accepts any).
    """

    ahead: bool = False
    redrawn: "ImageSet | None" = None
    """The grey images from which training draws new black and white ones at every step; None where it takes what `read`
    gives."""

    def __init__(
        self, shape: tuple[int, int, int], device: torch.device, index_device: torch.device, notes: Annotations
    ) -> None:
        self.shape = shape
        self.device = device
        self.index_device = index_device
        self._annotate(notes)

    def _annotate(self, notes: Annotations) -> None:
        self.notes = notes
        self.labels, self.label_names = notes.labels, notes.label_names
        self.factors, self.factor_names, self.factor_sizes = notes.factors, notes.factor_names, notes.factor_sizes

    def annotated(self, notes: Annotations) -> Self:
        """The same images with other annotations."""
        other = copy.copy(self)
        other._annotate(notes)
        return other

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of images, N."""

    @abc.abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, C, H, W) uint8 on `device`."""

    def definition(self) -> str | None:
        """What tells a set that is drawn and not stored from any other; None where the images themselves do."""
        return None

    @abc.abstractmethod
    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images, read on `device`."""

    @abc.abstractmethod
    def subset(self, index: Tensor) -> "ImageSet":
        """The images at `index` (M,) int64 as a set, with their labels and factors: a view, no image is copied."""


class TensorSet(ImageSet):
    """One uint8 tensor (N, C, H, W), resident on its device; `rows` (M,), where given, selects and orders the
    images."""

    def __init__(self, data: Tensor, notes: Annotations | None = None, rows: Tensor | None = None) -> None:
        if data.dtype != torch.uint8 or data.ndim != 4:
            raise ValueError(f"images are uint8 (N, C, H, W), not {data.dtype} {tuple(data.shape)}")
        super().__init__(_shape(data.shape), data.device, data.device, notes or Annotations())
        self._data = data
        self._rows = None if rows is None else rows.to(data.device)

    def __len__(self) -> int:
        return len(self._data if self._rows is None else self._rows)

    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, C, H, W) uint8 on the device."""
        index = index.to(self.device, non_blocking=True)
        return self._data[index if self._rows is None else self._rows[index]]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images on `device`; on an accelerator without room for them they stay in RAM and each batch is
        copied."""
        target = _device(device)
        if target == self.device:
            return self
        data = self._data if self._rows is None else self._data[self._rows]
        if data.nbytes > _budget(target):
            return MemmapSet(data.cpu().numpy(), self.notes, device=target)
        return TensorSet(data.to(target), self.notes)

    def subset(self, index: Tensor) -> "TensorSet":
        """The images at `index` (M,) int64 as a set, with their labels and factors: a view, no image is copied."""
        rows = index.to(self.device)
        return TensorSet(self._data, self.notes.take(index), rows if self._rows is None else self._rows[rows])


class _RowFile:
    """The rows of a memory-mapped array, read from its file and not through the mapping.

    Where a row is not in memory yet, a mapping reads what lies around it as well (up to megabytes that a shuffled order
    has no use for), one page fault after another, and a file that was cut short ends the process with SIGBUS.
    """

    def __init__(self, data: np.memmap) -> None:
        assert data.filename is not None
        self.dtype, self.shape, self.ndim = data.dtype, data.shape, data.ndim
        self._file = open(data.filename, "rb", buffering=0)  # noqa: SIM115 (as long as the set)
        self._begin, self._row = data.offset, data.nbytes // max(len(data), 1)
        self._readers = ThreadPoolExecutor(READERS)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the file for itself."""
        return _opened, (self._file.name, self.dtype.str, self.shape, self._begin)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        flat = out.reshape(len(rows), self._row)

        def read(positions: np.ndarray) -> None:
            for i in positions.tolist():
                self._read(int(rows[i]), memoryview(flat[i]))

        # Every READERS-th row to each, so that all move over the file together.
        list(self._readers.map(read, (np.arange(first, len(rows), READERS) for first in range(READERS))))
        return out

    def _read(self, row: int, view: memoryview) -> None:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        at = self._begin + row * self._row
        while view:
            got = os.preadv(self._file.fileno(), [view], at)
            if not got:
                raise UserError(f"{self._file.name}: was cut short while it was in use; run again to decode it anew")
            view, at = view[got:], at + got


def _opened(name: str, dtype: str, shape: tuple[int, ...], begin: int) -> _RowFile:
    return _RowFile(np.memmap(name, np.dtype(dtype), "r", begin, shape))


class MemmapSet(ImageSet):
    """Images (N, C, H, W) uint8 that stay in host memory or, as an `np.memmap`, on disk; each batch is gathered and
    copied to the device.

    Reading raises UserError where the file was cut short, and OSError where the disk fails.
    """

    ahead = True

    def __init__(
        self,
        data: np.ndarray | _RowFile,
        notes: Annotations | None = None,
        rows: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if data.dtype != np.uint8 or data.ndim != 4:
            raise ValueError(f"images are uint8 (N, C, H, W), not {data.dtype} {data.shape}")
        super().__init__(_shape(data.shape), _device(device), torch.device("cpu"), notes or Annotations())
        if isinstance(data, np.memmap) and isinstance(data.base, mmap.mmap) and data.flags.c_contiguous:
            data = _RowFile(data)  # a part of a mapped array does not know where in the file it lies
        self._data = data
        self._rows = rows

    def __len__(self) -> int:
        return len(self._data if self._rows is None else self._rows)

    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, C, H, W) uint8; on CUDA through pinned memory, without waiting for
        the copy."""
        rows = index.cpu().numpy()
        rows = rows if self._rows is None else self._rows[rows]
        out = torch.empty((len(rows), *self.shape), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        # Ascending order turns random reads of the disk into one sweep.
        order = np.argsort(rows, kind="stable")
        out.numpy()[order] = self._data[rows[order]]
        return out.to(self.device, non_blocking=True)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images read on `device`; resident there if they fit an accelerator's memory."""
        target = _device(device)
        if target == self.device:
            return self
        moved = MemmapSet(self._data, self.notes, self._rows, target)
        if target.type == "cpu" or len(self) * int(np.prod(self.shape)) > _budget(target):
            return moved
        chunks = torch.arange(len(self)).split(4096)
        data = torch.empty((len(self), *self.shape), dtype=torch.uint8, device=target)
        for chunk in chunks:
            data[int(chunk[0]) : int(chunk[-1]) + 1] = moved.read(chunk)
        return TensorSet(data, self.notes)

    def subset(self, index: Tensor) -> "MemmapSet":
        """The images at `index` (M,) int64 as a set, with their labels and factors: a view, no image is copied."""
        rows = index.cpu().numpy()
        rows = rows if self._rows is None else self._rows[rows]
        return MemmapSet(self._data, self.notes.take(index), rows, self.device)


def image_set(data: np.ndarray, notes: Annotations | None = None) -> ImageSet:
    """A set of the images `data` (N, C, H, W) uint8: in memory if they take at most `RAM_SHARE` of what is free, else
    where they lie."""
    if data.nbytes > _budget(torch.device("cpu")):
        return MemmapSet(data, notes)
    return TensorSet(torch.from_numpy(np.array(data)), notes)


def _shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    _, c, h, w = shape
    return c, h, w


def _device(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    # Tensors report "cuda:0" where the user wrote "cuda".
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _budget(device: torch.device) -> float:
    if device.type == "cuda":
        return RAM_SHARE * torch.cuda.mem_get_info(device)[0]
    return RAM_SHARE * available() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
