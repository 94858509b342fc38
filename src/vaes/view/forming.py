"""The latent plane as it forms: codes and what it decodes to, kept at intervals of a training, and their film."""

import io
import math
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vaes import files
from vaes.data.images import ImageSet
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.posteriors import REAL
from vaes.priors import StandardNormal
from vaes.view.decoding import decode, encode, random_index
from vaes.view.films import FORMATS, Film, refuse_encoder, write_film
from vaes.view.layout import framed, literal
from vaes.view.output import refuse_folder
from vaes.view.picture import lines
from vaes.view.plane import Limits, limits_of, plane_points

__all__ = ["FOLDER", "Plane", "forms", "form", "planes", "read_plane", "write_forming", "write_plane"]

FOLDER = "plane"
"""Of a run folder: a file a step."""
MOST_POINTS = 1000
"""Validation images whose codes are kept."""
TILES = 12
"""Decoded pictures along each side of the plane."""
LARGEST, MOST_TILES = 32, 150_000
"""Pixels along the longer side of a decoded picture, and bytes of all of a step, at most: others are made smaller."""
REACH = 3.0
"""Standard deviations of the prior that are shown at least."""
MOST_BYTES = 4_000_000
"""Of a file, and of what it holds."""
WIDTH = 400
"""Pixels across a panel of the film, about."""
FPS, HELD = 10, 15
"""Frames a second, and how many times the last one is shown."""
NAME = re.compile(r"step(\d{6,18})\.npz")


class Plane(NamedTuple):
    """The latent plane after a step."""

    points: Tensor  # (N, 2) float32: central codes of validation images, the same at each step
    labels: Tensor | None  # (N,) int64
    names: tuple[str, ...]  # of the labels
    limits: Limits  # what is shown
    tiles: Tensor  # (TILES^2, C, h, w) uint8: what the plane decodes to, row by row from the top left
    normal: bool  # whether the prior is a standard normal, whose deviations are drawn


def forms(model: VAE) -> bool:
    """Whether there is a plane to be seen: codes of two real numbers."""
    return tuple(model.z_shape) == (2,) and model.prior.support == REAL


def form(model: VAE, images: ImageSet) -> Plane:
    """The plane of a model now; each of its modules keeps its mode.

    Raises:
        UserError: the plane decodes to something that is no number.
    """
    index = random_index(images, 0)[:MOST_POINTS]
    with evaluation(model):
        points = encode(model, images, index, 256).z[0]
        limits = _rounded(limits_of(points, REACH))
        tiles = decode(model, plane_points(limits, TILES, TILES), 256)
    labels = None if images.labels is None else images.labels[index]
    normal = isinstance(model.prior, StandardNormal)
    return Plane(points, labels, images.label_names, limits, _reduced(tiles), normal)


def _rounded(limits: Limits) -> Limits:
    """The square around 0 that holds the limits, in steps that are rarely taken: the page should not tremble."""
    reach = max(map(abs, limits))
    size = 10.0 ** math.floor(math.log10(reach)) / 2
    reach = math.ceil(reach / size - 0.1) * size
    return Limits(-reach, reach, -reach, reach)


def _reduced(tiles: Tensor) -> Tensor:
    count, channels, height, width = tiles.shape
    share = min(1.0, LARGEST / max(height, width), math.sqrt(MOST_TILES / (count * channels * height * width)))
    if share == 1:
        return tiles
    size = max(1, int(height * share)), max(1, int(width * share))
    return adaptive_avg_pool2d(tiles.float(), size).round().to(torch.uint8)


def write_plane(plane: Plane, run: Path, step: int) -> None:
    """Write ``plane/stepNNNNNN.npz``, whole or not at all; equal planes give equal bytes."""
    arrays = {
        "points": plane.points.numpy().astype(np.float16),
        "names": np.array(plane.names, dtype=np.str_),
        "limits": np.array(plane.limits, dtype=np.float64),
        "tiles": plane.tiles.numpy(),
        "normal": np.array(plane.normal),
    }
    if plane.labels is not None:
        arrays["labels"] = plane.labels.numpy().astype(np.int32)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    (run / FOLDER).mkdir(exist_ok=True)
    path = run / FOLDER / f"step{step:06d}.npz"
    files.write_atomic(path, lambda temporary: temporary.write_bytes(content.getvalue()))


def planes(run: Path) -> list[int]:
    """The steps whose planes were kept, ascending."""
    home = run / FOLDER
    if not home.is_dir():
        return []
    return sorted(int(match[1]) for path in home.iterdir() if (match := NAME.fullmatch(path.name)))


def read_plane(run: Path, step: int) -> Plane:
    """The plane of a step.

    Raises:
        UserError: there is none, or its file is damaged.
    """
    if step not in planes(run):
        raise UserError(f"{run}: no latent plane was kept at step {step:,}")
    path = run / FOLDER / f"step{step:06d}.npz"
    damaged = UserError(f"{path}: is damaged; remove it, and the others are shown")
    try:
        content = io.BytesIO(files.read_bytes(path, MOST_BYTES))
        if sum(part.file_size for part in zipfile.ZipFile(content).infolist()) > MOST_BYTES:
            raise damaged
        with np.load(content, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        points, limits, tiles = (arrays[name] for name in ("points", "limits", "tiles"))
        labels = arrays.get("labels")
        whole = (
            points.ndim == 2 and points.shape[1] == 2 and limits.shape == (4,) and np.isfinite(limits).all()
            and tiles.dtype == np.uint8 and tiles.ndim == 4 and len(tiles) == TILES**2 and tiles.shape[1] in (1, 3)
            and (labels is None or (labels.shape == points.shape[:1] and labels.min(initial=0) >= 0))
        )  # fmt: skip
        if not whole:
            raise damaged
        return Plane(
            torch.from_numpy(points.astype(np.float32)),
            None if labels is None else torch.from_numpy(labels.astype(np.int64)),
            tuple(map(str, arrays["names"].ravel())),
            Limits(*limits.tolist()),
            torch.from_numpy(tiles),
            bool(arrays["normal"]),
        )
    except (OSError, ValueError, LookupError, zipfile.BadZipFile, EOFError, NotImplementedError):
        raise damaged from None


def write_forming(run: Path, path: Path) -> list[str]:
    """Write the film of the latent plane, a frame for each step that was kept; returns what there is to say.

    Raises:
        UserError: nothing was kept, the name ends in no film's ending, or it cannot be written.
    """
    steps = planes(run)
    if not steps:
        raise UserError(
            f"{run}: keeps no latent planes; a training whose codes are two real numbers (model.z_dim 2) leaves them "
            "every train.plane_freq steps"
        )
    format = path.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise UserError(f"{path}: films are written as {', '.join(FORMATS)}; give a name that ends in one of them")
    refuse_encoder(format)
    refuse_folder(path)
    files.refuse_unwritable(path.parent)
    frames = [_frame(run, step, steps[-1]) for step in steps]
    frames += frames[-1:] * HELD
    return list(write_film(Film(len(frames), lambda: iter(frames), FPS, False, distinct=len(steps)), path, format))


def _frame(run: Path, step: int, last: int) -> Image.Image:
    from vaes.view.charts import latent_map  # training needs no matplotlib figures

    plane = read_plane(run, step)
    picture = latent_map(
        plane.points,
        plane.limits,
        labels=plane.labels,
        label_names=plane.names,
        title="codes of validation images",
        decoded=plane.tiles,
        columns=TILES,
        scale=max(1, WIDTH // (TILES * plane.tiles.shape[-1])),
        prior=plane.normal,
    )
    return framed(
        picture,
        f"The latent plane after {step:,} steps",
        lines(f"{literal(run.resolve().name, 60)}: {len(plane.points):,} validation images; {last:,} steps in all"),
    )
