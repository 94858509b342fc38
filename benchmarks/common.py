"""What the benchmark scripts share: their options, how a model is trained, and what is said beside every number."""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib import pyplot as plt

from vaes import Experiment, Listener
from vaes.data import ImageSet, Splits, to_float
from vaes.model import VAE

__all__ = ["DATA", "ROOT", "Report", "Trained", "codes", "machine", "options", "report_speeds", "train"]

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "mnist"


def options(description: str, seeds: int, data: bool = True) -> argparse.Namespace:
    """``--budget``, ``--seeds``, ``--out`` and, where asked, ``--data``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--budget", choices=("small", "full"), default="small", help="full is the paper's own")
    parser.add_argument("--seeds", type=int, default=seeds, help=f"trainings of each cell (default: {seeds})")
    parser.add_argument("--out", type=Path, default=ROOT, help="benchmarks/results and docs/images are made below it")
    parser.add_argument("--plot", action="store_true", help="only draw the plot again, from the stored results")
    if data:
        parser.add_argument("--data", type=Path, default=DATA, help="folder of the MNIST files (default: %(default)s)")
    return parser.parse_args()


class Trained(NamedTuple):
    """What :func:`train` leaves."""

    model: VAE  # in evaluation mode
    test: dict[str, Any]  # the test numbers of metrics.json
    seconds: float


def train(raw: Mapping[str, Any], splits: Splits, seed: int, callbacks: Sequence[Listener] = ()) -> Trained:
    """Train the configuration on the splits in a folder that is thrown away."""
    quiet = {"train.print_freq": 1000, "train.eval_freq": 0, "train.sample_freq": 0, "train.save_freq": 0}
    experiment = Experiment.of({**raw, "seed": seed}).replace(quiet)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = experiment.fit(Path(folder) / "run", data=splits, callbacks=callbacks)
        test = json.loads((run.folder / "metrics.json").read_text())["test"]
    return Trained(run.model, test, round(time.perf_counter() - began, 1))


@torch.inference_mode()
def codes(model: VAE, images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and log-variances (N, D) of q(z|x) for all images."""
    found = []
    for index in torch.arange(len(images)).split(1000):
        latent = model.encode(to_float(images.read(index), model.value_range))
        found.append((latent.mean, latent.logvar))
    means, logvars = zip(*found, strict=True)
    return torch.cat(means), torch.cat(logvars)


class Report:
    """The JSON file of a benchmark, written anew after each cell, so that a run that is cut off leaves what it has.

    Args:
        name: of the file below ``benchmarks/results``.
        chosen: the command line's options.
        protocol: what was run, for the reader.
        planned: names of all cells that the paper's table has; those without a result are listed as not run.
    """

    def __init__(
        self, name: str, chosen: argparse.Namespace, protocol: Mapping[str, Any], planned: Sequence[str]
    ) -> None:
        self.path = chosen.out / "benchmarks" / "results" / f"{name}.json"
        self.planned = list(planned)
        self.document: dict[str, Any] = {
            "benchmark": name,
            "budget": chosen.budget,
            "seeds": list(range(chosen.seeds)),
            "data": str(chosen.data.name) if "data" in chosen else "drawn",
            "protocol": dict(protocol),
            "machine": machine(),
            "cells": [],
        }

    def add(self, cell: str, **values: Any) -> None:
        """One trained model's numbers."""
        self.document["cells"].append({"cell": cell, **values})
        ran = {entry["cell"] for entry in self.document["cells"]}
        self.document["not_run"] = [name for name in self.planned if name not in ran]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
        print(cell, json.dumps(values), flush=True)

    def close(self) -> None:
        """Say what was run and what was not."""
        cells = self.document["cells"]
        print(f"ran {len(cells)} trainings in {sum(cell['seconds'] for cell in cells) / 60:.1f} minutes: {self.path}")
        print("not run:", ", ".join(self.document["not_run"]) or "nothing")


def machine() -> dict[str, Any]:
    """Processor, threads and versions, for beside every number."""
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "numpy", "vaes")},
        "command": " ".join(["python", *sys.argv]),
    }


def report_speeds(
    name: str,
    chosen: argparse.Namespace,
    speeds: Mapping[str, Sequence[float]],
    ratios: Sequence[tuple[str, str]],
    **said: Any,
) -> None:
    """Write, print and draw images/s, a list of rounds for each way, and the ratios of two ways within a round."""
    within = {f"{a} / {b}": [x / y for x, y in zip(speeds[a], speeds[b], strict=True)] for a, b in ratios}
    document = {"benchmark": name, "unit": "images/s", "rounds": chosen.rounds, **said, "machine": machine()}
    found = {**speeds, **within}
    document |= {"speeds": speeds, "ratios": within}
    document["medians"] = {name: statistics.median(values) for name, values in found.items()}
    path = chosen.out / "benchmarks" / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("| | median | min | max |\n|---|---|---|---|")
    for name, values in found.items():
        digits = 2 if name in within else 0
        row = (statistics.median(values), min(values), max(values))
        print(f"| {name} | " + " | ".join(f"{value:,.{digits}f}" for value in row) + " |")
    draw_speeds(speeds, chosen.out / "docs" / "images" / f"{document['benchmark']}.png")


def draw_speeds(speeds: Mapping[str, Sequence[float]], path: Path) -> None:
    """A bar for each way, as long as its median, and a dot for each round."""
    figure, axis = plt.subplots(figsize=(7.2, 0.42 * len(speeds) + 0.7), layout="constrained")
    for row, (name, values) in enumerate(speeds.items()):
        median = statistics.median(values)
        ours = name.startswith(("ours", "training"))
        axis.barh(row, median, height=0.62, color="#c2452d" if ours else "#9db4c8", alpha=0.85)
        axis.plot(values, [row] * len(values), "o", ms=3.5, color="#333333", alpha=0.6, mew=0)
        axis.annotate(f"{median:,.0f}", (max(values), row), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set(yticks=range(len(speeds)), yticklabels=list(speeds), xlabel="images/s")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.margins(x=0.09)
    axis.invert_yaxis()
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
