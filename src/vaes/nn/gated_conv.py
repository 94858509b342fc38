"""The gated convolutional pair of the VampPrior paper, for any channel count and any height and width.

Tomczak & Welling, VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, as released (the upper level's encoder
and the image's decoder of convHVAE). Their log-variances are cut to [-6, 2]; these are not.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from vaes.nn.blocks import channels_last, lay_out
from vaes.nn.gated_mlp import GatedLinear, init_he

__all__ = ["GatedConv", "GatedConvDecoder", "GatedConvEncoder"]

LAST = 6
"""Channels of the encoder's last plane."""
HIDDEN = 300
"""Width of the decoder's first layer."""


class GatedConv(nn.Conv2d):
    """(B, C, H, W) -> (B, C', H / stride, W / stride), rounded up: (W * x + b) * sigmoid(V * x + c), as one
    convolution; the kernel is odd."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, 2 * channels_out, kernel, stride, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        """The first half of the channels, each through the gate of its own in the second."""
        return F.glu(super().forward(input), dim=1)


def _positive(dim: int) -> int:
    if dim < 1:
        raise ValueError(f"dim must be positive, got {dim}")
    return dim


class GatedConvEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads): five gated convolutions, two of which halve the image.

    Args:
        image_shape: (C, H, W).
        heads: how many numbers the posterior wants of each image, in groups that belong together.
        dim: width of the first two convolutions, half that of the next two.
    """

    def __init__(self, image_shape: tuple[int, int, int], heads: tuple[int, ...], *, dim: int = 32) -> None:
        super().__init__()
        channels, height, width = image_shape
        dim = _positive(dim)
        self.trunk = nn.Sequential(
            GatedConv(channels, dim, 7),
            GatedConv(dim, dim, 3, stride=2),
            GatedConv(dim, 2 * dim, 5),
            GatedConv(2 * dim, 2 * dim, 3, stride=2),
            GatedConv(2 * dim, LAST, 3),
            nn.Flatten(),
        )
        self.head = nn.Linear(LAST * -(-height // 4) * -(-width // 4), sum(heads))
        init_he(self)
        lay_out(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads)."""
        return self.head(self.trunk(channels_last(x)))


class GatedConvDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', H, W), unbounded: two gated layers make planes of the image's size, one where C' is 1
    and else three, and four gated 3x3 convolutions and one of 1x1 the output.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', H, W), where C' is what the likelihood asks for.
        dim: half the width of the convolutions.
    """

    def __init__(self, z_dim: int, output_shape: tuple[int, int, int], *, dim: int = 32) -> None:
        super().__init__()
        planes = (1 if output_shape[0] == 1 else 3, *output_shape[1:])
        width = 2 * _positive(dim)
        self.planes = nn.Sequential(
            GatedLinear(z_dim, HIDDEN), GatedLinear(HIDDEN, math.prod(planes)), nn.Unflatten(1, planes)
        )
        self.net = nn.Sequential(
            GatedConv(planes[0], width, 3),
            *(GatedConv(width, width, 3) for _ in range(3)),
            nn.Conv2d(width, output_shape[0], 1),
        )
        init_he(self)
        lay_out(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', H, W)."""
        return self.net(channels_last(self.planes(z))).contiguous()
