"""Memory that a large image takes, a tile at a time: encoded and decoded at f8 on the CPU in a process of its own.

    python benchmarks/large_image.py [--side 2048] [--tile 512] [--config kl-vae-f8] [--ch 32]

The network is the configuration's, untrained, and the image is drawn, because neither changes what is held. Printed are
the most memory that the process ever had, PyTorch and all (``ru_maxrss``), and its seconds. ``--tile 0`` takes the
image whole.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine


def child(folder: Path, side: int, tile: int) -> None:
    """One image through the run, and what it took."""
    import time

    import torch

    from vaes import load

    run = load(folder).at(side)
    run = run.tiled(tile) if tile else run
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    x = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = run.reconstruct(x)[1]
    assert made.shape == x.shape
    took = {
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "before_gib": round(before / 2**20, 2),
    }
    print(json.dumps(took))


def main() -> None:
    """Make a run of one step, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--config", default="kl-vae-f8")
    parser.add_argument("--ch", type=int, help="channels of the first stage, in place of the configuration's")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.run:
        child(found.run, found.side, found.tile)
        return
    import numpy as np

    from vaes import Experiment, shipped
    from vaes.data import arrays

    small = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype=np.uint8)
    model = Experiment.read(str(shipped.find(found.config))).to_dict()["model"]
    if found.ch is not None:
        model["network"]["ch"] = found.ch
    train = {"n_steps": 1, "batch_size": 2, "eval_freq": 0, "sample_freq": 0}
    experiment = Experiment(method="kl_vae", model=model, objective={"gamma": 0.0, "adversary": 0.0}, train=train)
    with tempfile.TemporaryDirectory() as folder:
        experiment.fit(Path(folder) / "run", data=arrays(small[:2], small[2:3], valid=small[3:]), device="cpu")
        words = [
            sys.executable,
            __file__,
            "--run",
            f"{folder}/run",
            "--side",
            str(found.side),
            "--tile",
            str(found.tile),
        ]
        out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    print(json.dumps({**machine(), **json.loads(out)}))


if __name__ == "__main__":
    main()
