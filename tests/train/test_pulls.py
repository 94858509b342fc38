"""How hard each term pulls: right numbers, no trace in the training, and words where something is wrong."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from parts import small_vae
from trainings import Said, everything, settings, splits

from vaes.objectives import ELBO, Objective
from vaes.objectives.terms import MSSSIM, PatchCritic, Perceptual
from vaes.schedules import Linear
from vaes.train import checkpoint
from vaes.train.listeners import Listener
from vaes.train.loop import fit
from vaes.train.pulls import measured
from vaes.train.weighting import Weighting

QUIET = {"eval_freq": 0, "sample_freq": 0}
WEIGHTING = Weighting(lambda pixels, *, beta, pull: {"rate": beta, "critic": pull},
                      {"beta": Linear(6, start=0.5, stop=1.0), "pull": 3.0})  # fmt: skip


def adversarial(**options: Any) -> Objective:
    model = small_vae(network="conv")
    torch.manual_seed(1)
    critic = PatchCritic((1, 8, 8), network="unet", width=4, lecam=0.1, lr=1e-3, **options)
    return Objective(model, ELBO(), {"critic": critic})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_that_is_measured_is_the_one_that_is_not(tmp_path: Path, accumulate: int) -> None:
    for name, every in (("with", 1), ("without", 0)):
        options = settings(**QUIET, pulls_freq=every, accumulate=accumulate, skip_non_finite=1, ema=0.9)
        fit(adversarial(), WEIGHTING, splits(), options, tmp_path / name)
    measured, plain = everything(tmp_path / "with"), everything(tmp_path / "without")
    assert measured["lines"] != plain["lines"]
    assert {**measured, "lines": None} == {**plain, "lines": None}


class ByHand(Listener):
    """The norms as one backward pass of each part gives them."""

    def __init__(self) -> None:
        self.every = 6

    def at(self, training: Any, step: int) -> None:
        made, (x, noise) = training.state.objective, training.batch(step - 1)
        values, norms = measured(training, step - 1)
        held = {name: t.clone() for name, t in made.state_dict().items()}
        trace = made.model(x, noise.posterior, made.wants)
        drawn = SimpleNamespace()
        context = training.context(step - 1)
        self.checked = {"distortion": -trace.log_px.mean(), "rate": context.weights["rate"] * trace.rate.mean(),
                        "critic": 3.0 * made.terms["critic"](trace, drawn, context)}  # fmt: skip
        for name, value in self.checked.items():
            assert values[name] == pytest.approx(float(value.detach()), rel=1e-5)
            made.zero_grad()
            value.backward(retain_graph=True)
            norm = torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None]).norm()
            assert norms[name] == pytest.approx(float(norm), rel=1e-4)
        made.zero_grad()
        loss = made.terms["critic"].critic_loss(trace, drawn, context)
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in made.terms.parameters() if p.grad is not None]).norm()
        assert norms["critic_loss"] == pytest.approx(float(norm), rel=1e-4)
        made.zero_grad()
        made.load_state_dict(held)


def test_the_numbers_are_those_of_a_backward_pass_each(tmp_path: Path) -> None:
    check = ByHand()
    fit(adversarial(), WEIGHTING, splits(), settings(sample_freq=0), tmp_path / "run", callbacks=[check])
    assert check.checked
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if "gradient.rate" in line]
    assert [line["step"] for line in found] == [3, 6]  # as often as it is validated
    for line in found:
        assert sum(value for name, value in line.items() if name.startswith("share.")) == pytest.approx(1)
        assert {name for name in line if name.startswith("gradient.")} == {
            f"gradient.{name}" for name in ("distortion", "rate", "critic", "critic_loss")
        }


def test_a_training_resumes_with_running_means_and_measures_the_same(tmp_path: Path) -> None:
    options = settings(**QUIET, pulls_freq=2, save_freq=1, keep=9)
    for name in ("whole", "cut"):
        fit(adversarial(), WEIGHTING, splits(), options, tmp_path / name)
    run = tmp_path / "cut"
    for folder in checkpoint.checkpoints(run):
        if int(folder.name[4:]) > 3:
            (folder / "state.json").unlink()
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.training["terms.critic.counted"] == 3
    fit(adversarial(), WEIGHTING, splits(), options, run, resume=start, within=True)
    whole, cut = everything(tmp_path / "whole"), everything(run)
    assert {**cut, "pictures": None} == {**whole, "pictures": None}


def test_what_is_wrong_is_said_once_with_the_key_that_helps(tmp_path: Path) -> None:
    said = Said()
    made = adversarial(loss="logistic")
    made.terms["critic"].chance = 1e6  # so that any loss is a victory
    fit(made, WEIGHTING, splits(), settings(**QUIET, pulls_freq=1), tmp_path / "run", callbacks=[said])
    assert said.text.count("critic: its critic has won") == 1
    assert "a lower objective.critic.lr may help" in said.text

    class Still(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [0 * x + 1]

    term = Perceptual((-1.0, 1.0), lambda name: ("still", Still()))
    made = Objective(small_vae(), ELBO(), {"perceptual": term, "ms_ssim": MSSSIM((1, 8, 8), (-1.0, 1.0))})
    weighting = Weighting(lambda pixels, *, beta, gamma: {"rate": beta, "perceptual": gamma * pixels, "ms_ssim": 0.0},
                          {"beta": 1.0, "gamma": 1.0})  # fmt: skip
    said = Said()
    fit(made, weighting, splits(), settings(**QUIET, pulls_freq=1), tmp_path / "other", callbacks=[said])
    assert said.text.count("it does nothing; raise objective.gamma") == 1
