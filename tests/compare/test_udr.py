"""The unsupervised disentanglement ranking against cases that are known in closed form."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from compare.made import make, metric

from vaes.compare import pool, read_runs, rows
from vaes.compare.udr import scores
from vaes.evaluate.record import Column

GRID = np.array(list(itertools.product(range(5), range(4), range(6))), dtype=float)  # exactly uncorrelated
SURE = np.ones(3)


def test_the_same_dimensions_in_any_order_direction_and_scale_agree_fully() -> None:
    other = np.exp(-GRID[:, [2, 0, 1]])
    assert scores([GRID, other], [SURE, SURE]) == pytest.approx([1.0, 1.0])


def test_a_dimension_that_the_other_lacks_counts_nothing() -> None:
    """Two of three match, so 2 of the 3 and 2 of the 2 dimensions count 1 each."""
    assert scores([GRID, GRID[:, :2]], [SURE, SURE[:2]]) == pytest.approx([4 / 5, 4 / 5])
    assert scores([GRID, GRID], [SURE, np.array([1.0, 0.02, 0.009])]) == pytest.approx([4 / 5, 4 / 5])
    assert scores([GRID, GRID], [SURE, 0 * SURE]) == [0.0, 0.0]
    assert scores([GRID, 0 * GRID], [SURE, SURE]) == [0.0, 0.0]


def test_a_turn_by_an_eighth_of_two_gaussians() -> None:
    """Correlations of 1 / sqrt 2, which are 6 / pi asin(rho / 2) in ranks: r^2 / 2 r for each dimension."""
    x = np.random.default_rng(0).standard_normal((100_000, 2))
    turned = x @ np.array([[1.0, 1.0], [1.0, -1.0]])
    r = 6 / math.pi * math.asin(0.5 / math.sqrt(2))
    assert scores([x, turned], [SURE[:2], SURE[:2]]) == pytest.approx([r / 2, r / 2], abs=0.005)


def test_a_model_s_score_is_the_median_over_the_others() -> None:
    found = scores([GRID, GRID, GRID, GRID[:, :2]], [SURE, SURE, SURE, SURE[:2]])
    assert found == pytest.approx([1.0, 1.0, 1.0, 4 / 5])


def test_pools_have_it_where_their_codes_are_of_the_same_images(tmp_path: Path) -> None:
    runs = []
    for seed, (codes, chosen) in enumerate([(GRID, "x"), (GRID[:, ::-1], "x"), (GRID, "x"), (GRID, "y")]):
        columns = {f"code_{j}": Column(tuple(range(len(codes))), tuple(codes[:, j].tolist())) for j in range(3)}
        found = [metric(f"kl_dim_{j}", 1.0, None) for j in range(3)]
        runs.append(make(tmp_path, f"r{seed}", found, seed=seed, columns=columns, chosen=chosen, group_name="latent",
                         beta=1 + seed // 2))  # fmt: skip
    found = [row for row in rows(pool(read_runs(runs))) if row.key.name == "udr"]
    (row,) = found
    assert [cell and cell.value for cell in row.cells] == [pytest.approx(1.0), None]
    assert row.better == "↑"
