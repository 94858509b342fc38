"""Images per second of training the MNIST configuration: a conventional loop, the bare step, and ours.

    python benchmarks/throughput.py [--rounds 5] [--steps 20] [--data ../shared/data/mnist]

- conventional: a DataLoader with two workers, each digit resized, converted and normalised by itself from a PIL image,
the loss read with
  ``.item()`` at every step;
- bare: forward, backward and Adam on one batch that is already in memory;
- ours: ``vaes.train.loop.fit`` with everything that training does, but for lines, validation, pictures and checkpoints
at intervals. It is timed as the difference
  between a training of ``warm + steps`` and one of ``warm`` steps, so that start and end cancel.

All three train the same model with the same optimiser, in turn, ``rounds`` times; the first steps of each are not
counted. The machine's noise is in the
spread: quote the medians of the ratios within a round.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import DATA, ROOT, machine
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vaes import config as configuration
from vaes.data import Splits, mnist, to_float
from vaes.data.idx import read_idx
from vaes.objectives import Noise, Objective
from vaes.train import Settings
from vaes.train.loop import fit

WARM = 5
WEIGHTS = {"rate": 1.0}


class OneByOne(Dataset[torch.Tensor]):
    """Digits as most code reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = Image.fromarray(self.images[i]).resize((32, 32), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image, dtype=np.float32)[None] / 255).sub_(0.5).div_(0.5)


def fresh(config: configuration.Config) -> tuple[Objective, torch.optim.Optimizer]:
    """A new model and its optimiser."""
    objective, _ = configuration.build_objective(config, configuration.build_model(config, (1, 32, 32)))
    return objective, torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)


def step(objective: Objective, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    """Forward, backward, Adam."""
    noise = Noise(torch.randn(1, len(x), 2), torch.randn(len(x), 2))
    loss = objective(x, noise, WEIGHTS)["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def conventional(config: configuration.Config, digits: np.ndarray, steps: int, batch: int) -> float:
    """Images/s of the loop that most repositories have."""
    objective, optimizer = fresh(config)
    loader = DataLoader(OneByOne(digits), batch, shuffle=True, num_workers=2, drop_last=True)
    began, losses = 0.0, []
    for i, x in enumerate(loader):
        if i == WARM:
            began = time.perf_counter()
        losses.append(step(objective, optimizer, x).item())
        if i == WARM + steps - 1:
            break
    return steps * batch / (time.perf_counter() - began)


def bare(config: configuration.Config, splits: Splits, steps: int, batch: int) -> float:
    """Images/s of the step alone."""
    objective, optimizer = fresh(config)
    x = to_float(splits.train.read(torch.arange(batch)), (-1.0, 1.0))
    for _ in range(WARM):
        step(objective, optimizer, x)
    began = time.perf_counter()
    for _ in range(steps):
        step(objective, optimizer, x)
    return steps * batch / (time.perf_counter() - began)


def ours(config: configuration.Config, splits: Splits, steps: int, batch: int) -> float:
    """Images/s of ``fit``, its start and end taken off."""
    few = Splits(splits.train, *(part.subset(torch.arange(8)) for part in (splits.valid, splits.test)))

    def seconds(n_steps: int) -> float:
        objective, weighting = configuration.build_objective(config, configuration.build_model(config, (1, 32, 32)))
        settings = Settings(
            n_steps=n_steps, batch_size=batch, lr=1e-3, print_freq=0, eval_freq=0, sample_freq=0, save_freq=0
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            fit(objective, weighting, few, settings, Path(folder) / "run")
            return time.perf_counter() - began

    short = seconds(WARM)
    return steps * batch / (seconds(WARM + steps) - short)


def main() -> None:
    """Time the three in turn, write the numbers, print them."""
    parser = argparse.ArgumentParser(description="Images per second of training the MNIST configuration.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    config = configuration.load(configuration.read_file(ROOT / "configs" / "vae-mnist.yaml"))
    splits = mnist(root=str(chosen.data))
    digits = read_idx(chosen.data / "train-images-idx3-ubyte.gz", 3)
    ways = {
        "conventional": lambda: conventional(config, digits, chosen.steps, chosen.batch),
        "bare": lambda: bare(config, splits, chosen.steps, chosen.batch),
        "ours": lambda: ours(config, splits, chosen.steps, chosen.batch),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(chosen.rounds):
        for name, way in ways.items():
            speeds[name].append(way())
    ratios = {
        f"ours / {name}": [a / b for a, b in zip(speeds["ours"], speeds[name], strict=True)]
        for name in ("bare", "conventional")
    }
    document = {
        "benchmark": "throughput",
        "unit": "images/s",
        "rounds": chosen.rounds,
        "steps": chosen.steps,
        "batch": chosen.batch,
        "machine": machine(),
        "speeds": speeds,
        "ratios": ratios,
        "medians": {name: statistics.median(values) for name, values in (speeds | ratios).items()},
    }
    path = chosen.out / "benchmarks" / "results" / "throughput.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, values in (speeds | ratios).items():
        print(
            f"{name:<22} median {statistics.median(values):10.3f}   min {min(values):10.3f}   max {max(values):10.3f}"
        )


if __name__ == "__main__":
    main()
