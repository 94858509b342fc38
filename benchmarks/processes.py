"""Images per second of one training over one and two processes of one machine, and what the second one costs.

    python benchmarks/processes.py [--rounds 5] [--steps 40] [--data ../shared/data/mnist]

The MNIST configuration with Adam, a global batch of 256, timed by ``throughput.py``'s ``ours``:

- one process with one thread, and with two;
- two processes with one thread each, launched by torchrun, whose gradients are averaged through gloo: 128 images each;
- two such processes that know nothing of each other, at the same time: what the cores give where nothing is exchanged.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from common import DATA, ROOT, report_speeds

BATCH = 256
TIMED = Path(__file__).parent / "throughput.py"
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
RATIOS = (
    ("one process, two threads", "one process, one thread"),
    ("two processes", "one process, one thread"),
    ("two processes", "one process, two threads"),
    ("two processes", "two processes, apart"),
)


def started(threads: int, batch: int, chosen: argparse.Namespace, launcher: list[str]) -> "subprocess.Popen[str]":
    """One timing, under way."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "GOMP_SPINCOUNT": "1000",
        "ACCELERATE_USE_CPU": "1",
    }
    arguments = ["--way", "ours", "--steps", str(chosen.steps), "--batch", str(batch), "--data", str(chosen.data)]
    command = [sys.executable, *launcher, str(TIMED), *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE if launcher else None, text=True
    )


def speed(process: "subprocess.Popen[str]") -> float:
    """Images/s that it ends with; of several processes, those of the whole batch, as any of them sees it."""
    out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args} failed:\n{errors or ''}")
    return float(out.splitlines()[-1])


def main() -> None:
    """Time all in turn, write the numbers, print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=ROOT)
    chosen = parser.parse_args()
    speeds: dict[str, list[float]] = {}
    for _ in range(chosen.rounds):
        apart = [started(1, BATCH // 2, chosen, []) for _ in range(2)]
        found = {
            "two processes, apart": sum(map(speed, apart)),
            "one process, one thread": speed(started(1, BATCH, chosen, [])),
            "one process, two threads": speed(started(2, BATCH, chosen, [])),
            "two processes": speed(started(1, BATCH, chosen, TOGETHER)),
        }
        for name, value in found.items():
            speeds.setdefault(name, []).append(value)
    report_speeds("processes", chosen, speeds, RATIOS, steps=chosen.steps, batch=BATCH)


if __name__ == "__main__":
    main()
