"""How many images the default recipe takes to what constant Adam reaches with many.

    python benchmarks/time_to_quality.py [--sets mnist faces sprites] [--seeds 5] [--fractions 5 10] [--jobs 2]

For each shipped configuration a *reference* is trained with Adam at a constant 1e-3 for as many steps as REFERENCE says
(one seed), and its test loss is taken twenty times along the way: the lowest of them is what is to be reached. Then
the *recipe*, the defaults of ``train``, is trained for a fifth and for a tenth of the images, over the seeds; its
schedule spans the training, so each budget is a training of its own. Same model, batch and data. Of the recipe nothing
is chosen by the test images: its last step counts.

``--recipes`` adds variants of the recipe; ``--jobs`` trains so many cells at once, each with its share of the threads,
which changes the rounding, not what is compared.

The loss is what training minimises, in nats per image: the negative ELBO, or beta-VAE's at beta = 4 for the sprites; of
MNIST's Gaussian without its constant, (1024 / 2) log 2 pi. Results are added to the JSON file as they come, and a cell
that is there is not trained again.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from common import ROOT, machine
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from vaes import Experiment
from vaes.data import Splits

CONSTANT = "constant Adam"
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "peak 8e-3": {"lr": {"kind": "one_cycle", "peak": 8e-3}},
    "one-cycle Adam": {"optimizer": "adam"},
    CONSTANT: {"optimizer": "adam", "lr": 1e-3},
}
REFERENCE: dict[str, dict[str, Any]] = {
    "mnist": {"config": "vae-mnist", "n_steps": 10_000, "batch_size": 256, "root": "mnist", "data": {}},
    "faces": {
        "config": "vae-faces",
        "n_steps": 5000,
        "batch_size": 64,
        "root": "faces/faces.zip",
        "data": {"data.flip": True},
    },
    "sprites": {"config": "beta-vae-sprites", "n_steps": 10_000, "batch_size": 64, "root": None, "data": {}},
}
OFFSET = {"mnist": 512 * math.log(2 * math.pi), "faces": 0.0, "sprites": 0.0}
TITLES = {"mnist": "MNIST 32x32, VAE", "faces": "faces 64x64, VAE", "sprites": "sprites 64x64, beta-VAE"}
RECIPE_COLOUR, REFERENCE_COLOUR = "#c2452d", "#2b6ca3"


def train(name: str, data: Path, n_steps: int, seed: int, options: dict[str, Any], evaluations: int) -> dict[str, Any]:
    """One training; its test losses (step, nats per image) and the seconds of processor time that it took."""
    plan = REFERENCE[name]
    steps = {"n_steps": n_steps, "batch_size": plan["batch_size"], "print_freq": 0, "sample_freq": 0, "save_freq": 0}
    changes = {"seed": seed, "train": {**options, **steps, "eval_freq": n_steps // evaluations}, **plan["data"]}
    if plan["root"]:
        changes["data.root"] = str(data / plan["root"])
    experiment = Experiment.read(plan["config"]).replace(changes)
    whole = experiment.build_data()
    splits = Splits(whole.train, whole.test, whole.test)  # the curve is that of the test images
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        experiment.fit(run, data=splits)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [(line["step"], round(line["loss"] - OFFSET[name], 3)) for line in lines if line["split"] == "valid"]
    return {"curve": curve, "loss": curve[-1][1], "processor_seconds": round(time.process_time() - began)}


def main() -> None:
    """Train what is not there yet, write the numbers, print and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=REFERENCE, default=list(REFERENCE))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--fractions", type=int, nargs="*", default=[5, 10], help="of the reference's images: 1 / these"
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["default", CONSTANT])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    path = chosen.out / "benchmarks" / "results" / "time_to_quality.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = json.loads(path.read_text()) if path.exists() else {"benchmark": "time_to_quality", "cells": []}
    document |= {"reference": REFERENCE, "recipes": RECIPES, "unit": "nats per image"}

    cells: list[dict[str, Any]] = []
    if CONSTANT in chosen.recipes:  # the longest first
        cells += [planned(name, CONSTANT, 1, 0) for name in chosen.sets]
    recipes = [recipe for recipe in chosen.recipes if recipe != CONSTANT]
    for fraction, name, recipe in itertools.product(chosen.fractions, chosen.sets, recipes):
        cells += [planned(name, recipe, fraction, seed) for seed in range(chosen.seeds)]
    missing = [cell for cell in cells if not any(cell.items() <= done.items() for done in document["cells"])]
    threads = max(1, torch.get_num_threads() // chosen.jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, spawn, torch.set_num_threads, (threads,), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(run, cell, chosen.data) for cell in missing]):
            document["cells"].append(future.result())
            document["machine"] = machine()
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    report(document)
    images = chosen.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(document, images / "time-to-quality.png")


def planned(name: str, recipe: str, fraction: int, seed: int) -> dict[str, Any]:
    """What tells one training from the others."""
    n_steps = REFERENCE[name]["n_steps"] // fraction
    return {"set": name, "recipe": recipe, "fraction": fraction, "seed": seed, "n_steps": n_steps}


def run(cell: dict[str, Any], data: Path) -> dict[str, Any]:
    """One training of the table, in whatever process."""
    evaluations = 20 if cell["recipe"] == CONSTANT else 1
    found = train(cell["set"], data, cell["n_steps"], cell["seed"], RECIPES[cell["recipe"]], evaluations)
    print(cell, found["loss"], f"{found['processor_seconds']} s", flush=True)
    return {**cell, **found, "threads": torch.get_num_threads()}


def cells_of(document: dict[str, Any], name: str, recipe: str, fraction: int) -> list[dict[str, Any]]:
    """The trainings that were run, one for each seed."""
    key = planned(name, recipe, fraction, 0)
    del key["seed"]
    return [cell for cell in document["cells"] if key.items() <= cell.items()]


def losses(document: dict[str, Any], name: str, fraction: int) -> list[float]:
    """Of the recipe's seeds."""
    return [cell["loss"] for cell in cells_of(document, name, "default", fraction)]


def lowest(cell: dict[str, Any]) -> float:
    """The lowest loss along the way, which is not always the last: at a constant rate it goes up and down."""
    return float(min(loss for _, loss in cell["curve"]))


def reference(document: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The reference's cell, if it was run."""
    return next(iter(cells_of(document, name, CONSTANT, 1)), None)


def fractions(document: dict[str, Any], name: str) -> list[int]:
    """The recipe's budgets that were run, the largest fraction of the images first."""
    stored = sorted({cell["fraction"] for cell in document["cells"]})
    return [fraction for fraction in stored if losses(document, name, fraction)]


def report(document: dict[str, Any]) -> None:
    """The table of ``docs/performance.md``."""
    print("| | images | test loss | seeds that reach the reference |\n|---|---|---|---|")
    for name, plan in REFERENCE.items():
        target = reference(document, name)
        images = plan["n_steps"] * plan["batch_size"]
        if target:
            ran = target["n_steps"] * plan["batch_size"]
            values = f"{target['loss']:.1f}, lowest {lowest(target):.1f}"
            print(f"| {TITLES[name]}: Adam, constant 1e-3 | {ran:,} | {values} | |")
        for fraction in fractions(document, name):
            found = losses(document, name, fraction)
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            reached = f"{sum(loss <= lowest(target) for loss in found)} of {len(found)}" if target else ""
            budget = f"{images // fraction:,} (1/{fraction})"
            print(f"| {TITLES[name]}: default recipe | {budget} | {statistics.fmean(found):.1f}{spread} | {reached} |")


def plot(document: dict[str, Any], path: Path) -> None:
    """Test loss against images: the reference's curve, the recipe's ends."""
    names = [name for name in REFERENCE if fractions(document, name)]
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.6), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        batch, target = REFERENCE[name]["batch_size"], reference(document, name)
        if target:
            steps, values = zip(*target["curve"], strict=True)
            images = [step * batch for step in steps]
            axis.plot(images, values, color=REFERENCE_COLOUR, marker=".", label="Adam, constant 1e-3, along the way")
            axis.axhline(lowest(target), color=REFERENCE_COLOUR, linewidth=0.8, linestyle=":")
        for i, fraction in enumerate(fractions(document, name)):
            found = losses(document, name, fraction)
            at = REFERENCE[name]["n_steps"] // fraction * batch
            label = "default recipe, the end of each training" if i == 0 else None
            axis.plot([at] * len(found), found, "D", color=RECIPE_COLOUR, ms=5, alpha=0.75, mec="white", label=label)
        axis.set(title=TITLES[name], xlabel="training images", xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes[0][0].set_ylabel("test loss, nats per image")
    axes[0][0].legend(frameon=False, fontsize=8.5)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
