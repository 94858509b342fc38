"""What `vaes sweep` saves against separate commands, and what two jobs give on two cores.

    python benchmarks/sweep.py [--runs 20] [--rounds 1]

- start: short runs (a small MLP on the digits that ship with scikit-learn), as separate `vaes train` commands one after
  another, and as one `vaes sweep --seeds N`, with one job of all threads and with as many jobs as there are cores;
- jobs: a few longer runs of the shipped `vae-digits`, by one job of all threads and by as many jobs of one thread each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from common import ROOT, machine

VAES = [sys.executable, "-m", "vaes"]
SHORT: dict[str, Any] = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"z_dim": 2, "network": {"kind": "mlp", "hidden": [128]}, "likelihood": "bernoulli"},
    "train": {"n_steps": 1000, "batch_size": 128, "print_freq": 1000, "sample_freq": 0},
}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seconds(*commands: list[str], cwd: Path, threads: int | None = None) -> float:
    """How long the commands take one after another."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads or CORES)}
    began = time.perf_counter()
    for command in commands:
        subprocess.run([*VAES, *command], cwd=cwd, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def start(folder: Path, runs: int) -> dict[str, float]:
    """Short runs: seconds of separate commands, of one job, and of a job a core."""
    (folder / "short.yaml").write_text(yaml.safe_dump(SHORT))
    apart = [["train", "-c", "short.yaml", "-e", f"apart/{seed}", "--seed", str(seed)] for seed in range(runs)]
    sweep = ["sweep", "-c", "short.yaml", "--seeds", str(runs), "--jobs"]
    return {
        "separate commands": seconds(*apart, cwd=folder),
        "one sweep, one job": seconds([*sweep, "1", "-e", "one"], cwd=folder),
        f"one sweep, {CORES} jobs": seconds([*sweep, str(CORES), "-e", "several"], cwd=folder),
    }


def jobs(folder: Path, steps: int) -> dict[str, float]:
    """Longer runs, twice as many as there are cores: seconds by one job and by a job a core."""
    sweep = ["sweep", "-c", "vae-digits", "--seeds", str(2 * CORES), "--train.n_steps", str(steps), "--jobs"]
    return {
        f"one job of {CORES} threads": seconds([*sweep, "1", "-e", "long-one"], cwd=folder),
        f"{CORES} jobs of one thread": seconds([*sweep, str(CORES), "-e", "long-several"], cwd=folder),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="short ones")
    parser.add_argument("--steps", type=int, default=400, help="of each longer run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    document: dict[str, Any] = {"benchmark": "sweep", "unit": "s", "machine": machine(), "cores": CORES, "rounds": []}
    document |= {"short": SHORT, "runs": chosen.runs, "steps": chosen.steps}
    path = chosen.out / "benchmarks" / "results" / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = {"start": start(Path(folder), chosen.runs), "jobs": jobs(Path(folder), chosen.steps)}
        document["rounds"].append(found)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        for name, times in found.items():
            first = next(iter(times.values()))
            for way, value in times.items():
                print(f"{name}: {way}: {value:.1f} s, {first / value:.2f} times as fast as the first", flush=True)


if __name__ == "__main__":
    main()
