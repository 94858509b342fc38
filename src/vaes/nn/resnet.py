"""The residual convolutional pair, for any channel count and any height and width.

He, Zhang, Ren & Sun, Identity Mappings in Deep Residual Networks, 2016, https://arxiv.org/abs/1603.05027, figure 4e:
normalisation and ReLU come before each convolution, and nothing stands on the way past a block. The last convolution of
each block begins at zero, so that the block begins as the identity.
"""

import math
from typing import Literal

from torch import Tensor, nn

from vaes.functional import to_float32
from vaes.nn.blocks import channels_last, lay_out

__all__ = ["ResNetDecoder", "ResNetEncoder"]

Norm = Literal["group", "batch", "none"]
MOST_GROUPS, LEAST_CHANNELS = 8, 4
"""Of group norm: a group of one channel would make a plane of one pixel zero."""


class GroupNorm(nn.GroupNorm):
    """Group norm of (B, C, H, W), channels last, over flattened planes: as fast, and vmap can do it. Its statistics and
    what it makes are float32 where its input is narrower."""

    def forward(self, input: Tensor) -> Tensor:
        """The same shape."""
        return channels_last(super().forward(to_float32(input).flatten(2)).unflatten(2, input.shape[2:]))


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = (g for g in range(MOST_GROUPS, 0, -1) if channels % g == 0 and channels >= g * LEAST_CHANNELS)
    return GroupNorm(next(groups, 1), channels) if norm == "group" else nn.Identity()


def _plan(
    size: tuple[int, int], dim: int, dim_mults: tuple[int, ...], blocks: int
) -> list[tuple[int, tuple[int, int]]]:
    """The width and size of each stage; each but the first halves the sides, rounded up."""
    if not dim_mults or min(dim_mults) < 1 or dim < 1 or blocks < 1:
        raise ValueError(
            f"dim, dim_mults and blocks must be positive, got dim = {dim}, dim_mults = {list(dim_mults)}, "
            f"blocks = {blocks}"
        )
    stages = []
    for mult in dim_mults:
        stages.append((dim * mult, size))
        size = (-(-size[0] // 2), -(-size[1] // 2))
    return stages


class Block(nn.Module):
    """(B, C, H, W) -> (B, C', H / stride, W / stride), rounded up."""

    def __init__(self, channels_in: int, channels_out: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        self.before = nn.Sequential(_norm(norm, channels_in), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1),
            _norm(norm, channels_out),
            nn.ReLU(),
            last := nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        alike = channels_in == channels_out and stride == 1
        self.past = None if alike else nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """What comes past the block plus what it makes."""
        h = self.before(x)
        return (x if self.past is None else self.past(h)) + self.body(h)


class ResNetEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads): a 3x3 convolution, stages of residual blocks, and one linear layer.

    Args:
        image_shape: (C, H, W).
        heads: how many numbers the posterior wants of each image, in groups that belong together.
        dim: width of the first stage.
        dim_mults: width of each stage, in units of ``dim``; each but the first halves the image.
        blocks: residual blocks of each stage.
        norm: ``group``, under which images do not see each other, ``batch`` or ``none``.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        heads: tuple[int, ...],
        *,
        dim: int = 32,
        dim_mults: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        stages = _plan(image_shape[1:], dim, dim_mults, blocks)
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], channels := stages[0][0], 3, padding=1)]
        for i, (width, _) in enumerate(stages):
            layers.append(Block(channels, channels := width, norm, stride=2 if i > 0 else 1))
            layers += [Block(width, width, norm) for _ in range(blocks - 1)]
        width, size = stages[-1]
        self.trunk = nn.Sequential(*layers, _norm(norm, width), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(width * math.prod(size), sum(heads))
        lay_out(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads)."""
        return self.head(self.trunk(channels_last(x)))


class ResNetDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', H, W), unbounded: the mirror of :class:`ResNetEncoder`, which doubles the image by
    repeating its pixels.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', H, W), where C' is what the likelihood asks for.
        dim: as in the encoder.
        dim_mults: as in the encoder, in the encoder's order.
        blocks: as in the encoder.
        norm: as in the encoder.
    """

    def __init__(
        self,
        z_dim: int,
        output_shape: tuple[int, int, int],
        *,
        dim: int = 32,
        dim_mults: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        stages = _plan(output_shape[1:], dim, dim_mults, blocks)[::-1]
        channels, size = stages[0]
        self.planes = nn.Sequential(nn.Linear(z_dim, channels * math.prod(size)), nn.Unflatten(1, (channels, *size)))
        layers: list[nn.Module] = []
        for i, (width, size) in enumerate(stages):
            layers += [nn.Upsample(size)] if i > 0 else []
            layers.append(Block(channels, channels := width, norm))
            layers += [Block(width, width, norm) for _ in range(blocks - 1)]
        last = nn.Conv2d(channels, output_shape[0], 3, padding=1)
        self.net = nn.Sequential(*layers, _norm(norm, channels), nn.ReLU(), last)
        lay_out(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', H, W)."""
        return self.net(channels_last(self.planes(z))).contiguous()
