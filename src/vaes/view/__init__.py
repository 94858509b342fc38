"""Pictures of what a model learned: samples, paths, walks, reconstructions and maps of the latent space."""

import vaes.drawing  # noqa: F401 - before anything here imports matplotlib
from vaes.view.films import Film, check_film, draw_film, film
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
    "check",
    "check_film",
    "decode_codes",
    "draw",
    "draw_film",
    "film",
    "grid",
    "interpolate",
    "make",
    "reconstruct",
    "sample",
    "sheet",
    "training_sheet",
    "traverse",
    "visualize_latent",
]
