"""How hard each term pulls: right numbers, no trace in the training, and words where something is wrong."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from parts import small_vae
from trainings import Said, everything, settings, splits

from vaes import Experiment
from vaes.config import build_objective
from vaes.model import Trace
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


@pytest.mark.parametrize(("method", "options"), [
    ("vq_vae", {"model.posterior.learn": "ema", "model.posterior.restart": 0.5, "model.posterior.codes": 16}),
    ("vae_gan", {"model.network.norm": "batch"}),
    ("rae_sn", {}),
    ("aae", {}),
])  # fmt: skip
def test_nor_does_any_row_feel_it(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Words that follow the codes, batch statistics, spectral norms, turns."""
    left = []
    for every in (1, 0):
        e = Experiment.of({"method": method}).replace(
            {"model.network.kind": "conv", "model.network.dim": 8, "model.network.dim_mults": [1, 2], **options}
        )
        made, weights = build_objective(e, e.build_model((1, 8, 8)), (1, 8, 8))
        play = e.settings().play
        given = settings(**QUIET, pulls_freq=every, play=play)
        fit(made, weights, splits(), given, tmp_path / str(every))
        left.append({**everything(tmp_path / str(every)), "lines": None})
    assert left[0] == left[1]


class ByHand(Listener):
    """The norms as one backward pass of each part gives them."""

    def __init__(self) -> None:
        self.every = 6

    def at(self, training: Any, step: int) -> None:
        made, (x, noise) = training.state.objective, training.batch(step - 1)
        found = measured(training, step - 1)
        held = {name: t.clone() for name, t in made.state_dict().items()}
        trace = made.model(x, noise.posterior, made.wants)
        drawn = SimpleNamespace()
        context = training.context(step - 1)
        self.checked = {"distortion": -trace.log_px.mean(), "rate": context.weights["rate"] * trace.rate.mean(),
                        "critic": 3.0 * made.terms["critic"](trace, drawn, context)}  # fmt: skip
        for name, value in self.checked.items():
            assert found.values[name] == pytest.approx(float(value.detach()), rel=1e-5)
            made.zero_grad()
            value.backward(retain_graph=True)
            norm = torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None]).norm()
            assert found.norms[name] == pytest.approx(float(norm), rel=1e-4)
        made.zero_grad()
        loss = made.terms["critic"].critic_loss(trace, drawn, context)
        loss.backward()
        norm = torch.cat([p.grad.flatten() for p in made.terms.parameters() if p.grad is not None]).norm()
        assert found.critics["critic"] == pytest.approx(float(norm), rel=1e-4)
        wrong = [
            (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
            for real, fake in zip(*(made.terms["critic"].critic(each) for each in (x, trace.x_mean[0])), strict=True)
        ]
        assert found.doubts["critic"] == pytest.approx(float(sum(wrong).detach()) / 4, rel=1e-4)
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
        assert "doubt.critic" in line


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


class Network(torch.nn.Module):
    """Features that are what they are told to be of the image."""

    def __init__(self, of_image: float) -> None:
        super().__init__()
        self.of_image = of_image

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cat([self.of_image * x, torch.ones_like(x)], 1)]


def said_of(objective: Objective, tmp_path: Path, pull: float = 1.0, **options: Any) -> str:
    weighting = Weighting(lambda pixels, *, beta, pull: {"rate": beta, **dict.fromkeys(objective.terms, pull)},
                          {"beta": 1.0, "pull": pull})  # fmt: skip
    said = Said()
    given = settings(**QUIET, **{"pulls_freq": 1, **options})
    fit(objective, weighting, splits(), given, tmp_path / "run", callbacks=[said])
    return said.text


class Sure(PatchCritic):
    """A critic whose logits of images are so high, and of reconstructions so low."""

    logit = 0.0

    def _judge(self, trace: Trace) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(0 * real + self.logit, 0 * made - self.logit) for real, made in super()._judge(trace)]


def sure(logit: float, loss: Any = "hinge") -> Objective:
    critic = Sure((1, 8, 8), network="unet", width=4, lecam=0.1, loss=loss)
    critic.logit = logit
    return Objective(small_vae(network="conv"), ELBO(), {"critic": critic})


def test_a_critic_that_has_won_is_said_once_and_no_other(tmp_path: Path) -> None:
    for loss, share in (("hinge", "0"), ("logistic", "0.0097")):
        won = said_of(sure(5.0, loss), tmp_path / loss)
        assert won.count(f"critic: its critic has won (its loss is {share} of that of one that cannot tell)") == 1
        assert "a lower objective.critic.lr may help\n" in won
    assert "has won" not in said_of(sure(0.5), tmp_path / "doubts")
    assert "has won" not in said_of(sure(5.0), tmp_path / "counts-not-yet", pull=0.0)
    assert "has won" not in said_of(sure(5.0), tmp_path / "seen-once", pulls_freq=6)
    assert "has won" not in said_of(adversarial(), tmp_path / "new")


def perceptual(of_image: float) -> Objective:
    term = Perceptual((-1.0, 1.0), lambda name: ("made", Network(of_image)))
    return Objective(small_vae(), ELBO(), {"perceptual": term, "ms_ssim": MSSSIM((1, 8, 8), (-1.0, 1.0))})


def test_a_perceptual_term_that_does_nothing_is_said_once_and_no_other(tmp_path: Path) -> None:
    assert said_of(perceptual(0.0), tmp_path / "still").count("it does nothing; raise objective.pull") == 1
    assert "perceptual: 0 of all gradients" in said_of(perceptual(0.0), tmp_path / "words")
    assert "it does nothing" not in said_of(perceptual(1.0), tmp_path / "seen", pull=10.0)
    assert "it does nothing" not in said_of(perceptual(0.0), tmp_path / "off", pull=0.0)
