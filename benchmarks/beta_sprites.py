"""beta against the mutual information gap (MIG) and the reconstruction, on sprites, over several seeds.

The trade that Higgins et al., beta-VAE, 2017, https://openreview.net/forum?id=Sy2fzU9gl, propose and Locatello et al.,
2019, https://arxiv.org/abs/1811.12359, measure. Run it from anywhere:

    python benchmarks/beta_sprites.py [--budget small|full] [--seeds N] [--plot]

``small`` is a small MLP on 32x32 sprites; ``full`` has Locatello et al.'s sizes and steps: 64x64, batches of 64,
300,000 steps, Adam at 1e-4. Half the side halves a sprite's outline and with it the nats of the distortion, so that a
beta weighs more at 32x32 than the same beta at 64x64.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from common import Report, codes, options, train
from matplotlib import pyplot as plt

from vaes.data import Splits, sprites
from vaes.evaluate import active_units, mig_chen, mig_locatello

CONV = {"kind": "conv", "dim": 32, "dim_mults": [1, 1, 2, 2], "norm": "none"}
BUDGETS: dict[str, dict[str, Any]] = {
    "small": {
        "image_size": 32,
        "betas": [1, 4, 16],
        "network": {"kind": "mlp", "hidden": [256, 128]},
        "train": {"n_steps": 4000, "batch_size": 64, "optimizer": "adam", "lr": 1e-3},
    },
    "full": {
        "image_size": 64,
        "betas": [1, 2, 4, 6, 8, 16],
        "network": CONV,
        "train": {"n_steps": 300_000, "batch_size": 64, "optimizer": "adam", "lr": 1e-4},
    },
}
NUMBERS = {
    "mig_locatello": "MIG (Locatello: 5 factors, mean codes)",
    "mig_chen": "MIG (Chen: 4 factors, sampled codes)",
    "distortion": "distortion, nats per image",
    "rate": "rate, nats per image",
}


def main() -> None:
    """Train every cell, write the numbers, draw the plot."""
    chosen = options(__doc__.splitlines()[0], seeds=3, data=False)
    budget = BUDGETS[chosen.budget]
    planned = [f"beta={beta}" for beta in BUDGETS["full"]["betas"]]
    report = Report("beta_sprites", chosen, {"z_dim": 10, "likelihood": "bernoulli", **budget}, planned)
    if not chosen.plot:
        splits = sprites(image_size=budget["image_size"])
        for seed in range(chosen.seeds):
            for beta in budget["betas"]:
                run_cell(report, splits, budget, beta, seed)
        report.close()
    images = chosen.out / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    plot(json.loads(report.path.read_text()), images / "results-beta.png")


def run_cell(report: Report, splits: Splits, budget: dict[str, Any], beta: float, seed: int) -> None:
    """One training and its numbers on the 10,000 test sprites."""
    model = {"z_dim": 10, "network": budget["network"], "likelihood": "bernoulli"}
    raw = {"method": "beta_vae", "objective": {"beta": float(beta)}, "model": model, "train": budget["train"]}
    trained = train(raw, splits, seed)
    mean, logvar = codes(trained.model, splits.test)
    factors = splits.test.factors
    assert factors is not None
    found = {
        "mig_locatello": mig_locatello(mean, factors).value,
        "mig_chen": mig_chen(mean, logvar, factors[:, 1:], n_samples=2_000).value,  # without the shape, as there
        "active_units": active_units(mean).value,
        **{name: trained.test[name]["value"] for name in ("distortion", "rate", "elbo", "mse")},
    }
    rounded = {name: round(value, 5) for name, value in found.items()}
    report.add(f"beta={beta}", beta=beta, seed=seed, seconds=trained.seconds, **rounded)


def plot(document: dict[str, Any], path: Path) -> None:
    """Each number against beta: mean and standard deviation over seeds, and every training as a dot."""
    figure, axes = plt.subplots(1, 4, figsize=(12.4, 3.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]
    betas = sorted({cell["beta"] for cell in document["cells"]})
    for axis, (name, title) in zip(axes, NUMBERS.items(), strict=True):
        groups = [[cell[name] for cell in document["cells"] if cell["beta"] == beta] for beta in betas]
        means = [statistics.fmean(group) for group in groups]
        spread = [statistics.stdev(group) if len(group) > 1 else 0.0 for group in groups]
        axis.errorbar(betas, means, spread, color="#2b6ca3", marker="o", ms=5, capsize=4, linewidth=1.4)
        for beta, group in zip(betas, groups, strict=True):
            axis.scatter([beta] * len(group), group, color="#c2452d", s=11, alpha=0.75, zorder=3)
        axis.set_title(title, fontsize=9.5)
        axis.set(xscale="log", xlabel="beta")
        axis.set_xticks(betas, [f"{beta:g}" for beta in betas])
        axis.minorticks_off()
        axis.margins(x=0.1, y=0.12)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
