"""Networks of large images a tile at a time: bounded memory, and seams that are blended."""

import copy

import torch
from torch import Tensor, nn

from vaes.errors import UserError
from vaes.model import VAE

__all__ = ["OVERLAP", "tiled"]

OVERLAP = 4
"""Neighbouring tiles share a fourth of their sides."""


def tiled(model: VAE, image_shape: tuple[int, int, int], tile: int) -> VAE:
    """The model, whose codes are grids, with an encoder and a decoder that see squares of ``tile`` pixels a side, one
    at a time; the parameters are the model's own.

    Where tiles overlap, one fades linearly into the other. What a network makes of a place is what it makes of it in
    the whole image as far as it looks no further than the tile: exact for convolutions away from the tile's borders;
    group norms take the statistics of the tile, and attention sees the tile alone. An image no larger than a tile is
    computed as ever.

    Raises:
        UserError: codes are flat, or the tile is no multiple of the factor by which sides are divided.
    """
    if len(model.z_shape) != 3:
        raise UserError(f"--tile: codes of this run are {model.z_dim} flat numbers, and only grids have tiles")
    f = image_shape[1] // model.z_shape[1]
    if tile < OVERLAP * f or tile % f:
        fit = max(OVERLAP, tile // f) * f
        raise UserError(f"--tile {tile}: must be a multiple of {f}, and {OVERLAP * f} or more; {fit} fits")
    made = copy.copy(model)
    made._modules = dict(model._modules)
    made.encoder, made.decoder = _Encoder(model.encoder, tile // f, f), _Decoder(model.decoder, tile // f, f)
    return made


class _Tiles(nn.Module):
    """A network applied to tiles of ``side`` places of the code each; ``f`` pixels are a place."""

    def __init__(self, network: nn.Module, side: int, f: int) -> None:
        super().__init__()
        self.network, self.side, self.f = network, side, f
        self.training = network.training

    def _over(self, x: Tensor, scale: tuple[int, int]) -> Tensor:
        """x (1, C, ...) of ``scale[0]`` pixels a place -> (1, C', ...) of ``scale[1]``."""
        before, after = scale
        places = [n // before for n in x.shape[2:]]
        rows, columns = (_cuts(n, self.side) for n in places)
        of_rows, of_columns = (_weights(n, cuts, after, x) for n, cuts in zip(places, (rows, columns), strict=True))
        canvas: Tensor | None = None
        for (top, bottom), down in zip(rows, of_rows, strict=True):
            for (left, right), across in zip(columns, of_columns, strict=True):
                part = self._part(x[:, :, before * top : before * bottom, before * left : before * right])
                if canvas is None:
                    canvas = part.new_zeros(1, part.shape[1], after * places[0], after * places[1])
                weight = (down[:, None] * across).to(part)
                canvas[:, :, after * top : after * bottom, after * left : after * right] += part * weight
        assert canvas is not None
        return canvas

    def _part(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _Encoder(_Tiles):
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, sum of heads): planes, flattened."""
        return torch.cat([self._over(one, (self.f, 1)).flatten(1) for one in x.split(1)])

    def _part(self, x: Tensor) -> Tensor:
        h, w = (n // self.f for n in x.shape[2:])
        found: Tensor = self.network(x)
        return found.unflatten(1, (-1, h, w))


class _Decoder(_Tiles):
    def forward(self, z: Tensor) -> Tensor:
        """Codes (B, Z, h, w) -> (B, C', f h, f w)."""
        return torch.cat([self._over(one, (1, self.f)) for one in z.split(1)])

    def _part(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x)
        return found


def _cuts(n: int, side: int) -> list[tuple[int, int]]:
    """Where tiles begin and end along n places: all of one length, evenly spread."""
    if n <= side:
        return [(0, n)]
    gaps = -(-(n - side) // (side - side // OVERLAP))
    starts = [i * (n - side) // gaps for i in range(gaps + 1)]
    return [(start, start + side) for start in starts]


def _weights(n: int, cuts: list[tuple[int, int]], scale: int, like: Tensor) -> list[Tensor]:
    """Of each tile's pixels along a side of n places: they add up to 1 everywhere, and fall linearly towards a border
    that another tile covers."""
    found = []
    for start, end in cuts:
        at = torch.arange(scale * start, scale * end, device=like.device, dtype=torch.float64) + 0.5
        reach = scale * ((end - start) // OVERLAP)
        rise = at - scale * start if start > 0 else torch.full_like(at, reach)
        fall = scale * end - at if end < n else torch.full_like(at, reach)
        found.append((torch.minimum(rise, fall) / max(reach, 1)).clamp(max=1))
    total = torch.zeros(scale * n, device=like.device, dtype=torch.float64)
    for (start, end), weight in zip(cuts, found, strict=True):
        total[scale * start : scale * end] += weight
    return [weight / total[scale * start : scale * end] for (start, end), weight in zip(cuts, found, strict=True)]
