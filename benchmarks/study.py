"""How much of a disentanglement score is the method, how much its coefficient, and how much the seed? On sprites.

    python benchmarks/study.py [--budget small|full] [--jobs N] [--out FOLDER] [--plot]

The question of Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled
Representations, 2019, https://arxiv.org/abs/1811.12359. Methods x coefficients x seeds are sweeps below
``study/BUDGET`` (one for each method), every run is evaluated, and the same command goes on where it was cut off.
``small`` takes less than two hours on two cores: a small MLP on 32x32 sprites, a few coefficients and seeds, and a
smaller critic for FactorVAE. ``full`` has the paper's sizes, steps, coefficients and 50 seeds.

Written are, and in ``docs/results.md`` shown, every score, its distribution by method, the rank correlation of the
scores over runs, the shares of a score's variance (between methods, between coefficients of a method, between seeds),
and the unsupervised disentanglement ranking (UDR) of each configuration.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine
from matplotlib import pyplot as plt
from scipy.stats import spearmanr
from study_table import write_tables

import vaes
from vaes import Experiment, compare
from vaes.evaluate import report

LOCATELLO = {
    "beta_vae": ("objective.beta", [1, 2, 4, 6, 8, 16]),
    "annealed_vae": ("objective.capacity.target.stop", [5, 10, 25, 50, 75, 100]),
    "factor_vae": ("objective.gamma", [10, 20, 30, 40, 50, 100]),
    "dip_vae_i": ("objective.lambda_od", [1, 2, 5, 10, 20, 50]),
    "dip_vae_ii": ("objective.lambda_od", [1, 2, 5, 10, 20, 50]),
    "beta_tcvae": ("objective.beta", [1, 2, 4, 6, 8, 10]),
}
SMALL = {
    "beta_vae": ("objective.beta", [1, 4, 16]),
    "factor_vae": ("objective.gamma", [10, 40]),
    "dip_vae_i": ("objective.lambda_od", [2, 10]),
    "dip_vae_ii": ("objective.lambda_od", [2, 10]),
    "beta_tcvae": ("objective.beta", [2, 6]),
}
QUIET = {"print_freq": 1000, "sample_freq": 0, "keep": 1}
BUDGETS: dict[str, dict[str, Any]] = {
    "dry": {
        "methods": {"beta_vae": ("objective.beta", [1])},
        "seeds": 2,
        "data": {"kind": "sprites", "image_size": 16, "n_train": 100, "n_valid": 20, "n_test": 120},
        "model": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [8]}, "likelihood": "bernoulli"},
        "train": {"n_steps": 4, "batch_size": 16, **QUIET},
        "images": 120,
    },
    "small": {
        "methods": SMALL,
        "seeds": 4,
        "data": {"kind": "sprites", "image_size": 32},
        "model": {"z_dim": 10, "network": {"kind": "mlp", "hidden": [256, 128]}, "likelihood": "bernoulli"},
        "train": {"n_steps": 3000, "batch_size": 64, "optimizer": "adam", "lr": 1e-3, **QUIET},
        "critic": {"width": 200, "depth": 4},
        "images": 5000,
    },
    "full": {
        "methods": LOCATELLO,
        "seeds": 50,
        "data": {"kind": "sprites", "image_size": 64},
        "model": {"z_dim": 10, "network": {"kind": "locatello"}, "likelihood": "bernoulli"},
        "train": {"n_steps": 300_000, "batch_size": 64, "optimizer": "adam", "lr": 1e-4, "save_freq": 20_000, **QUIET},
        "images": 10_000,
    },
}


def experiment_of(method: str, budget: Mapping[str, Any]) -> Experiment:
    """What is trained by a method, but for coefficient and seed."""
    objective = {"total_correlation_critic": budget["critic"]} if method == "factor_vae" and "critic" in budget else {}
    sections = {name: budget[name] for name in ("data", "model", "train")}
    return Experiment.of({"method": method, "objective": objective, **sections})


def train(budget: Mapping[str, Any], home: Path, jobs: int | None) -> list[Path]:
    """The finished runs of all sweeps."""
    runs = []
    for method, (key, values) in budget["methods"].items():
        done = vaes.sweep(
            experiment_of(method, budget), {key: values}, budget["seeds"], folder=home / method, jobs=jobs
        )
        for one in done.failed:
            print(f"{method}: {one.name}: {one.status}: {one.why}", flush=True)
        runs += [one.folder for one in done.members if one.status == "done"]
        print(f"{method}: {len(done.members) - len(done.failed)} of {len(done.members)} runs", flush=True)
    return runs


def evaluate(runs: Sequence[Path], images: int) -> None:
    """Evaluate those that have not been."""
    for i, run in enumerate(runs):
        if not (run / report.FILE).exists():
            vaes.load(run).evaluate(["disentanglement", "latent"], budget={"n_images": images})
            print(f"evaluated {i + 1} of {len(runs)}: {run.parent.parent.name}/{run.name}", flush=True)


def scores_of(run: Path) -> dict[str, float]:
    """The disentanglement scores of a run."""
    groups = report.read(run)[0].groups
    return {one.name: one.value for one in groups["disentanglement"].metrics if np.isfinite(one.value)}


def shares(values: Sequence[float], methods: Sequence[str], cells: Sequence[str]) -> dict[str, float]:
    """The shares of a score's variance: between methods, between the coefficients of a method, and between seeds.

    Sums of squares of means about the mean above, which add up to the whole: eta squared.

    >>> shares([0, 0, 2, 2], ["a", "a", "b", "b"], ["a1", "a1", "b1", "b1"])
    {'method': 1.0, 'coefficient': 0.0, 'seed': 0.0}
    """
    x = np.asarray(values, dtype=float)
    by_method, by_cell = (np.array([x[[g == own for g in groups]].mean() for own in groups])
                          for groups in (methods, cells))  # fmt: skip
    whole = ((x - x.mean()) ** 2).sum() or 1.0
    found = {
        "method": (by_method - x.mean()) ** 2,
        "coefficient": (by_cell - by_method) ** 2,
        "seed": (x - by_cell) ** 2,
    }
    return {name: round(float(part.sum() / whole), 6) for name, part in found.items()}


def analyse(runs: Sequence[Path]) -> dict[str, Any]:
    """All numbers of the study, of evaluated runs ``METHOD/runs/COEFFICIENT,seed=N``."""
    rows = []
    for run in runs:
        coefficient, _, seed = run.name.rpartition(",seed=")
        rows.append({"method": run.parent.parent.name, "coefficient": coefficient, "seed": int(seed), **scores_of(run)})
    names = [name for name in rows[0] if name not in ("method", "coefficient", "seed")]
    names = [name for name in names if all(name in row for row in rows)]
    methods = [row["method"] for row in rows]
    cells = [f"{row['method']} {row['coefficient']}" for row in rows]
    table = np.array([[row[name] for name in names] for row in rows])
    with np.errstate(all="ignore"):
        ranks = np.array([[spearmanr(a, b).statistic for b in table.T] for a in table.T])
    return {
        "runs": rows,
        "scores": names,
        "rank correlation": [[None if not np.isfinite(r) else round(float(r), 3) for r in row] for row in ranks],
        "variance": {name: shares(table[:, i].tolist(), methods, cells) for i, name in enumerate(names)},
        "udr": rankings(runs),
    }


def rankings(runs: Sequence[Path]) -> dict[str, float]:
    """The UDR of each configuration."""
    found = {}
    for home in dict.fromkeys(run.parent.parent for run in runs):
        of_method = [run for run in runs if run.parent.parent == home]
        for column in compare.pool(compare.read_runs(of_method)) if len(of_method) > 1 else []:
            for key, cell in column.cells.items():
                if key.name == "udr":
                    found[f"{home.name} {column.runs[0].path.name.rpartition(',seed=')[0]}"] = round(cell.value, 4)
    return found


def plot(document: Mapping[str, Any], path: Path) -> None:
    """A violin of each score by method, and the rank correlation of scores."""
    rows, names = document["runs"], document["scores"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = 3
    lines = -(-(len(names) + 1) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.1 * columns, 2.7 * lines), layout="constrained")
    flat = list(np.ravel(axes))
    for axis, name in zip(flat, names, strict=False):
        groups = [[row[name] for row in rows if row["method"] == method] for method in methods]
        axis.violinplot(groups, showmedians=True, widths=0.8)
        for i, group in enumerate(groups, start=1):
            axis.plot([i] * len(group), group, "o", ms=2.5, color="#333333", alpha=0.5, mew=0)
        axis.set_xticks(range(1, len(methods) + 1), methods, rotation=30, ha="right", fontsize=7)
        part = document["variance"][name]
        title = f"{name}\nmethod {part['method']:.0%}, coefficient {part['coefficient']:.0%}, seed {part['seed']:.0%}"
        axis.set_title(title, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    last = flat[len(names)]
    ranks = np.array([[np.nan if r is None else r for r in row] for row in document["rank correlation"]])
    last.imshow(ranks, vmin=-1, vmax=1, cmap="RdBu")
    last.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
    last.set_yticks(range(len(names)), names, fontsize=6)
    last.set_title("rank correlation over runs", fontsize=8)
    for axis in flat[len(names) + 1 :]:
        axis.set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Train, evaluate, analyse, write tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", choices=BUDGETS, default="small", help="full is the paper's own")
    parser.add_argument("--jobs", type=int, help="runs at a time (default: as many as there are cores)")
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="study/, benchmarks/results and docs/images are below it"
    )
    parser.add_argument(
        "--plot", action="store_true", help="only write the tables and draw the plot again, from the stored results"
    )
    chosen = parser.parse_args()
    path = chosen.out / "benchmarks" / "results" / "study.json"
    if not chosen.plot:
        budget = BUDGETS[chosen.budget]
        runs = train(budget, chosen.out / "study" / chosen.budget, chosen.jobs)
        evaluate(runs, budget["images"])
        document = {"benchmark": "study", "budget": chosen.budget, "protocol": budget, "machine": machine()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**document, **analyse(runs)}, indent=1) + "\n", encoding="utf-8")
        print(f"{len(runs)} runs: {path}")
    document = json.loads(path.read_text(encoding="utf-8"))
    write_tables(document, chosen.out / "docs" / "results.md")
    plot(document, chosen.out / "docs" / "images" / "results-study.png")


if __name__ == "__main__":
    main()
