"""Seconds that every disentanglement score takes on 10,000 sprites with codes of ten dimensions.

    python benchmarks/disentanglement_speed.py [--rows 10000] [--rounds 3]

The codes are those of an untrained encoder on 32x32 sprites: the cost does not depend on how good they are, but for
the trees of DCI, which are as deep on any. Each round computes everything anew; one smaller round before them is not
counted.
"""

import argparse
import json
import statistics
import time

import torch
from common import ROOT, codes, machine

from vaes import config as configuration
from vaes.data import sprites
from vaes.evaluate import Metric, disentanglement_metrics


def main() -> None:
    """Time the rounds, write the numbers, print them."""
    parser = argparse.ArgumentParser(description="Seconds of all disentanglement scores on sprites.")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    test = sprites(image_size=32, n_valid=100, n_test=chosen.rows).test
    config = configuration.load({"model": {"z_dim": 10, "network": "mlp", "likelihood": "bernoulli"}})
    mean, logvar = codes(configuration.build_model(config, test.shape), test)
    assert test.factors is not None
    disentanglement_metrics(mean[:1000], test.factors[:1000], logvar=logvar[:1000])
    seconds, found = [], []
    for _ in range(chosen.rounds):
        began = time.perf_counter()
        found = disentanglement_metrics(mean, test.factors, logvar=logvar)
        seconds.append(round(time.perf_counter() - began, 2))
    document = {
        "benchmark": "disentanglement_speed",
        "rows": chosen.rows,
        "scores": [metric.name for metric in found if isinstance(metric, Metric)],
        "machine": machine(),
        "seconds": seconds,
        "median": statistics.median(seconds),
    }
    path = ROOT / "benchmarks" / "results" / "disentanglement_speed.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{len(document['scores'])} scores, {torch.get_num_threads()} threads: {seconds} s")


if __name__ == "__main__":
    main()
