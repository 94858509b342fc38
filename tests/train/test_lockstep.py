"""Trainings in step have the numbers that each has alone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vaes import Experiment
from vaes.data import Splits, arrays
from vaes.sweep.check import built
from vaes.train.lockstep import Lockstep
from vaes.train.loop import Training
from vaes.train.runtime import Runtime
from vaes.train.step import Asked, advance

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [8]}},
    "conv": {"z_dim": 3, "network": {"kind": "conv", "dim": 4, "dim_mults": [1, 2]}},
}
CRITIC = {"total_correlation_critic": {"width": 8, "depth": 1}}


def images() -> Splits:
    return arrays(np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))


def experiment(method: str = "vae", network: str = "mlp", **changes: Any) -> Experiment:
    train = {"n_steps": 100, "batch_size": 8, "lr": 1e-3, "eval_freq": 0, "sample_freq": 0, "print_freq": 10}
    raw = {"method": method, "model": {**SMALL[network], "likelihood": "bernoulli"}, "train": train}
    found = Experiment.of({**raw, "objective": CRITIC if method == "factor_vae" else {}})
    return found.replace({key.replace("__", "."): value for key, value in changes.items()}).of_python()


def asked(training: Training, dtype: torch.dtype) -> Asked:
    found = training.asked(training.state.step)
    noise = tree_map(lambda t: t.to(dtype), found.noise._replace(terms=dict(found.noise.terms)))
    return found._replace(x=found.x.to(dtype), noise=noise)


def both(
    experiments: list[Experiment], dtype: torch.dtype, n: int, spoil: tuple[int, int] | None = None
) -> tuple[list[Training], list[Training]]:
    """Alone and in step; ``spoil``: at this step the images of this member are no numbers."""
    splits, runtime = images(), Runtime("cpu")
    alone, stacked = ([built(one, splits) for one in experiments] for _ in range(2))
    for one in (*alone, *stacked):
        one.state.objective.to(dtype)
        if one.state.average is not None:
            one.state.average.state = {name: tensor.to(dtype) for name, tensor in one.state.average.state.items()}
            one.state.average.follow(one.state.model)
    group = Lockstep([one.state for one in stacked])
    for step in range(n):
        given = [asked(one, dtype) for one in alone]
        if spoil is not None and step == spoil[0]:
            given[spoil[1]].x.fill_(torch.nan)
        for one, what in zip(alone, given, strict=True):
            advance(one.state, one.state.objective, *what, runtime)
        group.advance(given, runtime)
    return alone, stacked


def held(training: Training) -> dict[str, Tensor]:
    """What a checkpoint keeps."""
    saved = training.state.state_dict({})
    return {**saved.weights, **{f"training {name}": tensor for name, tensor in saved.training.items()}}


OPTIONS: dict[str, dict[str, Any]] = {
    "muon": {},
    "adam": {"train__optimizer": "adam"},
    "clipped": {"train__clip_grad": 0.5},
    "in parts": {"train__accumulate": 2},
    "averaged": {"train__ema": 0.9},
    "decaying": {"train__weight_decay": 0.1, "train__decoder_weight_decay": 0.3},
    "waiting": {"train__encoder_after": 2, "train__clip_grad": 0.5},
    "skipping": {"train__skip_non_finite": 2, "train__ema": 0.9, "train__optimizer": "adam"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_every_setting_is_each_members_own(options: str) -> None:
    rates: tuple[Any, ...] = (1e-3, 4e-3, {"kind": "linear", "start": 0.0, "stop": 2e-3})
    own = [experiment(seed=i, train__lr=lr, train__eps=1e-5, **OPTIONS[options]) for i, lr in enumerate(rates)]
    for alone, stacked in zip(*both(own, torch.float64, 4), strict=True):
        torch.testing.assert_close(held(stacked), held(alone), rtol=1e-10, atol=1e-12)


CASES = [("vae", "conv"), ("vae", "mlp"), ("iwae", "mlp"), ("info_vae", "conv"), ("factor_vae", "mlp")]


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@pytest.mark.parametrize(("method", "network"), CASES)
def test_a_hundred_steps(method: str, network: str, optimizer: str) -> None:
    own = [experiment(method, network, seed=i, train__optimizer=optimizer, train__eps=1e-3) for i in range(2)]
    for alone, stacked in zip(*both(own, torch.float64, 100), strict=True):
        torch.testing.assert_close(held(stacked), held(alone), rtol=1e-10, atol=1e-12)
    for alone, stacked in zip(*both(own, torch.float32, 100), strict=True):
        torch.testing.assert_close(
            dict(stacked.state.objective.named_parameters()),
            dict(alone.state.objective.named_parameters()),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("skips", [0, 2])
def test_one_that_diverges_disturbs_no_other(skips: int) -> None:
    own = [experiment(seed=i, train__skip_non_finite=skips, train__eps=1e-5) for i in range(3)]
    alone, stacked = both(own, torch.float64, 4, spoil=(1, 1))
    for i in range(3) if skips else (0, 2):
        torch.testing.assert_close(held(stacked[i]), held(alone[i]), rtol=1e-10, atol=1e-12)
    assert [int(one.state.bad_step) for one in stacked] == [-1, -1 if skips else 1, -1]
    counts = [one.state.skips.counts.tolist() for one in stacked if one.state.skips]
    assert counts == ([[0, 0, 0], [0, 1, 1], [0, 0, 0]] if skips else [])
