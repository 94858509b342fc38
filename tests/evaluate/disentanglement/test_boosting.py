import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from vaes.evaluate.disentanglement.boosting import boost


def problem(n=800, n_classes=4, decimals=None, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    if decimals is not None:
        x = x.round(decimals)
    score = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=n)
    return x, np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("decimals", [None, 1])
def test_the_trees_are_those_of_scikit_learn(n_classes, decimals):
    x, y = problem(2000, n_classes, decimals)
    x_test, _ = problem(300, decimals=decimals, seed=1)
    found = boost(x, y, x_test, n_stages=6)
    wanted, other = (GradientBoostingClassifier(n_estimators=6, random_state=i).fit(x, y) for i in (0, 1))
    # No ties between inputs here: the library's own seeds agree.
    np.testing.assert_allclose(other.feature_importances_, wanted.feature_importances_, atol=1e-10)
    np.testing.assert_allclose(found.importances, wanted.feature_importances_, atol=1e-10)
    np.testing.assert_array_equal(found.train_prediction, wanted.predict(x))
    np.testing.assert_array_equal(found.test_prediction, wanted.predict(x_test))


def test_at_full_length_it_differs_as_two_seeds_of_scikit_learn_do():
    # Late trees meet nodes where several inputs split alike, and ties are broken at random.
    x, y = problem(300, 7)
    wanted = [GradientBoostingClassifier(random_state=i).fit(x, y).feature_importances_ for i in range(3)]
    spread = max(np.abs(a - b).max() for a in wanted for b in wanted)
    found = boost(x, y, x).importances
    assert min(np.abs(found - a).max() for a in wanted) < 2 * spread + 1e-6
    assert spread < 0.02


def test_other_settings_are_followed_too():
    x, y = problem(2000)
    found = boost(x, y, x, n_stages=5, max_depth=1, shrinkage=0.5)
    wanted = GradientBoostingClassifier(n_estimators=5, max_depth=1, learning_rate=0.5, random_state=0).fit(x, y)
    np.testing.assert_allclose(found.importances, wanted.feature_importances_, atol=1e-10)
    np.testing.assert_array_equal(found.test_prediction, wanted.predict(x))


def test_two_equal_inputs_share_the_credit():
    x, y = problem(300)
    found = boost(x[:, [0, 1, 2, 0]], y, x[:, [0, 1, 2, 0]]).importances
    assert found[0] > 0.25
    assert 0.6 < found[0] / found[3] < 1.6


def test_seeds_reproduce():
    x, y = problem(200)
    x = x[:, [0, 0, 1]]
    one = boost(x, y, x, n_stages=20).importances
    np.testing.assert_array_equal(one, boost(x, y, x, n_stages=20).importances)
    assert (one != boost(x, y, x, n_stages=20, seed=1).importances).any()


def test_inputs_that_never_vary_get_nothing():
    y = np.arange(50) % 3
    found = boost(np.ones((50, 2), np.float32), y, np.ones((5, 2), np.float32))
    np.testing.assert_array_equal(found.importances, 0)
    assert len(set(found.test_prediction)) == 1
