"""The statistics of a comparison."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from compare.made import make, metric

from vaes.compare import Cell, difference, interval, pool, read_runs
from vaes.evaluate.record import Column


def cell(values: Sequence[float], stderr: float | None = None, images: Column | None = None) -> Cell:
    if len(values) == 1:
        return Cell(values[0], 1, 10, None, stderr, None, None, images)
    return Cell(float(np.mean(values)), len(values), 10, float(np.std(values, ddof=1)), None, *interval(values))


def by_image(values: np.ndarray, rows: Sequence[int] | None = None) -> Cell:
    stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
    return cell([float(values.mean())], stderr, Column(tuple(rows or range(len(values))), tuple(values.tolist())))


def test_runs_that_differ_in_seed_are_pooled_with_a_t_interval(tmp_path: Path) -> None:
    values = [1.0, 2.0, 4.0]
    runs = [make(tmp_path, f"a{i}", [metric("elbo", v)], seed=i) for i, v in enumerate(values)]
    runs.append(make(tmp_path, "b", [metric("elbo", 5.0)], beta=4))
    a, b = pool(read_runs(runs))
    assert [run.config.seed for run in a.runs] == [0, 1, 2]
    (found,) = a.cells.values()
    assert found.runs == 3
    assert found.value == pytest.approx(7 / 3)
    half = 4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3)  # Student's 97.5 % point with 2 degrees of freedom
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert (a.differs, b.differs) == ({"objective.beta": 1.0}, {"objective.beta": 4.0})
    assert (a.label, b.label) == ("a*", "b")
    (single,) = b.cells.values()
    assert (single.low, single.high) == pytest.approx((5 - 0.196, 5 + 0.196), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (("--data.root", "there"), 1),
        (("--train.mirror", "s3://bucket/there", "--train.trackers", "[]"), 1),
        (("--train.print_freq", "7", "--train.eval_freq", "3", "--train.sample_freq", "2", "--train.save_freq", "5",
          "--train.keep", "9", "--data.download", "true"), 1),
        (("--train.precision", "bf16"), 2),
        (("--train.batch_size", "7"), 2),
        (("--data.n_valid", "7"), 2),
    ],
)  # fmt: skip
def test_what_does_not_change_the_result_is_no_difference(
    tmp_path: Path, arguments: tuple[str, ...], columns: int
) -> None:
    own = ("--data.kind", "mnist", "--data.root", "here")
    a = make(tmp_path, "a", [metric("elbo", 1.0)], arguments=own)
    b = make(tmp_path, "b", [metric("elbo", 2.0)], seed=1, arguments=(*own, *arguments))
    assert len(pool(read_runs([a, b]))) == columns


def test_other_images_under_the_same_configuration_are_no_second_seed(tmp_path: Path) -> None:
    a = make(tmp_path, "a", [metric("elbo", 1.0)])
    b = make(tmp_path, "b", [metric("elbo", 2.0)], seed=1, images="others")
    columns = pool(read_runs([a, b]))
    assert [column.differs for column in columns] == [{"images": "fp"}, {"images": "others"}]


def test_seeds_are_pooled_at_their_best_step_or_at_the_same_one(tmp_path: Path) -> None:
    a = make(tmp_path, "a", [metric("elbo", 1.0)], step=5, asked=("best",))
    b = make(tmp_path, "b", [metric("elbo", 2.0)], step=7, seed=1, asked=("best", "last"))
    c = make(tmp_path, "c", [metric("elbo", 2.0)], step=7, seed=2, asked=("last",))
    assert [len(column.runs) for column in pool(read_runs([a, b, c]))] == [2, 1]
    assert [column.differs for column in pool(read_runs([a, b, c]))] == [
        {"checkpoint": "best"}, {"checkpoint": "step 7"}]  # fmt: skip
    assert [len(column.runs) for column in pool(read_runs([b, c], "last"))] == [2]


def test_the_t_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2_000):
        low, high = interval(rng.standard_normal(3))
        hits += low <= 0 <= high
    assert abs(hits / 2_000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2_000)


def test_welch_s_interval_is_that_of_scipy() -> None:
    from scipy.stats import ttest_ind

    a, b = [1.0, 1.4, 0.7, 1.1], [2.0, 3.5]
    found = difference(cell(a), cell(b))
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_paired_interval_is_that_of_scipy() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(3)
    hard = 10 * rng.standard_normal(50)
    a, b = hard + rng.standard_normal(50), hard + 0.3 + rng.standard_normal(50)
    found = difference(by_image(a), by_image(b))
    expected = ttest_rel(b, a).confidence_interval(0.95)
    assert found.paired
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [12, 300])
def test_paired_intervals_cover_and_are_as_narrow_as_what_two_runs_share_allows(n: int) -> None:
    """Images that are hard for one are hard for the other: correlation 0.999, as two seeds of one model have it."""
    rng = np.random.default_rng(4)
    hits = narrow = 0
    for _ in range(1_000):
        hard = 20 * rng.standard_normal(n)
        a, b = (by_image(hard + rng.standard_normal(n) * 0.6 + shift) for shift in (0.0, 0.5))
        found = difference(a, b)
        apart = difference(a._replace(images=None), b)
        hits += found.low <= 0.5 <= found.high
        narrow += found.high - found.low < 0.1 * (apart.high - apart.low)
    assert abs(hits / 1_000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 1_000)
    assert narrow > 990


def test_only_the_same_images_are_paired() -> None:
    values = np.random.default_rng(0).standard_normal(5)
    a = by_image(values)
    for b in (by_image(values, rows=range(1, 6)), by_image(values)._replace(images=None)):
        found = difference(a, b)
        assert not found.paired
        assert found.high == pytest.approx(1.959964 * math.hypot(a.stderr, b.stderr), rel=1e-5)
    assert not difference(cell([1.0, 2.0]), a).paired
    withheld = a._replace(stderr=None)  # the evaluation found that the numbers say nothing of their noise
    assert difference(a, withheld).within_noise is None


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (5, 1), (1, 4)])
def test_differences_between_equals_are_marked_nineteen_times_in_twenty(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(1)
    marked = [
        difference(cell(rng.standard_normal(n_a).tolist()), cell(rng.standard_normal(n_b).tolist())).within_noise
        for _ in range(2_000)
    ]
    assert 0.95 - 4 * 0.005 < np.mean(marked) < 0.995  # Welch's is a little wide with few runs


def test_single_runs_have_the_noise_of_their_images_or_none() -> None:
    a, b = cell([1.0], 0.3), cell([2.0], 0.4)
    assert difference(a, b).low == pytest.approx(1 - 1.959964 * 0.5, rel=1e-5)
    assert difference(a, b).within_noise is False
    assert difference(a, cell([1.5], 0.4)).within_noise is True
    assert difference(a, cell([9.0])).within_noise is None
    assert difference(a, cell([math.nan], 0.1)).within_noise is None


def test_pools_without_any_spread_differ_where_they_differ() -> None:
    assert difference(cell([2.0, 2.0]), cell([2.0, 2.0])).within_noise is True
    assert difference(cell([2.0, 2.0]), cell([3.0, 3.0])).within_noise is False
