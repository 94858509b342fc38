import math

import numpy as np
import pytest
import torch

from vaes.errors import UserError
from vaes.evaluate import NotApplicable, auroc, knn_probe, linear_probe

PROBES = [linear_probe, knn_probe]


def clusters(n=600, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=n)
    return np.array([[5.0, 0], [-5, 0], [0, 5]])[labels] + rng.normal(size=(n, 2)), labels


@pytest.mark.parametrize("probe", PROBES)
def test_separated_classes_are_found_and_noise_is_not(probe):
    codes, labels = clusters()
    found = probe(codes, labels)
    assert (found.n, found.seed) == (200, 0)
    assert found.value > 0.98
    noise = probe(np.random.default_rng(1).normal(size=codes.shape), labels)
    assert abs(noise.value - 1 / 3) < 5 * noise.stderr
    assert noise.stderr == pytest.approx(math.sqrt(noise.value * (1 - noise.value) / 200))


@pytest.mark.parametrize("probe", PROBES)
def test_scale_shift_and_names_of_classes_do_not_matter(probe):
    codes, labels = clusters()
    one = probe(codes, labels)
    assert probe(codes * [1e3, 1e-3] + [7, -7], labels * 4 + 2) == one
    assert probe(torch.from_numpy(codes), torch.from_numpy(labels)) == one


@pytest.mark.parametrize("probe", PROBES)
def test_given_test_rows_are_scored(probe):
    codes, labels = clusters()
    other, other_labels = clusters(90, seed=1)
    assert probe(codes, labels, test=(other, other_labels)).n == 90
    wrong = (other_labels + 1) % 3
    assert probe(codes, labels, test=(other, wrong)).value < 0.05


def test_knn_equals_brute_force():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 3)), rng.integers(2, size=80)
    x_test, y_test = rng.normal(size=(40, 3)), rng.integers(2, size=40)
    hits = 0
    for row, label in zip(x_test, y_test, strict=True):
        distance = (((x - row) / x.std(0)) ** 2).sum(1)
        hits += int(round(y[np.argsort(distance)[:5]].mean()) == label)
    assert knn_probe(x, y, k=5, test=(x_test, y_test)).value == hits / 40


@pytest.mark.parametrize("probe", PROBES)
def test_inputs_without_meaning_are_refused(probe):
    codes, labels = clusters(60)
    with pytest.raises(NotApplicable, match="labels are all alike"):
        probe(codes, np.zeros(60, int))
    with pytest.raises(NotApplicable, match="constant"):
        probe(np.ones((60, 2)), labels)
    with pytest.raises(NotApplicable, match="NaN"):
        probe(np.where(codes > 5, np.nan, codes), labels)
    with pytest.raises(NotApplicable, match="at least 20"):
        probe(codes[:10], labels[:10])
    with pytest.raises(UserError, match="mismatched"):
        probe(codes, labels[:-1])
    with pytest.raises(NotApplicable, match="test codes 1"):
        probe(codes, labels, test=(codes[:, :1], labels))


def test_a_dead_dimension_is_harmless():
    codes, labels = clusters()
    assert linear_probe(np.hstack([codes, np.ones((600, 1))]), labels).value == linear_probe(codes, labels).value


def test_knn_needs_k_rows():
    codes, labels = clusters(30)
    with pytest.raises(NotApplicable, match="21"):
        knn_probe(codes, labels, k=21)


def auroc_by_loops(low, high):
    """Value and DeLong's variance from their definitions."""
    psi = np.array([[1.0 if b > a else 0.5 if b == a else 0.0 for b in high] for a in low])
    v_low, v_high = psi.mean(1), psi.mean(0)
    value = psi.mean()
    s_low = ((v_low - value) ** 2).sum() / (len(low) - 1)
    s_high = ((v_high - value) ** 2).sum() / (len(high) - 1)
    return value, math.sqrt(s_low / len(low) + s_high / len(high))


@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_delong_by_loops_with_ties(seed):
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 8, 37), rng.integers(2, 11, 23)
    found = auroc(low, high)
    assert (found.value, found.stderr) == pytest.approx(auroc_by_loops(low, high), rel=1e-12)
    assert found.interval[0] < found.value < found.interval[1]


def test_auroc_identities():
    low, high = np.random.default_rng(0).normal(size=40), np.random.default_rng(1).normal(1, 1, size=30)
    found = auroc(low, high)
    assert auroc(high, low).value == pytest.approx(1 - found.value)
    assert auroc(high, low).stderr == pytest.approx(found.stderr)
    assert auroc(np.exp(low), np.exp(high)).value == pytest.approx(found.value)
    assert auroc(low, low).value == pytest.approx(0.5)


def test_auroc_stderr_matches_repetition():
    rng = np.random.default_rng(0)
    found = [auroc(rng.normal(size=60), rng.normal(0.7, 1, size=40)) for _ in range(400)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.15)


def test_auroc_of_separated_scores_claims_no_error():
    found = auroc(np.arange(5), np.arange(5, 9))
    assert (found.value, found.stderr, found.interval) == (1.0, None, None)


@pytest.mark.parametrize("scores", [(np.array([1.0]), np.arange(3))])
def test_auroc_needs_two_finite_scores_a_side(scores):
    with pytest.raises(NotApplicable, match="at least 2"):
        auroc(*scores)
    with pytest.raises(NotApplicable, match="one score per image"):
        auroc(np.zeros((3, 1)), scores[1])
    with pytest.raises(NotApplicable, match="NaN"):
        auroc(np.array([1.0, np.nan]), scores[1])
