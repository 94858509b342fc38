"""The residual autoencoder of latent diffusion, whose codes are grids (C, H / f, W / f).

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, https://arxiv.org/abs/2112.10752,
appendix G. Fully convolutional but for the attention in the middle, which takes any size too. Parameters are named as
those of ``diffusers.AutoencoderKL`` are, so that weights go over either way: ``quant_conv`` belongs to the encoder here
and ``post_quant_conv`` to the decoder.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vaes.nn.blocks import channels_last, lay_out
from vaes.nn.resnet import GroupNorm

__all__ = ["KLDecoder", "KLEncoder", "kl_grid"]

EPS = 1e-6


def kl_grid(
    image_shape: tuple[int, int, int], z_channels: int, *, ch_mult: tuple[int, ...] = (1, 2, 4), **others: object
) -> tuple[int, int, int]:
    """The shape of the code of an image (C, H, W): (z_channels, H / f, W / f), f = 2^(stages - 1).

    Raises:
        ValueError: f does not divide the image's sides.
    """
    factor = 2 ** (len(ch_mult) - 1)
    _, height, width = image_shape
    if height % factor or width % factor:
        raise ValueError(
            f"ch_mult of {len(ch_mult)} stages divides the sides by {factor}, and images are {height} x {width}; give "
            f"data.image_size a multiple of {factor}, or ch_mult fewer stages"
        )
    return z_channels, height // factor, width // factor


class _Layers(nn.Module):
    """One layer after another. ``again``: what is inside a layer is computed anew for its gradient, and not held."""

    again = False

    def _through(self, x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
        # Transforms of torch.func cannot compute anew; what they hold gives the same gradient.
        again = self.again and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False) if again else layer(x)
        return x


class _Residual(nn.Module):
    """(B, C, H, W) -> (B, C', H, W): twice norm, SiLU and a 3x3 convolution, beside what comes past."""

    def __init__(self, channels_in: int, channels_out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels_in, eps=EPS)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = GroupNorm(groups, channels_out, eps=EPS)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Attention(nn.Module):
    """(B, C, H, W) -> the same: one head over all pixels, beside what comes past."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, channels, eps=EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (to(h)[:, None] for to in (self.to_q, self.to_k, self.to_v))
        h = self.to_out[0](functional.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + channels_last(h.transpose(1, 2).unflatten(2, x.shape[2:]))


class _Halve(nn.Module):
    """(B, C, H, W) -> (B, C, H / 2, W / 2), padded below and on the right alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class _Double(nn.Module):
    """(B, C, H, W) -> (B, C, 2 H, 2 W): each pixel four times, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(channels_last(functional.interpolate(x, scale_factor=2.0, mode="nearest")))


class _Stage(_Layers):
    """Residual blocks, and what then halves or doubles the sides."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int, groups: int, resample: str) -> None:
        super().__init__()
        widths = [channels_in, *[channels_out] * blocks]
        self.resnets = nn.ModuleList(_Residual(a, b, groups) for a, b in pairwise(widths))
        self.downsamplers = nn.ModuleList([_Halve(channels_out)] if resample == "halve" else [])
        self.upsamplers = nn.ModuleList([_Double(channels_out)] if resample == "double" else [])

    def forward(self, x: Tensor) -> Tensor:
        return self._through(x, (*self.resnets, *self.downsamplers, *self.upsamplers))


class _Middle(_Layers):
    """Two residual blocks, with attention between them where it is asked for."""

    def __init__(self, channels: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_Attention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(_Residual(channels, channels, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self._through(x, (self.resnets[0], *self.attentions, self.resnets[1]))


def _widths(ch: int, ch_mult: Sequence[int], num_res_blocks: int, groups: int) -> list[int]:
    if not ch_mult or min(ch, num_res_blocks, groups, *ch_mult) < 1:
        raise ValueError(
            f"ch, ch_mult, num_res_blocks and groups must be positive, got ch = {ch}, ch_mult = {list(ch_mult)}, "
            f"num_res_blocks = {num_res_blocks}, groups = {groups}"
        )
    if odd := [ch * m for m in ch_mult if ch * m % groups]:
        raise ValueError(f"groups: {groups} does not divide {odd[0]} channels; give one that divides ch * ch_mult")
    return [ch * mult for mult in ch_mult]


def _hold_less(network: nn.Module, asked: bool) -> None:
    for layers in network.modules():
        if isinstance(layers, _Layers):
            layers.again = asked


class KLEncoder(nn.Module):
    """Images (B, C, H, W) -> (B, sum of heads): planes of H / f x W / f, flattened.

    Args:
        image_shape: (C, H, W).
        heads: how many numbers the posterior wants of each image.
        ch: channels of the first stage.
        ch_mult: channels of each stage, in multiples of ch; each but the last halves the sides, so that f is 2 to the
            number of stages less one.
        num_res_blocks: residual blocks of each stage; the decoder has one more.
        attention: of all pixels to all in the middle, as the released models have it.
        groups: of the group norms; must divide the channels. Released models have 32.
        quant_conv: a 1x1 convolution on either side of the code, as models of 4 channels have it.
        gradient_checkpointing: training holds what goes into each block alone, and computes anew what is inside: less
            memory, about a third more time, and the same gradients.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        heads: tuple[int, ...],
        *,
        ch: int = 32,
        ch_mult: tuple[int, ...] = (1, 2, 4),
        num_res_blocks: int = 1,
        attention: bool = False,
        groups: int = 8,
        quant_conv: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        widths = _widths(ch, ch_mult, num_res_blocks, groups)
        grid = kl_grid(image_shape, 1, ch_mult=ch_mult)
        channels, rest = divmod(sum(heads), grid[1] * grid[2])
        if rest:
            raise ValueError(f"the posterior wants {sum(heads)} numbers of an image, no planes of {grid[1:]}")
        self.conv_in = nn.Conv2d(image_shape[0], widths[0], 3, padding=1)
        ways = ["halve"] * (len(widths) - 1) + [""]
        self.down_blocks = nn.ModuleList(
            _Stage(a, b, num_res_blocks, groups, way)
            for a, b, way in zip([widths[0], *widths], widths, ways, strict=False)
        )
        self.mid_block = _Middle(widths[-1], groups, attention)
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.quant_conv = nn.Conv2d(channels, channels, 1) if quant_conv else None
        _hold_less(self, gradient_checkpointing)
        lay_out(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of heads)."""
        h = self.conv_in(channels_last(x))
        for stage in self.down_blocks:
            h = stage(h)
        h = self.conv_out(functional.silu(self.conv_norm_out(self.mid_block(h))))
        return (h if self.quant_conv is None else self.quant_conv(h)).flatten(1)


class KLDecoder(nn.Module):
    """Codes (B, Z, h, w) -> (B, C', f h, f w), unbounded: the mirror of :class:`KLEncoder`.

    Args:
        z_shape: (Z, h, w).
        output_shape: (C', H, W), C' being what the likelihood asks for.
        ch: as the encoder's.
        ch_mult: as the encoder's.
        num_res_blocks: as the encoder's; here one more a stage.
        attention: as the encoder's.
        groups: as the encoder's.
        quant_conv: as the encoder's.
        gradient_checkpointing: as the encoder's.
    """

    def __init__(
        self,
        z_shape: tuple[int, int, int],
        output_shape: tuple[int, int, int],
        *,
        ch: int = 32,
        ch_mult: tuple[int, ...] = (1, 2, 4),
        num_res_blocks: int = 1,
        attention: bool = False,
        groups: int = 8,
        quant_conv: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        widths = _widths(ch, ch_mult, num_res_blocks, groups)[::-1]
        self.post_quant_conv = nn.Conv2d(z_shape[0], z_shape[0], 1) if quant_conv else None
        self.conv_in = nn.Conv2d(z_shape[0], widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], groups, attention)
        ways = ["double"] * (len(widths) - 1) + [""]
        self.up_blocks = nn.ModuleList(
            _Stage(a, b, num_res_blocks + 1, groups, way)
            for a, b, way in zip([widths[0], *widths], widths, ways, strict=False)
        )
        self.conv_norm_out = GroupNorm(groups, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], output_shape[0], 3, padding=1)
        _hold_less(self, gradient_checkpointing)
        lay_out(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, C', f h, f w)."""
        h = self.conv_in(channels_last(z if self.post_quant_conv is None else self.post_quant_conv(z)))
        h = self.mid_block(h)
        for stage in self.up_blocks:
            h = stage(h)
        return self.conv_out(functional.silu(self.conv_norm_out(h))).contiguous()
