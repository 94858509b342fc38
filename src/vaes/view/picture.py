"""What the modes share: their options, what they return, and the words and shapes of sheets."""

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE
from vaes.view.passes import decode, evaluation
from vaes.view.sheet import sheet

__all__ = [
    "Options",
    "Picture",
    "balanced_columns",
    "check",
    "first",
    "lines",
    "needed",
    "number",
    "row_sheet",
    "strips",
]

MAX_ON_SHEET = 1024
"""A sheet shows at most as many pictures."""


class Options(NamedTuple):
    """What to draw; each mode reads its own."""

    n_samples: int = 64
    seed: int = 0
    batch_size: int = 256
    n_interpolate: int = 10
    n_traverse: int = 9
    traverse_range: float = 3.0
    traverse_dim: int | None = None
    path: Literal["linear", "spherical"] = "linear"
    between: Literal["prior", "test"] = "prior"
    projection: Literal["pca", "tsne"] | None = None


class Picture(NamedTuple):
    """What a mode draws."""

    singles: Tensor  # (N, C, H', W') uint8: one picture, row or pair each, pixel for pixel
    sheet: Image.Image


def check(options: Options) -> None:
    """Refuse options that nothing can be drawn with."""
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed: {options.seed} is not right; it must be 0 or more and below 2^63")
    for name, least in (("n_samples", 1), ("batch_size", 1), ("n_interpolate", 2), ("n_traverse", 2)):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"--{name} {value}: must be at least {least}")
    if not 0 < options.traverse_range <= 1e6:
        raise UserError(f"--traverse_range {options.traverse_range}: must be a positive number, and 1e6 at most")


def needed(images: ImageSet | None, mode: str, model: VAE, count: int) -> ImageSet:
    """The test images, or the reason why this mode cannot use them."""
    if images is None:
        raise UserError(
            f"--mode {mode} shows test images and there are none: name a data set with data.kind and data.root"
        )
    if len(images) < count:
        raise UserError(
            f"--n_samples {count}: the test set has only {len(images)} images; ask for at most {len(images)}"
        )
    with evaluation(model):
        made = tuple(decode(model, torch.zeros(1, model.z_dim), 1).shape[1:])
    if made != images.shape:
        sizes = " and ".join("x".join(map(str, shape)) for shape in (made, images.shape))
        raise UserError(
            f"the model's images and the data's (C x H x W) are {sizes}: use the data that it was trained on"
        )
    return images


def first(pictures: Tensor, per_item: int) -> tuple[Tensor, str]:
    """The first of the pictures (N, ...) that a sheet has room for, each of `per_item` cells, and a note if not all."""
    room = max(1, MAX_ON_SHEET // per_item)
    note = f"; the first {room:,} of {len(pictures):,}" if len(pictures) > room else ""
    return pictures[:room], note


def strips(rows: Tensor) -> Tensor:
    """(N, n, C, H, W) -> (N, C, H, n W): the pictures of each row side by side."""
    return rows.permute(0, 2, 3, 1, 4).flatten(3)


def balanced_columns(count: int, height: int, width: int) -> int:
    """How many pictures (H, W) in a row make `count` of them about as wide as high, with full rows if that is near."""
    ideal = math.sqrt(count * height / width)
    near = [n for n in range(1, count + 1) if count % n == 0 and 0.7 <= n / ideal <= 1.43]
    # Of two equally near, the wider: pages are looked at on screens.
    return max(near, key=lambda n: (round(min(n / ideal, ideal / n), 6), n), default=min(count, math.ceil(ideal)))


def row_sheet(
    rows: Tensor,
    labels: Sequence[str],
    *,
    title: str,
    caption: str,
    breaks: Collection[int] = (),
    marks: Collection[int] = (),
) -> Image.Image:
    """A sheet of rows of pictures (N, n, C, H, W), several rows side by side where that makes the page less long.

    `labels` and `breaks` are those of the n columns of one row, `marks` numbers the pictures row by row.
    """
    count, length, _, height, width = rows.shape
    across = balanced_columns(count, height, length * width)
    starts = range(0, across * length, length)
    return sheet(
        rows.flatten(0, 1),
        across * length,
        title=title,
        caption=caption,
        column_labels=list(labels) * across,
        column_breaks=[start + at for start in starts for at in (0, *breaks) if start + at > 0],
        marks=marks,
    )


def lines(*parts: str) -> str:
    """The parts that say something, one below the other."""
    return "\n".join(part for part in parts if part)


def number(value: float) -> str:
    """A value on an axis: two decimals at most, with a true minus sign."""
    # Adding 0.0 turns -0.0 into 0.0.
    return f"{round(value, 2) + 0.0:g}".replace("-", "−")
