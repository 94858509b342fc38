"""Every row's training step against the plain VAE's, with the same network, side by side in one process.

    python benchmarks/steps.py [--rows beta_tcvae iwae ...] [--rounds 10] [--steps 5] [--batch 128] [--network conv]

A round times ``steps`` steps (noise, forward, backward, optimiser, as a training takes them) of each row in turn, so
that a machine that slows down slows all; the first steps of each row are not counted. Quote the median over rounds of
the ratio to the plain VAE's time in the same round; ``vae, again`` is the plain VAE a second time, whose ratio says
what is noise. Images are drawn, because a step does not take longer for one than for another; ``perceptual_vae``
compares in an untrained network, which is as large as a trained one. Rows take more codes an image where their paper
does (IWAE), and their own size of code where they name one.

Beside it, of one step on a few images: its largest tensor over the plain VAE's, and whether any tensor is one of pairs
of codes in every dimension, (N, N, D) of the batch with itself or (N, M, D) with a prior's components. N, M and D are
primes there, so that a tensor's size tells; what a kernel holds for itself is not seen, and on CUDA the peak of
allocated memory over the plain VAE's is.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import ROOT, machine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vaes import Experiment
from vaes import config as configuration
from vaes.methods import METHODS
from vaes.train.noise import of_step
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState
from vaes.train.step import advance

PLAIN, AGAIN, WARM, N_TRAIN = "vae", "vae, again", 2, 60_000
N, M, D = 61, 59, 53
"""Images, components and dimensions of the step whose tensors are looked at."""


class Row:
    """A row's training, as far as its steps go."""

    def __init__(self, experiment: Experiment, shape: tuple[int, int, int], batch: int, runtime: Runtime) -> None:
        self.runtime, self.batch, self.shape = runtime, batch, shape
        objective, self.weighting = configuration.build_objective(experiment, experiment.build_model(shape), shape)
        self.state = TrainState(objective.to(runtime.device), experiment.settings())
        low, high = self.state.model.value_range
        pixels = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
        self.x = (low + (high - low) * pixels).to(runtime.device)

    def step(self) -> None:
        """One step of training."""
        state = self.state
        noise = of_step(state.objective, self.batch, 0, state.step, self.runtime.device)
        context = self.weighting.context(state.step, math.prod(self.shape), N_TRAIN, state.settings.n_steps)
        advance(state, state.objective, self.x, noise, context, self.runtime)

    def seconds(self, steps: int) -> float:
        """The time of a step, the mean over so many."""
        self._wait()
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        self._wait()
        return (time.perf_counter() - began) / steps

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize()


class Memory(NamedTuple):
    """Of one step."""

    largest: int  # bytes of its largest tensor
    pairs: list[tuple[int, ...]]  # shapes of tensors that hold pairs of codes in every dimension
    peak: int | None  # bytes allocated at most, where the device counts them


class _Seen(TorchDispatchMode):
    """What every operation of the forward and the backward pass makes."""

    def __init__(self, pairs: Sequence[int]) -> None:
        super().__init__()
        self.pairs, self.largest, self.found = pairs, 0, set[tuple[int, ...]]()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor):
                self.largest = max(self.largest, made.untyped_storage().nbytes())
                if made.numel() and any(made.numel() % size == 0 for size in self.pairs):
                    self.found.add(tuple(made.shape))
        return out


def experiment_of(row: str, network: str, z_dim: int) -> Experiment:
    """A row with the network that all have; a row that names the size of its code keeps it."""
    model: dict[str, Any] = {"network": {"kind": network}}
    if "z_dim" not in METHODS[row].defaults.get("model", {}):
        model["z_dim"] = z_dim
    never = {"eval_freq": 0, "sample_freq": 0, "save_freq": 0, "n_steps": 100_000}
    return Experiment.of({"method": row, "model": model, "train": never})


def memory(row: str, runtime: Runtime, shape: tuple[int, int, int] = (1, 16, 16)) -> Memory:
    """Look at all tensors of a step."""
    experiment = experiment_of(row, "mlp", D).replace({"model.network.hidden": [8]})
    if "components" in experiment.model["prior"]:
        experiment = experiment.replace({"model.prior.components": M})
    made, d = Row(experiment, shape, N, runtime), experiment.model["z_dim"]
    made.step()  # an optimiser makes its moments
    cuda = runtime.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else 0
    with _Seen([N * N * d, N * M * d]) as seen:
        made.step()
    return Memory(seen.largest, sorted(seen.found), torch.cuda.max_memory_allocated() - before if cuda else None)


def measure(chosen: argparse.Namespace, runtime: Runtime) -> dict[str, list[float]]:
    """Seconds of a step, a list of rounds for each row, the plain VAE first and again last."""
    shape = (chosen.channels, chosen.size, chosen.size)
    names = {PLAIN: PLAIN, **{row: row for row in chosen.rows}, AGAIN: PLAIN}
    rows = {
        name: Row(experiment_of(row, chosen.network, chosen.z_dim), shape, chosen.batch, runtime)
        for name, row in names.items()
    }
    for row in rows.values():
        for _ in range(WARM):
            row.step()
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(chosen.rounds):
        for name, row in rows.items():
            times[name].append(row.seconds(chosen.steps))
    return times


def report(chosen: argparse.Namespace, times: Mapping[str, list[float]], held: Mapping[str, Memory], on: str) -> None:
    """Write the JSON, print the table."""
    ratios = {name: [x / y for x, y in zip(values, times[PLAIN], strict=True)] for name, values in times.items()}
    document = {
        "benchmark": "steps",
        "protocol": {name: getattr(chosen, name) for name in ("rounds", "steps", "batch", "network", "z_dim")}
        | {"shape": [chosen.channels, chosen.size, chosen.size], "warm_up": WARM, "device": on},
        "pairs": {"images": N, "components": M, "dimensions": D},
        "machine": machine(),
        "rows": {
            name: {
                "ms": [round(1000 * value, 4) for value in values],
                "ratio": round(statistics.median(ratios[name]), 4),
                "ratios": [round(value, 4) for value in ratios[name]],
                **(held[name]._asdict() if name in held else {}),
            }
            for name, values in times.items()
        },
    }
    path = chosen.out / "benchmarks" / "results" / "steps.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("| row | ms a step | ratio to `vae` | min | max | largest tensor | pairs of codes |\n" + "|---" * 7 + "|")
    for name, values in times.items():
        ratio = ratios[name]
        cells = [f"{1000 * statistics.median(values):.2f}"]
        cells += [f"{value:.2f}" for value in (statistics.median(ratio), min(ratio), max(ratio))]
        if name in held:
            found = ", ".join("x".join(map(str, shape)) for shape in held[name].pairs)
            cells += [f"{held[name].largest / held[PLAIN].largest:.2f}", found or "none"]
        else:
            cells += ["", ""]
        print(f"| `{name}` | " + " | ".join(cells) + " |")


def main() -> None:
    """Time all in turn, look at their tensors, write and print."""
    parser = argparse.ArgumentParser(description="Every row's step against the plain VAE's.")
    parser.add_argument("--rows", nargs="+", choices=METHODS, default=[row for row in METHODS if row != PLAIN])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="steps of each row in a round")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--network", default="conv", choices=configuration.registry.NETWORKS)
    parser.add_argument("--z-dim", type=int, default=20)
    parser.add_argument("--size", type=int, default=32, help="of a side of the images")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-memory", action="store_true", help="only the times")
    parser.add_argument("--out", type=Path, default=ROOT, help="benchmarks/results is made below it")
    chosen = parser.parse_args()
    chosen.rows = [row for row in chosen.rows if row != PLAIN]
    with Runtime(chosen.device) as runtime:
        held = {} if chosen.no_memory else {row: memory(row, runtime) for row in [PLAIN, *chosen.rows]}
        times = measure(chosen, runtime)
        report(chosen, times, held, str(runtime.device))


if __name__ == "__main__":
    main()
