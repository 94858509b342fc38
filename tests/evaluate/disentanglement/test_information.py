import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

import vaes.evaluate.disentanglement.information as information
from vaes.evaluate import NotApplicable, mig_chen, mig_locatello, modularity
from vaes.evaluate.disentanglement.information import discretize, mutual_information
from vaes.evaluate.latent import jackknife_groups


def data(n=500, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.integers([3, 6, 5], size=(n, 3))
    return factors @ rng.normal(size=(3, 4)) + rng.normal(size=(n, 4)), factors


def information_by_loops(codes, factors):
    """Explicit sums over the cells of numpy's own 20-bin histograms."""
    found = np.zeros((codes.shape[1], factors.shape[1]))
    for j, z in enumerate(codes.T):
        bins = np.digitize(z, np.histogram(z, 20)[1][:-1])
        for k, v in enumerate(factors.T):
            for b in np.unique(bins):
                for value in np.unique(v):
                    p = np.mean((bins == b) & (v == value))
                    if p > 0:
                        found[j, k] += p * math.log(p / (np.mean(bins == b) * np.mean(v == value)))
    return found


def test_bins_are_those_of_numpy():
    codes, _ = data()
    for d in range(4):
        wanted = np.digitize(codes[:, d], np.histogram(codes[:, d], 20)[1][:-1]) - 1
        np.testing.assert_array_equal(discretize(codes)[:, d], wanted)
    assert len(np.unique(discretize(np.full((9, 1), 3.7)))) == 1


def test_mutual_information_of_tables():
    rng = np.random.default_rng(0)
    a, b = rng.integers(4, size=(2, 200))
    table = np.zeros((4, 4))
    np.add.at(table, (a, b), 1)
    assert mutual_information(table) == pytest.approx(mutual_info_score(a, b))
    assert mutual_information(np.eye(5)) == pytest.approx(math.log(5))
    assert mutual_information(np.outer([1, 2, 3], [4, 5])) == 0
    assert mutual_information(np.stack([table, table.T]))[1] == pytest.approx(mutual_info_score(a, b))


def test_mig_and_modularity_by_explicit_sums():
    codes, factors = data()
    known = information_by_loops(codes, factors)
    gaps, modular = [], []
    for k, v in enumerate(factors.T):
        share = np.bincount(v) / len(v)
        first, second = sorted(known[:, k])[::-1][:2]
        gaps.append((first - second) / -(share * np.log(share)).sum())
    for row in known:
        best = row.max() ** 2
        modular.append(1 - (sum(row**2) - best) / (best * 2))
    assert mig_locatello(codes, factors).value == pytest.approx(np.mean(gaps))
    assert modularity(codes, factors).value == pytest.approx(np.mean(modular))


def perfect(n=3000):
    factors = np.random.default_rng(0).integers([3, 6, 5], size=(n, 3))
    return factors * [1.0, -2.0, 0.1], factors


def test_perfect_codes():
    codes, factors = perfect()
    assert mig_locatello(codes, factors).value == pytest.approx(1, abs=0.01)
    assert modularity(codes, factors).value == pytest.approx(1, abs=1e-3)


def test_codes_that_copy_each_other_have_no_gap():
    codes, factors = perfect()
    assert mig_locatello(np.hstack([codes, codes]), factors).value == pytest.approx(0, abs=1e-12)


def test_dead_codes_count_zero_in_modularity_and_nothing_in_mig():
    codes, factors = perfect()
    assert information.mutual_information(np.full((1, 5), 3.0)) == 0
    more = np.hstack([codes, np.full((3000, 1), 7.0)])
    assert modularity(more, factors).value == pytest.approx(modularity(codes, factors).value * 3 / 4)
    assert mig_locatello(more, factors).value == pytest.approx(mig_locatello(codes, factors).value)


def test_noise_has_next_to_no_gap():
    _, factors = perfect()
    assert mig_locatello(np.random.default_rng(1).normal(size=(3000, 6)), factors).value < 0.01


def test_order_sign_and_scale_of_codes_and_order_of_factors_do_not_matter():
    codes, factors = data()
    turned = codes[:, [2, 0, 3, 1]] * [3, 1e-3, 100, 1]
    for score in (mig_locatello, modularity):
        wanted = score(codes, factors).value
        assert score(turned, factors[:, [1, 2, 0]]).value == pytest.approx(wanted)
        # Bins are closed on the left, so a change of sign may move a value on an edge.
        assert score(-codes, factors).value == pytest.approx(wanted, abs=5e-3)


@pytest.mark.parametrize("score", [mig_locatello, modularity])
def test_stderr_matches_repetition(score):
    found = [score(*data_of_one_law(seed)) for seed in range(40)]
    spread = np.std([one.value for one in found])
    assert 0.5 < np.mean([one.stderr for one in found]) / spread < 2


def data_of_one_law(seed):
    rng = np.random.default_rng(seed)
    factors = rng.integers([3, 4], size=(1000, 2))
    return np.clip(factors + [[0.3, 0.5]] * rng.normal(size=(1000, 2)), -0.7, 3.7), factors


def chen_by_loops(mean, logvar, factors, z):
    """Entropies of mixtures by explicit sums over draws and components."""

    def entropy(rows, j):
        total = 0.0
        for s in rows:
            density = [
                math.exp(-0.5 * (z[s, j] - mean[n, j]) ** 2 / math.exp(logvar[n, j]))
                / math.sqrt(2 * math.pi * math.exp(logvar[n, j]))
                for n in rows
            ]
            total -= math.log(sum(density) / len(rows)) / len(rows)
        return total

    everyone, gaps = range(len(mean)), []
    for v in factors.T:
        share = np.bincount(v) / len(v)
        information = []
        for j in range(mean.shape[1]):
            conditional = sum(p * entropy(np.flatnonzero(v == value), j) for value, p in enumerate(share))
            information.append(max(0.0, entropy(everyone, j) - conditional))
        first, second = sorted(information)[::-1][:2]
        gaps.append((first - second) / -(share * np.log(share)).sum())
    return np.mean(gaps)


def test_mig_chen_by_explicit_sums(monkeypatch):
    rng = np.random.default_rng(0)
    factors = rng.integers([2, 3], size=(100, 2))
    mean, logvar = np.hstack([factors, factors]) + 0.3 * rng.normal(size=(100, 4)), rng.normal(-2, 0.5, size=(100, 4))
    kept = []

    def draw(like, generator):
        kept.append(torch.linspace(-1, 1, like.numel(), dtype=like.dtype).view_as(like))
        return kept[0]

    monkeypatch.setattr(information, "draw_noise", draw)
    found = mig_chen(mean, logvar, factors, min_rows=1)
    z = mean + np.exp(logvar / 2) * kept[0].numpy()
    assert found.value == pytest.approx(chen_by_loops(mean, logvar, factors, z), abs=1e-5)
    group = jackknife_groups(100, 20).numpy()
    left_out = [
        chen_by_loops(mean[group != g], logvar[group != g], factors[group != g], z[group != g]) for g in range(3)
    ]
    kept_values = []
    monkeypatch.setattr(information, "jackknife_stderr", lambda values: kept_values.extend(values) or 0.0)
    mig_chen(mean, logvar, factors, min_rows=1)
    assert kept_values[:3] == pytest.approx(left_out, abs=1e-5)


def test_mig_chen_refuses_few_rows_of_a_value_and_names_how_many_it_rests_on():
    rng = np.random.default_rng(0)
    factors = rng.integers([3, 40], size=(500, 2))
    codes = rng.normal(size=(500, 4))
    with pytest.raises(NotApplicable, match=r"factor 1 takes one of its values in \d+ of 500 rows, and 50 are needed"):
        mig_chen(codes, np.full_like(codes, -4.0), factors)
    one, other = (mig_chen(codes[:n], np.full((n, 4), -4.0), factors[:n, :1]) for n in (400, 500))
    assert "400 sampled codes" in one.definition
    assert one.definition != other.definition


def test_the_error_of_mig_chen_is_that_of_repetition():
    def law(seed):
        rng = np.random.default_rng(seed)
        factors = rng.integers([2, 3], size=(300, 2))
        mean = np.hstack([factors, rng.normal(size=(300, 1))]) + 0.5 * rng.normal(size=(300, 3))
        return mig_chen(mean, np.full_like(mean, -2.0), factors, seed=seed)

    found = [law(seed) for seed in range(120)]
    values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
    assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.3
    assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.88


def test_mig_chen_of_perfect_and_of_collapsed_codes():
    codes, factors = perfect(1000)
    wide = np.hstack([codes * [10, 10, 100], np.zeros((1000, 1))])
    assert mig_chen(wide, np.full_like(wide, -2.0), factors).value == pytest.approx(1, abs=0.01)
    noise = np.random.default_rng(1).normal(size=(1000, 3)) * 1e-3
    assert mig_chen(noise, np.zeros_like(noise), factors).value == pytest.approx(0, abs=1e-3)


def test_mig_chen_reproduces_and_bounds_its_draws():
    codes, factors = data(200)
    logvar = np.zeros_like(codes)
    one = mig_chen(codes, logvar, factors, n_samples=50, min_rows=1, seed=1)
    assert one == mig_chen(codes, logvar, factors, n_samples=50, min_rows=1, seed=1)
    assert one.value != mig_chen(codes, logvar, factors, n_samples=50, min_rows=1, seed=2).value


def test_the_two_gaps_are_different_numbers_under_different_names():
    codes, factors = data()
    one, other = mig_locatello(codes, factors), mig_chen(codes, np.zeros_like(codes), factors)
    assert (one.name, other.name) == ("mig_locatello", "mig_chen")
    assert abs(one.value - other.value) > 1e-3
