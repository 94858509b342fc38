from pathlib import Path

import numpy as np
import pytest
from parts import small_vae

from vaes import likelihoods
from vaes.data import Splits, arrays, binarize
from vaes.objectives import IWAE, Objective
from vaes.train import Settings, checkpoint
from vaes.train.loop import fit
from vaes.train.weighting import Weighting


def splits() -> Splits:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return binarize(arrays(images[:40], images[40:50], valid=images[50:]), "dynamic")


def trained(run: Path, n_steps: int, resume: checkpoint.Checkpoint | None = None) -> dict[str, bytes]:
    objective = Objective(small_vae(likelihood=likelihoods.Bernoulli(), seed=5 if resume else 0), IWAE(samples=3))
    settings = Settings(lr=2e-3, n_steps=n_steps, batch_size=8, print_freq=0, eval_freq=0, sample_freq=0, save_freq=0)
    fit(objective, Weighting(lambda pixels: {}, {}), splits(), settings, run, resume=resume, within=resume is not None)
    weights = checkpoint.read(checkpoint.newest_folder(run)).weights
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


@pytest.mark.parametrize("saved", [2, 7])
def test_a_resumed_training_on_dynamic_draws_equals_an_uninterrupted_one(tmp_path: Path, saved: int) -> None:
    uninterrupted = trained(tmp_path / "whole", 9)
    cut = trained(tmp_path / "cut", saved)
    assert cut != uninterrupted
    start = checkpoint.read(checkpoint.newest_folder(tmp_path / "cut"))
    assert trained(tmp_path / "cut", 9, start) == uninterrupted
