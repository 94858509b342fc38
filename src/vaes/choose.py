"""What is trained where only images are given: each choice with its reason."""

import math
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaes import config as configuration
from vaes.data import Batches, Splits, to_float
from vaes.data.array_sets import look_at
from vaes.data.mnist_files import FILES
from vaes.data.roots import open_files
from vaes.data.survey import same_aspect, survey
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.terminal import escape
from vaes.train.noise import of_step
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState
from vaes.train.step import advance

__all__ = ["Choice", "choose", "chosen_by_all", "in_words"]

LARGEST_SIDE = 64
"""Pixels; a larger side is brought down to it: four times the pixels take four times as long."""

MOST_PASSES, FEWEST_STEPS = 50, 300
"""Over the training images, and in all: more, and a small set is learned by heart. 862 faces of 28x20 had a validation
ELBO of 97 at best in a training of 43 passes, and of 72 in one of 123."""

SHARE_OF_STEPS = 0.93
"""Of the time; the rest is for pictures, saving and what a first step takes longer."""

SHARE_OF_SHAPE = 0.9
"""Of the pictures; where fewer have one shape, all are brought to a square."""


class Choice(NamedTuple):
    """A key that was chosen, and why."""

    key: str
    value: Any
    why: str


def choose(path: Path, minutes: float, arguments: Sequence[str], runtime: Runtime) -> tuple[Experiment, list[Choice]]:
    """A complete experiment for the images at a path, whose training ends about so many minutes from now.

    ``arguments`` (``--KEY VALUE``) stand over what is chosen here.

    Raises:
        UserError: there are no images, or they cannot be read.
    """
    began = time.perf_counter()
    if not 0 < minutes <= 100_000:
        raise UserError(f"--minutes {minutes:g}: must be above 0, and at most 100,000")
    if (path / "config.yaml").is_file() and (path / "ckpt").is_dir():
        raise UserError(f"{path}: a run folder, not images; to go on in it: vaes train -e {path} --resume latest")
    given = dict(configuration.overrides(arguments))
    found = _data(path, given.get("data.kind"))
    # The kind stays, or the keys beside it would be those of the default.
    chosen = [choice for choice in found if choice.key == "data.kind" or choice.key not in given]
    splits = _experiment(chosen, arguments).build_data()
    chosen += [choice for choice in (*_model(splits), *_batch(splits, runtime)) if choice.key not in given]
    if "train.n_steps" not in given:
        experiment = _experiment(chosen, arguments)
        length = _length(experiment, splits, minutes, began, runtime)
        chosen += [choice for choice in length if choice.key not in given]
    experiment = _experiment(chosen, arguments)
    return experiment, [choice for choice in chosen if choice.key not in given and _stands(choice, experiment)]


def chosen_by_all(path: Path, minutes: float, arguments: Sequence[str], runtime: Runtime) -> tuple[Experiment, str]:
    """What the first process chooses for all of them, and a line for each choice."""
    experiment, choices = runtime.collected(choose(path, minutes, arguments, runtime) if runtime.is_main else None)[0]
    return experiment, in_words(path, choices)


def in_words(path: Path, choices: Sequence[Choice]) -> str:
    """What was chosen for a path, a line a choice; reasons are folded at the width of the terminal."""
    rows = [(f"--{choice.key}", escape(choice.value), choice.why) for choice in choices]
    width = shutil.get_terminal_size().columns if sys.stderr is not None and sys.stderr.isatty() else 1000
    key, value = max(len(row[0]) for row in rows), max([len(row[1]) for row in rows if len(row[1]) <= 16], default=0)
    lines = [f"chosen for {escape(path)} (give any of these, or another key, to change it):"]
    for row in rows:
        first, indent = f"  {row[0]:<{key}}  {row[1]:<{value}}  ", key + value + 6
        folded = textwrap.wrap(row[2], max(24, width - indent - 1), break_on_hyphens=False)
        if len(row[1]) > value:
            first, folded = first.rstrip(), ["", *folded]
        lines += [first + folded[0], *(" " * indent + text for text in folded[1:])]
    return "\n".join(lines)


def _experiment(chosen: Sequence[Choice], arguments: Sequence[str]) -> Experiment:
    raw = configuration.changed({"method": "vae"}, {choice.key: choice.value for choice in chosen})
    return Experiment.of(raw, arguments)


def _stands(choice: Choice, experiment: Experiment) -> bool:
    """Whether a choice has survived the arguments: another kind brings other keys."""
    value: Any = experiment.to_dict()
    for part in choice.key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return choice.key == "data.root" or value == choice.value


def _data(path: Path, given: object) -> list[Choice]:
    """The choices of section ``data``, for the kind that was given, or the one that the path looks like."""
    if path.suffix.lower() in (".npy", ".npz"):
        kind = Choice("data.kind", "arrays", f"{path.name} is an array file")
    elif path.is_dir() and any((path / name).exists() or (path / f"{name}.gz").exists() for name in FILES):
        kind = Choice("data.kind", "mnist", "the folder holds files of the MNIST family")
    else:
        kind = Choice("data.kind", "folder", "pictures in a folder or archive")
    kind = kind if given is None else Choice("data.kind", given, "as given")
    root = Choice("data.root", str(path), "as given")
    if kind.value == "arrays":
        return [kind, root, *_of_arrays(path)]
    if kind.value == "mnist":
        return [kind, root, Choice("data.image_size", 28, "as they are")]
    if kind.value == "folder":
        files = open_files(path)
        return [
            kind,
            root,
            *_size(Counter(header.size for header in survey(files, list(files.sizes)).headers.values())),
        ]
    return [kind, root]


def _of_arrays(path: Path) -> list[Choice]:
    look = look_at(path)
    _, h, w = look.shape
    size = _size(Counter({(h, w): 1})) if h > 1 else []
    if look.span is None:
        return size
    low, high = _round_range(*look.span)
    why = f"black and white, for values of {look.dtype} from {look.span[0]:.4g} to {look.span[1]:.4g}"
    return [Choice("data.value_range", [low, high], why), *size]


def _round_range(low: float, high: float) -> tuple[float, float]:
    """A usual range of images, where the values take a good part of it, else two digits of what they are."""
    for usual in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if usual[0] <= low and high <= usual[1] and high - low > (usual[1] - usual[0]) / 4:
            return usual
    digits = 1 - math.floor(math.log10(high - low or abs(high) or 1.0))
    grid = Decimal(1).scaleb(-digits)
    down, up = (
        Decimal(repr(x)).quantize(grid, rounding) for x, rounding in ((low, ROUND_FLOOR), (high, ROUND_CEILING))
    )
    return float(down), float(up if up > down else up + grid)


def _size(sizes: Counter[tuple[int, int]]) -> list[Choice]:
    """The size of all pictures: their own shape where nearly all have one, else a square; at most `LARGEST_SIDE`, and
    no more than a tenth of them enlarged."""
    if not sizes:
        return []  # reading them says what is wrong
    common, _ = sizes.most_common(1)[0]
    if len(sizes) == 1 and max(common) <= LARGEST_SIDE:
        return []
    shape = _scaled(common, LARGEST_SIDE)
    alike = sum(n for size, n in sizes.items() if same_aspect(size, shape)) / sizes.total()
    if alike < SHARE_OF_SHAPE:
        shape = (LARGEST_SIDE, LARGEST_SIDE)
    fits = sorted(min(1.0, h / shape[0], w / shape[1]) for (h, w), n in sizes.items() for _ in range(n))
    target = _scaled(shape, max(shape) * fits[len(fits) // 10])
    if len(sizes) == 1:
        why = f"{_by(common)}, brought down to {LARGEST_SIDE}: larger is much slower"
        return [Choice("data.image_size", list(target), why)]
    smallest, largest = (f(sizes, key=lambda size: size[0] * size[1]) for f in (min, max))
    which = "the shape that nearly all have" if alike >= SHARE_OF_SHAPE else "a square that all are brought to"
    found = [Choice("data.image_size", list(target), f"sizes differ, {_by(smallest)} to {_by(largest)}: {which}")]
    if not all(same_aspect(size, target) for size in sizes):
        ways = "other shapes are cut to their middle; pad or stretch are the other ways"
        found.append(Choice("data.fit", "crop", ways))
    return found


def _scaled(size: tuple[int, int], longest: float) -> tuple[int, int]:
    h, w = (max(1, round(side * longest / max(size))) for side in size)
    return h, w


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _model(splits: Splits) -> list[Choice]:
    channels, height, width = splits.train.shape
    numbers = channels * height * width
    what = "number" if height == 1 else "pixel"
    some = splits.train.read(torch.linspace(0, len(splits.train) - 1, min(500, len(splits.train))).long())
    if bool(((some == 0) | (some == 255)).all()):
        likelihood = [Choice("model.likelihood.kind", "bernoulli", f"every {what} has one of two values")]
    else:
        likelihood = [
            Choice("model.likelihood.kind", "gaussian", f"a {what} has more than two values"),
            Choice("model.likelihood.scale", "optimal", f"the noise of a {what} is estimated while training"),
        ]
    side = min(height, width)
    if side < 8:
        small = "vectors" if height == 1 else f"{_by((height, width))} is too small for convolutions that halve it"
        network = [Choice("model.network.kind", "mlp", small)]
    else:
        stages = min(4, int(math.log2(side)) - 1)
        network = [
            Choice("model.network.kind", "conv", "pictures"),
            Choice("model.network.dim_mults", [1, 2, 4, 8][:stages], f"{stages} stages, each halves the picture"),
        ]
    z_dim = 2 if numbers <= 64 else 10 if numbers <= 1024 else 32
    return [
        *network,
        *likelihood,
        Choice("model.z_dim", z_dim, f"for {numbers:,} numbers; 2 gives a map that can be looked at"),
    ]


def _batch(splits: Splits, runtime: Runtime) -> list[Choice]:
    n = len(splits.train)
    largest = max(2, min(128, n // 4))
    size = max(2 ** int(math.log2(largest)), 2 * runtime.world)
    return [Choice("train.batch_size", min(size, n), f"of {n:,} training images")]


def _length(experiment: Experiment, splits: Splits, minutes: float, began: float, runtime: Runtime) -> list[Choice]:
    """Steps for what is left of the time, and fewer validations where ten of them would take a fifth of it."""
    budget, batch = 60 * minutes, experiment.train["batch_size"]
    seconds = _seconds_per_step(experiment, splits, runtime, most=min(6.0, budget / 20))
    left = max(budget - (time.perf_counter() - began), budget / 2)  # reading them again will be fast
    an_image = seconds / batch / 3  # no gradient: a third of a step
    passes = max(1, min(10, int(left / 5 / (an_image * len(splits.valid)))))
    left -= an_image * ((passes + 1) * len(splits.valid) + 2 * len(splits.test))
    steps = SHARE_OF_STEPS * max(left, budget / 10) / seconds
    why = f"{minutes:g} minutes at {1 / seconds:.3g} steps a second, measured here on {runtime.device}"
    most = max(MOST_PASSES * len(splits.train) / batch, FEWEST_STEPS)
    if steps > most:
        rounds = most * batch / len(splits.train)
        steps, why = (
            most,
            f"{rounds:,.0f} passes over the images, less than the time: with more they are learned by heart",
        )
    digits = 10 ** max(0, int(math.log10(max(steps, 1))) - 1)
    n_steps = max(10, int(steps // digits) * digits)
    found = [Choice("train.n_steps", n_steps, why)]
    if passes < 10 and n_steps > passes:
        often = f"{passes} validation{'s' * (passes > 1)}: ten would take more than a fifth of the time"
        found.append(Choice("train.eval_freq", n_steps // passes, often))
    return found


def _seconds_per_step(experiment: Experiment, splits: Splits, runtime: Runtime, most: float) -> float:
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
