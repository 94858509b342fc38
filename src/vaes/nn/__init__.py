"""Networks: no probability, no configuration, no input or output.

An encoder maps images (B, C, H, W) to (B, sum of heads); a decoder maps codes (B, z_dim), or grids (B, Z, h, w), to
(B, C', H, W), unbounded.
What the numbers mean is the posterior's and the likelihood's business.
"""

from vaes.nn.autoencoder_kl import KLDecoder, KLEncoder, kl_grid
from vaes.nn.blocks import output_range
from vaes.nn.conv import ConvDecoder, ConvEncoder
from vaes.nn.gated_conv import GatedConvDecoder, GatedConvEncoder
from vaes.nn.gated_mlp import GatedMLPDecoder, GatedMLPEncoder
from vaes.nn.locatello import LocatelloDecoder, LocatelloEncoder
from vaes.nn.mlp import MLPDecoder, MLPEncoder
from vaes.nn.resnet import ResNetDecoder, ResNetEncoder
from vaes.nn.spectral import spectral_norm
from vaes.nn.velocity import FlatVelocity, GridVelocity

__all__ = [
    "ConvDecoder",
    "ConvEncoder",
    "FlatVelocity",
    "GatedConvDecoder",
    "GatedConvEncoder",
    "GatedMLPDecoder",
    "GatedMLPEncoder",
    "GridVelocity",
    "KLDecoder",
    "KLEncoder",
    "LocatelloDecoder",
    "LocatelloEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
    "kl_grid",
    "output_range",
    "spectral_norm",
]
