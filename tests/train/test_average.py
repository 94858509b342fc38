from pathlib import Path

import pytest
import torch
from torch import nn
from trainings import objective, settings, splits, weighting

from vaes.objectives import Context
from vaes.train import checkpoint
from vaes.train.average import Average
from vaes.train.loop import fit
from vaes.train.validate import validate


def test_the_average_has_exponential_weights_once_it_is_warm() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    average = Average(model, 0.5)
    values, first = torch.randn(30, dtype=torch.float64), model.weight.item()
    for step, value in enumerate(values):
        model.weight.data.fill_(value)
        average.update(step + 100)
    expected = first * 0.5**30 + sum(0.5 * 0.5 ** (29 - i) * value.item() for i, value in enumerate(values))
    assert average.state["weight"].item() == pytest.approx(expected, rel=1e-12)


def test_the_model_gets_its_own_state_back() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = Average(model, 0.9)
    model(torch.randn(5, 2))
    nn.init.normal_(model[0].weight)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.in_place():
        assert torch.equal(model[0].weight, average.state["0.weight"])
        assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_a_training_shares_and_validates_the_average_of_its_weights(tmp_path: Path) -> None:
    run, trained = tmp_path / "run", objective()
    metrics = fit(trained, weighting(), splits(), settings(ema=0.6, save_freq=1, keep=9), run)
    saved = [checkpoint.read(folder) for folder in reversed(checkpoint.checkpoints(run))]
    name = "encoder.trunk.0.weight"
    average = dict(objective().model.state_dict())[name].clone()
    for step, held in enumerate(saved):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * held.training[f"raw.{name}"]
        torch.testing.assert_close(held.weights[name], average)
    assert torch.equal(trained.model.state_dict()[name], saved[-1].training[f"raw.{name}"])
    other = objective(seed=1)
    checkpoint.load_weights(other.model, saved[-1].weights, "here")
    assert (
        validate(other, splits().test, Context(weighting()(5, 64)), seed=0)["elbo"].value
        == metrics["test"]["elbo"]["value"]
    )


def test_an_average_may_begin_or_end_with_a_resumed_training(tmp_path: Path) -> None:
    fit(objective(), weighting(), splits(), settings(n_steps=4), tmp_path / "plain")
    fit(objective(), weighting(), splits(), settings(n_steps=4, ema=0.9), tmp_path / "averaged")
    for name, ema in (("plain", 0.9), ("averaged", None)):
        resume = checkpoint.read(checkpoint.newest_folder(tmp_path / name))
        own = resume.weights | {k[4:]: v for k, v in resume.training.items() if k.startswith("raw.")}
        part = objective(seed=2)
        fit(part, weighting(), splits(), settings(n_steps=5, ema=ema), tmp_path / name, resume=resume, within=True)
        last = checkpoint.read(checkpoint.newest_folder(tmp_path / name))
        assert last.step == 5
        assert any(key.startswith("raw.") for key in last.training) == (ema is not None)
        key = "encoder.trunk.0.weight"
        assert (part.model.state_dict()[key] - own[key]).abs().max() < 0.01
