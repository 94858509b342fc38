import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from vaes.evaluate import beta_vae_score, factor_vae_score, irs
from vaes.evaluate.disentanglement.inputs import FixedFactor

SIZES = {"n_train": 600, "n_test": 400}


def perfect(n=2000, counts=(3, 6, 5)):
    factors = np.random.default_rng(0).integers(counts, size=(n, len(counts)))
    return factors * np.array([1.0, -2.0, 0.5]), factors


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_perfect_codes_score_one(score):
    codes, factors = perfect()
    found = score(codes, factors, **SIZES)
    assert found.value == 1
    assert found.interval[0] > 0.98
    assert score(np.hstack([codes, np.zeros((2000, 2))]), factors, **SIZES).value == 1  # dead codes do no harm


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_noise_scores_as_chance(score):
    _, factors = perfect()
    found = score(np.random.default_rng(1).normal(size=(2000, 4)), factors, **SIZES)
    # A majority table may fit the training votes by luck, not the test votes.
    assert abs(found.value - 1 / 3) < 5 * found.stderr


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_seeds_reproduce(score):
    rng = np.random.default_rng(1)
    codes, factors = perfect()
    codes = codes @ rng.normal(size=(3, 3)) + rng.normal(size=codes.shape)
    one = score(codes, factors, seed=5, **SIZES)
    assert one == score(codes, factors, seed=5, **SIZES)
    assert one.value != score(codes, factors, seed=6, **SIZES).value
    assert 1 / 3 < one.value < 1


def test_factor_vae_does_not_see_scale_order_or_sign():
    rng = np.random.default_rng(1)
    codes, factors = perfect()
    codes = codes @ rng.normal(size=(3, 3)) + rng.normal(size=codes.shape)
    one = factor_vae_score(codes, factors, **SIZES).value
    assert factor_vae_score(codes[:, [2, 0, 1]] * [100, -7, 3], factors, **SIZES).value == one


def test_factor_vae_leaves_collapsed_codes_out():
    codes, factors = perfect()
    # A code of small scale that names factor 0 would win votes if it counted.
    small = factors[:, :1] * 0.01
    with_it = factor_vae_score(np.hstack([codes[:, 1:], small]), factors, min_std=0.001, **SIZES).value
    without = factor_vae_score(np.hstack([codes[:, 1:], small]), factors, **SIZES).value
    assert with_it == 1
    assert without < 0.8
    assert factor_vae_score(codes * 1e-3, factors, **SIZES).value == 0


def mixed(n=500):
    rng = np.random.default_rng(1)
    codes, factors = perfect(n)
    return codes @ rng.normal(size=(3, 3)) + rng.normal(size=codes.shape), factors


def recorded(monkeypatch, method):
    """Everything that a method of FixedFactor returned for all the rows, one list per factor."""
    kept, plain = {}, getattr(FixedFactor, method)

    def record(self, *args):
        rows = plain(self, *args)
        if len(self.value) == len(mixed()[0]):
            kept.setdefault(self.k, []).append(rows)
        return rows

    monkeypatch.setattr(FixedFactor, method, record)
    return kept


def test_factor_vae_votes_by_loops(monkeypatch):
    codes, factors = mixed()
    kept = recorded(monkeypatch, "batches")
    found = factor_vae_score(codes, factors, batch_size=16, **SIZES).value
    label = np.random.default_rng(0).integers(3, size=1000)
    vote = np.empty(1000, int)
    for k in range(3):
        batches = np.concatenate(kept[k])
        assert batches.shape == ((label == k).sum(), 16)
        ratios = [[codes[b, j].var(ddof=1) / codes[:, j].var(ddof=1) for j in range(3)] for b in batches]
        vote[label == k] = np.argmin(ratios, axis=1)
    majority = [np.bincount(label[:600][vote[:600] == j], minlength=3).argmax() for j in range(3)]
    assert found == np.mean([majority[v] == y for v, y in zip(vote[600:], label[600:], strict=True)])
    assert 0.4 < found < 1


def test_beta_vae_points_by_loops(monkeypatch):
    codes, factors = mixed()
    kept = recorded(monkeypatch, "pairs")
    found = beta_vae_score(codes, factors, batch_size=16, **SIZES).value
    label = np.random.default_rng(0).integers(3, size=1000)
    points = np.empty((1000, 3))
    for k in range(3):
        pairs = np.concatenate(kept[k])
        points[label == k] = [np.mean([abs(codes[i] - codes[j]) for i, j in point], 0) for point in pairs]
    model = LogisticRegression().fit(points[:600], label[:600])
    assert found == model.score(points[600:], label[600:])
    assert 0.4 < found < 1


def law(n, seed):
    """Codes that say much of three factors and not all."""
    rng = np.random.default_rng(seed)
    factors = rng.integers([3, 6, 8], size=(n, 3))
    turn = np.random.default_rng(1).normal(size=(3, 3))
    return factors / [2, 5, 7] @ (turn + 1.5 * np.eye(3)) + 0.5 * rng.normal(size=(n, 3)), factors


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_scores_of_few_rows_are_those_of_fresh_ones_within_their_errors(score):
    options = {"batch_size": 12, "n_train": 600, "n_test": 1_500}
    fresh = [score(*law(100_000, 900 + i), **options, seed=i).value for i in range(6)]
    found = [score(*law(500, i), **options, seed=i) for i in range(40)]
    values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
    assert 0.5 < np.mean(fresh) < 0.97
    assert abs(values.mean() - np.mean(fresh)) < 0.4 * values.std() + 0.01
    assert 0.9 < np.sqrt(np.mean(errors**2)) / values.std() < 1.35
    inside = [one.interval[0] < np.mean(fresh) < one.interval[1] for one in found]
    assert np.mean(inside) > 0.85


def test_where_half_the_rows_are_too_few_there_is_no_error():
    found = factor_vae_score(*law(600, 0), batch_size=50, n_train=100, n_test=100)
    assert (found.stderr, found.interval) == (None, None)
    assert "without an error" in found.note


def irs_by_loops(codes, factors, quantile):
    weights, scores = [], []
    for z in codes.T:
        if z.var() == 0:
            continue
        largest = max(abs(z - z.mean()))
        robust = []
        for v in factors.T:
            bins = np.digitize(v, np.histogram(v, 20)[1][:-1])
            deviations = []
            for b in np.unique(bins):
                group = z[bins == b]
                deviations.append(np.quantile(abs(group - group.mean()), quantile))
            robust.append(1 - np.mean(deviations) / largest)
        weights.append(largest)
        scores.append(max(robust))
    return np.dot(weights, scores) / sum(weights)


@pytest.mark.parametrize("quantile", [0.99, 1.0])
def test_irs_by_loops(quantile):
    rng = np.random.default_rng(0)
    factors = rng.integers([3, 6, 40], size=(700, 3))
    codes = np.hstack([factors @ rng.normal(size=(3, 3)) + rng.normal(size=(700, 3)), np.ones((700, 1))])
    assert irs(codes, factors, quantile=quantile).value == pytest.approx(irs_by_loops(codes, factors, quantile))


def test_irs_of_perfect_codes_and_of_noise():
    codes, factors = perfect()
    assert irs(codes, factors).value == pytest.approx(1)
    # A fixed factor leaves uniform noise as it is: its 0.99 quantile of |z| stays 0.99 of the largest.
    noise = np.random.default_rng(1).uniform(-1, 1, size=(20_000, 3))
    factors = np.random.default_rng(2).integers(4, size=(20_000, 2))
    assert irs(noise, factors).value == pytest.approx(0.01, abs=0.01)


def test_irs_does_not_see_sign_shift_or_order():
    rng = np.random.default_rng(0)
    codes, factors = perfect()
    codes = codes @ rng.normal(size=(3, 3)) + rng.normal(size=codes.shape)
    assert irs(5 - codes[:, [1, 2, 0]], factors[:, ::-1]).value == pytest.approx(irs(codes, factors).value)
