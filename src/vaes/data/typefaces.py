"""The ten digits of typefaces that come with matplotlib, leaned, thickened and stretched, drawn when they are read."""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vaes.data.drawn import DrawnSet, drawn_splits
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["FACES", "NumeralSet", "distances", "draw", "numerals"]

FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold",
    "STIXGeneral", "STIXGeneralBol", "cmr10", "cmb10", "cmss10", "cmtt10", "cmti10",
)  # fmt: skip
NAMES = ("digit", "typeface", "lean", "weight", "width")
SIZES = (10, len(FACES), 9, 5, 5)

HEIGHT = 1.36
"""Of every digit; the frame goes from -1 to 1."""
LEAN, WEIGHT, WIDTH = (-0.1, 0.4), (0.0, 0.08), (0.8, 1.1)
"""What the first and the last value of these factors are, the others evenly between: a digit's top moves to the right
by `lean` of its height, its outline outwards by `weight`, and it is `width` times as wide."""

SIDE = 96
"""Of the tables of distances."""


@cache
def distances() -> Tensor:
    """How far each point lies inside of each digit's outline, (typefaces, 10, SIDE, SIDE) float32 in units of which the
    frame has 2 a side, negative outside; rows go downwards."""
    ends = (np.arange(SIDE, dtype=np.float32) + 0.5) * (2 / SIDE) - 1
    x, y = (part.ravel() for part in np.meshgrid(ends, -ends))
    table = [_distance(_outline(face, digit), x, y) for face in FACES for digit in range(10)]
    return torch.from_numpy(np.stack(table)).view(len(FACES), 10, SIDE, SIDE)


def _outline(face: str, digit: int) -> list[NDArray[np.float32]]:
    """The closed lines (n, 2) around a digit, curves broken into short lines, in the middle of the frame."""
    from vaes.drawing import plain_style  # matplotlib takes a while to import, and no other source needs it

    with plain_style():
        import matplotlib
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        name = f"{matplotlib.get_data_path()}/fonts/ttf/{face}.ttf"
        try:
            path = TextPath((0, 0), str(digit), size=100, prop=FontProperties(fname=name))
        except OSError as error:
            raise UserError(f"data.kind: numerals needs {name}, which comes with matplotlib ({error})") from None
    lines = list(path.to_polygons(closed_only=True))
    low, high = np.concatenate(lines).min(0), np.concatenate(lines).max(0)
    return [((line - (low + high) / 2) * (HEIGHT / (high - low)[1])).astype(np.float32) for line in lines]


def _distance(lines: list[NDArray[np.float32]], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signed distance of points (P,) to closed lines, positive where these go around them."""
    a = np.concatenate([line[:-1] for line in lines])
    b = np.concatenate([line[1:] for line in lines])
    (ax, ay), (dx, dy) = a.T, (b - a).T
    px, py = x[:, None] - ax, y[:, None] - ay
    along = np.clip((px * dx + py * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0, 1)
    far = np.sqrt(((px - along * dx) ** 2 + (py - along * dy) ** 2).min(1))
    # Lines that cross the ray to the right, upwards less downwards: the winding number.
    up, down = (py >= 0) & (py < dy), (py < 0) & (py >= dy)
    left = dx * py - dy * px
    winding = (up & (left > 0)).sum(1) - (down & (left < 0)).sum(1)
    return np.where(winding != 0, far, -far).astype(np.float32)


def _spread(span: tuple[float, float], number: Tensor, size: int) -> Tensor:
    return span[0] + number * ((span[1] - span[0]) / (size - 1))


def draw(factors: Tensor, image_size: int = 32) -> Tensor:
    """Draw numerals with `factors` (B, 5) int64 as (B, 1, S, S) uint8, white on black.

    Factors are digit, typeface (of `FACES`), lean, weight and width. A pixel is as white as it lies inside of the
    outline, by the distance of its centre: 0 from half a pixel outside on, 255 from half a pixel inside on.
    """
    device = factors.device
    digit, face, lean, weight, width = factors.unbind(1)
    slope = _spread(LEAN, lean, SIZES[2])[:, None, None]
    thicker = _spread(WEIGHT, weight, SIZES[3])[:, None, None]
    wider = _spread(WIDTH, width, SIZES[4])[:, None, None]
    ends = (torch.arange(image_size, device=device) + 0.5) * (2 / image_size) - 1
    y = ends[None, :, None].expand(len(factors), -1, image_size)
    places = torch.stack([(ends[None, None] + slope * y) / wider, y], -1)
    table = distances().to(device)[face, digit][:, None]
    inside = F.grid_sample(table, places, padding_mode="border", align_corners=False)[:, 0] + thicker
    return (inside * (image_size / 2) + 0.5).clamp_(0, 1).mul_(255).round_().to(torch.uint8)[:, None]


class NumeralSet(DrawnSet):
    """Numerals (1, S, S), drawn when read; `rows` (M,) are their numbers in the grid of factors. Labels are the
    digits."""

    names, sizes, values = NAMES, SIZES, tuple("0123456789")

    def _draw(self, factors: Tensor) -> Tensor:
        return draw(factors, self.shape[1])

    def _manner(self) -> str:
        return f"numerals {self.shape[1]}"

    def _of(self, rows: Tensor) -> "NumeralSet":
        return NumeralSet(rows, self.shape[1])


def numerals(
    *, image_size: int = 32, n_train: int | None = None, n_valid: int = 1000, n_test: int = 3000, seed: int = 0
) -> Splits:
    """The digits 0 to 9 of 13 typefaces that come with matplotlib (DejaVu, STIX and Computer Modern), white on black,
    one for each of 10 x 13 x 9 x 5 x 5 combinations of digit, typeface, lean, weight and width: 29,250 images.

    Nothing is stored: images are drawn as `draw` says. `seed` chooses `n_test` and `n_valid` images; the rest trains,
    or `n_train` of it.

    Args:
        image_size: pixels a side.
        n_train: how many train; null is all that is not held out.
        n_valid: how many are held out for validation.
        n_test: how many are held out for testing.
        seed: chooses the images of each split.
    """
    if not 8 <= image_size <= 1024:
        raise UserError(f"data.image_size: {image_size}; numerals are drawn with 8 to 1024 pixels a side")
    return drawn_splits(NumeralSet(torch.arange(math.prod(SIZES)), image_size), n_train, n_valid, n_test, seed)
