"""How long it takes to import the package, beside torch alone.

    python benchmarks/imports.py        (about a minute)

Each in a process of its own, warm; medians of the processor seconds that it took, which other work on the machine
changes less than the clock.
"""

import argparse
import statistics
import subprocess
import sys
import textwrap

TRAINING = """
import tempfile, vaes
train = {"n_steps": 2, "batch_size": 8, "optimizer": "adam"}
vaes.Experiment(data={"kind": "sprites", "n_valid": 50, "n_test": 50}, train=train).fit(tempfile.mkdtemp())
"""
WAYS = {
    "an empty program": "",
    "`import torch`": "import torch",
    "`import vaes`": "import vaes",
    "`vaes.VAE`, `vaes.Experiment`": "import vaes; vaes.VAE; vaes.Experiment",
    "`vaes.load`, and a model": "import vaes; vaes.load('zoo:sprites')",
    "a training of two steps, Adam": TRAINING,
    "`vaes --help`": "import sys; from vaes.cli import main; sys.argv = ['vaes']; main(['--help'])",
}
MEASURE = """
import os, sys
print(os.times().user + os.times().system, 'torch' in sys.modules, file=sys.stderr)
"""


def seconds(code: str) -> tuple[float, bool]:
    """Processor seconds of a process that runs this, and whether torch was started."""
    program = f"try:\n{textwrap.indent(code or 'pass', '    ')}\nexcept SystemExit:\n    pass{MEASURE}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    used, torch = done.stderr.split()[-2:]
    return float(used), torch == "True"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    rounds = parser.parse_args().rounds
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in WAYS}
    for _ in range(rounds + 1):  # the first fills the disk's cache
        for name, code in WAYS.items():
            found[name].append(seconds(code))
    print("| | processor seconds | torch starts |\n|---|---|---|")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(v for v, _ in values[1:]):.2f} | {'yes' if values[0][1] else 'no'} |")


if __name__ == "__main__":
    main()
