import numpy as np
import pytest
import torch

from vaes.errors import UserError
from vaes.evaluate.record import (
    Metric,
    NotApplicable,
    Skipped,
    attempt,
    float_matrix,
    float_tensor,
    jackknife_stderr,
    mean_metric,
    proportion_metric,
    same_length,
    whole_numbers,
)


@pytest.mark.parametrize("check", [float_matrix, float_tensor])
def test_nan_and_infinity_are_refused_with_the_row(check):
    z = np.zeros((10, 3))
    z[4, 1], z[7, 0] = np.nan, np.inf
    with pytest.raises(NotApplicable, match=r"codes hold NaN or infinity in 2 of 10 rows \(the first is row 4\)"):
        check(z, "codes")


@pytest.mark.parametrize("check", [float_matrix, float_tensor])
@pytest.mark.parametrize("shape", [(10,), (10, 2, 2), (10, 0)])
def test_codes_that_are_not_flat_are_refused(check, shape):
    with pytest.raises(NotApplicable, match="one flat vector per row"):
        check(np.zeros(shape), "codes")


@pytest.mark.parametrize("check", [float_matrix, float_tensor])
def test_too_few_rows_are_refused(check):
    with pytest.raises(NotApplicable, match="codes are 9 rows: at least 10"):
        check(np.zeros((9, 2)), "codes", 10)


def test_tensors_and_arrays_are_taken_alike():
    x = torch.randn(5, 2, requires_grad=True)
    np.testing.assert_array_equal(float_matrix(x, "x"), float_matrix(x.detach().numpy(), "x"))
    assert float_tensor(x, "x").dtype == torch.float64
    assert float_tensor(x, "x", lift=False).dtype == torch.float32


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([3, 3, 3], "all alike"),
        ([], "all alike"),
        ([0.5, 1.0], "not whole numbers"),
        ([np.nan, 1.0], "not whole numbers"),
        ([[0, 1]], "one label per row"),
    ],
)
def test_labels_without_meaning_are_refused(labels, reason):
    with pytest.raises(NotApplicable, match=reason):
        whole_numbers(np.array(labels), "labels")


def test_mismatched_lengths_are_a_mistake_not_a_skip():
    with pytest.raises(UserError, match="codes 3, factors 4 rows") as caught:
        same_length(codes=np.zeros(3), factors=np.zeros(4))
    assert not isinstance(caught.value, NotApplicable)


def test_attempt_turns_only_reasons_into_skips():
    def raise_(error):
        raise error

    metric = Metric("m", 1.0, 1, "one")
    assert attempt("m", lambda: metric) == [metric]
    assert attempt("m", lambda: (metric, metric)) == [metric, metric]
    assert attempt("m", lambda: raise_(NotApplicable("why"))) == [Skipped("m", "why")]
    with pytest.raises(UserError, match="mismatch"):
        attempt("m", lambda: raise_(UserError("mismatch")))


def test_stderr_of_a_mean():
    x = np.random.default_rng(0).normal(size=50)
    metric = mean_metric("x", x, "mean")
    assert metric.value == pytest.approx(x.mean())
    assert metric.stderr == pytest.approx(x.std(ddof=1) / np.sqrt(50))
    assert mean_metric("x", x[:1], "mean").stderr is None


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (480, 500)])
def test_wilson_interval_solves_its_equation(hits, n):
    # Its ends are the p at which the observed proportion is 1.96 standard errors away.
    metric = proportion_metric("p", hits, n, "share")
    low, high = metric.interval
    assert low <= metric.value <= high
    for end in (low, high):
        if 0 < end < 1:
            assert abs(hits / n - end) == pytest.approx(1.959963984540054 * np.sqrt(end * (1 - end) / n))


def test_jackknife_of_a_mean_is_its_stderr():
    x = np.random.default_rng(0).normal(size=30)
    left_out = (x.sum() - x) / 29
    assert jackknife_stderr(left_out) == pytest.approx(x.std(ddof=1) / np.sqrt(30))
