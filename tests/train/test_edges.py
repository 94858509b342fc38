"""What would fail in the middle of a training is decided, and said, before it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import small_vae
from trainings import Said, objective, settings, splits, weighting

from vaes import functional as F
from vaes.config import build_model, build_objective, build_settings, load
from vaes.data import Splits, arrays
from vaes.errors import UserError
from vaes.model import refuse_device
from vaes.objectives import ELBO, Context, Objective
from vaes.objectives.terms import PriorCritic, TotalCorrelation
from vaes.posteriors import Gaussian, VonMisesFisher
from vaes.priors import Sphere
from vaes.train.loop import fit
from vaes.train.validate import validate
from vaes.train.weighting import Weighting

RELAXED = {"posterior": {"kind": "relaxed_categorical"}, "prior": "categorical"}


def relaxed(**schedule: Any) -> dict[str, Any]:
    return {"model": {**RELAXED, "posterior": {"kind": "relaxed_categorical", "temperature": schedule}}}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (relaxed(kind="cyclical", start=0.0, stop=1.0),
         "model.posterior.temperature: at step 0 its schedule gives 0, and temperature must be above 0"),
        (relaxed(kind="linear", start=1.0, stop=-0.1), "at step 99 its schedule gives -0.089"),
        (relaxed(kind="cosine", start=-1.0, stop=0.5), "at step 0 its schedule gives -1"),
        (relaxed(kind="sigmoid", start=-1.0, stop=1.0, steps=50), "at step 0 its schedule gives -1"),
        ({"method": "joint_vae", "model": {"z_dim": 4, "posterior": {"kind": "joint", "temperature": {
            "kind": "one_cycle", "peak": -1.0}}}}, "model.posterior.temperature: at step"),
        ({"method": "ciwae", "objective": {"mix": {"kind": "one_cycle", "peak": 1.5}}},
         "objective.mix: at step 20 its schedule gives 1.5, and mix must lie in [0, 1]"),
        ({"method": "annealed_vae", "objective": {"capacity": {"target": {
            "kind": "cosine", "start": -5, "stop": 5}}}},
         "objective.capacity.target: at step 0 its schedule gives -5"),
        ({"objective": {"terms": {"capacity": {"target": {"kind": "cyclical", "start": -1.0}}}}},
         "objective.terms.capacity.target: at step 0"),
        ({"objective": {"beta": {"kind": "cyclical", "start": -1.0}}}, "objective.beta: -1 is not right"),
        ({"train": {"n_steps": 1000, "lr": {"kind": "linear", "start": 1e-3, "stop": -2e-6}}},
         "train: lr must be above 0"),
    ],
)  # fmt: skip
def test_a_schedule_is_right_at_every_step(raw: dict[str, Any], said: str) -> None:
    def build() -> None:
        model, train = {"network": "mlp", **raw.get("model", {})}, {"n_steps": 100, **raw.get("train", {})}
        config = load({**raw, "model": model, "train": train})
        build_settings(config)
        build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))

    with pytest.raises(UserError) as caught:
        build()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def with_one(split: str) -> Splits:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return arrays(
        images[:40], images[40 : 41 if split == "test" else 50], valid=images[50 : 51 if split == "valid" else 60]
    )


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_single_held_out_image_is_said_at_the_start(split: str, tmp_path: Path) -> None:
    said = Said()
    metrics = fit(objective(), weighting(), with_one(split), settings(), tmp_path / "run", callbacks=[said])
    assert f"{split} has 1 of the images, and mmd needs 2: it is left out there" in said.text
    assert ("mmd" in metrics["test"]) == (split == "valid")
    assert np.isfinite(metrics["test"]["elbo"]["value"])
    if split == "valid":
        with pytest.raises(UserError, match=r"train\.patience: valid has 1 of the images"):
            fit(objective(), weighting(), with_one(split), settings(patience=1), tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_a_loss_that_a_critic_sets_makes_no_step_the_best(tmp_path: Path) -> None:
    said, critic = Said(), Objective(small_vae(), ELBO(), {"critic": PriorCritic((3,), width=8)})
    weights = Weighting(lambda pixels: {"rate": 1.0, "critic": 1.0}, {})
    metrics = fit(critic, weights, splits(), settings(), tmp_path / "run", callbacks=[said])
    assert "no step is the best: the loss holds what a critic thinks at the time (critic)" in said.text
    assert metrics["best"] is None
    with pytest.raises(UserError, match=r"train\.patience: no step is the best"):
        fit(critic, weights, splits(), settings(patience=1), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_a_validation_part_may_be_larger_than_a_small_training_set(estimator: str) -> None:
    made = Objective(small_vae(), ELBO(), {"tc": TotalCorrelation(estimator=estimator)})  # type: ignore[arg-type]
    context = Context({"rate": 1.0, "tc": 1.0}, n=4)
    found = validate(made, splits().test, context, seed=0, batch_size=8)
    assert np.isfinite(found["tc"].value)


def test_codes_that_are_all_one_have_a_finite_discrepancy() -> None:
    z = torch.full((6, 3), 0.7).requires_grad_()
    kernel = F.gaussian_kernel(F.median_squared_distance(z, z.detach()))
    found = F.mmd(z, z.detach(), kernel)
    (gradient,) = torch.autograd.grad(found, z)
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1


def test_a_device_without_float64_is_refused_by_name() -> None:
    model = small_vae(posterior=VonMisesFisher(), prior=Sphere(3))
    refuse_device(model, torch.device("cpu"))
    with pytest.raises(UserError, match="--device mps: the posterior VonMisesFisher is computed in float64"):
        refuse_device(model, torch.device("mps"))
    refuse_device(small_vae(posterior=Gaussian()), torch.device("mps"))
