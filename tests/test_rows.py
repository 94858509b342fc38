"""Every row of the table of methods, end to end, on images of no size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import everything

from vaes import Experiment, evaluate
from vaes.config import parse
from vaes.data import Splits, arrays
from vaes.evaluate import Budget, Metric
from vaes.methods import METHODS
from vaes.train.listeners import Listener

STEPS = 20
BUDGET = Budget(n_images=16, iw_samples=8)


def images() -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    return arrays(pixels[:64], pixels[64:80], valid=pixels[80:])


def experiment(method: str) -> Experiment:
    raw: dict[str, Any] = {
        "method": method,
        "model": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [16]}},
        "train": {"n_steps": STEPS, "batch_size": 16, "eval_freq": 10, "sample_freq": 10, "save_freq": 10, "keep": 9},
    }
    made = Experiment.of(parse(Experiment.of(raw).to_yaml(), "here"))
    assert made == Experiment.of(made.to_dict()) == Experiment.of({}, made.to_arguments())
    return made


class Gradients(Listener):
    """Which parameters an optimiser has met, and whether all stayed finite."""

    unmet: list[str]

    def end(self, training: Any) -> None:
        optimizer = training.state.optimizer
        named = dict(training.state.objective.named_parameters())
        assert all(p.isfinite().all() for p in named.values())
        self.unmet = [
            name for name, p in named.items() if not any(t.abs().sum() > 0 for t in optimizer.state[p].values())
        ]


@pytest.mark.parametrize("method", METHODS)
def test_a_row_trains_resumes_samples_and_is_evaluated(method: str, tmp_path: Path) -> None:
    seen, made = Gradients(), experiment(method)
    run = made.fit(tmp_path / "whole", data=images(), device="cpu", callbacks=[seen])
    assert not seen.unmet

    halfway = tmp_path / "whole" / "ckpt" / "step000010"
    made.fit(tmp_path / "resumed", data=images(), device="cpu", resume=halfway)
    whole, resumed = everything(tmp_path / "whole"), everything(tmp_path / "resumed")
    assert whole["weights"] == resumed["weights"]
    assert _moments(whole) == _moments(resumed)

    assert run.sample(5).isfinite().all()
    metrics = evaluate.evaluate(run.model, images(), only=["likelihood", "reconstruction"], budget=BUDGET)
    found = {metric.name for metric in metrics if isinstance(metric, Metric)}
    assert ("elbo" in found) == ("log_q" in run.model.posterior.gives)
    codes = run.with_data(images()).encode("test")
    assert np.isfinite(codes.mean).all()
    assert np.isfinite(codes.elbo).all() == ("elbo" in found)


def _moments(left: dict[str, Any]) -> dict[str, bytes]:
    """Of the optimiser, and the weights of terms."""
    return {name: tensor for name, tensor in left["training"].items() if not name.startswith("sum.")}
