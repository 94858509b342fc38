"""The fully connected pair, for images of any shape and for vectors."""

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from vaes.nn.blocks import ACTIVATIONS

__all__ = ["MLPDecoder", "MLPEncoder"]

Activation = Literal["relu", "tanh", "silu", "gelu"]


def _hidden(widths: tuple[int, ...], activation: Activation) -> list[nn.Module]:
    if min(widths) < 1:
        raise ValueError(f"every width must be positive, got {list(widths)}")
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), ACTIVATIONS[activation]())]


class MLPEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads).

    Args:
        image_shape: (C, H, W).
        heads: how many numbers of each kind the posterior wants: D means and D log-variances, say.
        hidden: widths of the hidden layers, from the image inwards.
        activation: between the layers.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        heads: tuple[int, ...],
        *,
        hidden: tuple[int, ...] = (512, 256),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        widths = (math.prod(image_shape), *hidden)
        self.net = nn.Sequential(nn.Flatten(), *_hidden(widths, activation), nn.Linear(widths[-1], sum(heads)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads)."""
        return self.net(x)


class MLPDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', H, W), unbounded: the mirror of :class:`MLPEncoder`.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', H, W), where C' is what the likelihood asks for.
        hidden: as in the encoder, in the encoder's order.
        activation: between the layers.
    """

    def __init__(
        self,
        z_dim: int,
        output_shape: tuple[int, int, int],
        *,
        hidden: tuple[int, ...] = (512, 256),
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        widths = (z_dim, *reversed(hidden))
        self.net = nn.Sequential(
            *_hidden(widths, activation), nn.Linear(widths[-1], math.prod(output_shape)), nn.Unflatten(1, output_shape)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', H, W)."""
        return self.net(z)
