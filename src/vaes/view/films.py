"""Films of walks and paths: the sheet's pictures set in motion, there and back without an end."""

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.spatial import KDTree
from torch import Tensor

from vaes import files
from vaes.data.images import ImageSet
from vaes.encoding import image_shape
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.view.decoding import UNUSED, decode, on_support, said_of_support
from vaes.view.layout import ACCENT, INK, MAX_SCALE, MUTED, PAGE, sheet
from vaes.view.modes import paths_of
from vaes.view.output import Drawn, refuse_folder
from vaes.view.picture import Options, balanced_columns, check, check_room, lines, number
from vaes.view.traversal import refuse_dim, row_label, said_of, sorted_dims, start_codes

__all__ = ["FORMATS", "Film", "check_film", "draw_film", "film", "refuse_encoder", "write_film"]

FORMATS = ("gif", "mp4", "webp")
MOST_ROWS = 10
"""A film of all dimensions shows at most as many."""
LARGE = 8_000_000
"""Bytes from which on it is said what would be smaller."""
SIZE = 760
"""Pixels of a page's pictures, about, across and down."""


class Film(NamedTuple):
    """A film, made frame by frame."""

    length: int  # in frames
    frames: Callable[[], Iterator[Image.Image]]
    fps: int
    sharp: bool  # its pixels are drawn enlarged, and are to keep their edges
    remarks: tuple[str, ...] = ()
    distinct: int | None = None  # the frames after so many repeat some before them; None where all are different


class _Stage(NamedTuple):
    """What moves, and what stands around it."""

    at: Callable[[float], Tensor]  # a share of the way -> codes (R, D)
    cells: int  # R
    columns: int
    title: str
    caption: str
    ends: tuple[str, str]  # of the way, in words
    remarks: tuple[str, ...] = ()
    page: Mapping[str, Any] = {}  # more of what :func:`vaes.view.layout.sheet` takes
    sides: Sequence[Tensor] = ()  # still pictures (R, 1, C, H, W) before and after each that moves


def check_film(mode: str, format: str) -> None:
    """Refuse a mode that has no film, and a format that there is no encoder for.

    Raises:
        UserError: naming what would be right.
    """
    if mode not in _STAGES:
        raise UserError(f"--format {format}: {mode} has no film; --mode {' and '.join(_STAGES)} have")
    if format not in FORMATS:
        raise UserError(f"--format {format}: films are {', '.join(FORMATS)}")
    refuse_encoder(format)


def refuse_encoder(format: str) -> None:
    """UserError where there is no encoder for a format."""
    if format == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("mp4 needs an encoder: pip install 'vaes[film]' (gif and webp need none)")


def draw_film(
    mode: str,
    model: VAE,
    save_dir: str | Path,
    format: str,
    options: Options,
    images: ImageSet | None = None,
    caption: str = "",
) -> Drawn:
    """Write ``<mode>-film.<format>``, whole or not at all. Arguments are those of :func:`vaes.view.draw`.

    Raises:
        UserError: the mode has no film, an option is out of range, the folder cannot be written, the disk is full, or
            images or codes are missing or of another shape.
    """
    check_film(mode, format)
    check(options)
    folder = Path(save_dir)
    path = folder / f"{mode}-film.{format}"
    refuse_folder(path)
    made = film(mode, model, options, images, caption)
    return Drawn([path], [*made.remarks, *write_film(made, path, format)])


def write_film(made: Film, path: Path, format: str) -> list[str]:
    """Write a film, whole or not at all; returns what there is to say of the file.

    Raises:
        UserError: it cannot be written, or the disk is full.
    """
    try:
        files.write_atomic(path, lambda temporary: _WRITERS[format](made, temporary))
    except OSError as error:
        why = error.strerror or str(error).strip().splitlines()[-1]
        raise UserError(f"{path}: the film cannot be written ({why}); give another folder") from None
    exact = 100 / max(2, round(100 / made.fps))
    large = path.stat().st_size
    said = (
        (f"{large / 1e6:.0f} MB; mp4 and webp take a fraction of a gif's",) if format == "gif" and large > LARGE else ()
    )
    slow = () if format != "gif" or math.isclose(exact, made.fps) else (
        f"a GIF counts hundredths of a second: {exact:.3g} frames a second instead of {made.fps}",
    )  # fmt: skip
    return [*slow, *said]


def film(mode: str, model: VAE, options: Options, images: ImageSet | None = None, caption: str = "") -> Film:
    """The film of a mode: its codes move by a cosine of time, so that they slow down where they turn.

    Raises:
        UserError: the memory has no room for it, or images or codes are missing, or of another shape.
    """
    count = max(2, round(options.fps * options.seconds))
    # Frame k and frame count - k are the same.
    shares = [(1 - math.cos(2 * math.pi * k / count)) / 2 for k in range(count // 2 + 1)]
    with evaluation(model):
        stage = _STAGES[mode](model, options, images, caption)
        check_room(image_shape(model), model.z_dim, stage.cells, ("", len(shares)))
        codes = on_support(model, torch.cat([stage.at(share) for share in shares]))
        moving = decode(model, codes, options.batch_size).unflatten(0, (len(shares), stage.cells))
    rows = -(-stage.cells * (len(stage.sides) + 1) // stage.columns)
    height, width = moving.shape[-2:]
    scale = max(1, min(MAX_SCALE, SIZE // (stage.columns * width), SIZE // (rows * height)))

    def frame(i: int) -> Image.Image:
        pictures = moving[i][:, None]
        if stage.sides:
            pictures = torch.cat([stage.sides[0], pictures, stage.sides[1]], dim=1)
        return sheet(
            pictures.flatten(0, 1),
            stage.columns,
            title=stage.title,
            caption=stage.caption,
            scale=scale,
            track=(shares[i], *stage.ends),
            **stage.page,
        )

    order = [min(k, count - k) for k in range(count)]
    return Film(count, lambda: map(frame, order), options.fps, scale > 1, stage.remarks, count // 2 + 1)


def _walks(model: VAE, options: Options, images: ImageSet | None, caption: str) -> _Stage:
    if options.traverse_dim is None:
        return _all_dims(model, options, images, caption)
    dim, reach = options.traverse_dim, options.traverse_range
    refuse_dim(model, dim)
    base, origin, remarks = start_codes(model, options, images, options.n_samples)

    def at(share: float) -> Tensor:
        codes = base.clone()
        codes[:, dim] = reach * (2 * share - 1)
        return codes

    return _Stage(
        at,
        len(base),
        balanced_columns(len(base), *image_shape(model)[1:]),
        f"Latent dimension z{dim}, all others held",
        lines(f"pictures start from {origin}; seed {options.seed}", *said_of_support(model), *remarks, caption),
        (number(-reach), number(reach)),
        remarks,
    )


def _all_dims(model: VAE, options: Options, images: ImageSet | None, caption: str) -> _Stage:
    reach = options.traverse_range
    base, origin, remarks = start_codes(model, options, images, options.n_samples)
    dims, used, over = sorted_dims(model, options, images)
    dims = dims[:MOST_ROWS]
    cells, which = base.repeat(len(dims), 1), dims.repeat_interleave(len(base))

    def at(share: float) -> Tensor:
        return cells.scatter(1, which[:, None], reach * (2 * share - 1))

    page = {
        "row_labels": [row_label(d, used) for d in dims.tolist()],
        "faint_rows": [] if used is None else [i for i, d in enumerate(dims.tolist()) if used.value[d] < UNUSED],
    }
    start = "all start" if len(base) == 1 else "columns start"
    return _Stage(
        at,
        len(cells),
        len(base),
        "Each latent dimension, all others held",
        lines(
            f"{start} from {origin}",
            said_of(used, over, len(dims), model.z_dim),
            *said_of_support(model),
            *remarks,
            caption,
        ),
        (number(-reach), number(reach)),
        remarks,
        page,
    )


def _paths(model: VAE, options: Options, images: ImageSet | None, caption: str) -> _Stage:
    paths = paths_of(model, options, images, 1)
    count, (height, width) = len(paths.ends[0]), image_shape(model)[1:]
    across = balanced_columns(count, height, width * (3 if paths.inputs else 1))
    page: dict[str, Any] = {}
    if paths.inputs:
        page = {
            "column_labels": ["input", "path", "input"] * across,
            "column_breaks": [3 * i for i in range(1, across)],
        }
    what = f"the codes of {options.whose} images" if paths.inputs else f"draws from {options.prior_words}"
    return _Stage(
        lambda share: paths.at(torch.tensor([[share]]))[:, 0],
        count,
        across * (3 if paths.inputs else 1),
        f"Paths between {what}" if count > 1 else f"A path between {what}",
        lines(f"{options.path} paths, seed {options.seed}", *said_of_support(model), *paths.remarks, caption),
        ("0", "1"),
        paths.remarks,
        page,
        paths.inputs,
    )


_STAGES: dict[str, Callable[[VAE, Options, ImageSet | None, str], _Stage]] = {
    "traverse": _walks,
    "interpolate": _paths,
}


def _write_gif(made: Film, path: Path) -> None:
    """One palette for all frames: with one each, what stands still would flicker."""
    distinct = made.distinct or made.length
    seen = list(islice(made.frames(), 0, distinct, max(1, distinct // 6)))
    strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in seen]))
    # The page's own colours are few pixels among many, and would be lost.
    inks = np.array([INK, MUTED, ACCENT])[:, None]
    own = (inks + (np.array(PAGE) - inks) * np.linspace(0, 1, 5)[:, None]).round().reshape(-1, 3)
    of_pictures = strip.quantize(256 - len(own), Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).getpalette() or []
    colours = np.concatenate([own, np.reshape(of_pictures, (-1, 3))]).astype(np.uint8)
    tree = KDTree(colours)

    def indexed(frame: Image.Image) -> Image.Image:
        """By the nearest colour, which Pillow's own search misses by a few levels."""
        pixels = np.asarray(frame).astype(np.int32)
        packed, places = np.unique(pixels @ np.array([65536, 256, 1]), return_inverse=True)
        _, nearest = tree.query(np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1))
        image = Image.fromarray(nearest.astype(np.uint8)[places.reshape(pixels.shape[:2])], "P")
        image.putpalette(colours.tobytes())
        return image

    frames = map(indexed, made.frames())
    duration = 10 * max(2, round(100 / made.fps))
    next(frames).save(path, "GIF", save_all=True, append_images=frames, duration=duration, loop=0, optimize=False)


def _write_webp(made: Film, path: Path) -> None:
    frames = made.frames()
    # Times of whole milliseconds that do not drift.
    times = [round(1000 * (k + 1) / made.fps) - round(1000 * k / made.fps) for k in range(made.length)]
    next(frames).save(
        path, "WEBP", save_all=True, append_images=list(frames), duration=times, loop=0, lossless=made.sharp, quality=90
    )


def _write_mp4(made: Film, path: Path) -> None:
    import imageio_ffmpeg

    frames = made.frames()
    first = next(frames)
    size = first.width + first.width % 2, first.height + first.height % 2  # H.264 halves the colours' resolution
    writer = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=made.fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=1,
        quality=None,
        ffmpeg_log_level="error",
        output_params=["-crf", "16", "-preset", "slow", "-tune", "animation", "-movflags", "+faststart", "-f", "mp4"],
    )
    writer.send(None)
    for frame in (first, *frames):
        page = Image.new("RGB", size, PAGE)
        page.paste(frame)
        writer.send(np.ascontiguousarray(page))
    writer.close()


_WRITERS: dict[str, Callable[[Film, Path], None]] = {"gif": _write_gif, "mp4": _write_mp4, "webp": _write_webp}
