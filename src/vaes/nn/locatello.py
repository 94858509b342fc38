"""The convolutional pair of the disentanglement library, for images of 64x64.

Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, 2019,
https://arxiv.org/abs/1811.12359, table 1, as released: kernels of 4, 4, 2 and 2 in the encoder and of 4 in the decoder,
weights by Glorot's uniform law.
"""

import torch
from torch import Tensor, nn

from vaes.nn.blocks import channels_last, lay_out
from vaes.nn.conv import _ToPlane

__all__ = ["LocatelloDecoder", "LocatelloEncoder"]


def _refuse_other_sizes(size: tuple[int, ...]) -> None:
    if size != (64, 64):
        raise ValueError(
            f"locatello is the published network for 64x64, got {size[0]}x{size[1]}: bring the images to that size, or "
            "use kind conv, which takes any"
        )


def _init_glorot(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class LocatelloEncoder(nn.Module):
    """Images (B, C, 64, 64) -> (B, sum of heads).

    Args:
        image_shape: (C, 64, 64).
        heads: how many numbers the posterior wants of each image, in groups that belong together.
    """

    def __init__(self, image_shape: tuple[int, int, int], heads: tuple[int, ...]) -> None:
        super().__init__()
        _refuse_other_sizes(image_shape[1:])
        self.net = nn.Sequential(
            *(nn.Conv2d(image_shape[0], 32, 4, 2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 4, 2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 64, 2, 2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 2, 2), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(64 * 4 * 4, 256), nn.ReLU()),
        )
        self.heads = nn.ModuleList(nn.Linear(256, size) for size in heads)
        _init_glorot(self)
        lay_out(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 64, 64) -> (B, sum of heads), the heads one after the other."""
        h = self.net(channels_last(x))
        return torch.cat([head(h) for head in self.heads], dim=1)


class LocatelloDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', 64, 64), unbounded.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', 64, 64), where C' is what the likelihood asks for.
    """

    def __init__(self, z_dim: int, output_shape: tuple[int, int, int]) -> None:
        super().__init__()
        _refuse_other_sizes(output_shape[1:])
        last = _ToPlane if output_shape[0] == 1 else nn.ConvTranspose2d
        self.planes = nn.Sequential(
            *(nn.Linear(z_dim, 256), nn.ReLU()), *(nn.Linear(256, 64 * 4 * 4), nn.ReLU()), nn.Unflatten(1, (64, 4, 4))
        )
        self.net = nn.Sequential(
            *(nn.ConvTranspose2d(64, 64, 4, 2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(64, 32, 4, 2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 32, 4, 2, padding=1), nn.ReLU()),
            last(32, output_shape[0], 4, 2, padding=1),
        )
        _init_glorot(self)
        lay_out(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', 64, 64)."""
        return self.net(channels_last(self.planes(z))).contiguous()
