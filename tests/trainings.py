"""Small trainings that several tests run."""

from pathlib import Path

import numpy as np
from parts import small_vae

from vaes.data import Splits, arrays
from vaes.objectives import ELBO, MMD, Objective
from vaes.schedules import Linear
from vaes.train import Settings, checkpoint
from vaes.train.listeners import Listener
from vaes.train.loop import Training
from vaes.train.weighting import Weighting


def splits() -> Splits:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return arrays(images[:40], images[40:50], valid=images[50:])


def settings(**options: object) -> Settings:
    given = {
        "n_steps": 6,
        "batch_size": 8,
        "print_freq": 2,
        "eval_freq": 3,
        "sample_freq": 3,
        "save_freq": 2,
        **options,
    }
    return Settings(**given)  # type: ignore[arg-type]


def weighting() -> Weighting:
    return Weighting(
        lambda pixels, *, beta: {"rate": beta, "mmd": 0.5 * pixels}, {"beta": Linear(6, start=0.0, stop=1.0)}
    )


def objective(seed: int = 0) -> Objective:
    return Objective(small_vae(network="conv", seed=seed), ELBO(), {"mmd": MMD()})


class Said(Listener):
    """What a training says."""

    text = ""

    def said(self, training: Training, text: str) -> None:
        self.text += text + "\n"


def everything(run: Path) -> dict[str, object]:
    """All that a training leaves, but for TensorBoard's files, which hold the time."""
    last = checkpoint.read(checkpoint.newest_folder(run))
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in last.weights.items()},
        "training": {name: tensor.numpy().tobytes() for name, tensor in last.training.items()},
        "state": {name: value for name, value in last.state.items() if name not in ("sha256", "checksum")},
        "lines": (run / "metrics.jsonl").read_text(),
        "metrics": (run / "metrics.json").read_text(),
        "pictures": {path.name: path.read_bytes() for path in (run / "samples").iterdir()},
        "planes": {path.name: path.read_bytes() for path in (run / "plane").glob("*")},
    }
