"""Pictures of what a model learned: samples, paths, walks, reconstructions and maps of the latent space."""

from vaes.view.latent import latent_map
from vaes.view.modes import MODES, Options, Picture, draw, interpolate, reconstruct, sample, traverse, visualize_latent
from vaes.view.sheet import grid, sheet
from vaes.view.training import training_sheet

__all__ = [
    "MODES",
    "Options",
    "Picture",
    "draw",
    "grid",
    "interpolate",
    "latent_map",
    "reconstruct",
    "sample",
    "sheet",
    "training_sheet",
    "traverse",
    "visualize_latent",
]
