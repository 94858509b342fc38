"""Sets of decoded uint8 images, read by index."""

import abc
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

__all__ = ["Annotations", "ImageSet", "MemmapSet", "Splits", "TensorSet", "image_set"]

RAM_SHARE = 0.4
"""A set takes at most this share of the memory that is free when it is opened or moved, in RAM and on an accelerator
alike."""


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

    def take(self, index: Tensor) -> "Annotations":
        """The annotations of the images at `index` (B,)."""
        index = index.cpu()
        labels = None if self.labels is None else self.labels[index]
        factors = None if self.factors is None else self.factors[index]
        return self._replace(labels=labels, factors=factors)


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
        self.notes = notes
        self.labels, self.label_names, self.factors, self.factor_names, self.factor_sizes = notes

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of images, N."""

    @abc.abstractmethod
    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, C, H, W) uint8 on `device`."""

    @abc.abstractmethod
    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images, read on `device`."""

    @abc.abstractmethod
    def subset(self, index: Tensor) -> "ImageSet":
        """The images at `index` (M,) int64 as a set, with their labels and factors: a view, no image is copied."""


class Splits(NamedTuple):
    """The three disjoint parts of a source."""

    train: ImageSet
    valid: ImageSet
    test: ImageSet


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


class MemmapSet(ImageSet):
    """Images (N, C, H, W) uint8 that stay in host memory or, as an `np.memmap`, on disk; each batch is gathered and
    copied to the device."""

    ahead = True

    def __init__(
        self,
        data: np.ndarray,
        notes: Annotations | None = None,
        rows: np.ndarray | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if data.dtype != np.uint8 or data.ndim != 4:
            raise ValueError(f"images are uint8 (N, C, H, W), not {data.dtype} {data.shape}")
        super().__init__(_shape(data.shape), _device(device), torch.device("cpu"), notes or Annotations())
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
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return RAM_SHARE * free
