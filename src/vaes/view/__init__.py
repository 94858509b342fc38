"""Pictures of what a model learned: samples, paths, walks, reconstructions and maps of the latent space."""

import vaes.drawing  # noqa: F401 - before anything here imports matplotlib
from vaes.view.films import Film, check_film, draw_film, film
from vaes.view.forming import Plane, form, forms, planes, read_plane, write_forming, write_plane
from vaes.view.layout import grid, sheet
from vaes.view.modes import (
    MODES,
    decode_codes,
    interpolate,
    make,
    reconstruct,
    sample,
    traverse,
    visualize_latent,
)
from vaes.view.output import Drawn, draw
from vaes.view.picture import Options, Picture, check
from vaes.view.training import training_sheet

__all__ = [
    "MODES",
    "Drawn",
    "Film",
    "Options",
    "Picture",
    "Plane",
    "check",
    "check_film",
    "decode_codes",
    "draw",
    "draw_film",
    "film",
    "form",
    "forms",
    "grid",
    "interpolate",
    "make",
    "planes",
    "read_plane",
    "reconstruct",
    "sample",
    "sheet",
    "training_sheet",
    "traverse",
    "visualize_latent",
    "write_forming",
    "write_plane",
]
