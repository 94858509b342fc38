import math

import pytest
import torch

from vaes.data.sprite_grid import FACTOR_SIZES, SpriteSet, draw, factors_of, sprites
from vaes.errors import UserError

N = math.prod(FACTOR_SIZES)


def area(images: torch.Tensor) -> torch.Tensor:
    return images.double().sum((1, 2, 3)) / 255


def centroid(images: torch.Tensor) -> torch.Tensor:
    """(B, 2): x and y in pixels."""
    mass = images[:, 0].double()
    grid = torch.arange(images.shape[-1]) + 0.5
    return torch.stack([(mass.sum(1) * grid).sum(1), (mass.sum(2) * grid).sum(1)], 1) / mass.sum((1, 2))[:, None]


def rows(shape=0, scale=5, orientation=0, x=16, y=16) -> torch.Tensor:
    """Factors, any of which may be a range."""
    values = [torch.as_tensor(v) for v in (shape, scale, orientation, x, y)]
    return torch.stack(torch.broadcast_tensors(*values), -1).view(-1, 5)


def test_factors_are_mixed_radix_with_y_fastest() -> None:
    brute = torch.cartesian_prod(*(torch.arange(size) for size in FACTOR_SIZES))
    assert torch.equal(factors_of(torch.arange(N)), brute)


def test_drawing_is_binary_and_by_pixel_centres() -> None:
    """Against the shapes' inequalities, one pixel at a time in plain Python."""
    size, factors = 24, factors_of(torch.randint(0, N, (12,), generator=torch.Generator().manual_seed(0)))
    images = draw(factors, size)
    assert set(images.unique().tolist()) == {0, 255}
    wrong = 0
    for image, (shape, scale, orientation, x, y) in zip(images[:, 0], factors.tolist(), strict=True):
        r, turn = 0.25 * (0.5 + 0.1 * scale), 2 * math.pi * orientation / 40
        for i in range(size):
            for j in range(size):
                right, up = (j + 0.5) / size - 0.25 - x / 62, 0.25 + y / 62 - (i + 0.5) / size
                u = (math.cos(turn) * right + math.sin(turn) * up) / r
                v = (math.cos(turn) * up - math.sin(turn) * right) / r
                h = v / 0.773 + 0.2935
                inside = (
                    max(abs(u), abs(v)) <= math.sqrt(0.5),
                    u**2 + (2 * v) ** 2 <= 1,
                    ((u / 0.773) ** 2 + h**2 - 1) ** 3 <= (u / 0.773) ** 2 * h**3,
                )[shape]
                wrong += int(image[i, j]) != 255 * inside
    # float32 may decide a pixel on the very edge otherwise.
    assert wrong <= 2


def test_position_moves_the_centroid_and_nothing_else() -> None:
    # Turned by three steps, because the edges of an upright square all cross a row of pixels' centres at once.
    for shape in range(3):
        across = centroid(draw(rows(shape, 5, 3, x=torch.arange(32)), 128))
        assert (across[:, 0] - (32 + torch.arange(32) * 64 / 31)).abs().max() < 0.3
        assert (across[:, 1] - (32 + 16 * 64 / 31)).abs().max() < 0.3
        down = centroid(draw(rows(shape, 5, 3, y=torch.arange(32)), 128))
        assert (down[:, 1] - (32 + torch.arange(32) * 64 / 31)).abs().max() < 0.3
        assert (down[:, 0] - (32 + 16 * 64 / 31)).abs().max() < 0.3


def test_area_grows_with_the_square_of_the_scale() -> None:
    # Unit circle's radius at scale 1 is a quarter of the frame; the heart's area is 3.6619 in its own units.
    unit = torch.tensor([2.0, math.pi / 2, 3.6619 * 0.773**2])
    scale = 0.5 + 0.1 * torch.arange(6)
    for shape in range(3):
        found = area(draw(rows(shape, torch.arange(6), 3), 256))
        assert torch.allclose(found / (64 * scale) ** 2, unit[shape].double(), rtol=0.01)


def test_orientation_turns_counter_clockwise() -> None:
    # The ellipse's long axis, from second moments, at angles below a half turn.
    o = torch.arange(20)
    images = draw(rows(1, orientation=o), 128)[:, 0].double() / 255
    grid = torch.arange(128) + 0.5
    c = centroid(images[:, None])
    dx, dy = grid[None, None, :] - c[:, :1, None], c[:, 1:, None] - grid[None, :, None]
    xx, yy, xy = ((images * m).sum((1, 2)) for m in (dx * dx, dy * dy, dx * dy))
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    off = (angle - 2 * math.pi * o / 40 + math.pi / 2) % math.pi - math.pi / 2
    assert off.abs().max() < 0.02


def test_symmetries() -> None:
    o = torch.arange(40)
    square, ellipse, heart = (draw(rows(shape, orientation=o, x=10, y=20)) for shape in range(3))
    edge = 0.02 * area(square).max()

    def differ(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a != b).sum((1, 2, 3))

    assert differ(square, square.roll(10, 0)).max() <= edge
    assert differ(ellipse, ellipse.roll(20, 0)).max() <= edge
    assert differ(ellipse, ellipse.roll(10, 0)).min() > 10 * edge
    for turn in (5, 10, 20):
        assert differ(heart, heart.roll(turn, 0)).min() > 3 * edge


def test_a_quarter_turn_of_the_factor_is_a_quarter_turn_of_the_picture() -> None:
    # Positions 0 and 31 mirror each other about the frame's centre, and a counter-clockwise turn takes (x, y) to (y, 31
    # - x).
    before = draw(rows(2, 5, 3, x=6, y=24))
    after = draw(rows(2, 5, 13, x=24, y=25))
    assert (torch.rot90(before, 1, (2, 3)) != after).sum() <= 4


def test_heart_stands_upright_and_is_mirror_symmetric() -> None:
    heart = draw(rows(2, x=torch.tensor([0, 31])), 65)[:, 0]
    assert torch.equal(heart[0], heart[1].flip(-1))
    occupied = heart[0].sum(1).nonzero()
    # Its point is below: the last row is narrower than the first, where the two lobes are.
    widths = (heart[0] > 0).sum(1)
    assert widths[occupied[0]] > widths[occupied[-1]]


def test_nothing_leaves_the_frame() -> None:
    # At the first position the circle of radius 1/4 touches two sides of the frame, and no point lies outside of it.
    big = draw(rows(torch.arange(3)[:, None], orientation=torch.arange(40), x=0, y=0), 256)[:, 0]
    i = (torch.arange(256) + 0.5) / 256 - 0.25
    outside = (i[:, None] ** 2 + i[None] ** 2).sqrt() > 0.2505
    assert big[:, outside].eq(0).all()
    # What the frame cuts off would be missing from the area.
    for shape in range(3):
        corners = torch.cartesian_prod(torch.tensor([0, 31]), torch.tensor([0, 31])).repeat(40, 1)
        turned = torch.arange(40).repeat_interleave(4)
        there = area(draw(rows(shape, 5, turned, corners[:, 0], corners[:, 1]), 128))
        middle = area(draw(rows(shape, 5, turned, 16, 16), 128))
        assert (there / middle - 1).abs().max() < 0.02


def test_antialiasing_averages_sixteen_points() -> None:
    factors = rows(torch.arange(3), 3, 7)
    fine = draw(factors, 128).double().view(3, 1, 32, 4, 32, 4).mean((3, 5))
    assert torch.equal(draw(factors, 32, antialias=True).double(), fine.round())


def test_set_draws_its_rows() -> None:
    images = SpriteSet(torch.arange(N), 32)
    part = images.subset(torch.tensor([5, 700_000, 123_456]))
    assert torch.equal(part.factors, factors_of(torch.tensor([5, 700_000, 123_456])))
    assert torch.equal(part.labels, part.factors[:, 0])
    assert torch.equal(part.read(torch.tensor([1, 1])), draw(factors_of(torch.tensor([700_000, 700_000])), 32))
    assert part.to("cpu").shape == (1, 32, 32)


def test_splits_are_disjoint_and_complete() -> None:
    parts = sprites()
    assert [len(part) for part in parts] == [N - 20_000, 10_000, 10_000]
    weights = torch.tensor([245_760, 40_960, 1024, 32, 1])
    numbers = torch.cat([part.factors @ weights for part in parts])
    assert torch.equal(numbers.sort().values, torch.arange(N))
    assert parts.train.factor_names == ("shape", "scale", "orientation", "x", "y")
    few = sprites(n_train=100, image_size=32)
    assert len(few.train) == 100
    assert torch.equal(few.test.factors, parts.test.factors)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"image_size": 2}, "image_size: 2"), ({"n_train": 10**6}, "n_train"), ({"n_test": N}, "n_test")],
)
def test_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=rf"data\.{says}"):
        sprites(**options)
