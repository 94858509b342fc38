"""Sprites drawn from known factors, on the device, when they are read."""

import math

import torch
from torch import Tensor

from vaes.data.drawn import DrawnSet, drawn_splits, mixed_radix
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["FACTOR_NAMES", "FACTOR_SIZES", "SHAPES", "SpriteSet", "draw", "factors_of", "sprites"]

FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
SHAPES = ("square", "ellipse", "heart")

RADIUS = 0.25
"""Every sprite of scale 1 lies in a circle of this radius around its position (the frame has side 1): nothing leaves
the frame."""

HEART_SIZE = 0.773
HEART_RISE = 0.2935
"""Brings the heart x^2 + y^2 - 1 = (x^2 y^3)^(1/3) into the unit circle, its centroid in the middle."""

CHUNK = 2**14
"""Pixels drawn at once on a CPU: few enough for the intermediate results to stay in its cache."""


def factors_of(index: Tensor) -> Tensor:
    """The factors (..., 5) of the sprites numbered `index` (...): mixed radix, y fastest, as in dSprites."""
    return mixed_radix(index, FACTOR_SIZES)


def draw(factors: Tensor, image_size: int = 64, antialias: bool = False) -> Tensor:
    """Draw sprites with `factors` (B, 5) int64 as (B, 1, S, S) uint8: 255 where the pixel's centre is inside the shape,
    else 0.

    Shape 0 is a square, 1 an ellipse with axes 2:1, 2 a heart; scale s is 0.5 + 0.1 s; orientation o turns the shape by
    2 pi o / 40 counter-clockwise; x and y go from 1/4 to 3/4 of the frame, rightwards and downwards. With `antialias` a
    pixel is the mean of 4 x 4 points.
    """
    if antialias:
        fine = draw(factors, 4 * image_size).view(-1, 1, image_size, 4, image_size, 4)
        return fine.float().mean((3, 5)).round_().to(torch.uint8)
    if factors.device.type != "cpu":
        return _draw(factors, image_size)
    rows = max(1, CHUNK // image_size**2)
    return torch.cat([_draw(part, image_size) for part in factors.split(rows)])


def _draw(factors: Tensor, image_size: int) -> Tensor:
    shape, scale, orientation, x, y = factors.unbind(1)
    angle = orientation * (2 * math.pi / FACTOR_SIZES[2])
    radius = RADIUS * (0.5 + 0.1 * scale)
    cos, sin = torch.cos(angle) / radius, torch.sin(angle) / radius
    grid = (torch.arange(image_size, device=factors.device) + 0.5) / image_size
    right = grid - (0.25 + x[:, None] * (0.5 / (FACTOR_SIZES[3] - 1)))
    up = (0.25 + y[:, None] * (0.5 / (FACTOR_SIZES[4] - 1))) - grid
    # Rotated coordinates in units of the circle's radius; each is a sum of a row and a column, and so costs one
    # operation a pixel.
    u = (cos[:, None] * right)[:, None, :] + (sin[:, None] * up)[:, :, None]
    v = (cos[:, None] * up)[:, :, None] - (sin[:, None] * right)[:, None, :]
    inside = _inside(u, v, shape[:, None, None])
    return inside[:, None].to(torch.uint8).mul_(255)


def _inside(u: Tensor, v: Tensor, shape: Tensor) -> Tensor:
    u2, v2 = u * u, v * v
    square = torch.maximum(u2, v2) <= 0.5
    ellipse = u2 + 4 * v2 <= 1
    h = v * (1 / HEART_SIZE) + HEART_RISE
    h2 = h * h
    q = u2 * (1 / HEART_SIZE**2)
    excess = q + h2 - 1
    heart = excess * excess * excess <= q * h2 * h
    return torch.where(shape == 0, square, torch.where(shape == 1, ellipse, heart))


class SpriteSet(DrawnSet):
    """Sprites (1, S, S), drawn when read; `rows` (M,) are their numbers in the grid of factors. Labels are the
    shapes."""

    names, sizes, values = FACTOR_NAMES, FACTOR_SIZES, SHAPES

    def __init__(self, rows: Tensor, image_size: int = 64, antialias: bool = False) -> None:
        super().__init__(rows, image_size)
        self._antialias = antialias

    def _draw(self, factors: Tensor) -> Tensor:
        return draw(factors, self.shape[1], self._antialias)

    def _manner(self) -> str:
        return f"sprites {self.shape[1]} {self._antialias}"

    def _of(self, rows: Tensor) -> "SpriteSet":
        return SpriteSet(rows, self.shape[1], self._antialias)


def sprites(
    *,
    image_size: int = 64,
    n_train: int | None = None,
    n_valid: int = 10_000,
    n_test: int = 10_000,
    antialias: bool = False,
    seed: int = 0,
) -> Splits:
    """White squares, ellipses and hearts on black, one for each of 3 x 6 x 40 x 32 x 32 combinations of ground-truth
    factors: 737,280 images.

    The factors are shape, scale, orientation, x and y, in the order and number of dSprites; sizes and curves are our
    own, and the 40 orientations are the multiples of 2 pi / 40 below 2 pi (dSprites has both 0 and 2 pi, which look the
    same). Nothing is stored: images are drawn as `draw` says. `seed` chooses `n_test` and `n_valid` images; the rest
    trains, or `n_train` of it.

    After "dSprites: disentanglement testing sprites dataset", Matthey, Higgins, Hassabis and Lerchner, 2017,
    https://github.com/google-deepmind/dsprites-dataset.

    Args:
        image_size: pixels a side.
        n_train: how many train; null is all that is not held out.
        n_valid: how many are held out for validation.
        n_test: how many are held out for testing.
        antialias: grey edges instead of black and white ones.
        seed: chooses the images of each split.
    """
    if not 8 <= image_size <= 1024:
        raise UserError(f"data.image_size: {image_size}; sprites are drawn with 8 to 1024 pixels a side")
    whole = SpriteSet(torch.arange(math.prod(FACTOR_SIZES)), image_size, antialias)
    return drawn_splits(whole, n_train, n_valid, n_test, seed)
