"""Networks: no probability, no configuration, no input or output.

An encoder maps images (B, C, H, W) to (B, sum of heads); a decoder maps codes (B, z_dim) to (B, C', H, W), unbounded.
What the numbers mean is the posterior's and the likelihood's business.
"""

from vaes.nn.blocks import output_range
from vaes.nn.conv import ConvDecoder, ConvEncoder
from vaes.nn.mlp import MLPDecoder, MLPEncoder

__all__ = ["ConvDecoder", "ConvEncoder", "MLPDecoder", "MLPEncoder", "output_range"]
