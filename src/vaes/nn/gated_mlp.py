"""The gated fully connected pair of the VampPrior paper, for images of any shape and for vectors.

Tomczak & Welling, VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, as released: two hidden layers of 300,
each (W x + b) * sigmoid(V x + c), and weights from N(0, 2 / inputs).
"""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GatedLinear", "GatedMLPDecoder", "GatedMLPEncoder", "init_he"]


class GatedLinear(nn.Linear):
    """(..., features_in) -> (..., features_out): (W x + b) * sigmoid(V x + c), as one product."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__(features_in, 2 * features_out)

    def forward(self, input: Tensor) -> Tensor:
        """The first half of the outputs, each through the gate of its own in the second."""
        return F.glu(super().forward(input), dim=-1)


def init_he(network: nn.Module) -> None:
    """Draw the weights of fully connected layers from N(0, 2 / inputs)."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / layer.in_features))


def _hidden(widths: tuple[int, ...]) -> list[nn.Module]:
    if min(widths) < 1:
        raise ValueError(f"every width must be positive, got {list(widths)}")
    return [GatedLinear(a, b) for a, b in pairwise(widths)]


class GatedMLPEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads).

    Args:
        image_shape: (C, H, W).
        heads: how many numbers the posterior wants of each image, in groups that belong together.
        hidden: widths of the gated layers, from the image inwards.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], heads: tuple[int, ...], *, hidden: tuple[int, ...] = (300, 300)
    ) -> None:
        super().__init__()
        widths = (math.prod(image_shape), *hidden)
        self.net = nn.Sequential(nn.Flatten(), *_hidden(widths), nn.Linear(widths[-1], sum(heads)))
        init_he(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads)."""
        return self.net(x)


class GatedMLPDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', H, W), unbounded: the mirror of :class:`GatedMLPEncoder`.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', H, W), where C' is what the likelihood asks for.
        hidden: as in the encoder, in the encoder's order.
    """

    def __init__(self, z_dim: int, output_shape: tuple[int, int, int], *, hidden: tuple[int, ...] = (300, 300)) -> None:
        super().__init__()
        widths = (z_dim, *reversed(hidden))
        last = nn.Linear(widths[-1], math.prod(output_shape))
        self.net = nn.Sequential(*_hidden(widths), last, nn.Unflatten(1, output_shape))
        init_he(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', H, W)."""
        return self.net(z)
