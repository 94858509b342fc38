"""Arrays of any layout, type and range to uint8 images, and labels to numbers."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.data.decode import lossless_white
from vaes.data.hashing import content_hashes
from vaes.errors import UserError

__all__ = ["Layout", "Range", "encode_labels", "hashes", "layout", "range_of"]

MAX_LABELS = 2**16


class Layout(NamedTuple):
    """How an array's axes are those of images."""

    shape: tuple[int, int, int]
    """(C, H, W)."""
    last: bool
    """Channels come last."""

    def images(self, x: Any) -> Any:
        """The rows `x` of the array, or of a tensor, as (n, C, H, W)."""
        if self.last:
            return x.permute(0, 3, 1, 2) if isinstance(x, Tensor) else x.transpose(0, 3, 1, 2)
        return x.reshape(len(x), *self.shape)


class Range(NamedTuple):
    """Which of an array's values are black and white."""

    low: float
    high: float
    said: tuple[str, ...]

    @property
    def plain(self) -> bool:
        """Whether uint8 is as it is."""
        return (self.low, self.high) == (0, 255)

    def scale(self, x: np.ndarray) -> np.ndarray:
        """Values as uint8, low and high as 0 and 255, rounded."""
        if x.dtype == np.uint8 and self.plain:
            return x
        unit = (x.astype(np.float64) - self.low) / (self.high - self.low)
        return np.floor(unit.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def layout(shape: tuple[int, ...], what: str) -> Layout:
    """The layout of an array: (N, H, W), (N, C, H, W), (N, H, W, C) with C = 1 or 3, or vectors (N, D), which become
    images of one row. UserError for another."""
    if 0 not in shape:
        if len(shape) == 2:
            return Layout((1, 1, shape[1]), False)
        if len(shape) == 3:
            return Layout((1, shape[1], shape[2]), False)
        if len(shape) == 4 and shape[1] in (1, 3):
            return Layout((shape[1], shape[2], shape[3]), False)
        if len(shape) == 4 and shape[3] in (1, 3):
            return Layout((shape[3], shape[1], shape[2]), True)
    raise UserError(
        f"arrays: {what} is {shape}, not (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3, or vectors (N, D)"
    )


def range_of(dtype: np.dtype, pieces: Iterable[np.ndarray], given: tuple[float, float] | None, what: str) -> Range:
    """The range of an array whose rows come in `pieces`: the one given, or what its type tells.

    uint8 is 0 to 255 and bool 0 to 1; other whole numbers are 0 to the smallest of 255, 1023, 4095, 16383 and 65535
    that none exceeds. Raises UserError for floats without a range, for values outside of it or not finite, and for what
    is no number.
    """
    if dtype.kind not in "buif":
        raise UserError(f"arrays: {what} is {dtype}, not numbers")
    if given is not None and not given[0] < given[1]:
        raise UserError(f"data.value_range: {list(given)} is no range; give black and then white, [0, 1] say")
    if given is None and dtype in (np.uint8, np.bool_):
        return Range(0, 255 if dtype == np.uint8 else 1, () if dtype == np.uint8 else ("true is white",))
    low, high = np.inf, -np.inf
    for piece in pieces:
        if dtype.kind == "f" and not np.isfinite(piece).all():
            raise UserError(f"arrays: {what} has values that are not finite; remove or replace them")
        low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    if given is not None:
        slack = 1e-6 * (given[1] - given[0])
        if low < given[0] - slack or high > given[1] + slack:
            raise UserError(
                f"arrays: {what} goes from {low:.6g} to {high:.6g}, outside of data.value_range {list(given)}; widen it"
            )
        return Range(*given, (f"{dtype.name} from {given[0]:g} to {given[1]:g} as 256 levels",))
    if dtype.kind == "f" or low < 0 or high > 65535:
        raise UserError(
            f"arrays: {what} is {dtype.name} from {low:.6g} to {high:.6g}; say what is black and what is white by"
            f" data.value_range, [{min(0.0, np.floor(low)):g}, {max(1.0, np.ceil(high)):g}] say"
        )
    white = lossless_white(int(high))
    return Range(0, white, (f"{dtype.name}, white is {white:,}",))


def hashes(images: np.ndarray) -> np.ndarray:
    """`content_hashes` of `images` (n, C, H, W) of any type: whole numbers up to 65535 as such, others as float32."""
    if images.dtype == np.uint8:
        return content_hashes(images)
    if images.dtype.kind in "bui" and images.min() >= 0 and images.max() <= 65535:
        return content_hashes(images.astype(np.uint16))
    return content_hashes(images.astype(np.float32) + 0)  # so that -0 is 0


def encode_labels(
    given: Mapping[str, tuple[Any, int]], label_names: tuple[str, ...]
) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """The labels of each split, given with its number of images, as (N,) int64, and the names of all of them.

    Whole numbers from 0 on, or texts, whose names are sorted where `label_names` does not order them; text and numbers
    do not mix. UserError for anything else.
    """
    arrays = {name: _plain(name, y, n) for name, (y, n) in given.items() if y is not None}
    texts = {name for name, y in arrays.items() if y.dtype.kind == "U"}
    if texts and texts != set(arrays):
        raise UserError(f"arrays: labels of {' and '.join(sorted(texts))} are text, the others numbers; make them one")
    if texts:
        found = sorted({str(text) for y in arrays.values() for text in np.unique(y)})
        names = label_names or tuple(found)
        if missing := [text for text in found if text not in names]:
            raise UserError(f"arrays: labels have {missing[0]!r}, which label_names lacks")
        number = {text: i for i, text in enumerate(names)}
        arrays = {name: np.array([number[text] for text in y.tolist()], np.int64) for name, y in arrays.items()}
    most = max((int(y.max()) for y in arrays.values()), default=-1)
    if label_names and most >= len(label_names):
        raise UserError(f"arrays: labels go up to {most}, but label_names has {len(label_names)} names")
    if most >= MAX_LABELS:
        raise UserError(f"arrays: labels go up to {most:,}; at most {MAX_LABELS:,}; give text, or renumber")
    names = label_names or (tuple(found) if texts else tuple(str(i) for i in range(most + 1)))
    return {name: torch.from_numpy(arrays[name].astype(np.int64)) if name in arrays else None for name in given}, names


def _plain(name: str, y: Any, n: int) -> np.ndarray:
    labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "O" and all(isinstance(text, str) for text in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind == "S":
        labels = np.array([text.decode(errors="surrogateescape") for text in labels.tolist()])
    whole = labels.dtype.kind in "buiU"
    if labels.shape != (n,) or not whole or (labels.dtype.kind in "iu" and int(labels.min()) < 0):
        raise UserError(
            f"arrays: labels of {name} are {labels.dtype} {labels.shape}, not {n} whole numbers from 0 on, or {n} texts"
        )
    return labels
