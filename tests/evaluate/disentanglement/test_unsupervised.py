import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from sklearn.metrics import mutual_info_score

from vaes.evaluate import NotApplicable, gaussian_total_correlation, gaussian_wasserstein, mutual_information_of_codes
from vaes.evaluate.disentanglement.information import discretize

SCORES = {
    "total": gaussian_total_correlation,
    "wasserstein": lambda z: gaussian_wasserstein(z)[0],
    "ratio": lambda z: gaussian_wasserstein(z)[1],
    "information": mutual_information_of_codes,
}


def law(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, -0.8], [0.0, 0.0, 2.0]])


def test_scores_of_a_covariance_are_their_formulas():
    z = law()
    c = np.cov(z.T)
    d = np.diag(np.diag(c))
    total = 0.5 * (np.log(np.diag(c)).sum() - np.linalg.slogdet(c)[1])
    distance = np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert gaussian_total_correlation(z).value == pytest.approx(total)
    first, second = gaussian_wasserstein(z)
    assert (first.value, second.value) == pytest.approx((distance, distance / np.trace(c)))


def test_two_gaussians_in_closed_form():
    # Correlation r of unit variances: TC = -log(1 - r^2) / 2; W^2 = 4 - 2 (sqrt(1 + r) + sqrt(1 - r)).
    r = 0.6
    x = np.random.default_rng(0).normal(size=(200_000, 2))
    z = np.stack([x[:, 0], r * x[:, 0] + math.sqrt(1 - r * r) * x[:, 1]], 1)
    assert gaussian_total_correlation(z).value == pytest.approx(-0.5 * math.log(1 - r * r), abs=0.01)
    assert gaussian_wasserstein(z)[0].value == pytest.approx(4 - 2 * (math.sqrt(1 + r) + math.sqrt(1 - r)), abs=0.01)
    assert gaussian_wasserstein(x)[1].value < 1e-4


def test_mutual_information_is_the_mean_over_pairs():
    z = law()
    bins = discretize(z)
    pairs = [mutual_info_score(bins[:, i], bins[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert mutual_information_of_codes(z).value == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_dead_codes_order_and_sign_do_not_matter(score):
    z = law()
    wanted = score(z).value
    assert score(np.insert(z[:, [2, 0, 1]], 1, 7.0, axis=1)).value == pytest.approx(wanted)
    assert score(-z).value == pytest.approx(wanted, rel=0.05)  # a value on an edge may change its bin
    with pytest.raises(NotApplicable, match=r"1 code\(s\) vary"):
        score(z * [1, 0, 0])
    with pytest.raises(NotApplicable, match="NaN"):
        score(np.where(z > 2, np.nan, z))


def test_copies_have_no_total_correlation():
    z = law()
    with pytest.raises(NotApplicable, match="singular"):
        gaussian_total_correlation(np.hstack([z, z[:, :1]]))


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
def test_errors_are_those_of_repetition(score):
    found = [score(law(seed=seed)) for seed in range(200)]
    values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
    assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.35
    assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.9
