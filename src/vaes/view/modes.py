"""The six modes: what each shows."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.encoding import image_shape
from vaes.errors import UserError
from vaes.functional import lerp, slerp
from vaes.model import VAE, evaluation
from vaes.view.decoding import decode, encode, on_support, prior_codes, random_index, said_of_support
from vaes.view.layout import sheet
from vaes.view.maps import visualize_latent
from vaes.view.picture import (
    Options,
    Picture,
    balanced_columns,
    check,
    check_room,
    choose,
    first,
    given_codes,
    lines,
    names_of,
    needed,
    row_sheet,
    shown,
    strips,
)
from vaes.view.traversal import rows_of, traverse

__all__ = [
    "MODES",
    "Paths",
    "check_mode",
    "decode_codes",
    "interpolate",
    "make",
    "paths_of",
    "reconstruct",
    "sample",
    "traverse",
    "visualize_latent",
]


def sample(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples decoded draws from the prior."""
    count, remarks = shown(options.n_samples, 1, options)
    with evaluation(model):
        codes = prior_codes(model, options.n_samples, options.seed, options.prior)[:count]
        singles = decode(model, codes, options.batch_size)
    title = f"{f'{count:,} samples' if count > 1 else 'A sample'} from {options.prior_words}"
    return _loose(singles, title, f"seed {options.seed}", caption, remarks)


def decode_codes(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """The pictures of the codes given in the options, in their order.

    Raises:
        UserError: there are no codes, of another D, or not finite.
    """
    codes = given_codes(model, options)
    count, remarks = shown(len(codes), 1, options)
    with evaluation(model):
        singles = decode(model, codes[:count], options.batch_size)
    title = f"{count:,} given codes, decoded" if count > 1 else "A given code, decoded"
    return _loose(singles, title, "in the order given, row by row" if count > 1 else "", caption, remarks)


def _loose(singles: Tensor, title: str, said: str, caption: str, remarks: tuple[str, ...]) -> Picture:
    """Pictures that are in no rows, on a page."""
    pictures, note = first(singles, 1)
    page = sheet(
        pictures,
        len(pictures) if len(pictures) <= 5 else balanced_columns(len(pictures), *pictures.shape[2:]),
        title=title,
        caption=lines(f"{said}{note}", *remarks, caption),
    )
    return Picture(singles, page, remarks)


def interpolate(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples paths of n_interpolate pictures, between draws from the prior or between the codes of images.

    Between images each row begins and ends with the images themselves; fewer images than n_samples give fewer rows.
    """
    steps, whose = options.n_interpolate, f"{options.whose} images"
    t = torch.linspace(0, 1, steps)
    with evaluation(model):
        paths = paths_of(model, options, images, steps)
        codes = paths.at(t[:, None])
        walked = on_support(model, codes.flatten(0, 1))
        rows = decode(model, walked, options.batch_size).unflatten(0, codes.shape[:2])
    inputs, remarks = paths.inputs, paths.remarks
    labels = [f"{x:.2f}" for x in t.tolist()]
    if inputs:
        rows, labels = torch.cat([inputs[0], rows, inputs[1]], dim=1), ["input", *labels, "input"]
    pictures, note = first(rows, len(labels))
    page = row_sheet(
        pictures,
        labels,
        title=f"Paths between {f'the codes of {whose}' if inputs else f'draws from {options.prior_words}'}",
        caption=lines(f"{options.path} paths, seed {options.seed}{note}", *said_of_support(model), *remarks, caption),
        breaks=(1, steps + 1) if inputs else (),
    )
    return Picture(strips(rows), page, remarks)


class Paths(NamedTuple):
    """Where paths begin and end."""

    ends: tuple[Tensor, Tensor]  # (R, D) each
    inputs: list[Tensor]  # (R, 1, C, H, W) uint8 each: the images at the ends, or none
    how: Literal["linear", "spherical"]
    remarks: tuple[str, ...] = ()

    def at(self, t: Tensor) -> Tensor:
        """Shares of the way (n, 1) -> codes (R, n, D)."""
        between = slerp if self.how == "spherical" else lerp
        return between(self.ends[0][:, None], self.ends[1][:, None], t)


def paths_of(model: VAE, options: Options, images: ImageSet | None, steps: int) -> Paths:
    """n_samples paths, or as many as there are images for; inside of :func:`vaes.model.evaluation`.

    Args:
        model: the model.
        options: seed, path and between.
        images: for those between images.
        steps: pictures on a path, of which a sheet holds so many.
    """
    if options.between == "prior":
        count, remarks = shown(options.n_samples, steps, options)
        codes = prior_codes(model, 2 * options.n_samples, options.seed, options.prior)
        begin, end = (half[:count] for half in codes.chunk(2))
        return Paths((begin, end), [], options.path, remarks)
    images = needed(images, "interpolate", model)
    first_ones, fewer = choose(images, options.n_samples, options)
    count, remarks = shown(len(first_ones), steps + 2, options)
    first_ones = first_ones[:count]
    order = torch.arange(len(images)) if options.whose == "given" else random_index(images, options.seed)
    index = torch.cat([first_ones, order.roll(-(len(order) // 2))[: len(first_ones)]])
    begin, end = encode(model, images, index, options.batch_size).z[0].chunk(2)
    inputs = list(images.read(index.to(images.index_device)).cpu()[:, None].chunk(2))
    return Paths((begin, end), inputs, options.path, fewer + remarks)


def reconstruct(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples images, or as many as there are, each beside the picture of its central code."""
    images = needed(images, "reconstruct", model)
    index, fewer = choose(images, options.n_samples, options)
    count, remarks = shown(len(index), 2, options)
    index, remarks = index[:count], fewer + remarks
    with evaluation(model):
        outputs = decode(model, encode(model, images, index, options.batch_size).z[0], options.batch_size)
    pairs = torch.stack([images.read(index.to(images.index_device)).cpu(), outputs], dim=1)
    error = (pairs[:, 0].double() - pairs[:, 1].double()).square().mean().item() / 255**2
    said = f"mean squared error {error:.4f} (pixels in [0, 1], mean over {len(pairs):,} images)"
    pictures, note = first(pairs, 2)
    if len(pairs) > 1:
        title = f"{len(pairs):,} {options.whose} images and their reconstructions"
    else:
        title = f"A {options.whose} image, reconstructed"
    chosen = "" if options.whose == "given" else f"; seed {options.seed}"
    caption = lines(f"{said}{chosen}{note}", names_of(images, index, options), *remarks, caption)
    return Picture(strips(pairs), row_sheet(pictures, ("input", "output"), title=title, caption=caption), remarks)


Mode = Callable[[VAE, Options, ImageSet | None, str], Picture]

MODES: dict[str, Mode] = {
    "sample": sample,
    "interpolate": interpolate,
    "traverse": traverse,
    "reconstruct": reconstruct,
    "visualize_latent": visualize_latent,
    "decode": decode_codes,
}
"""Name -> mode."""


def make(mode: str, model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """One mode's picture, once it is known that its options are in range and that the memory has room for it.

    Raises:
        UserError: if not, or if codes or images are missing, or of another shape.
    """
    check_mode(mode)
    check(options)
    rows, length, fixed = options.n_samples, ("", 1), False
    if mode == "interpolate":
        length = ("n_interpolate", options.n_interpolate)
    elif mode == "traverse":
        length, fixed = ("n_traverse", options.n_traverse), options.traverse_dim is None
        rows = rows_of(model, options)
    elif mode == "reconstruct":
        length = ("", 2)
    elif mode == "decode":
        rows, fixed = len(given_codes(model, options)), True
    if mode != "visualize_latent":
        check_room(image_shape(model), model.z_dim, rows, length, fixed)
    return MODES[mode](model, options, images, caption)


def check_mode(mode: str) -> None:
    """Refuse a mode that there is not."""
    if mode not in MODES:
        raise UserError(f"--mode {mode}: must be one of {', '.join(MODES)}")
