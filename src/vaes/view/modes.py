"""The five modes: what each shows, and how it gets to disk."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.functional import lerp, slerp
from vaes.model import VAE
from vaes.view.latent import latent_map, limits_of, plane_points, plane_shape, project
from vaes.view.passes import MAX_CODES, decode, encode, evaluation, random_index, random_noise
from vaes.view.picture import Options, Picture, balanced_columns, check, first, lines, needed, row_sheet, strips
from vaes.view.sheet import framed, grid, sheet
from vaes.view.traversal import traverse

__all__ = [
    "MODES",
    "Options",
    "Picture",
    "draw",
    "interpolate",
    "reconstruct",
    "sample",
    "traverse",
    "visualize_latent",
]

MAX_TSNE = 2000
"""t-SNE takes half a minute for more points than this."""


def sample(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples decoded draws from the prior."""
    with evaluation(model):
        singles = decode(model, _prior_codes(model, options.n_samples, options.seed), options.batch_size)
    shown, note = first(singles, 1)
    page = sheet(
        shown,
        balanced_columns(len(shown), *shown.shape[2:]),
        title=f"{len(singles):,} samples from the prior" if len(singles) > 1 else "A sample from the prior",
        caption=lines(f"seed {options.seed}{note}", caption),
    )
    return Picture(singles, page)


def interpolate(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples paths of n_interpolate pictures, between draws from the prior or between the codes of test images.

    Between test images each row begins and ends with the images themselves.
    """
    count, steps = options.n_samples, options.n_interpolate
    t = torch.linspace(0, 1, steps)
    inputs: list[Tensor] = []
    with evaluation(model):
        if options.between == "test":
            images = needed(images, "interpolate", model, count)
            order = random_index(images, options.seed)
            index = torch.cat([order[:count], order.roll(-(len(order) // 2))[:count]])
            codes = encode(model, images, index, options.batch_size).z[0]
            inputs = list(images.read(index.to(images.index_device)).cpu()[:, None].chunk(2))
        else:
            codes = _prior_codes(model, 2 * count, options.seed)
        between = slerp if options.path == "spherical" else lerp
        codes = between(codes[:count, None], codes[count:, None], t[:, None]).flatten(0, 1)
        rows = decode(model, codes, options.batch_size).unflatten(0, (count, steps))
    labels = [f"{x:.2f}" for x in t.tolist()]
    if inputs:
        rows, labels = torch.cat([inputs[0], rows, inputs[1]], dim=1), ["input", *labels, "input"]
    shown, note = first(rows, len(labels))
    page = row_sheet(
        shown,
        labels,
        title=f"Paths between {'the codes of test images' if inputs else 'draws from the prior'}",
        caption=lines(f"{options.path} paths, seed {options.seed}{note}", caption),
        breaks=(1, steps + 1) if inputs else (),
    )
    return Picture(strips(rows), page)


def reconstruct(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """n_samples test images, each beside the picture of its central code."""
    images = needed(images, "reconstruct", model, options.n_samples)
    index = random_index(images, options.seed)[: options.n_samples]
    with evaluation(model):
        outputs = decode(model, encode(model, images, index, options.batch_size).z[0], options.batch_size)
    pairs = torch.stack([images.read(index.to(images.index_device)).cpu(), outputs], dim=1)
    low, high = model.value_range
    error = (pairs[:, 0].double() - pairs[:, 1].double()).square().mean().item() * ((high - low) / 255) ** 2
    said = f"mean squared error {error:.4f} (pixels in [{low:g}, {high:g}], mean over {len(pairs):,} images)"
    shown, note = first(pairs, 2)
    page = row_sheet(
        shown,
        ("input", "output"),
        title=f"{len(pairs):,} test images and their reconstructions"
        if len(pairs) > 1
        else "A test image, reconstructed",
        caption=lines(f"{said}; seed {options.seed}{note}", caption),
    )
    return Picture(strips(pairs), page)


def visualize_latent(model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Picture:
    """Codes of test images on a plane, coloured by label, beside what the plane decodes to.

    The plane is the latent space itself where z_dim = 2, shown over [-R, R] at least, or that of the first two
    principal components; t-SNE has no inverse and shows codes alone. The only single picture is the decoded plane.

    Raises:
        UserError: z_dim is not 2 and no projection is chosen, or there are no test images.
    """
    if options.projection is None and model.z_dim != 2:
        raise UserError(
            f"--mode visualize_latent draws the plane of a model with z_dim = 2, and z_dim = {model.z_dim} here: "
            + ("add --projection pca (or tsne)" if model.z_dim > 2 else "use --mode traverse")
        )
    images = needed(images, "visualize_latent", model, 1)
    index = random_index(images, options.seed)[: MAX_TSNE if options.projection == "tsne" else MAX_CODES]
    rows, columns, scale = plane_shape(*images.shape[1:])
    decoded = None
    with evaluation(model):
        plane = project(encode(model, images, index, options.batch_size).z[0], options.projection, options.seed)
        limits = limits_of(plane.points, options.traverse_range if options.projection is None else None)
        if plane.inverse is not None:
            origin, axes = plane.inverse
            codes = origin + plane_points(limits, rows, columns) @ axes
            decoded = decode(model, codes, options.batch_size)
    labels = None if images.labels is None else images.labels[index]
    picture = latent_map(
        plane.points,
        limits,
        labels=labels,
        label_names=images.label_names,
        axis_names=plane.names,
        decoded=decoded,
        columns=columns,
        scale=scale,
        prior=options.projection is None,
    )
    which = f"all {len(images):,}" if len(index) == len(images) else f"{len(index):,} of {len(images):,}"
    said = f"central codes of {which} test images, " + (
        "not coloured: they have no labels" if labels is None else "coloured by label"
    )
    outside = int(limits.outside(plane.points).sum())
    said += f"; {outside} lie outside of the frame" if outside else ""
    singles = torch.zeros(0, *images.shape, dtype=torch.uint8)
    if decoded is not None:
        singles = strips(decoded.unflatten(0, (rows, columns))).transpose(0, 1).flatten(1, 2)[None]
    title = {None: "The latent plane", "pca": "Latent codes, principal components", "tsne": "Latent codes, t-SNE"}
    return Picture(singles, framed(picture, title[options.projection], lines(f"{said}; seed {options.seed}", caption)))


Mode = Callable[[VAE, Options, ImageSet | None, str], Picture]

MODES: dict[str, Mode] = {
    "sample": sample,
    "interpolate": interpolate,
    "traverse": traverse,
    "reconstruct": reconstruct,
    "visualize_latent": visualize_latent,
}
"""Name -> mode."""


def draw(
    mode: str, model: VAE, save_dir: str | Path, options: Options, images: ImageSet | None = None, caption: str = ""
) -> list[Path]:
    """Draw one mode and write `<mode>-000.png`, ... and `<mode>-sheet.png`; returns the paths, the sheet's last.

    Everything is written into a temporary folder first and then renamed: a full disk leaves no half-written picture.

    Args:
        mode: a key of :data:`MODES`.
        model: on any device; each of its modules keeps the mode (training or evaluation) that it came in.
        save_dir: made if it is missing.
        options: what to draw.
        images: the test images, for the modes that show some.
        caption: set below the sheet: which model, method and step.

    Raises:
        UserError: an option is out of range, or test images are missing, too few, or of another shape.
        OSError: the folder cannot be written.
    """
    if mode not in MODES:
        raise UserError(f"--mode {mode}: must be one of {', '.join(MODES)}")
    check(options)
    picture = MODES[mode](model, options, images, caption)
    folder = Path(save_dir)
    folder.mkdir(parents=True, exist_ok=True)
    digits = max(3, len(str(len(picture.singles) - 1)))
    pages = {f"{mode}-{i:0{digits}d}.png": grid(single[None], 1) for i, single in enumerate(picture.singles)}
    pages[f"{mode}-sheet.png"] = picture.sheet
    with tempfile.TemporaryDirectory(prefix=f".{mode}-", dir=folder) as temporary:
        for name, page in pages.items():
            page.save(Path(temporary, name))
        for name in pages:
            os.replace(Path(temporary, name), folder / name)
    return [folder / name for name in pages]


def _prior_codes(model: VAE, count: int, seed: int) -> Tensor:
    noise = random_noise(count, model, seed)
    return model.prior.sample(noise.to(next(model.parameters()))).float().cpu()
