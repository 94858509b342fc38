"""Walks along single latent dimensions."""

import torch
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE
from vaes.view.passes import MAX_CODES, UNUSED, Usage, decode, encode, evaluation, random_index, random_noise, usage
from vaes.view.picture import Options, Picture, first, lines, needed, number, row_sheet, strips
from vaes.view.sheet import sheet

__all__ = ["traverse", "walk"]

MAX_DIMS = 32
"""A traversal of all dimensions shows at most as many rows."""


def traverse(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """One dimension walked over [-R, R] from n_samples codes, or every dimension from one code.

    The codes are those of test images, or draws from the prior where there are none. All dimensions come sorted by
    their KL averaged over test images (by the variance of their codes where the KL has no closed form), the 32 that
    carry most; without images they come by number.

    Raises:
        UserError: traverse_dim is no dimension of the model, or there are fewer test images than n_samples.
    """
    if options.traverse_dim is None:
        return _all_dims(model, options, images, caption)
    if not 0 <= options.traverse_dim < model.z_dim:
        raise UserError(f"--traverse_dim {options.traverse_dim}: this model's dimensions are 0 to {model.z_dim - 1}")
    return _one_dim(model, options, options.traverse_dim, images, caption)


def walk(model: VAE, base: Tensor, dims: Tensor, values: Tensor, batch_size: int) -> Tensor:
    """Codes (R, D), each with its dimension of dims (R,) set to each value (n,) in turn -> (R, n, C, H, W) uint8."""
    codes = base[:, None].repeat(1, len(values), 1)
    codes[torch.arange(len(base)), :, dims] = values
    return decode(model, codes.flatten(0, 1), batch_size).unflatten(0, (len(base), len(values)))


def _one_dim(model: VAE, options: Options, dim: int, images: ImageSet | None, caption: str) -> Picture:
    count, values = options.n_samples, _values(options)
    with evaluation(model):
        base = _base(model, options, images, count)
        rows = walk(model, base, torch.full((count,), dim), values, options.batch_size)
    shown, note = first(rows, len(values))
    origin = "a test image" if images is not None else "a draw from the prior"
    page = row_sheet(
        shown,
        [number(v) for v in values.tolist()],
        title=f"Latent dimension z{dim}, all others held",
        caption=lines(
            f"each row starts from the code of {origin}; framed, the picture nearest to it; seed {options.seed}{note}",
            caption,
        ),
        marks=_nearest(base[: len(shown), dim], values),
    )
    return Picture(strips(rows), page)


def _all_dims(model: VAE, options: Options, images: ImageSet | None, caption: str) -> Picture:
    values, used, over = _values(options), None, 0
    with evaluation(model):
        base = _base(model, options, images, 1)
        if images is not None:
            index = random_index(images, options.seed)[:MAX_CODES]
            used, over = usage(model, encode(model, images, index, options.batch_size)), len(index)
        order = torch.arange(model.z_dim) if used is None else used.value.argsort(descending=True, stable=True)
        dims = order[:MAX_DIMS]
        rows = walk(model, base.expand(len(dims), -1), dims, values, options.batch_size)
    origin = "one test image" if images is not None else "one draw from the prior"
    page = sheet(
        rows.flatten(0, 1),
        len(values),
        title="Each latent dimension in turn, all others held",
        caption=lines(
            f"all start from the code of {origin}; framed, the pictures nearest to it; seed {options.seed}",
            _said_of(used, over, len(dims), model.z_dim),
            caption,
        ),
        row_labels=[_label(d, used) for d in dims.tolist()],
        column_labels=[number(v) for v in values.tolist()],
        faint_rows=[] if used is None else [i for i, d in enumerate(dims.tolist()) if used.value[d] < UNUSED],
        marks=_nearest(base[0, dims], values),
    )
    return Picture(strips(rows), page)


def _base(model: VAE, options: Options, images: ImageSet | None, count: int) -> Tensor:
    if images is None:
        noise = random_noise(count, model, options.seed)
        return model.prior.sample(noise.to(next(model.parameters()))).float().cpu()
    index = random_index(needed(images, "traverse", model, count), options.seed)[:count]
    return encode(model, images, index, options.batch_size).z[0]


def _values(options: Options) -> Tensor:
    return torch.linspace(-options.traverse_range, options.traverse_range, options.n_traverse)


def _nearest(own: Tensor, values: Tensor) -> set[int]:
    """Which cells of rows of walks lie nearest to each row's own value (R,)."""
    columns = (own[:, None] - values).abs().argmin(1)
    return set((torch.arange(len(own)) * len(values) + columns).tolist())


def _label(dim: int, used: Usage | None) -> str:
    if used is None:
        return f"z{dim}"
    value = used.value[dim].item()
    amount = f"{value:.2f} nats" if used.unit == "nats" else f"var {value:.2g}"
    return f"z{dim}  unused" if value < UNUSED else f"z{dim}  {amount}"


def _said_of(used: Usage | None, over: int, shown: int, dims: int) -> str:
    if used is None:
        said = "dimensions by number: sorting them by their KL takes test images"
        return said + (f"; the first {shown} of {dims}" if shown < dims else "")
    what = "KL, averaged" if used.unit == "nats" else "the variance of their codes, taken"
    unused = int((used.value < UNUSED).sum())
    limit = f"{UNUSED} nats" if used.unit == "nats" else f"a variance of {UNUSED}"
    which = f"the {dims} dimensions" if shown == dims else f"the {shown} most used of the {dims} dimensions"
    return f"{which} sorted by {what} over {over:,} test images; {unused} of {dims} unused (below {limit})"
