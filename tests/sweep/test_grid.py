"""Members: which there are, and what they are called."""

import re
from typing import Any

import pytest
from sweep_here import experiment

from vaes.errors import UserError
from vaes.sweep.grid import checked_grid, members, named, parse_grid, split_values


def names(grid: dict[str, Any], seeds: Any = None, **changes: Any) -> list[str]:
    return [one.name for one in members(experiment(**changes), grid, seeds)[0]]


def test_values_are_read_as_those_of_options_are() -> None:
    found = parse_grid(["objective.beta=1,4,1e-2", "model.network.hidden=[8,4],[2]", "method=vae,factor_vae"])
    assert found == {
        "objective.beta": [1, 4, 0.01],
        "model.network.hidden": [[8, 4], [2]],
        "method": ["vae", "factor_vae"],
    }
    assert parse_grid(["data.root=2024,a b"]) == {"data.root": ["2024", "a b"]}  # a text, though it looks like a number
    assert parse_grid(["train.coef_kl=1,2", "model.network=mlp,conv"]) == {
        "objective.beta": [1, 2],
        "model.network.kind": ["mlp", "conv"],
    }
    assert split_values("{kind: linear, start: 0},3") == ["{kind: linear, start: 0}", "3"]


def test_every_combination_by_every_seed_the_seed_fastest() -> None:
    found = names({"objective.beta": [1, 4], "model.z_dim": [2, 3]}, 2)
    assert found == [f"beta={b},z_dim={z},seed={s}" for b in (1, 4) for z in (2, 3) for s in (0, 1)]
    assert names({"seed": [5, 7]}) == ["seed=5", "seed=7"]
    assert names({}, [3]) == ["seed=3"]
    assert names({}, 2, seed=4) == ["seed=4", "seed=5"]


def test_a_member_is_the_experiment_with_its_keys() -> None:
    (first, *_), _ = members(experiment(), {"objective.beta": [4], "model.network.kind": ["conv"]}, [7])
    assert first.experiment == experiment(objective__beta=4, model__network__kind="conv", seed=7)
    assert first.name == "beta=4,network=conv,seed=7"


def test_names_are_those_of_folders_and_tell_values_apart() -> None:
    assert named({"data.root": "/a/b c"}) != named({"data.root": "/a/b-c"})
    assert re.fullmatch(r"[A-Za-z0-9._+=,-]+", named({"data.root": "/a/b\nc", "train.lr": {"kind": "linear"}}))
    assert named({"model.posterior.kind": "iaf", "model.prior.kind": "maf"}) == "posterior=iaf,prior=maf"
    assert named({"data.seed": 1, "seed": 2}) == "data.seed=1,seed=2"
    assert len(named({f"a.key{i}": "x" * 40 for i in range(9)})) <= 180


def test_a_key_that_one_method_lacks_is_left_out_there_once() -> None:
    found, notes = members(experiment(), {"objective.beta": [1, 4], "method": ["vae", "factor_vae"]}, 1)
    assert [one.name for one in found] == [
        "beta=1,method=vae,seed=0",
        "method=factor_vae,seed=0",
        "beta=4,method=vae,seed=0",
    ]
    assert "beta" not in found[1].experiment.objective
    assert notes == ["objective.beta is left out of the members whose method or kind has no such key"]
    with pytest.raises(UserError, match=re.escape("objective.bet: unknown key: did you mean beta?")):
        members(experiment(), {"objective.bet": [1], "method": ["vae", "factor_vae"]}, 1)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["objective.beta"], "not KEY=A,B"),
        (["objective.beta="], "not KEY=A,B"),
        (["=1"], "not KEY=A,B"),
        (["train.lr=1e-3", "train.lr=1e-2"], "two grids over train.lr"),
        (["train.coef_kl=1", "objective.beta=2"], "two grids over objective.beta"),
        (["objective.beta=1,1.0"], "1.0 is there twice"),
        (["train.lr=[1"], "not valid YAML"),
    ],
)
def test_texts_that_are_no_grid(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        parse_grid(texts)


@pytest.mark.parametrize(
    ("grid", "seeds", "said"),
    [
        ({"objective.betta": [1]}, 1, "objective.betta: unknown key: did you mean beta?"),
        ({"train.n_steps": [5, "many"]}, 1, "train.n_steps: 'many' is not right; it must be a whole number"),
        ({"method": ["vae", "vee"]}, 1, "method: unknown method 'vee'"),
        ({"train.lr": [0.1], "model.network.kind": ["cnn"]}, 1, "model.network.kind: unknown kind 'cnn'"),
        ({}, 0, "seeds: 0 is not right"),
        ({}, True, "seeds: True is not right"),
        ({}, [1, 1], "1 is there twice"),
        ({"seed": [1]}, 2, "seed: two grids over it"),
        ({"train.n_steps": range(1, 9000), "model.z_dim": [1, 2]}, 1, "a sweep has at most 10,000"),
    ],
)
def test_grids_that_are_refused(grid: dict[str, Any], seeds: Any, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        members(experiment(), checked_grid(grid), seeds)


@pytest.mark.parametrize("grid", [{"objective.beta": []}, {"objective.beta": 4}, {"objective.beta": "1,4"}, [1]])
def test_a_grid_of_python_or_yaml_has_lists(grid: Any) -> None:
    with pytest.raises(UserError, match=r"^grid: "):
        checked_grid(grid)
