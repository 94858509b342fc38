"""What is trained where only images are given: each choice with its reason."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaes import config as configuration
from vaes.data import Batches, Splits, to_float
from vaes.data.mnist_files import FILES
from vaes.data.roots import open_files
from vaes.data.survey import survey
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.train.noise import of_step
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState
from vaes.train.step import advance

__all__ = ["Choice", "choose"]

LARGEST_SIDE = 64
"""Pixels; a larger side is brought down to it: four times the pixels take four times as long."""

MOST_PASSES = 1_000
"""Over the training images: what a small set has to give is learned long before."""

SHARE_OF_STEPS = 0.85
"""Of the time; the rest is for validation, pictures and saving."""


class Choice(NamedTuple):
    """A key that was chosen, and why."""

    key: str
    value: Any
    why: str


def choose(path: Path, minutes: float, arguments: Sequence[str], runtime: Runtime) -> tuple[Experiment, list[Choice]]:
    """A complete experiment for the images at a path, which trains for about as long as asked on this machine.

    ``arguments`` (``--KEY VALUE``) stand over what is chosen here.

    Raises:
        UserError: there are no images, or they cannot be read.
    """
    if not 0 < minutes <= 100_000:
        raise UserError(f"--minutes {minutes:g}: must be above 0, and at most 100,000")
    given = {key for key, _ in configuration.overrides(arguments)}
    chosen = [choice for choice in _data(path) if choice.key not in given]
    splits = _experiment(chosen, arguments).build_data()
    chosen += [choice for choice in _model(splits) if choice.key not in given]
    chosen += [choice for choice in _batch(splits, runtime) if choice.key not in given]
    if "train.n_steps" not in given:
        chosen.append(_length(_experiment(chosen, arguments), splits, minutes, runtime))
    return _experiment(chosen, arguments), chosen


def _experiment(chosen: Sequence[Choice], arguments: Sequence[str]) -> Experiment:
    raw = configuration.changed({"method": "vae"}, {choice.key: choice.value for choice in chosen})
    return Experiment.of(raw, arguments)


def _data(path: Path) -> list[Choice]:
    root = Choice("data.root", str(path), "as given")
    if path.suffix.lower() in (".npy", ".npz"):
        return [Choice("data.kind", "arrays", f"{path.name} is an array file"), root]
    if path.is_dir() and any((path / name).exists() or (path / f"{name}.gz").exists() for name in FILES):
        size = Choice("data.image_size", 32, "28x28, enlarged so that it halves five times")
        return [Choice("data.kind", "mnist", "the folder holds files of the MNIST family"), root, size]
    files = open_files(path)
    sizes = Counter(header.size for header in survey(files, list(files.sizes)).headers.values())
    kind = Choice("data.kind", "folder", "pictures in a folder or archive")
    return [kind, root, *_size(sizes)]


def _size(sizes: Counter[tuple[int, int]]) -> list[Choice]:
    if not sizes:
        return []  # reading them says what is wrong
    (h, w), _ = sizes.most_common(1)[0]
    smallest, largest = (f(sizes, key=lambda hw: hw[0] * hw[1]) for f in (min, max))
    if len(sizes) == 1:
        if max(h, w) <= LARGEST_SIDE:
            return []
        scale = LARGEST_SIDE / max(h, w)
        size = [max(1, round(h * scale)), max(1, round(w * scale))]
        return [Choice("data.image_size", size, f"{h}x{w}, brought down to {LARGEST_SIDE}: larger is much slower")]
    side = min(LARGEST_SIDE, *(min(hw) for hw in sizes)) if min(min(hw) for hw in sizes) >= 16 else LARGEST_SIDE
    between = f"sizes differ ({smallest[0]}x{smallest[1]} to {largest[0]}x{largest[1]})"
    return [
        Choice("data.image_size", side, f"{between}: a square that all are brought to"),
        Choice("data.fit", "crop", "what is not square is cut to its middle; pad or stretch are the other ways"),
    ]


def _model(splits: Splits) -> list[Choice]:
    channels, height, width = splits.train.shape
    some = splits.train.read(torch.linspace(0, len(splits.train) - 1, min(500, len(splits.train))).long())
    if bool(((some == 0) | (some == 255)).all()):
        likelihood = [Choice("model.likelihood.kind", "bernoulli", "every pixel is black or white")]
    else:
        likelihood = [
            Choice("model.likelihood.kind", "gaussian", "pixels have values between black and white"),
            Choice("model.likelihood.scale", "optimal", "a pixel's noise is estimated: sharper pictures"),
        ]
    side = min(height, width)
    if side < 8:
        network = [Choice("model.network.kind", "mlp", f"{height}x{width} is too small for convolutions that halve it")]
    else:
        stages = min(4, int(math.log2(side)) - 2 + 1)
        network = [
            Choice("model.network.kind", "conv", "pictures"),
            Choice("model.network.dim_mults", [1, 2, 4, 8][:stages], f"{stages} stages, each halves the picture"),
        ]
    numbers = channels * height * width
    z_dim = 2 if numbers <= 64 else 10 if numbers <= 1024 else 32
    return [
        *network,
        *likelihood,
        Choice("model.z_dim", z_dim, f"for {numbers:,} numbers an image; 2 gives a map that can be looked at"),
    ]


def _batch(splits: Splits, runtime: Runtime) -> list[Choice]:
    n = len(splits.train)
    largest = max(2, min(128, n // 4))
    size = max(2 ** int(math.log2(largest)), 2 * runtime.world)
    return [Choice("train.batch_size", min(size, n), f"of {n:,} training images")]


def _length(experiment: Experiment, splits: Splits, minutes: float, runtime: Runtime) -> Choice:
    seconds = _seconds_per_step(experiment, splits, runtime)
    steps = SHARE_OF_STEPS * 60 * minutes / seconds
    why = f"{minutes:g} minutes at {1 / seconds:.3g} steps a second, measured here on {runtime.device}"
    most = MOST_PASSES * len(splits.train) / experiment.train["batch_size"]
    if steps > most:
        steps, why = most, f"{MOST_PASSES:,} passes over the images, which take less than {minutes:g} minutes"
    digits = 10 ** max(0, int(math.log10(max(steps, 1))) - 1)
    return Choice("train.n_steps", max(10, int(steps // digits) * digits), why)


def _seconds_per_step(experiment: Experiment, splits: Splits, runtime: Runtime, most: float = 6.0) -> float:
    """The median of a few real steps of the real model, the first two left out."""
    short = experiment.replace({"train.n_steps": 1000})
    shape = splits.train.shape
    objective, weighting = configuration.build_objective(short, short.build_model(shape), shape)
    state = TrainState(objective.to(runtime.device), short.settings())
    batch = max(1, experiment.train["batch_size"] // runtime.world)
    batches = Batches(splits.train, batch, short.seed)
    times: list[float] = []
    began = time.perf_counter()
    context = weighting.context(0, math.prod(splits.train.shape), len(splits.train), 1000)
    alone = _Alone(runtime)
    while len(times) < 3 or (len(times) < 30 and time.perf_counter() - began < most):
        start = time.perf_counter()
        x = to_float(batches.read(len(times)), objective.model.value_range).to(runtime.device)
        noise = of_step(objective, batch, short.seed, len(times), runtime.device)
        advance(state, objective, x, noise, context, alone)
        float(state.sums["loss"])  # waits for the device
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[len(times[2:]) // 2]


class _Alone(Runtime):
    """One process of several, measuring by itself."""

    def __init__(self, runtime: Runtime) -> None:
        self.__dict__ = {**runtime.__dict__, "world": 1, "rank": 0}
