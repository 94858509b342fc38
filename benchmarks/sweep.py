"""What `vaes sweep` saves against separate commands, what two jobs give on two cores, and what stacked steps give.

    python benchmarks/sweep.py [--parts start,jobs,together] [--runs 20] [--rounds 1]

- start: short runs (a small MLP on the digits that ship with scikit-learn), as separate `vaes train` commands one after
  another, and as one `vaes sweep --seeds N`, with one job of all threads and with as many jobs as there are cores;
- jobs: a few longer runs of the shipped `vae-digits`, by one job of all threads and by as many jobs of one thread each;
- together: a step of N small members by one thread, one after another and as one stacked step, plain and compiled.

Ways take turns within a round, so that their ratios hold on a machine that does other things too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from common import ROOT, machine

from vaes import Experiment
from vaes.sweep.check import built
from vaes.train.lockstep import Lockstep
from vaes.train.loop import Training
from vaes.train.runtime import Runtime
from vaes.train.step import advance

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


NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": [128]},
    "conv": {"kind": "conv", "dim": 16, "dim_mults": [1, 2]},
}


def together(_: Path, steps: int) -> dict[str, float]:
    """Seconds of a step of N members, by network and N; the compiled ones without what compiling took."""
    found: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    splits = Experiment.of(SHORT).build_data()
    for network, keys in NETWORKS.items():
        for n in (4, 8):
            ways = {
                f"{network} {n} {way}{', compiled' * compiled}": _way(keys, n, splits, way, compiled)
                for way in ("one after another", "stacked")
                for compiled in (False, True)
            }
            for step in ways.values():
                _seconds(step, 3)
            rounds = [{name: _seconds(step, steps) for name, step in ways.items()} for _ in range(5)]
            found |= {name: statistics.median(one[name] for one in rounds) for name in ways}
    torch.set_num_threads(threads)
    return found


def _way(network: dict[str, Any], n: int, splits: Any, way: str, compiled: bool) -> Callable[[], object]:
    raw = {**SHORT, "model": {**SHORT["model"], "network": network}, "train": {**SHORT["train"], "compile": compiled}}
    runtime = Runtime("cpu")
    members: list[Training] = [built(Experiment.of({**raw, "seed": seed}), splits) for seed in range(n)]
    if way == "stacked":
        group = Lockstep([one.state for one in members])
        return lambda: group.advance([one.asked(one.state.step) for one in members], runtime)
    for one in members if compiled else ():
        one.state.objective.compile()
    return lambda: [advance(o.state, o.state.objective, *o.asked(o.state.step), runtime) for o in members]


def _seconds(step: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        step()
    return (time.perf_counter() - began) / times


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="start,jobs,together", help="others stay as they were stored")
    parser.add_argument("--runs", type=int, default=20, help="short ones")
    parser.add_argument("--steps", type=int, default=400, help="of each longer run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    path = chosen.out / "benchmarks" / "results" / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {"benchmark": "sweep", "unit": "s", "short": SHORT, "networks": NETWORKS, "parts": {}}
    if path.exists():
        document = json.loads(path.read_text(encoding="utf-8"))
    parts: dict[str, tuple[Callable[[Path, int], dict[str, float]], int]] = {
        "start": (start, chosen.runs),
        "jobs": (jobs, chosen.steps),
        "together": (together, 10),
    }
    for name in chosen.parts.split(","):
        measure, size = parts[name]
        found = {"size": size, "machine": machine(), "cores": CORES, "rounds": []}
        for _ in range(chosen.rounds):
            with tempfile.TemporaryDirectory() as folder:
                times = measure(Path(folder), size)
            found["rounds"].append(times)
            document["parts"][name] = found
            path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            for way, value in times.items():
                print(f"{name}: {way}: {value:.4g} s", flush=True)


if __name__ == "__main__":
    main()
