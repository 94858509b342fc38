import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vaes.evaluate import NotApplicable, fid, fid_bias, kid, memorisation, precision_recall
from vaes.evaluate.generation import frechet_distance, polynomial_mmd
from vaes.functional import mmd


def normal(n, d=3, seed=0, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(d, seed, rank=None):
    a = normal(rank or d, d, seed)
    return a.T @ a


def test_frechet_of_diagonal_gaussians():
    m, n = torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([0.0, 5.0], dtype=torch.float64)
    s, t = torch.tensor([2.0, 3.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    wanted = float(((m - n) ** 2).sum() + ((s - t) ** 2).sum())
    assert frechet_distance(m, s.square().diag(), n, t.square().diag()) == pytest.approx(wanted)


def test_frechet_of_commuting_covariances():
    q = torch.linalg.qr(normal(5, 5)).Q
    s, t = torch.arange(1.0, 6, dtype=torch.float64), torch.tensor([5.0, 0.0, 2, 7, 1], dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    found = frechet_distance(zero, q @ s.square().diag() @ q.T, zero, q @ t.square().diag() @ q.T)
    assert found == pytest.approx(float(((s - t) ** 2).sum()))


def test_frechet_equals_the_matrix_square_root():
    a, b = covariance(6, 0), covariance(6, 1)
    m = normal(2, 6, 2)
    root = np.trace(sqrtm((a @ b).numpy()).real)
    wanted = float((m[0] - m[1]).square().sum() + a.trace() + b.trace()) - 2 * root
    assert frechet_distance(m[0], a, m[1], b) == pytest.approx(wanted)
    assert frechet_distance(m[1], b, m[0], a) == pytest.approx(wanted)


def test_frechet_of_singular_covariances_keeps_its_digits():
    a = covariance(40, 0, rank=10) * 1e4
    zero = torch.zeros(40, dtype=torch.float64)
    assert frechet_distance(zero, a, zero, a) == pytest.approx(0, abs=1e-8 * float(a.trace()))
    assert frechet_distance(zero, a, zero, 4 * a) == pytest.approx(float(a.trace()))
    assert frechet_distance(zero, a, zero, 0 * a) == pytest.approx(float(a.trace()))


def test_fid_on_samples():
    x = normal(2000)
    same, moved = fid(x, normal(2000, seed=1), features="pixels"), fid(x, x + 2, features="pixels")
    assert moved.value == pytest.approx(12)
    assert 0 < same.value < 0.05
    assert fid(x, x, features="pixels").value == pytest.approx(0, abs=1e-10)
    assert (same.features, same.n) == ("pixels", 2000)
    rotation = torch.linalg.qr(normal(3, 3)).Q
    y = normal(500, seed=2, scale=2)
    assert fid(x @ rotation, y @ rotation, features="p").value == pytest.approx(fid(x, y, features="p").value)


def test_fid_needs_more_rows_than_features():
    with pytest.raises(NotApplicable, match="11 of each are needed"):
        fid(normal(10, 10), normal(50, 10), features="p")
    assert fid(normal(10, 10), normal(50, 10), features="p", min_rows=2).value > 0


def test_polynomial_mmd_by_loops():
    x, y = normal(5), normal(7, seed=1)

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    xx = np.mean([k(x[i], x[j]) for i in range(5) for j in range(5) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(7) for j in range(7) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    assert polynomial_mmd(x, y) == pytest.approx(xx + yy - 2 * xy)
    assert polynomial_mmd(x, y) == pytest.approx(float(mmd(x, y, lambda a, b: (a @ b.T / 3 + 1) ** 3)))


def test_kid_is_unbiased_and_sees_a_difference():
    found = [kid(normal(80, seed=2 * i), normal(80, seed=2 * i + 1), features="p", n_subsets=20) for i in range(60)]
    values = np.array([one.value for one in found])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(60)
    # The stated error is that of repetition, or more: there is no first order where the distributions agree.
    assert 0.9 < np.mean([one.stderr for one in found]) / values.std() < 2.5
    moved = kid(normal(400), normal(400, seed=1, shift=1), features="p")
    assert moved.value > 5 * moved.stderr


def test_kid_reproduces_and_takes_at_most_a_quarter():
    x, y = normal(200), normal(120, seed=1)
    one = kid(x, y, features="p", seed=4)
    assert one == kid(x, y, features="p", seed=4)
    assert one.value != kid(x, y, features="p", seed=5).value
    assert "subsets of 30" in one.definition


@pytest.mark.parametrize(("scale", "shift", "sizes"), [(1.0, 0.6, (120, 120)), (0.7, 0.8, (160, 120))])
def test_the_error_of_kid_is_that_of_repetition_where_distributions_differ(scale, shift, sizes):
    found = [
        kid(normal(sizes[0], seed=2 * i), normal(sizes[1], 3, 2 * i + 1, scale, shift), features="p", n_subsets=40)
        for i in range(250)
    ]
    values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
    assert 0.9 < np.sqrt(np.mean(errors**2)) / values.std() < 1.2
    assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.92


@pytest.mark.parametrize(
    ("n", "m", "d", "scale", "shift"), [(100, 100, 12, 1.0, 0.0), (150, 80, 12, 0.5, 1.0), (60, 60, 30, 1.0, 0.0)]
)
def test_fid_lies_above_its_limit_by_the_bias_it_names(n, m, d, scale, shift):
    spread = torch.linspace(0.3, 3, d, dtype=torch.float64)
    turn = torch.linalg.qr(normal(d, d, 7)).Q
    runs = [(normal(n, d, 2 * i) * spread, normal(m, d, 2 * i + 1, scale, shift) @ turn) for i in range(150)]
    values = np.array([fid(x, y, features="p").value for x, y in runs])
    named = np.array([fid_bias(x, y, features="p").value for x, y in runs])
    c, c_y = spread.square().diag(), scale**2 * torch.eye(d, dtype=torch.float64)
    truth = frechet_distance(torch.zeros(d, dtype=torch.float64), c, shift * turn.sum(0), c_y)
    assert named.mean() == pytest.approx(values.mean() - truth, rel=0.1, abs=4 * values.std() / math.sqrt(150))


def test_the_bias_of_equal_gaussians_is_its_expansion():
    # tr C / n + tr C / n + (1 / n) sum_ij c_i c_j (1 + [i = j]) / (c_i + c_j) with C the identity.
    n, d = 500, 40
    wanted = 2 * d / n + (d * d + d) / 2 / n
    assert fid_bias(normal(n, d), normal(n, d, 1), features="p").value == pytest.approx(wanted, rel=0.15)


def test_fid_is_marked_where_its_bias_is_more_than_a_tenth():
    same = fid(normal(300, 40), normal(300, 40, 1), features="p")
    assert "is the bias of so few rows" in same.note
    assert fid(normal(300, 40), normal(300, 40, 1, shift=3), features="p").note is None
    x, y = normal(500, 256), normal(500, 256, 1)
    assert fid_bias(x, y, features="p").value == pytest.approx(fid(x, y, features="p").value, rel=0.1)


def prdc_by_loops(x, y, k, exact=math.dist):
    def radius(a, i):
        return sorted(exact(a[i], a[j]) for j in range(len(a)) if j != i)[k - 1]

    rx, ry = [radius(x, i) for i in range(len(x))], [radius(y, j) for j in range(len(y))]
    d = np.array([[exact(a, b) for b in y] for a in x])
    in_x, in_y = d <= np.array(rx)[:, None], d <= np.array(ry)[None]
    return in_x.any(0).mean(), in_y.any(1).mean(), in_x.sum(0).mean() / k, in_x.any(1).mean()


@pytest.mark.parametrize("k", [1, 3])
def test_precision_recall_density_coverage_by_loops(k, monkeypatch):
    x, y = normal(40, 2), normal(30, 2, seed=1, scale=0.7, shift=0.4)
    wanted = prdc_by_loops(x.tolist(), y.tolist(), k)
    found = precision_recall(x, y, features="p", k=k, min_rows=10)
    assert [one.name for one in found] == ["precision", "recall", "density", "coverage"]
    assert [one.value for one in found] == pytest.approx(wanted)
    monkeypatch.setattr("vaes.evaluate.generation.CHUNK", 100)
    assert [one.value for one in precision_recall(x, y, features="p", k=k, min_rows=10)] == pytest.approx(wanted)


def squared(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("unit", [1.0, 1 / 255, 3e3])
def test_ties_are_exact_and_balls_closed_whatever_the_unit(levels, unit):
    g = torch.Generator().manual_seed(levels)
    x, y = (torch.randint(0, levels, (60, 12 if levels < 256 else 2), generator=g) for _ in range(2))
    y[:10] = x[:10]
    wanted = prdc_by_loops(x.tolist(), y.tolist(), 5, squared)
    for dtype in (torch.float32, torch.float64):
        found = precision_recall(x.to(dtype) * unit, y.to(dtype) * unit, features="p", k=5)
        assert [one.value for one in found] == pytest.approx(wanted)


@pytest.mark.parametrize(("n", "d", "scale", "shift"), [(200, 2, 0.7, 0.4), (200, 6, 0.8, 0.3)])
def test_errors_of_precision_recall_density_and_coverage_hold_no_set_fixed(n, d, scale, shift):
    found = [precision_recall(normal(n, d, 2 * i), normal(n, d, 2 * i + 1, scale, shift), features="p")
             for i in range(150)]  # fmt: skip
    values, errors = (np.array([[getattr(one, what) for one in run] for run in found]) for what in ("value", "stderr"))
    ratio = np.sqrt((errors**2).mean(0)) / values.std(0)
    inside = (abs(values - values.mean(0)) < 1.96 * errors).mean(0)
    for name, of_name, share, spread in zip(("p", "r", "d", "c"), ratio, inside, values.std(0), strict=True):
        if spread > 0.01:  # the normal interval of a share of nearly 0 or 1 is none
            assert 0.8 < of_name < 1.3, name
            assert share > 0.86, name


def test_density_and_coverage_where_both_sets_agree():
    # Naeem et al. 2020, lemmas 1 and 2.
    n, m, k = 100, 80, 5
    found = np.array(
        [
            [one.value for one in precision_recall(normal(n, 2, 2 * i), normal(m, 2, 2 * i + 1), features="p")]
            for i in range(60)
        ]
    )
    coverage = 1 - math.prod((n - i) / (n + m - i) for i in range(1, k + 1))
    for column, wanted in ((2, 1.0), (3, coverage)):
        assert abs(found[:, column].mean() - wanted) < 4 * found[:, column].std() / math.sqrt(60)


def test_precision_and_recall_tell_missing_modes_from_bad_samples():
    left, right = normal(100, 2, 0), normal(100, 2, 1, shift=50)
    precision, recall, _, coverage = precision_recall(torch.cat([left, right]), normal(100, 2, 2), features="p")
    assert precision.value > 0.9
    assert recall.value < 0.55
    assert coverage.value < 0.55
    precision, recall, density, coverage = precision_recall(left, right, features="p")
    assert precision.value == recall.value == density.value == coverage.value == 0


def test_memorisation_by_brute_force():
    train, test, samples = normal(60), normal(40, seed=1), normal(30, seed=2, scale=0.8)
    found, near, fresh = memorisation(samples, train, test)
    a, b = (torch.cdist(rows, train).min(1).values for rows in (samples, test))
    assert near.value == pytest.approx(float(a.mean()))
    assert fresh.value == pytest.approx(float(b.mean()))
    assert found.value == pytest.approx(float((a[:, None] < b[None]).double().mean()))


def test_memorisation_of_copies_and_of_fresh_data(monkeypatch):
    train, test = normal(300), normal(200, seed=1)
    monkeypatch.setattr("vaes.evaluate.generation.CHUNK", 50_000)
    found, near, _ = memorisation(train[:100], train, test)
    assert (found.value, near.value) == (1.0, 0.0)
    fresh = memorisation(normal(200, seed=2), train, test)[0]
    assert abs(fresh.value - 0.5) < 4 * fresh.stderr
    assert memorisation(normal(200, seed=2, shift=9), train, test)[0].value < 0.1


def test_memorisation_takes_bytes():
    train = torch.randint(0, 256, (50, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert memorisation(train[:25], train, 255 - train[:25])[1].value == 0


METRICS = {
    "fid": lambda x, y: fid(x, y, features="p"),
    "kid": lambda x, y: kid(x, y, features="p"),
    "precision_recall": lambda x, y: precision_recall(x, y, features="p"),
    "memorisation": lambda x, y: memorisation(x, y, y),
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_bad_features_are_refused(metric):
    x, y = normal(60), normal(60, seed=1)
    with pytest.raises(NotApplicable, match="NaN"):
        metric(torch.where(x > 2, torch.nan, x), y)
    with pytest.raises(NotApplicable, match="columns"):
        metric(x, y[:, :2])
    with pytest.raises(NotApplicable, match="flat vector"):
        metric(x[..., None], y)
    with pytest.raises(NotApplicable, match="rows"):
        metric(x[:3], y)
