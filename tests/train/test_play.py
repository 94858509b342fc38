"""Model and critics by turns: who is not in play does not move."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parts import small_vae
from torch import nn
from trainings import everything, settings, splits

from vaes import posteriors
from vaes.data import Batches, to_float
from vaes.errors import UserError
from vaes.objectives import ELBO, Context, Noise, Objective, Reconstruction
from vaes.objectives.terms import ImageCritic, PriorCritic, TotalCorrelationCritic
from vaes.randomness import Use, normal
from vaes.train import checkpoint
from vaes.train.listeners import Listener
from vaes.train.loop import fit
from vaes.train.weighting import Weighting

WEIGHTING = Weighting(lambda pixels: {"critic": 10.0}, {})
OPTIONS = {"optimizer": "adam", "lr": 2e-3, "play": "alternate", "eval_freq": 0, "sample_freq": 0}


def adversarial() -> Objective:
    model = small_vae(network="conv", posterior=posteriors.Point())
    torch.manual_seed(1)
    return Objective(model, Reconstruction(), {"critic": PriorCritic((3,), width=8, depth=2, lr=1e-2)})


def by_hand(part: Objective, left_out: tuple[int, ...] = (), n_steps: int = 6) -> None:
    """Two optimisers, each with the parameters of one player."""
    of_model = torch.optim.Adam(part.model.parameters(), lr=2e-3, fused=True)
    of_critic = torch.optim.Adam(part.terms.parameters(), lr=1e-2, betas=(0.5, 0.999), fused=True)
    batches = Batches(splits().train, 8, seed=0)
    for step in range(n_steps):
        if step in left_out:
            continue
        x = to_float(batches.read(step), (-1.0, 1.0))
        noise = Noise(normal((1, 8, 3), 0, Use.POSTERIOR, step), normal((8, 3), 0, Use.PRIOR, step))
        out = part(x, noise, Context({"critic": 10.0}))
        part.zero_grad()
        if step % 2:
            out["loss"].backward()
            of_model.step()
        else:
            out["critic_loss"].backward()
            of_critic.step()


def test_alternate_play_equals_two_optimisers_by_hand(tmp_path: Path) -> None:
    trained, expected = adversarial(), adversarial()
    fit(trained, WEIGHTING, splits(), settings(**OPTIONS), tmp_path / "run")
    by_hand(expected)
    for (name, a), b in zip(trained.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_step_that_is_skipped_keeps_its_turn(tmp_path: Path) -> None:
    trained, expected = adversarial(), adversarial()
    handle = trained.register_forward_hook(lambda part, args, out: spoilt(out, args[2].step))
    fit(trained, WEIGHTING, splits(), settings(**OPTIONS, skip_non_finite=2), tmp_path / "run")
    handle.remove()
    by_hand(expected, left_out=(2, 3))
    for (name, a), b in zip(trained.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def spoilt(out: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
    """In the critics' turn the model's loss is no number, and the other way round: either is a step to be skipped."""
    other = "loss" if step == 2 else "critic_loss"
    return {**out, other: out[other] + torch.inf} if step in (2, 3) else out


class Snapshots(Listener):
    """Parameters and what the optimiser keeps of them, after each step."""

    def __init__(self) -> None:
        self.of_step: list[dict[str, list[torch.Tensor]]] = []

    def start(self, training: Any) -> None:
        self.stepped(training, 0)

    def stepped(self, training: Any, done: int) -> None:
        state = training.state
        self.of_step.append(
            {
                name: [t.detach().clone() for t in (p, *state.optimizer.state.get(p, {}).values())]
                for name, p in state.objective.named_parameters()
            }
        )


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_who_is_not_in_play_does_not_move_nor_do_its_moments(tmp_path: Path, optimizer: str) -> None:
    part, seen = adversarial(), Snapshots()
    options = {**OPTIONS, "optimizer": optimizer, "weight_decay": 0.1, "clip_grad": 1.0, "accumulate": 2, "ema": 0.9}
    fit(part, WEIGHTING, splits(), settings(**options), tmp_path / "run", callbacks=[seen])
    assert len(seen.of_step) == 7
    for step, (before, after) in enumerate(zip(seen.of_step, seen.of_step[1:], strict=False)):
        for name, tensors in after.items():
            same = len(tensors) == len(before[name]) and all(map(torch.equal, tensors, before[name]))
            assert same == (name.startswith("terms.") == bool(step % 2)), (step, name)


@pytest.mark.parametrize("saved", [1, 2, 3])
def test_a_training_by_turns_resumes_at_either_turn(tmp_path: Path, saved: int) -> None:
    options = settings(**{**OPTIONS, "optimizer": "muon"}, ema=0.9, skip_non_finite=1, save_freq=1, keep=9)
    fit(adversarial(), WEIGHTING, splits(), options, tmp_path / "whole")
    run = tmp_path / "cut"
    fit(adversarial(), WEIGHTING, splits(), options, run)
    for folder in checkpoint.checkpoints(run):
        if int(folder.name[4:]) > saved:
            (folder / "state.json").unlink()
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.step == saved
    fit(adversarial(), WEIGHTING, splits(), options, run, resume=start, within=True)
    whole, cut = everything(tmp_path / "whole"), everything(run)
    assert {**cut, "pictures": None} == {**whole, "pictures": None}


def test_turns_without_a_critic_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.play: alternate takes turns with a critic"):
        fit(Objective(small_vae(), ELBO()), Weighting(lambda pixels: {"rate": 1.0}, {}), splits(),
            settings(play="alternate"), tmp_path / "run")  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_critic_needs_several_images_and_that_of_total_correlation_two_in_each_half(tmp_path: Path) -> None:
    cases: list[tuple[nn.Module, int]] = [
        (ImageCritic((1, 8, 8), width=2), 2),
        (PriorCritic((3,), width=4, depth=1), 2),
        (TotalCorrelationCritic((3,), width=4, depth=1), 4),
    ]
    for term, least in cases:
        part = Objective(small_vae(), ELBO(), {"critic": term})  # type: ignore[dict-item]
        weighting = Weighting(lambda pixels: {"rate": 1.0, "critic": 1.0}, {})
        never = {"n_steps": 1, "print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0}
        with pytest.raises(UserError, match=f"train.batch_size: .* need {least} images or more"):
            fit(part, weighting, splits(), settings(**never, batch_size=least - 1), tmp_path / "run")
        fit(part, weighting, splits(), settings(**never, batch_size=least), tmp_path / type(term).__name__)


def test_a_factor_vae_of_gamma_0_is_a_vae(tmp_path: Path) -> None:
    never = {"eval_freq": 0, "sample_freq": 0}
    plain = Objective(small_vae(), ELBO())
    fit(plain, Weighting(lambda pixels: {"rate": 1.0}, {}), splits(), settings(**never), tmp_path / "vae")
    factor = Objective(small_vae(), ELBO(), {"critic": TotalCorrelationCritic((3,), width=8, depth=2)})
    weighting = Weighting(lambda pixels: {"rate": 1.0, "critic": 0.0}, {})
    fit(factor, weighting, splits(), settings(**never), tmp_path / "factor_vae")
    for (name, a), b in zip(plain.model.state_dict().items(), factor.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    test = json.loads((tmp_path / "factor_vae" / "metrics.json").read_text())["test"]
    assert "critic_loss" in test
