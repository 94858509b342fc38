import math

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC

from vaes.evaluate import dci, explicitness, sap
from vaes.evaluate.disentanglement import dci_scores


def data(n=400, seed=0, counts=(2, 4)):
    rng = np.random.default_rng(seed)
    factors = rng.integers(counts, size=(n, len(counts)))
    mixed = factors @ np.random.default_rng(9).normal(size=(len(counts), 3))
    return mixed + 0.5 * rng.normal(size=(n, 3)), factors


def test_sap_is_that_of_its_definition():
    (x, v), (x_test, v_test) = data(), data(200, seed=1)
    gaps = []
    for k in range(2):
        scores = sorted(
            LinearSVC(C=0.01, class_weight="balanced", random_state=0)
            .fit(x[:, [d]], v[:, k])
            .score(x_test[:, [d]], v_test[:, k])
            for d in range(3)
        )
        gaps.append(scores[-1] - scores[-2])
    found = sap(x, v, test=(x_test, v_test))
    assert found.value == pytest.approx(np.mean(gaps))
    assert found.n == 200
    assert 0 < found.stderr < 0.1


def test_sap_of_perfect_binary_codes_is_what_chance_leaves():
    factors = np.random.default_rng(0).integers(2, size=(2000, 2))
    found = sap(factors * [1.0, -1.0], factors)
    assert abs(found.value - 0.5) < 4 * found.stderr
    noise = sap(np.random.default_rng(1).normal(size=(2000, 2)), factors)
    assert abs(noise.value) < 0.1
    assert sap(np.hstack([factors, factors]), factors).value == 0


def test_explicitness_is_that_of_its_definition():
    (x, v), (x_test, v_test) = data(), data(200, seed=1)
    mean, spread = x.mean(0), x.std(0)
    areas = []
    for k in range(2):
        model = LogisticRegression().fit((x - mean) / spread, v[:, k])
        scores = model.predict_proba((x_test - mean) / spread)
        areas.append(np.mean([roc_auc_score(v_test[:, k] == c, scores[:, c]) for c in range(scores.shape[1])]))
    assert explicitness(x, v, test=(x_test, v_test)).value == pytest.approx(np.mean(areas))


def test_explicitness_of_perfect_codes_and_noise():
    factors = np.random.default_rng(0).integers(3, size=(1500, 2))
    one_hot = np.hstack([factors[:, [k]] == np.arange(3) for k in range(2)]).astype(float)
    assert explicitness(one_hot, factors).value == 1
    assert explicitness(np.random.default_rng(1).normal(size=(1500, 4)), factors).value == pytest.approx(0.5, abs=0.05)
    dead = np.hstack([one_hot, np.ones((1500, 1))])
    assert explicitness(dead, factors).value == 1


@pytest.mark.parametrize("score", [sap, explicitness])
def test_order_and_sign_of_codes_do_not_matter(score):
    (x, v), (x_test, v_test) = data(), data(200, seed=1)
    wanted = score(x, v, test=(x_test, v_test)).value
    found = score(-x[:, [2, 0, 1]], v[:, ::-1], test=(-x_test[:, [2, 0, 1]], v_test[:, ::-1])).value
    assert found == pytest.approx(wanted, abs=0.003)  # the solvers stop at a tolerance


def test_explicitness_and_dci_do_not_see_the_scale_of_codes():
    x, v = data(300)
    scale = np.array([64, 1, 1 / 64])
    assert explicitness(x * scale, v).value == pytest.approx(explicitness(x, v).value, abs=1e-6)
    assert [m.value for m in dci(x * scale, v)] == pytest.approx([m.value for m in dci(x, v)])


def test_dci_scores_are_entropies():
    importance = np.random.default_rng(0).random((4, 3))
    rows, columns = importance.sum(1) / importance.sum(), importance.sum(0) / importance.sum()
    d = sum(w * (1 - entropy(row, base=3)) for w, row in zip(rows, importance, strict=True))
    c = sum(w * (1 - entropy(column, base=4)) for w, column in zip(columns, importance.T, strict=True))
    assert dci_scores(importance) == pytest.approx((d, c))


@pytest.mark.parametrize(
    ("importance", "wanted"),
    [
        (np.eye(3), (1, 1)),
        (np.ones((4, 3)), (0, 0)),
        (np.vstack([np.eye(2), np.zeros((2, 2))]), (1, 1)),  # dead codes
        (np.vstack([np.eye(2), np.eye(2)]), (1, 0.5)),  # two codes for each factor: 1 - log 2 / log 4
        (np.array([[0.5, 0.5], [0, 0]]), (0, 1)),  # one code for both
        (np.zeros((3, 2)), (0, 0)),
    ],
)
def test_dci_scores_of_known_matrices(importance, wanted):
    assert dci_scores(importance) == pytest.approx(wanted, abs=1e-12)


def test_dci_is_that_of_scikit_learn_s_trees():
    (x, v), (x_test, v_test) = data(300), data(200, seed=1)
    models = [GradientBoostingClassifier(random_state=0).fit(x, v[:, k]) for k in range(2)]
    wanted = dci_scores(np.stack([model.feature_importances_ for model in models], 1))
    accuracy = np.mean([model.score(x_test, v_test[:, k]) for k, model in enumerate(models)])
    found = dci(x, v, test=(x_test, v_test))
    assert [m.name for m in found] == ["dci_disentanglement", "dci_completeness", "dci_informativeness"]
    assert [m.value for m in found[:2]] == pytest.approx(wanted, abs=0.01)
    assert found[2].value == pytest.approx(accuracy, abs=0.015)
    assert found[2].stderr < math.sqrt(0.25 / 200)
    assert dci(x, v, test=(x_test, v_test)) == found


def test_dci_of_perfect_codes_and_noise():
    factors = np.random.default_rng(0).integers([2, 4], size=(450, 2))
    perfect = dci(np.hstack([factors * [3.0, -1.0], np.random.default_rng(1).normal(size=(450, 1))]), factors)
    assert [m.value for m in perfect] == pytest.approx([1, 1, 1], abs=0.01)
    noise = dci(np.random.default_rng(1).normal(size=(450, 3)), factors)
    assert max(noise[0].value, noise[1].value) < 0.1
    assert abs(noise[2].value - (1 / 2 + 1 / 4) / 2) < 5 * noise[2].stderr
