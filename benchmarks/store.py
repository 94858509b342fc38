"""A set of images that is larger than memory: how fast it is read in a shuffled order, and whether training waits.

    python benchmarks/store.py [--gib 8] [--rounds 3] [--folder FOLDER]

A file of ``--gib`` GiB of 64x64 colour images (noise: it is the disk that is timed) is made in FOLDER, which must lie
on the disk that is meant, and removed in the end. Give it less memory than that, or more GiB than there is memory:

    systemd-run --scope -p MemoryMax=2G python benchmarks/store.py

- sequential: the file from its beginning, a megabyte at a time;
- mapped: batches of 256 in the order of an epoch, gathered from the memory-mapped array;
- ours: the same batches as training reads them (``MemmapSet``);
- training from the disk, and from memory (a sixteenth of the images): a network that is small enough for the disk to
  matter, batches of 256, timed as the difference between two lengths.

Before each, what the system has kept of the file is dropped; each reads in an order of its own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import ROOT, report_speeds

from vaes import Experiment
from vaes.data import Batches, ImageSet, MemmapSet, Splits, TensorSet
from vaes.memory import available, keep_freed_memory

SHAPE, BATCH = (3, 64, 64), 256
BYTES = 3 * 64 * 64
RATIOS = (
    ("ours", "mapped"),
    ("ours", "sequential"),
    ("training, from the disk", "training, from memory"),
)


def make(path: Path, gib: float) -> None:
    """The file of images."""
    n = int(gib * 2**30) // BYTES
    rng = np.random.default_rng(0)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for first in range(0, n, 8192):
        images[first : first + 8192] = rng.integers(0, 256, (min(8192, n - first), *SHAPE), dtype=np.uint8)
    images.flush()


def forget(path: Path) -> None:
    """Drop what the system has kept of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential(path: Path, n: int) -> float:
    """Images/s of reading as many bytes from the beginning."""
    block, left, began = bytearray(2**20), n * BYTES, time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while left > 0:
            left -= file.readinto(block)
    return n / (time.perf_counter() - began)


def mapped(path: Path, images: ImageSet, n: int) -> float:
    """Images/s of gathering batches from the memory-mapped array."""
    array = np.load(path, mmap_mode="r")  # here, because what is mapped cannot be dropped from memory
    return shuffled(lambda index: array[np.sort(index.numpy())], images, n, seed=1)


def shuffled(read: Callable[[torch.Tensor], object], images: ImageSet, n: int, seed: int) -> float:
    """Images/s of reading the first batches of an epoch."""
    batches = Batches(images, BATCH, seed)
    began = time.perf_counter()
    for step in range(n // BATCH):
        read(batches.index(step))
    return n // BATCH * BATCH / (time.perf_counter() - began)


def training(images: ImageSet, n: int) -> float:
    """Images/s of ``fit`` with a small network, its start and end taken off."""
    model = {"network": {"kind": "mlp", "hidden": [16]}, "z_dim": 8}
    never = {"print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0}
    settings = {"batch_size": BATCH, "optimizer": "adam", "lr": 1e-3, **never}
    experiment = Experiment(model=model, train=settings, seed=3)
    few = images.subset(torch.arange(8))

    def seconds(n_steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            experiment.replace({"train.n_steps": n_steps}).fit(Path(folder) / "run", data=Splits(images, few, few))
            return time.perf_counter() - began

    warm, steps = 5, n // BATCH
    seconds(warm)
    short = seconds(warm)
    return steps * BATCH / (seconds(warm + steps) - short)


def main() -> None:
    """Time all in turn, write the numbers, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=16_384, help="read in each timing")
    parser.add_argument("--folder", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    keep_freed_memory()
    memory = available()
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        path = Path(folder) / "images.npy"
        make(path, chosen.gib)
        forget(path)
        images, n = MemmapSet(np.load(path, mmap_mode="r")), chosen.images
        few = torch.arange(len(images) // 16)
        resident = TensorSet(images.read(few))
        ways: dict[str, Callable[[], float]] = {
            "sequential": lambda: sequential(path, n),
            "mapped": lambda: mapped(path, images, n),
            "ours": lambda: shuffled(images.read, images, n, seed=2),
            "training, from the disk": lambda: training(images, n),
            "training, from memory": lambda: training(resident, n),
        }
        for _ in range(chosen.rounds):
            for name, way in ways.items():
                forget(path)
                speeds.setdefault(name, []).append(way())
    memory_gib = round(memory / 2**30, 2)
    print(f"{chosen.gib} GiB of images, {memory_gib} GiB of memory")
    said = {"image_bytes": BYTES, "images": chosen.images, "gib": chosen.gib, "gib_of_memory": memory_gib}
    report_speeds("store", chosen, speeds, RATIOS, **said)


if __name__ == "__main__":
    main()
