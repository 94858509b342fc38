"""Walks along single latent dimensions."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.view.decoding import (
    MAX_CODES,
    UNUSED,
    Usage,
    decode,
    encode,
    on_support,
    prior_codes,
    random_index,
    said_of_support,
    usage,
)
from vaes.view.layout import sheet
from vaes.view.picture import (
    Options,
    Picture,
    choose,
    first,
    given_codes,
    lines,
    needed,
    number,
    row_sheet,
    shown,
    strips,
)

__all__ = ["Start", "refuse_dim", "row_label", "rows_of", "said_of", "sorted_dims", "start_codes", "traverse", "walk"]

MAX_DIMS = 32
"""A traversal of all dimensions shows at most as many rows."""


class Start(NamedTuple):
    """Where walks begin."""

    codes: Tensor  # (R, D)
    origin: str  # what they are, in words
    remarks: tuple[str, ...] = ()


def traverse(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """One dimension walked over [-R, R] from n_samples codes, or every dimension from one code.

    The codes are those of the options, or else of the images, or else the prior's centre and, for one dimension, draws
    from the prior. All dimensions come sorted by their KL averaged over the images (by the variance of their codes
    where the KL has no closed form), the 32 that carry most; without images they come by number.

    Raises:
        UserError: traverse_dim is no dimension of the model.
    """
    if options.traverse_dim is None:
        return _all_dims(model, options, images, caption)
    refuse_dim(model, options.traverse_dim)
    return _one_dim(model, options, options.traverse_dim, images, caption)


def refuse_dim(model: VAE, dim: int) -> None:
    """Refuse a dimension that the model has not."""
    if not 0 <= dim < model.z_dim:
        raise UserError(f"--traverse_dim {dim}: this model's dimensions are 0 to {model.z_dim - 1}")


def rows_of(model: VAE, options: Options) -> int:
    """How many rows a traversal has, images being enough."""
    if options.traverse_dim is None:
        return min(model.z_dim, MAX_DIMS)
    return options.n_samples if options.codes is None else min(options.n_samples, len(options.codes))


def walk(model: VAE, base: Tensor, dims: Tensor, values: Tensor, batch_size: int) -> Tensor:
    """Codes (R, D), each with its dimension of dims (R,) set to each value (n,) in turn -> (R, n, C, H, W) uint8."""
    codes = base[:, None].repeat(1, len(values), 1)
    codes[torch.arange(len(base)), :, dims] = values
    return decode(model, on_support(model, codes.flatten(0, 1)), batch_size).unflatten(0, (len(base), len(values)))


def _one_dim(model: VAE, options: Options, dim: int, images: ImageSet | None, caption: str) -> Picture:
    values = _values(options)
    with evaluation(model):
        base, origin, fewer = start_codes(model, options, images, options.n_samples)
        count, remarks = shown(len(base), len(values), options)
        base, remarks = base[:count], fewer + remarks
        rows = walk(model, base, torch.full((len(base),), dim), values, options.batch_size)
    pictures, note = first(rows, len(values))
    page = row_sheet(
        pictures,
        [number(v) for v in values.tolist()],
        title=f"Latent dimension z{dim}, all others held",
        caption=lines(
            f"rows start from {origin}; framed, the pictures nearest to it; seed {options.seed}{note}",
            *said_of_support(model),
            *remarks,
            caption,
        ),
        marks=_nearest(base[: len(pictures), dim], values),
    )
    return Picture(strips(rows), page, remarks)


def _all_dims(model: VAE, options: Options, images: ImageSet | None, caption: str) -> Picture:
    values = _values(options)
    with evaluation(model):
        base, origin, remarks = start_codes(model, options, images, 1)
        dims, used, over = sorted_dims(model, options, images)
        dims = dims[:MAX_DIMS]
        rows = walk(model, base.expand(len(dims), -1), dims, values, options.batch_size)
    page = sheet(
        rows.flatten(0, 1),
        len(values),
        title="Each latent dimension in turn, all others held",
        caption=lines(
            f"all start from {origin}; framed, the pictures nearest to it",
            said_of(used, over, len(dims), model.z_dim),
            *said_of_support(model),
            *remarks,
            caption,
        ),
        row_labels=[row_label(d, used) for d in dims.tolist()],
        column_labels=[number(v) for v in values.tolist()],
        faint_rows=[] if used is None else [i for i, d in enumerate(dims.tolist()) if used.value[d] < UNUSED],
        marks=_nearest(base[0, dims], values),
    )
    return Picture(strips(rows), page, remarks)


def sorted_dims(model: VAE, options: Options, images: ImageSet | None) -> tuple[Tensor, Usage | None, str]:
    """All dimensions (D,), those that carry most first, what each carries, and over what that is an average; by number
    without images. Inside of :func:`vaes.model.evaluation`."""
    if images is None:
        return torch.arange(model.z_dim), None, ""
    index = random_index(images, options.seed)[:MAX_CODES]
    used = usage(model, encode(model, images, index, options.batch_size))
    order = used.value.argsort(descending=True, stable=True)
    return order, used, f"{len(index):,} {options.whose} images"


def start_codes(model: VAE, options: Options, images: ImageSet | None, count: int) -> Start:
    """Codes that walks begin at, `count` or as many as there are; inside of :func:`vaes.model.evaluation`."""
    if options.codes is not None:
        codes = given_codes(model, options)
        few = "the first" if count == 1 else f"the first {count:,}"
        return Start(codes[:count], f"{few} of {len(codes):,} given codes" if len(codes) > count else "given codes")
    if images is not None:
        images = needed(images, "traverse", model)
        index, remarks = choose(images, count, options)
        seed = "" if options.whose == "given" else f" (seed {options.seed})"
        codes = encode(model, images, index, options.batch_size).z[0]
        if count == 1:
            return Start(codes, f"the code of one {options.whose} image{seed}")
        return Start(codes, f"the codes of {options.whose} images{seed}", remarks)
    codes = prior_codes(model, count, options.seed, options.prior)
    law = model.prior if options.prior is None else options.prior
    codes[0] = law.centre(model.encode).flatten().cpu()
    centre = "the prior's centre" if options.prior is None else f"the centre of {options.prior_words}"
    draws = f" (the first) and draws from it (seed {options.seed})" if count > 1 else ""
    return Start(codes, f"{centre}{draws}")


def _values(options: Options) -> Tensor:
    return torch.linspace(-options.traverse_range, options.traverse_range, options.n_traverse)


def _nearest(own: Tensor, values: Tensor) -> set[int]:
    """Which cells of rows of walks lie nearest to each row's own value (R,)."""
    columns = (own[:, None] - values).abs().argmin(1)
    return set((torch.arange(len(own)) * len(values) + columns).tolist())


def row_label(dim: int, used: Usage | None) -> str:
    """A dimension's name, and how much it carries."""
    if used is None:
        return f"z{dim}"
    value = used.value[dim].item()
    amount = f"{value:.2f} nats" if used.unit == "nats" else f"var {value:.2g}"
    return f"z{dim}  unused" if value < UNUSED else f"z{dim}  {amount}"


def said_of(used: Usage | None, over: str, rows: int, dims: int) -> str:
    """How the first ``rows`` of the dimensions were chosen and sorted."""
    if used is None:
        said = "dimensions by number: sorting them by their KL takes images"
        return said + (f"; the first {rows} of {dims}" if rows < dims else "")
    what = "KL, averaged" if used.unit == "nats" else "the variance of their codes, taken"
    unused = int((used.value < UNUSED).sum())
    limit = f"{UNUSED} nats" if used.unit == "nats" else f"a variance of {UNUSED}"
    which = f"the {dims} dimensions" if rows == dims else f"the {rows} most used of the {dims} dimensions"
    return f"{which} sorted by {what} over {over}; {unused} of {dims} unused (below {limit})"
