"""The strided convolutional pair, for any channel count and any height and width."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.nn.blocks import channels_last, init_normal, lay_out

__all__ = ["ConvDecoder", "ConvEncoder"]

Norm = Literal["batch", "none"]


class Stage(NamedTuple):
    """One convolution of the encoder, and, read backwards, one transposed convolution of the decoder."""

    channels_in: int
    channels_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    size_in: tuple[int, int]
    size_out: tuple[int, int]


def plan(channels: int, size: tuple[int, int], dim: int, dim_mults: tuple[int, ...]) -> list[Stage]:
    """The halving stages for an image of this size: 4x4, stride 2, padding 1.

    A side that has shrunk to one pixel is carried on by kernel 3 and stride 1, so that a long thin image, or more
    stages than it has halvings, still builds.
    """
    if not dim_mults or min(dim_mults) < 1 or dim < 1:
        raise ValueError(f"dim and dim_mults must be positive, got dim = {dim}, dim_mults = {list(dim_mults)}")
    stages = []
    for width in (dim * mult for mult in dim_mults):
        halve = (size[0] > 1, size[1] > 1)
        out = (size[0] // 2 if halve[0] else 1, size[1] // 2 if halve[1] else 1)
        kernel = (4 if halve[0] else 3, 4 if halve[1] else 3)
        stride = (2 if halve[0] else 1, 2 if halve[1] else 1)
        stages.append(Stage(channels, width, kernel, stride, size, out))
        channels, size = width, out
    return stages


def _conv(stage: Stage, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(stage.channels_in, stage.channels_out, stage.kernel, stage.stride, padding=1, bias=bias)


class _ToPlane(nn.ConvTranspose2d):
    """A 4x4, stride-2, padding-1 transposed convolution, (B, C, H, W) -> (B, C', 2 H, 2 W), computed as a 2x2
    convolution: each 2x2 block of inputs makes one 2x2 block of outputs.

    As many multiplications, but the routines of transposed convolution take half as long again for one output channel.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        # Output row 2 m - 1 + p reads the rows m - 1 and m through the taps 2 + p and p.
        taps = self.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # (C, C', row, p, column, q)
        kernel = channels_last(taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2))
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(input, kernel, bias, padding=1), 2)[:, :, 1:-1, 1:-1]


def _transposed(stage: Stage, channels_out: int, bias: bool) -> nn.ConvTranspose2d:
    # An odd side loses a row when halved; output padding puts it back.
    odd = (
        stage.size_in[0] - ((stage.size_out[0] - 1) * stage.stride[0] - 2 + stage.kernel[0]),
        stage.size_in[1] - ((stage.size_out[1] - 1) * stage.stride[1] - 2 + stage.kernel[1]),
    )
    to_plane = channels_out == 1 and stage.stride == (2, 2) and odd == (0, 0)
    kind = _ToPlane if to_plane else nn.ConvTranspose2d
    return kind(stage.channels_out, channels_out, stage.kernel, stage.stride, padding=1, output_padding=odd, bias=bias)


def _norm2d(norm: Norm, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []


def _hidden1d(features_in: int, features_out: int, norm: Norm) -> list[nn.Module]:
    linear = nn.Linear(features_in, features_out, bias=norm == "none")
    return [linear, *([nn.BatchNorm1d(features_out)] if norm == "batch" else []), nn.LeakyReLU(0.2)]


class _ToPixel(nn.Conv2d):
    """A valid convolution over the whole of its input, (B, C, H, W) -> (B, C', 1, 1): one matrix product, and computed
    so.

    The convolution routines take two to three times as long for it.
    """

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class _FromPixel(nn.ConvTranspose2d):
    """The transpose of :class:`_ToPixel`, (B, C, 1, 1) -> (B, C', H, W)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        weight = self.weight
        y = (input.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        return y if self.bias is None else y + self.bias[:, None, None]


class ConvEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads).

    4x4 stride-2 convolutions of widths ``dim * dim_mults``, batch norm on all but the first, LeakyReLU(0.2); a last
    valid convolution over what is left of the image (4x4 for 32x32 with three stages, or 64x64 with four) to 1x1; then
    per head Linear, batch norm, LeakyReLU, Linear.

    Args:
        image_shape: (C, H, W).
        heads: how many numbers of each kind the posterior wants: (D, D) for a Gaussian, (D,) for a point.
        dim: width of the first stage.
        dim_mults: width of each stage, in units of ``dim``; one stage halves the image once.
        norm: ``batch``, or ``none`` for a network whose images do not see each other. Without normalisation the
        weights keep PyTorch's
            default initialisation, because N(0, 0.02) would make the signal vanish.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        heads: tuple[int, ...],
        *,
        dim: int = 32,
        dim_mults: tuple[int, ...] = (1, 2, 4),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        stages = plan(channels, (height, width), dim, dim_mults)
        layers: list[nn.Module] = []
        for i, stage in enumerate(stages):
            stage_norm: Norm = norm if i > 0 else "none"
            layers += [
                _conv(stage, bias=stage_norm == "none"),
                *_norm2d(stage_norm, stage.channels_out),
                nn.LeakyReLU(0.2),
            ]
        features = stages[-1].channels_out
        layers += [_ToPixel(features, features, stages[-1].size_out, bias=norm == "none"), *_norm2d(norm, features)]
        self.trunk = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Flatten())
        self.heads = nn.ModuleList(
            nn.Sequential(*_hidden1d(features, features, norm), nn.Linear(features, size)) for size in heads
        )
        if norm == "batch":
            init_normal(self)
        lay_out(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads), the heads one after the other."""
        h = self.trunk(channels_last(x))
        return torch.cat([head(h) for head in self.heads], dim=1)


class ConvDecoder(nn.Module):
    """Codes (B, z_dim) -> (B, C', H, W), unbounded: the mirror of :class:`ConvEncoder`.

    Args:
        z_dim: latent dimensions D.
        output_shape: (C', H, W), where C' is what the likelihood asks for.
        dim: as in the encoder.
        dim_mults: as in the encoder, in the encoder's order.
        norm: as in the encoder.
    """

    def __init__(
        self,
        z_dim: int,
        output_shape: tuple[int, int, int],
        *,
        dim: int = 32,
        dim_mults: tuple[int, ...] = (1, 2, 4),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        channels, height, width = output_shape
        stages = plan(channels, (height, width), dim, dim_mults)
        features, bias = stages[-1].channels_out, norm == "none"
        layers: list[nn.Module] = [
            *_hidden1d(z_dim, features, norm),
            nn.Unflatten(1, (features, 1, 1)),
            _FromPixel(features, features, stages[-1].size_out, bias=bias),
            *_norm2d(norm, features),
            nn.LeakyReLU(0.2),
        ]
        for stage in reversed(stages[1:]):
            layers += [
                _transposed(stage, stage.channels_in, bias),
                *_norm2d(norm, stage.channels_in),
                nn.LeakyReLU(0.2),
            ]
        self.net = nn.Sequential(*layers, _transposed(stages[0], channels, bias=True))
        if norm == "batch":
            init_normal(self)
        lay_out(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, z_dim) -> (B, C', H, W)."""
        return self.net(z).contiguous()
