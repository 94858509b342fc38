"""What a run is given away as: networks that need nothing of this package, its curves, and codes."""

from vaes.share.autoencoder import export_diffusers
from vaes.share.export import DTYPES, FORMATS, PARTS, Exported, export_onnx, export_parts, export_torch, write
from vaes.share.hub import push
from vaes.share.shards import Latents, Written, latents, write_latents
from vaes.share.training_curves import Curve, curves, plot, write_plot

__all__ = [
    "DTYPES",
    "FORMATS",
    "PARTS",
    "Curve",
    "Exported",
    "Latents",
    "Written",
    "curves",
    "export_diffusers",
    "export_onnx",
    "export_parts",
    "export_torch",
    "latents",
    "plot",
    "push",
    "write",
    "write_latents",
    "write_plot",
]
