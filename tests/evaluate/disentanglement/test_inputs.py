import re

import numpy as np
import pytest

from vaes.errors import UserError
from vaes.evaluate import (
    Metric,
    NotApplicable,
    Skipped,
    beta_vae_score,
    dci,
    disentanglement_metrics,
    explicitness,
    factor_vae_score,
    irs,
    mig_chen,
    mig_locatello,
    modularity,
    sap,
)
from vaes.evaluate.disentanglement.inputs import FixedFactor, repeated, split


def mig_chen_of(codes, factors):
    return mig_chen(codes, np.zeros_like(codes), factors)


SCORES = [beta_vae_score, factor_vae_score, mig_locatello, mig_chen_of, dci, sap, modularity, explicitness, irs]


def data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)), rng.integers([2, 3, 4], size=(n, 3))


@pytest.mark.parametrize("score", SCORES)
def test_inputs_without_meaning_are_refused(score):
    codes, factors = data()
    for bad, reason in (
        (np.where(codes > 2, np.nan, codes), "codes hold NaN|means hold NaN"),
        (np.ones_like(codes), "constant"),
        (codes.reshape(300, 2, 2), "flat vector"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            score(bad, factors)
    for bad, reason in (
        (factors * [1, 0, 1], "values of factor 1 are all alike"),
        (factors + 0.5, "not whole numbers"),
        (factors[:, 0], r"\(N, D\)"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            score(codes, bad)
    with pytest.raises(NotApplicable, match="are needed"):
        score(codes[:99], factors[:99])
    with pytest.raises(UserError, match="mismatched lengths") as caught:
        score(codes, factors[:-1])
    assert not isinstance(caught.value, NotApplicable)


@pytest.mark.parametrize("score", [mig_locatello, mig_chen_of, sap, dci])
def test_gaps_need_two_codes(score):
    codes, factors = data()
    with pytest.raises(NotApplicable, match="at least 2"):
        score(codes[:, :1], factors)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score, modularity, dci])
def test_some_scores_need_two_factors(score):
    codes, factors = data()
    with pytest.raises(NotApplicable, match="1 factor"):
        score(codes, factors[:, :1])


@pytest.mark.parametrize("score", SCORES)
def test_names_of_values_and_shift_of_codes_do_not_matter(score):
    codes, factors = data()
    codes[:, 0] += factors[:, 0]
    shift = 0 if score is sap else 8  # its machines penalise the intercept
    one, other = score(codes, factors), score(codes + shift, factors * 2 + 10)
    for a, b in zip(*(([m] if isinstance(m, Metric) else m) for m in (one, other)), strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-6)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_a_factor_whose_values_nobody_shares_cannot_be_held_fixed(score):
    codes, factors = data()
    factors[:, 1] = np.arange(300)
    with pytest.raises(NotApplicable, match="no two rows share a value of factor 1"):
        score(codes, factors)


@pytest.mark.parametrize("score", [sap, dci, explicitness])
def test_test_rows_must_match(score):
    codes, factors = data()
    with pytest.raises(UserError, match="must have the same"):
        score(codes, factors, test=(codes[:, :3], factors))
    with pytest.raises(NotApplicable, match="factor 0 takes the value 9"):
        score(codes, factors, test=(codes, np.add(factors, [9, 0, 0])))
    with pytest.raises(NotApplicable, match="test codes hold NaN"):
        score(codes, factors, test=(codes * np.nan, factors))


def test_a_seeded_third_is_held_out():
    codes, factors = data()
    parts = split(codes, factors, None, seed=0)
    assert (len(parts.train.codes), len(parts.test.codes)) == (200, 100)
    both = np.concatenate([parts.train.codes, parts.test.codes])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(codes, axis=0))
    place = {tuple(row): tuple(value) for row, value in zip(codes, factors, strict=True)}
    assert all(place[tuple(r)] == tuple(v) for r, v in zip(parts.test.codes, parts.test.factors, strict=True))
    assert (split(codes, factors, None, seed=1).test.codes != parts.test.codes).any()


def test_draws_share_the_factor_repeat_no_row_and_are_uniform():
    factors = np.repeat([[0], [1], [2]], [3, 5, 20], axis=0)
    fixed, rng = FixedFactor(factors, 0), np.random.default_rng(0)
    values = fixed.values(6_000, rng)
    assert np.bincount(values) / 6_000 == pytest.approx([3 / 28, 5 / 28, 20 / 28], abs=0.02)
    batches = fixed.batches(values, 3, rng)
    assert (factors[batches, 0] == values[:, None]).all()
    assert not repeated(batches).any()
    subsets = np.unique(np.sort(batches[values == 1], 1), axis=0, return_counts=True)[1]
    assert len(subsets) == 10  # all the triples of five rows, about as often
    assert subsets / subsets.sum() == pytest.approx([0.1] * 10, abs=0.04)
    pairs = fixed.pairs(np.tile([1, 2, 1], (4_000, 1)), rng)
    assert (factors[pairs, 0] == np.array([1, 2, 1])[None, :, None]).all()
    assert not repeated(pairs.reshape(4_000, 6)).any()
    for place in ((0, 0), (0, 1), (2, 0), (2, 1)):
        assert np.bincount(pairs[:, *place])[3:8] / 4_000 == pytest.approx([0.2] * 5, abs=0.03)
    together = np.bincount(pairs[:, 0, 0] * 28 + pairs[:, 2, 1], minlength=28 * 28).reshape(28, 28)[3:8, 3:8]
    assert together / 4_000 == pytest.approx((1 - np.eye(5)) / 20, abs=0.015)
    with pytest.raises(NotApplicable, match="in 3 of 28 rows, and 4 are drawn at a time: about 94 rows would do"):
        fixed.need(4)
    with pytest.raises(NotApplicable, match="in 5 of 28 rows, and 6 are drawn"):
        fixed.pairs(np.array([[1, 1, 1]]), rng)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_too_few_rows_are_told_how_many_would_do(score):
    rng = np.random.default_rng(0)
    factors = rng.integers(40, size=(400, 2))
    with pytest.raises(NotApplicable, match="rows would do") as caught:
        score(rng.normal(size=(400, 3)), factors)
    enough = int(re.search(r"about (\d+) rows", str(caught.value)).group(1))
    factors = rng.integers(40, size=(enough, 2))
    assert score(rng.normal(size=(enough, 3)), factors, n_train=400, n_test=200).stderr > 0


def test_every_score_at_once_with_reasons_for_those_that_are_not():
    codes, factors = data()
    found = disentanglement_metrics(codes, factors[:, :1])
    skipped = {one.name: one.reason for one in found if isinstance(one, Skipped)}
    assert set(skipped) == {"beta_vae_score", "factor_vae_score", "dci", "modularity", "mig_chen", "infomec"}
    assert "log-variances" in skipped["mig_chen"]
    names = {one.name for one in found if isinstance(one, Metric)}
    assert names == {"mig_locatello", "sap", "explicitness", "irs"}
    assert disentanglement_metrics(codes, factors[:, :1], logvar=codes)[-1].name == "mig_chen"
