"""log det Cov(q(z)) against the size of the training set, for the ELBO and for the MMD.

The figure of Zhao, Song & Ermon, InfoVAE, 2017, https://arxiv.org/abs/1706.02262: with few images the ELBO spreads the
codes far beyond the prior (log det 0), the MMD keeps them where the prior is. Run it from anywhere:

    python benchmarks/logdet_vs_n.py [--budget small|full] [--seeds N] [--data FOLDER] [--plot]

The paper's network is convolutional (64, 128, 1024) with one learned standard deviation per dimension; ours is an MLP
with one for all. ``small`` takes fewer steps at a larger learning rate.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from common import Report, codes, options, train
from matplotlib import pyplot as plt

from vaes.data import Splits, mnist
from vaes.evaluate import log_det_covariance

SIZES = (500, 1_000, 5_000, 10_000, 50_000)
PAPER = {  # read by eye off the authors' plot, to 0.1
    "elbo": {"train": (9.0, 7.7, 5.8, 4.5, 2.2), "test": (8.3, 6.85, 5.1, 4.2, 1.95)},
    "mmd": {"train": (0.0, 0.0, 0.0, 0.0, -0.05), "test": (-1.4, -1.15, -0.7, -0.5, -0.3)},
}
MODEL = {
    "z_dim": 5,
    "network": {"kind": "mlp", "hidden": [256, 128]},
    "likelihood": {"kind": "gaussian", "scale": "learned"},
}
METHODS: dict[str, dict[str, Any]] = {
    "elbo": {"method": "vae"},
    # One unit of MMD beside the negative log-likelihood per pixel, as in the authors' demo. Their evaluation script has
    # 50: at that weight our encoder collapses, the MMD's noise drowns what the images say.
    "mmd": {
        "method": "mmd_vae",
        "objective": {"lambda_": 1.0, "mmd_scale": 784.0, "mmd": {"kernel": "mean_scaled", "biased": True}},
    },
}
BUDGETS: dict[str, dict[str, Any]] = {
    "small": {"sizes": SIZES[:4], "train": {"n_steps": 1500, "batch_size": 200, "optimizer": "adam", "lr": 1e-3}},
    "full": {"sizes": SIZES, "train": {"n_steps": 100_000, "batch_size": 200, "optimizer": "adam", "lr": 1e-4}},
}


def main() -> None:
    """Train every cell, write the numbers, draw the plot."""
    chosen = options(__doc__.splitlines()[0], seeds=2)
    budget = BUDGETS[chosen.budget]
    report = Report(
        "logdet_vs_n",
        chosen,
        {"model": MODEL, "methods": METHODS, **budget},
        [f"{method} N={n}" for method in METHODS for n in SIZES],
    )
    if not chosen.plot:
        whole = mnist(root=str(chosen.data), image_size=None, n_valid=10_000, download=False, held_out="order")
        for seed in range(chosen.seeds):
            for n in budget["sizes"]:
                for method in METHODS:
                    run_cell(report, whole, method, n, seed, budget["train"])
        report.close()
    images = chosen.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(json.loads(report.path.read_text()), images / "results-logdet.png")


def run_cell(report: Report, whole: Splits, method: str, n: int, seed: int, settings: dict[str, Any]) -> None:
    """One training on n images chosen by the seed."""
    order = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(seed))
    splits = Splits(whole.train.subset(order[:n]), whole.valid, whole.test)
    trained = train({**METHODS[method], "model": MODEL, "train": settings}, splits, seed)
    found = {
        name: log_det_covariance(*codes(trained.model, images))
        for name, images in (("train", splits.train), ("test", splits.test))
    }
    report.add(
        f"{method} N={n}",
        method=method,
        n=n,
        seed=seed,
        seconds=trained.seconds,
        **{name: round(metric.value, 3) for name, metric in found.items()},
        **{f"{name}_stderr": round(metric.stderr or 0.0, 3) for name, metric in found.items()},
    )


def plot(document: dict[str, Any], path: Path) -> None:
    """Ours, mean and extremes over seeds, beside the paper's."""
    colours = {"elbo": "#c2452d", "mmd": "#2b6ca3"}
    names = {"elbo": "ELBO", "mmd": "MMD (InfoVAE, alpha = 1)"}
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.0), sharey=True, layout="constrained")
    for axis, split in zip(axes, ("train", "test"), strict=True):
        axis.axhline(0, color="#888888", linewidth=0.8)
        for method, colour in colours.items():
            sizes, means, low, high = _series(document["cells"], method, split)
            name = names[method]
            axis.errorbar(sizes, means, [low, high], color=colour, marker="o", capsize=3, label=f"{name}, ours")
            paper = PAPER[method][split]
            axis.plot(SIZES, paper, color=colour, linestyle="--", marker="s", ms=4, alpha=0.6, label=f"{name}, paper")
        axis.set(xscale="log", xlabel="training images N", title=f"codes of {split} images")
        axis.set_xticks(SIZES, ["500", "1k", "5k", "10k", "50k"])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("log det Cov q(z)   (prior: 0)")
    axes[1].legend(frameon=False, fontsize=8.5)
    figure.savefig(path, dpi=130)


def _series(
    cells: list[dict[str, Any]], method: str, split: str
) -> tuple[list[int], list[float], list[float], list[float]]:
    by_size: dict[int, list[float]] = {}
    for cell in cells:
        if cell["method"] == method:
            by_size.setdefault(cell["n"], []).append(cell[split])
    sizes = sorted(by_size)
    means = [statistics.fmean(by_size[n]) for n in sizes]
    low = [mean - min(by_size[n]) for n, mean in zip(sizes, means, strict=True)]
    high = [max(by_size[n]) - mean for n, mean in zip(sizes, means, strict=True)]
    return sizes, means, low, high


if __name__ == "__main__":
    main()
