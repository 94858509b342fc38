import numpy as np
import pytest
from sklearn.feature_selection import mutual_info_classif

from vaes.evaluate import NotApplicable, infomec
from vaes.evaluate.disentanglement.infomec import concentration


def law(n, seed, counts=(3, 4)):
    rng = np.random.default_rng(seed)
    factors = rng.integers(counts, size=(n, len(counts)))
    return factors @ np.array([[1.0, 0.4, 0.0], [0.0, 0.9, 0.8]]) + 0.5 * rng.normal(size=(n, 3)), factors


@pytest.mark.parametrize(
    ("known", "wanted"),
    [(np.eye(3), 1), (np.ones((4, 3)), 0), (np.zeros((2, 2)), 0), ([[3, 1], [0, 2]], (0.5 + 1) / 2),
     ([[2, 1, 1], [0, 0, 0]], (0.25 + 0) / 2)],
)  # fmt: skip
def test_concentration_of_known_matrices(known, wanted):
    assert concentration(np.array(known, float)) == pytest.approx(wanted)


def test_infomec_is_that_of_its_definition():
    codes, factors = law(800, 0)
    known = np.empty((3, 2))
    for k, v in enumerate(factors.T):
        share = np.bincount(v) / len(v)
        information = mutual_info_classif(
            (codes - codes.mean(0)) / codes.std(0), v, discrete_features=False, n_neighbors=10, random_state=0
        )
        known[:, k] = information / -(share * np.log(share)).sum()
    infom, infoe, infoc = infomec(codes, factors)
    assert infom.value == pytest.approx(np.mean([(max(row) / sum(row) - 1 / 2) / (1 / 2) for row in known]))
    assert infoc.value == pytest.approx(np.mean([(max(column) / sum(column) - 1 / 3) / (2 / 3) for column in known.T]))
    assert 0.1 < infoe.value < 0.9
    assert infomec(codes, factors) == (infom, infoe, infoc)


def test_the_information_of_a_gaussian_mixture_is_its_integral():
    """I(z; v) of a fair sign in unit noise, by the trapezium rule, is what the estimator finds within its noise."""
    rng = np.random.default_rng(0)
    factors = rng.integers(2, size=(6_000, 2))
    codes = 2 * factors + rng.normal(size=(6_000, 2))
    t = np.linspace(-8, 10, 20_001)
    density = [np.exp(-0.5 * (t - m) ** 2) / np.sqrt(2 * np.pi) for m in (0, 2)]
    both = np.mean(density, axis=0)
    nats = np.mean([np.trapezoid(p * np.log(p / both), t) for p in density])
    infom, infoe, infoc = infomec(codes, factors)
    # The logistic regression of this law is exact, so its gain is the information too.
    assert infoe.value == pytest.approx(nats / np.log(2), abs=0.03)
    assert min(infom.value, infoc.value) > 0.9


def test_perfect_and_empty_codes():
    factors = np.random.default_rng(0).integers([3, 4], size=(1_500, 2))
    jitter = 0.01 * np.random.default_rng(1).normal(size=(1_500, 2))
    perfect = infomec(factors * [1.0, -2.0] + jitter, factors)
    assert perfect[0].value > 0.97
    assert perfect[2].value > 0.97
    one_hot = np.hstack([factors[:, [k]] == np.arange(n) for k, n in ((0, 3), (1, 4))]).astype(float)
    assert infomec(one_hot, factors)[1].value > 0.99
    noise = infomec(np.random.default_rng(2).normal(size=(1_500, 3)), factors)
    assert noise[1].value < 0.02
    still = np.hstack([factors * [1.0, -2.0] + jitter, 1e-3 * np.random.default_rng(3).normal(size=(1_500, 3))])
    assert infomec(still, factors)[2].value == pytest.approx(perfect[2].value, abs=1e-6)  # codes that do not move
    with pytest.raises(NotApplicable, match="a single code moves"):
        infomec(still[:, [1, 2, 3]], factors)


def test_the_errors_of_infomec_are_those_of_repetition():
    runs = [infomec(*law(200, seed), seed=seed) for seed in range(40)]
    for parts in zip(*runs, strict=True):
        values, errors = np.array([one.value for one in parts]), np.array([one.stderr for one in parts])
        assert 0.75 < np.sqrt(np.mean(errors**2)) / values.std() < 1.5, parts[0].name
        assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.8, parts[0].name
