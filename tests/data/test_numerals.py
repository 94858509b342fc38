import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vaes.data import identify, numerals, to_float
from vaes.data.hashing import content_hashes
from vaes.data.typefaces import FACES, LEAN, SIZES, WEIGHT, WIDTH, NumeralSet, _distance, _outline, draw
from vaes.errors import UserError

N = math.prod(SIZES)


def rows(digit=3, face=0, lean=2, weight=0, width=2) -> torch.Tensor:
    """Factors, any of which may be a range."""
    values = [torch.as_tensor(v) for v in (digit, face, lean, weight, width)]
    return torch.stack(torch.broadcast_tensors(*values), -1).view(-1, 5)


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return NumeralSet(torch.arange(N), 32).read(torch.arange(N)).numpy()


def test_distance_to_a_ring_of_two_squares_is_the_closed_form() -> None:
    def square(r: float, turn: int) -> np.ndarray:
        return np.array([[-r, -r], [r, -r], [r, r], [-r, r], [-r, -r]], np.float32)[::turn]

    x, y = (part.ravel() for part in np.meshgrid(*2 * [np.linspace(-1, 1, 41, dtype=np.float32) + 0.003]))
    found = _distance([square(0.75, 1), square(0.25, -1)], x, y)

    def to_square(r: float) -> np.ndarray:
        dx, dy = np.abs(x) - r, np.abs(y) - r
        return np.where(np.maximum(dx, dy) > 0, np.hypot(dx.clip(0), dy.clip(0)), np.maximum(dx, dy))

    assert np.allclose(found, np.minimum(-to_square(0.75), to_square(0.25)), atol=1e-6)


@pytest.mark.parametrize("face", range(len(FACES)))
def test_pixels_are_the_share_of_the_outline_that_covers_them(face: int) -> None:
    """Against matplotlib's own test of points, 8 x 8 of them a pixel, leaned and stretched."""
    from matplotlib.path import Path

    lean, width = LEAN[1], WIDTH[0]
    fine = (np.arange(256) + 0.5) / 128 - 1
    x, y = (part.ravel() for part in np.meshgrid(fine, -fine))
    for digit in (0, 4, 8):
        points = np.stack([(x - lean * y) / width, y], 1)
        # Matplotlib fills the holes of a path of several lines: one line at a time, holes taken out.
        inside = np.logical_xor.reduce([Path(line).contains_points(points) for line in _outline(FACES[face], digit)])
        wanted = inside.reshape(32, 8, 32, 8).mean((1, 3))
        found = draw(rows(digit, face, SIZES[2] - 1, 0, 0), 32)[0, 0].numpy() / 255
        # A slanted edge, or two in one pixel, the distance of its centre knows about.
        assert np.abs(found - wanted).mean() < 0.008
        assert abs(found.sum() - wanted.sum()) < 0.03 * wanted.sum()


def test_factors_do_what_they_are_called() -> None:
    area = [draw(rows(weight=k)).sum().item() for k in range(SIZES[3])]
    assert area == sorted(area)
    assert area[-1] > 1.5 * area[0]
    across = [int((draw(rows(width=k)).sum((0, 1, 2)) > 0).sum()) for k in range(SIZES[4])]
    assert across[-1] - across[0] == pytest.approx(across[2] * (WIDTH[1] - WIDTH[0]) / 0.95, abs=2)
    columns = torch.arange(32.0)

    def slope(lean: int) -> float:
        rows_of = draw(rows(1, 7, lean))[0, 0].float()
        top, bottom = rows_of[6:10].sum(0), rows_of[22:26].sum(0)
        return float((top @ columns) / top.sum() - (bottom @ columns) / bottom.sum())

    assert slope(SIZES[2] - 1) - slope(0) == pytest.approx(16 * (LEAN[1] - LEAN[0]), abs=0.5)
    assert WEIGHT[0] == 0  # the typeface as it is


def test_the_whole_set_lies_in_its_frame_and_no_two_are_the_same(whole: np.ndarray) -> None:
    assert (whole.min(), whole.max()) == (0, 255)
    assert not whole[:, 0, [0, -1]].any()
    assert not whole[:, 0, :, [0, -1]].any()
    assert len(np.unique(content_hashes(whole))) == N
    assert to_float(torch.from_numpy(whole[:8]), (-1.0, 1.0)).min() == -1


def test_splits_are_disjoint_and_known_by_what_defines_them(whole: np.ndarray) -> None:
    parts = numerals(n_valid=500, n_test=1000)
    assert [len(part) for part in parts] == [N - 1500, 500, 1000]
    weights = torch.tensor([math.prod(SIZES[k + 1 :]) for k in range(5)])
    numbers = torch.cat([part.factors @ weights for part in parts])
    assert torch.equal(numbers.sort().values, torch.arange(N))
    assert torch.equal(parts.test.labels, parts.test.factors[:, 0])
    assert parts.test.factor_sizes == SIZES
    picked = torch.tensor([3, 7])
    assert np.array_equal(parts.test.read(picked).numpy(), whole[(parts.test.factors @ weights)[picked].numpy()])
    known = identify(parts)
    assert known.difference(identify(numerals(n_valid=500, n_test=1000))) is None
    for other in (numerals(n_valid=500, n_test=1000, seed=1), numerals(n_valid=500, n_test=1000, image_size=16)):
        assert known.difference(identify(other)) == "train and valid and test: other images altogether"


def test_another_process_draws_the_same() -> None:
    words = "import hashlib, torch; from vaes.data import numerals; x = numerals(seed=3).test.read(torch.arange(64));"
    words += "print(hashlib.sha256(x.numpy().tobytes()).hexdigest())"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True).stdout
    here = numerals(seed=3).test.read(torch.arange(64)).numpy().tobytes()
    assert said.strip() == hashlib.sha256(here).hexdigest()


@pytest.mark.parametrize(
    ("options", "says"),
    [({"image_size": 2}, "image_size: 2"), ({"n_train": 10**6}, "n_train"), ({"n_test": N}, "n_test")],
)
def test_refused(options: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=rf"data\.{says}"):
        numerals(**options)
