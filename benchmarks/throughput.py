"""Images per second of training the MNIST configuration: a conventional loop, the bare step, ours, and the limit.

    python benchmarks/throughput.py [--rounds 5] [--steps 40] [--data ../shared/data/mnist]

- conventional: PyTorch's layers and defaults, a DataLoader with two workers, each digit resized, converted and
  normalised by itself from a PIL image, the loss read with ``.item()`` at every step;
- ordinary step: the same layers; forward, backward and Adam on one batch that is already in memory;
- bare step: forward, backward and Adam with our layers, on one batch that is already in memory;
- ours: ``vaes.Experiment.fit`` with Adam and everything that training does, but for lines, validation, pictures and
  checkpoints at intervals. It is timed as the difference between a training of ``warm + steps`` and one of ``warm``
  steps, so that start and end cancel;
- ours, Muon: the same with the optimiser that is the default;
- ours, bf16: ours with ``train.precision: bf16``, which needs a processor that multiplies such numbers to gain by it;
- limit: the step's multiplications at the speed of a 2048 x 2048 matrix product.

The same network and batch for all, each way in a process of its own, in turn, ``rounds`` times; the first steps of each
are not counted. The two ordinary ways run with the system's settings, ours with those of ``vaes`` (threads that
spin briefly, freed memory kept). The machine's noise is in the spread: quote the medians of the ratios within a round.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from common import DATA, ROOT, report_speeds
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from vaes import Experiment
from vaes import config as configuration
from vaes.data import Splits, mnist, to_float
from vaes.data.idx import read_idx
from vaes.memory import keep_freed_memory
from vaes.objectives import Context, Noise, Objective

WARM = 5
CONTEXT = Context({"rate": 1.0})


class OneByOne(Dataset[Tensor]):
    """Digits as most code reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        image = Image.fromarray(self.images[i]).resize((32, 32), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image, dtype=np.float32)[None] / 255).sub_(0.5).div_(0.5)


class Ordinary(nn.Module):
    """The configuration's network and loss as one writes them with PyTorch's layers."""

    def __init__(self) -> None:
        super().__init__()

        def block(layer: nn.Module, width: int) -> list[nn.Module]:
            norm = nn.BatchNorm1d(width) if isinstance(layer, nn.Linear) else nn.BatchNorm2d(width)
            return [layer, norm, nn.LeakyReLU(0.2)]

        self.trunk = nn.Sequential(
            nn.Conv2d(1, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            *block(nn.Conv2d(32, 64, 4, 2, 1, bias=False), 64),
            *block(nn.Conv2d(64, 128, 4, 2, 1, bias=False), 128),
            *block(nn.Conv2d(128, 128, 4, bias=False), 128),
            nn.Flatten(),
        )
        self.mean, self.logvar = (
            nn.Sequential(*block(nn.Linear(128, 128, bias=False), 128), nn.Linear(128, 2)) for _ in range(2)
        )
        self.decoder = nn.Sequential(
            *block(nn.Linear(2, 128, bias=False), 128),
            nn.Unflatten(1, (128, 1, 1)),
            *block(nn.ConvTranspose2d(128, 128, 4, bias=False), 128),
            *block(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), 64),
            *block(nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), 32),
            nn.ConvTranspose2d(32, 1, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The negative ELBO in nats per image, without its constant."""
        h = self.trunk(x)
        mean, logvar = self.mean(h), self.logvar(h)
        y = self.decoder(mean + (0.5 * logvar).exp() * torch.randn_like(mean))
        rate = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
        return (0.5 * (x - y).square().flatten(1).sum(1) + rate).mean()


def ordinary_step(model: Ordinary, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    """Forward, backward, Adam."""
    optimizer.zero_grad()
    loss: Tensor = model(x)
    loss.backward()
    optimizer.step()
    return loss


def step(objective: Objective, optimizer: torch.optim.Optimizer, x: Tensor) -> Tensor:
    """Forward, backward, Adam."""
    noise = Noise(torch.randn(1, len(x), 2), torch.randn(len(x), 2))
    loss = objective(x, noise, CONTEXT)["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def seconds_of(steps: Iterator[object], n: int) -> float:
    """The time of n steps after the warm-up."""
    for _ in range(WARM):
        next(steps)
    began = time.perf_counter()
    for _ in range(n):
        next(steps)
    return time.perf_counter() - began


def new_objective() -> Objective:
    """A new model in its objective."""
    experiment = the_experiment()
    shape = (1, 32, 32)
    return configuration.build_objective(experiment, experiment.build_model(shape), shape)[0]


def digits(data: Path) -> Splits:
    """The images as ``vaes train`` has them."""
    return mnist(root=str(data), image_size=32, download=False)


def conventional(data: Path, n: int, batch: int) -> float:
    """Images/s of the loop that most repositories have."""
    model = Ordinary()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = read_idx(data / "train-images-idx3-ubyte.gz", 3)
    loader = DataLoader(OneByOne(images), batch, shuffle=True, num_workers=2, drop_last=True)
    return n * batch / seconds_of((ordinary_step(model, optimizer, x).item() for x in loader), n)


def ordinary(data: Path, n: int, batch: int) -> float:
    """Images/s of the step of :func:`conventional` alone."""
    model = Ordinary()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = first_batch(data, batch)
    return n * batch / seconds_of(iter(lambda: ordinary_step(model, optimizer, x), None), n)


def bare(data: Path, n: int, batch: int) -> float:
    """Images/s of our step alone."""
    keep_freed_memory()
    objective = new_objective()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)
    x = first_batch(data, batch)
    return n * batch / seconds_of(iter(lambda: step(objective, optimizer, x), None), n)


def ours(
    data: Path,
    n: int,
    batch: int,
    optimizer: Literal["muon", "adam"] = "adam",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> float:
    """Images/s of ``Experiment.fit``, its start and end taken off."""
    whole = digits(data)
    never = {"print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0}
    settings = {"batch_size": batch, "optimizer": optimizer, "lr": 1e-3, "precision": precision, **never}
    experiment = the_experiment().replace({f"train.{name}": value for name, value in settings.items()})
    few = Splits(whole.train, *(part.subset(torch.arange(8)) for part in (whole.valid, whole.test)))

    def seconds(n_steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            experiment.replace({"train.n_steps": n_steps}).fit(Path(folder) / "run", data=few)
            return time.perf_counter() - began

    seconds(WARM)
    short = seconds(WARM)
    return n * batch / (seconds(WARM + n) - short)


def limit(data: Path, n: int, batch: int) -> float:
    """Images/s if every multiplication of the bare step ran as fast as those of a large matrix product."""
    objective = new_objective()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)
    x = first_batch(data, batch)
    with FlopCounterMode(display=False) as counter:
        step(objective, optimizer, x)
    a, b = torch.randn(2, 2048, 2048)
    rate = 10 * 2 * 2048**3 / seconds_of(iter(lambda: a @ b, None), 10)
    return batch * rate / counter.get_total_flops()


def the_experiment() -> Experiment:
    """Of the shipped ``vae-mnist``."""
    return Experiment.read("vae-mnist")


def first_batch(data: Path, batch: int) -> Tensor:
    """The first images, on [-1, 1]."""
    return to_float(digits(data).train.read(torch.arange(batch)), (-1.0, 1.0))


WAYS: dict[str, Callable[[Path, int, int], float]] = {
    "conventional": conventional,
    "ordinary step": ordinary,
    "bare step": bare,
    "ours": ours,
    "ours, Muon": functools.partial(ours, optimizer="muon"),
    "ours, bf16": functools.partial(ours, precision="bf16"),
    "limit": limit,
}
RATIOS = (
    ("ours", "bare step"),
    ("ours", "conventional"),
    ("ours", "ordinary step"),
    ("ours, Muon", "ours"),
    ("ours, bf16", "ours"),
    ("ours", "limit"),
)
OURS = {"bare step", "ours", "ours, Muon", "ours, bf16", "limit"}


def measure(way: str, chosen: argparse.Namespace) -> float:
    """One way, in a process of its own."""
    environment = os.environ | ({"GOMP_SPINCOUNT": "1000"} if way in OURS else {})
    arguments = ["--way", way, "--steps", str(chosen.steps), "--batch", str(chosen.batch), "--data", str(chosen.data)]
    ran = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(ran.stdout.splitlines()[-1])


def main() -> None:
    """Time all in turn, write the numbers, print them."""
    parser = argparse.ArgumentParser(description="Images per second of training the MNIST configuration.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("--way", choices=WAYS, help="only this one, once, and print nothing but its images/s")
    chosen = parser.parse_args()
    if chosen.way:
        print(WAYS[chosen.way](chosen.data, chosen.steps, chosen.batch))
        return
    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(chosen.rounds):
        for name, values in speeds.items():
            values.append(measure(name, chosen))
    report_speeds("throughput", chosen, speeds, RATIOS, steps=chosen.steps, batch=chosen.batch)


if __name__ == "__main__":
    main()
