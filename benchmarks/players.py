"""A step of ``kl_vae`` with its critic in a training against the same networks in a bare loop, side by side.

    python benchmarks/players.py [--rounds 5] [--steps 5] [--size 32] [--batch 8]

- bare: encoder, draw, decoder; the sum of absolute errors, the distance of features, the KL and the critic's verdict;
  then the critic's hinge loss; a backward pass and an Adam for each, on one batch that is in memory;
- ours: a training by ``vaes.train.loop``, with Adam and all that it does between lines, validations and checkpoints.

Both in one process, in turn, the first steps of each round not counted. Quote the median over rounds of the ratio bare
/ ours within a round.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import machine
from torch.nn.functional import relu

from vaes import Experiment
from vaes import config as configuration
from vaes.data import arrays, to_float
from vaes.objectives.terms.critics import frozen
from vaes.train.listeners import Listener
from vaes.train.loop import fit

WARM = 2
NEVER = {"print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0}


class Clock(Listener):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def stepped(self, training: object, step: int) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def of_a_step(ends: list[float]) -> float:
    """Seconds, the mean after the first steps."""
    return (ends[-1] - ends[WARM - 1]) / (len(ends) - WARM)


def experiment(chosen: argparse.Namespace) -> Experiment:
    """The row with a light network."""
    network = {"kind": "autoencoder_kl", "ch": 32, "ch_mult": [1, 2, 4]}
    train = {"optimizer": "adam", "batch_size": chosen.batch, "n_steps": WARM + chosen.steps, **NEVER}
    return Experiment.of({"method": "kl_vae", "model": {"network": network}, "train": train})


def ours(chosen: argparse.Namespace, images: np.ndarray) -> float:
    """By the training loop."""
    e, clock = experiment(chosen), Clock()
    shape = images.shape[1:]
    objective, weighting = configuration.build_objective(e, e.build_model(shape), shape)
    splits = arrays(images, images[:2], valid=images[:2])
    with tempfile.TemporaryDirectory() as folder:
        fit(objective, weighting, splits, e.settings(), Path(folder) / "run", callbacks=[clock])
    return of_a_step(clock.ends)


def bare(chosen: argparse.Namespace, images: np.ndarray) -> float:
    """By hand."""
    e, shape = experiment(chosen), images.shape[1:]
    objective, weighting = configuration.build_objective(e, e.build_model(shape), shape)
    pixels = int(np.prod(shape))
    weights = weighting(0, pixels)
    encoder, decoder = objective.model.encoder, objective.model.decoder
    perceptual, critic = objective.terms["perceptual"], objective.terms["patch_critic"].critic
    model = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-4)
    other = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.5, 0.9))
    x = to_float(torch.from_numpy(images[: chosen.batch]), objective.model.value_range)
    ends = []
    for _ in range(WARM + chosen.steps):
        mean, logvar = objective.model.features(x).unflatten(1, (2, *objective.model.z_shape)).unbind(1)
        y = decoder(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        loss = (x - y).abs().sum() / len(x)
        loss = loss + weights["rate"] * 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / len(x)
        loss = loss + weights["perceptual"] * perceptual.distance((x + 1) / 2, (y + 1) / 2).mean()
        loss = loss - weights["patch_critic"] * frozen(critic, y).mean()
        model.zero_grad()
        loss.backward()
        model.step()
        real, made = critic(torch.cat([x, y.detach()])).chunk(2)
        wrong = 0.5 * (relu(1 - real).mean() + relu(1 + made).mean())
        other.zero_grad()
        wrong.backward()
        other.step()
        ends.append(time.perf_counter())
    return of_a_step(ends)


def main() -> None:
    """Time both in turn and print."""
    parser = argparse.ArgumentParser(description="A step of kl_vae with its critic against a bare loop.")
    for name, default in (("rounds", 5), ("steps", 5), ("size", 32), ("batch", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (64, 3, chosen.size, chosen.size), dtype=np.uint8)
    times = [(bare(chosen, images), ours(chosen, images)) for _ in range(chosen.rounds)]
    ratios = [a / b for a, b in times]
    print(json.dumps({
        "benchmark": "players", "protocol": vars(chosen), "machine": machine(),
        "ms": {name: [round(1000 * t, 1) for t in values]
               for name, values in zip(("bare", "ours"), zip(*times, strict=True), strict=True)},
        "ratios": [round(ratio, 3) for ratio in ratios], "ratio": round(statistics.median(ratios), 3),
    }, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
