"""The one-layer rows of the IWAE paper's MNIST table: test negative log-likelihood of the VAE and the IWAE.

Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519, table 1. Run it
from anywhere:

    python benchmarks/iwae_table.py [--budget small|full] [--seeds N] [--data FOLDER] [--plot]

As there: 784-200-200-50-200-200-784, tanh, Bernoulli pixels drawn anew at every step, batches of 20, Glorot weights,
the output's bias from the mean image, eight learning rates from 1e-3 to 1e-4, the 5,000-sample bound of the last
weights. Not as there: Adam's epsilon is 1e-8 for 1e-4. The paper (and ``full``) gives rate i 3^(i-1) epochs, 3,280 in
all; ``small`` gives the eight rates equal shares of a few epochs, and leaves out k = 50.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from common import Report, codes, options, train
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from torch import nn

from vaes import Listener
from vaes.config.registry import SCHEDULES
from vaes.data import ImageSet, Splits, binarize, mnist, to_float
from vaes.evaluate import active_units
from vaes.evaluate.likelihood import importance_weighted
from vaes.model import VAE
from vaes.schedules import Schedule
from vaes.train.loop import Training

PAPER = {"vae k=1": 86.76, "vae k=5": 86.47, "vae k=50": 86.35, "iwae k=5": 85.54, "iwae k=50": 84.78}
"""IWAE k = 1 is VAE k = 1."""
MODEL = {"z_dim": 50, "network": {"kind": "mlp", "hidden": [200, 200], "activation": "tanh"}, "likelihood": "bernoulli"}
STAGES = 8
BATCH = 20
BUDGETS: dict[str, dict[str, Any]] = {
    "small": {
        "cells": ["vae k=1", "vae k=5", "iwae k=5"],
        "epochs": [2.0] * STAGES,
        "bound_images": 300,
    },
    "full": {"cells": list(PAPER), "epochs": [3.0**i for i in range(STAGES)], "bound_images": 10_000},
}
SAMPLES, FEW = 5_000, 10


class Stages(Schedule):
    """``1e-4 * round(10^(1 - i / 7), 1)`` in stage i = 0 .. 7, each as many steps long as is said."""

    def __init__(self, total_steps: int, *, lengths: tuple[int, ...]) -> None:
        self.lengths = lengths

    def __call__(self, step: int) -> float:
        """The learning rate at a step."""
        ends = [sum(self.lengths[: i + 1]) for i in range(len(self.lengths))]
        stage = next((i for i, end in enumerate(ends) if step < end), len(ends) - 1)
        return 1e-4 * round(10 ** (1 - stage / 7), 1)


SCHEDULES["stages"] = Stages


def main() -> None:
    """Train every cell, write the numbers, draw the plot."""
    chosen = options(__doc__.splitlines()[0], seeds=1)
    budget = BUDGETS[chosen.budget]
    protocol = {"model": MODEL, "batch_size": BATCH, "k_bound": SAMPLES, **budget}
    report = Report("iwae_table", chosen, protocol, list(PAPER))
    if not chosen.plot:
        run(report, chosen, budget)
        report.close()
    images = chosen.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(json.loads(report.path.read_text()), images / "results-iwae.png")


def run(report: Report, chosen: argparse.Namespace, budget: dict[str, Any]) -> None:
    """All cells of the budget."""
    grey = mnist(root=str(chosen.data), image_size=None, n_valid=400, download=False, held_out="order")
    splits = binarize(grey, "dynamic")
    mean = to_float(grey.train.read(torch.arange(len(grey.train))), (0.0, 1.0)).mean((0, 1)).flatten()
    for seed in range(chosen.seeds):
        for cell in budget["cells"]:
            run_cell(report, splits, mean, cell, seed, budget)


def run_cell(report: Report, splits: Splits, mean: torch.Tensor, cell: str, seed: int, budget: dict[str, Any]) -> None:
    """One training and its likelihood on test images."""
    method, _, k = cell.partition(" k=")
    lengths = [round(epochs * len(splits.train) / BATCH) for epochs in budget["epochs"]]
    lr = {"kind": "stages", "lengths": lengths}
    settings = {"n_steps": sum(lengths), "batch_size": BATCH, "optimizer": "adam", "eps": 1e-4, "lr": lr}
    raw = {"method": method, "objective": {"samples": int(k)}, "model": MODEL, "train": settings}
    trained = train(raw, splits, seed, callbacks=[Initialised(mean, seed)])
    nll, stderr = negative_log_likelihood(trained.model, splits.test, budget["bound_images"])
    report.add(
        cell,
        seed=seed,
        seconds=trained.seconds,
        steps=sum(lengths),
        nll=round(nll, 3),
        stderr=round(stderr, 3),
        negative_elbo=round(-trained.test["elbo"]["value"], 3),
        active_units=active_units(codes(trained.model, splits.test)[0]).value,
        paper=PAPER[cell],
    )


class Initialised(Listener):
    """Gives the model the paper's initial weights before its first step."""

    def __init__(self, mean: torch.Tensor, seed: int) -> None:
        self._mean, self._seed = mean, seed

    def start(self, training: Training) -> None:
        """Before the first step."""
        initialise(training.state.model, self._mean, self._seed)


def initialise(model: VAE, mean: torch.Tensor, seed: int) -> None:
    """Glorot's uniform weights, zero biases, and an output that starts at the mean image (784,)."""
    generator = torch.Generator().manual_seed(seed)
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight, generator=generator)
        nn.init.zeros_(linear.bias)
    output = next(linear for linear in linears if linear.out_features == mean.numel())
    with torch.no_grad():
        output.bias.copy_(torch.logit(mean.clamp(0.001, 0.999)))


@torch.inference_mode()
def negative_log_likelihood(model: VAE, test: ImageSet, n: int) -> tuple[float, float]:
    """The 5,000-sample bound's mean over all test images, nats, and its standard error.

    The bound with few samples is taken on every image; what 5,000 samples add to it, which varies little from image to
    image, is estimated on n of them chosen at random. The error is that of the choice.
    """
    everything = torch.arange(len(test))
    few = torch.cat([bound(model, test, index, FEW) for index in everything.split(1000)])
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:n].sort().values
    gain = (bound(model, test, chosen, SAMPLES) - few[chosen]).double()
    left = 1 - n / len(test)
    return -float(few.double().mean() + gain.mean()), float(gain.std()) * math.sqrt(left / n)


def bound(model: VAE, test: ImageSet, index: torch.Tensor, k: int) -> torch.Tensor:
    """The importance-weighted bound of the images at the index (B,), nats."""
    x = to_float(test.read(index), model.value_range)
    return importance_weighted(model, x, k, seed=0, images=index.tolist()).value


def plot(document: dict[str, Any], path: Path) -> None:
    """Ours beside the paper's, a row for each cell."""
    figure, axis = plt.subplots(figsize=(7.6, 2.9), layout="constrained")
    names = list(reversed(PAPER))
    for row, name in enumerate(names):
        ours = [cell for cell in document["cells"] if cell["cell"] == name]
        axis.plot(PAPER[name], row, color="#777777", marker="s", linestyle="", zorder=3)
        label(axis, PAPER[name], row, f"{PAPER[name]:.2f}", "#555555", left=True)
        if not ours:
            label(axis, PAPER[name], row, "not run", "#999999")
        for cell in ours:
            axis.plot([PAPER[name], cell["nll"]], [row, row], color="#dddddd", zorder=1)
            axis.errorbar(cell["nll"], row, xerr=2 * cell["stderr"], color="#2b6ca3", marker="o", ms=5, capsize=3)
            label(axis, cell["nll"], row, f"{cell['nll']:.2f}", "#2b6ca3")
    axis.plot([], [], color="#777777", marker="s", linestyle="", label="paper")
    axis.plot([], [], color="#2b6ca3", marker="o", ms=5, linestyle="", label=f"ours, {document['budget']} budget")
    axis.set_yticks(range(len(names)), [name.upper().replace("K=", "k = ") for name in names])
    axis.set_xlabel("test negative log-likelihood, nats per image (5,000-sample bound)")
    axis.margins(x=0.14, y=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8.5, loc="lower right")
    figure.savefig(path, dpi=130)


def label(axis: Axes, x: float, y: float, text: str, colour: str, left: bool = False) -> None:
    """A text beside a marker."""
    axis.annotate(
        text,
        (x, y),
        xytext=(-9 if left else 9, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=8.5,
        color=colour,
    )


if __name__ == "__main__":
    main()
