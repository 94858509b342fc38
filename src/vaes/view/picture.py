"""What the modes share: their options, what they return, and the words and shapes of sheets."""

import math
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.encoding import refuse_other_shape
from vaes.errors import UserError
from vaes.memory import available
from vaes.model import VAE
from vaes.priors import Prior
from vaes.view.decoding import random_index
from vaes.view.layout import literal, sheet

__all__ = [
    "Options",
    "Picture",
    "balanced_columns",
    "check",
    "check_room",
    "choose",
    "first",
    "given_codes",
    "lines",
    "names_of",
    "needed",
    "number",
    "row_sheet",
    "shown",
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
    singles: bool = False
    """Every picture, row or pair as a file of its own beside the sheet."""
    codes: Tensor | None = None
    """(N, D): what ``decode`` draws, and where ``traverse`` starts."""
    prior: Prior | None = None
    """What codes are drawn from in place of the model's own prior, and ``prior_words``, what it is."""
    prior_words: str = "the prior"
    whose: Literal["test", "given"] = "test"
    """The images are a test set, of which some are chosen at random, or the user's own, which are taken in order."""
    fps: int = 25
    """Frames a second of a film."""
    seconds: float = 4.0
    """How long a film takes, there and back."""


class Picture(NamedTuple):
    """What a mode draws."""

    singles: Tensor  # (N, C, H', W') uint8: one picture, row or pair each, pixel for pixel
    sheet: Image.Image
    remarks: tuple[str, ...] = ()
    """What was decided in the drawing that the options did not say, a sentence each; the caption has them too."""


BOUNDS = {
    "n_samples": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "n_interpolate": (2, MAX_ON_SHEET),  # a row has to fit on a sheet
    "n_traverse": (2, MAX_ON_SHEET),
    "fps": (1, 50),  # browsers slow down what is faster
    "seconds": (0.1, 60),
}


def check(options: Options) -> None:
    """Refuse options that nothing can be drawn with; what is asked for all in all, :func:`check_room` does.

    Raises:
        UserError: naming the option and its bounds.
    """
    if not 0 <= options.seed < 2**63:
        raise UserError(f"--seed: {options.seed} is not right; it must be 0 or more and below 2^63")
    for name, (least, most) in BOUNDS.items():
        value = getattr(options, name)
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"{most:,} at most"
            raise UserError(f"--{name} {value}: must be {bound}")
    if not 0 < options.traverse_range <= 1e6:
        raise UserError(f"--traverse_range {options.traverse_range}: must be a positive number, and 1e6 at most")


def check_room(shape: tuple[int, ...], z_dim: int, rows: int, per_row: tuple[str, int], fixed: bool = False) -> None:
    """Refuse more pictures (C, H, W) in rows than half of the free memory holds, before any is made.

    Args:
        shape: (C, H, W).
        z_dim: latent dimensions.
        rows: how many rows, or pictures in rows of one.
        per_row: the option that says how many pictures are in a row ("" for none), and the number.
        fixed: no option changes the number of rows.

    Raises:
        UserError: naming the option, and the largest number that works.
    """
    name, length = per_row
    each = 4 * math.prod(shape) + 16 * z_dim  # the pictures, their copies while they are put together, and codes
    room = max(1, available() // 2 // each)
    if rows * length <= room:
        return
    what = f"{rows * length:,} pictures take {rows * length * each / 2**30:,.1f} GiB, more than half of what is free"
    if not fixed and room >= length:
        raise UserError(f"--n_samples {rows}: {what}; at most {room // length:,} here")
    if name:
        raise UserError(f"--{name} {length}: {what}; at most {max(room // rows, 1):,} here")
    raise UserError(f"{what}; at most {room:,} here")


def needed(images: ImageSet | None, mode: str, model: VAE) -> ImageSet:
    """The images, or the reason why this mode cannot use them."""
    if images is None or not len(images):
        raise UserError(
            f"--mode {mode} shows images and there are none: name a data set with data.kind and data.root, or give some"
        )
    refuse_other_shape(model, images)
    return images


def choose(images: ImageSet, count: int, options: Options) -> tuple[Tensor, tuple[str, ...]]:
    """The indices of `count` of the images, or of all where there are fewer, and what there is to say about it."""
    have, whose = len(images), options.whose
    if whose == "given":
        remarks = (
            (f"the first {count:,} of {have:,} given images: --n_samples {have} draws all",) if have > count else ()
        )
        return torch.arange(min(count, have)), remarks
    remarks = (f"{have:,} instead of {count:,}: there are no more {whose} images",) if have < count else ()
    return random_index(images, options.seed)[:count], remarks


def names_of(images: ImageSet, index: Tensor, options: Options) -> str:
    """The names of given images, as far as a line of a caption has room for them."""
    paths = getattr(images.notes, "paths", None)
    if options.whose != "given" or paths is None:
        return ""
    names = [literal(paths[i], 40) for i in index[:8].tolist()]
    more = f" and {len(index) - len(names):,} more" if len(index) > len(names) else ""
    return f"{', '.join(names)}{more}"


def given_codes(model: VAE, options: Options) -> Tensor:
    """The codes of the options, (N, D) float32 on the CPU.

    Raises:
        UserError: there are none, of another D, or not finite.
    """
    codes = options.codes
    if codes is None or not codes.numel():
        raise UserError("--mode decode draws given codes and there are none: give --codes FILE or --z 0,1")
    if codes.ndim != 2:
        raise UserError(f"codes are (N, {model.z_dim}), a row each; got the shape {tuple(codes.shape)}")
    if codes.shape[1] != model.z_dim:
        raise UserError(f"the codes given have {codes.shape[1]} numbers each, and this model's z_dim is {model.z_dim}")
    codes = codes.detach().float().cpu()
    bad = ~codes.isfinite().all(1)
    if bad.any():
        raise UserError(f"code {int(bad.int().argmax()) + 1} of those given holds NaN or infinity")
    return codes


def shown(asked: int, per_item: int, options: Options) -> tuple[int, tuple[str, ...]]:
    """How many items (rows of `per_item` pictures) to draw of those that there could be, and a remark if that is not
    all: without single pictures, no more than a sheet holds."""
    room = max(1, MAX_ON_SHEET // per_item)
    if options.singles or asked <= room:
        return asked, ()
    return room, (f"a sheet holds {room:,} of {asked:,}: --singles writes all",)


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
