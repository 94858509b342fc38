"""The mode that draws the latent space itself."""

from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.model import VAE, evaluation
from vaes.priors import StandardNormal
from vaes.view.decoding import MAX_CODES, decode, encode, on_support, random_index, said_of_support
from vaes.view.layout import framed
from vaes.view.picture import Options, Picture, lines, needed, strips
from vaes.view.plane import Limits, limits_of, plane_points, plane_shape, project

__all__ = ["visualize_latent"]

MAX_TSNE = 2000
"""t-SNE takes half a minute for more points than this."""


class _Map(NamedTuple):
    picture: Image.Image
    decoded: Tensor | None  # (rows, columns, C, H, W) uint8
    outside: int  # codes that lie outside of the frame


def visualize_latent(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """Codes of images on a plane, coloured by label, beside what the plane decodes to.

    The plane is the latent space itself where z_dim = 2, shown over [-R, R] at least, or else that of the first two
    principal components; t-SNE has no inverse and shows codes alone. Where z_dim = 1 it is a line. The only single
    picture is the decoded plane or line.

    Raises:
        UserError: there are no images, or too few for t-SNE.
    """
    images = needed(images, "visualize_latent", model)
    how, remarks = _way(model.z_dim, options)
    index = random_index(images, options.seed)[: MAX_TSNE if how == "tsne" else MAX_CODES]
    with evaluation(model):
        codes = encode(model, images, index, options.batch_size).z[0]
        labels = None if images.labels is None else images.labels[index]
        draw = _line if model.z_dim == 1 else _plane
        found = draw(model, codes, labels, images, options._replace(projection=how))
    which = f"all {len(images):,}" if len(index) == len(images) else f"{len(index):,} of {len(images):,}"
    coloured = "not coloured: they have no labels" if labels is None else "coloured by label"
    said = f"central codes of {which} {options.whose} images, {coloured}"
    said += f"; {found.outside:,} lie outside of the frame" if found.outside else ""
    title = {None: "The latent plane", "pca": "Latent codes, principal components", "tsne": "Latent codes, t-SNE"}[how]
    page = framed(
        found.picture,
        "The latent line" if model.z_dim == 1 else title,
        lines(f"{said}; seed {options.seed}", *said_of_support(model), *remarks, caption),
    )
    singles = torch.zeros(0, *images.shape, dtype=torch.uint8)
    if found.decoded is not None:
        singles = strips(found.decoded).transpose(0, 1).flatten(1, 2)[None]
    return Picture(singles, page, remarks)


def _way(z_dim: int, options: Options) -> tuple[Literal["pca", "tsne"] | None, tuple[str, ...]]:
    """How codes come to the plane, and a remark where the options did not say so."""
    if z_dim == 1:
        said = "z_dim is 1: the codes lie on a line, and are drawn on one"
        return None, (said,) if options.projection else ()
    if z_dim == 2 or options.projection:
        return options.projection, ()
    return "pca", (
        f"z_dim is {z_dim}: drawn on the first two principal components of the codes; another way is --projection tsne",
    )


def _plane(model: VAE, codes: Tensor, labels: Tensor | None, images: ImageSet, options: Options) -> _Map:
    from vaes.view.charts import latent_map  # the other modes and training need no matplotlib figures

    rows, columns, scale = plane_shape(*images.shape[1:])
    plane = project(codes, options.projection, options.seed)
    limits = limits_of(plane.points, options.traverse_range if options.projection is None else None)
    decoded = None
    if plane.inverse is not None:
        origin, axes = plane.inverse
        places = on_support(model, origin + plane_points(limits, rows, columns) @ axes)
        decoded = decode(model, places, options.batch_size)
    picture = latent_map(
        plane.points,
        limits,
        labels=labels,
        label_names=images.label_names,
        axis_names=plane.names,
        title=f"codes of {options.whose} images",
        decoded=decoded,
        columns=columns,
        scale=scale,
        prior=options.projection is None and isinstance(model.prior, StandardNormal),
    )
    tiles = None if decoded is None else decoded.unflatten(0, (rows, columns))
    return _Map(picture, tiles, int(limits.outside(plane.points).sum()))


def _line(model: VAE, codes: Tensor, labels: Tensor | None, images: ImageSet, options: Options) -> _Map:
    from vaes.view.charts import latent_line

    _, columns, scale = plane_shape(*images.shape[1:])
    left, right, *_ = limits_of(codes.expand(-1, 2), options.traverse_range)
    centres = plane_points(Limits(left, right, 0, 1), 1, columns)[:, :1]
    decoded = decode(model, on_support(model, centres), options.batch_size)
    picture = latent_line(
        codes[:, 0],
        (left, right),
        decoded,
        labels=labels,
        label_names=images.label_names,
        title=f"codes of {options.whose} images",
        scale=scale,
    )
    outside = int(((codes < left) | (codes > right)).sum())
    return _Map(picture, decoded[None], outside)
