"""The statistics of a comparison: runs that differ in their seed alone become one column, with intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from vaes.compare.runs import NOT_A_DIFFERENCE, Result, flat
from vaes.compare.udr import GROUP, ranking
from vaes.errors import UserError
from vaes.evaluate.record import Column as PerImage
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Group, interval95, shown

__all__ = ["Cell", "Column", "Difference", "Key", "difference", "interval", "pool"]

NORMAL = 1.959963984540054


class Key(NamedTuple):
    """What must agree for two numbers to be comparable."""

    group: str
    name: str
    definition: str
    version: int
    features: str | None
    split: str
    images: str  # fingerprint of the split
    chosen: str  # fingerprint of the images taken from it
    n: int
    seed: int | None  # the evaluation's


class Cell(NamedTuple):
    """One metric of one column."""

    value: float  # the mean over runs
    runs: int
    n: int  # images
    spread: float | None  # standard deviation over runs; None for a single one
    stderr: float | None  # of a single run, over its images
    low: float | None  # 95 % interval
    high: float | None
    images: PerImage | None = None  # of a single run: what the value is the mean of
    noted: bool = False  # whether the evaluation says that it is to be read with care


class Column(NamedTuple):
    """Runs of one configuration, by as many seeds."""

    label: str
    differs: dict[str, object]  # keys of the configuration in which the columns differ, with this one's values
    runs: list[Result]
    cells: dict[Key, Cell]


class Difference(NamedTuple):
    """One column less another."""

    value: float
    low: float | None  # 95 % interval; None where the noise is not known
    high: float | None
    paired: bool = False  # image by image

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 0; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def pool(results: Sequence[Result]) -> list[Column]:
    """Columns in the order of their first runs; runs of one configuration, checkpoint and data that differ in seed
    share one.

    Raises:
        UserError: two runs of one configuration have the same seed.
    """
    pools: list[tuple[str, list[Result]]] = []
    for result in results:
        identity = repr(sorted(_described(result).items()))
        same = [runs for other, runs in pools if other == identity and _same_data(runs[0], result)]
        if not same:
            pools.append((identity, [result]))
            continue
        for other in same[0]:
            if other.config.seed == result.config.seed:
                where = " and ".join(shown(str(one.path)) for one in (other, result))
                raise UserError(
                    f"{where} have the same configuration and seed {result.config.seed}: pooled, they would look like "
                    "two independent runs"
                )
        same[0].append(result)
    described = [_described(runs[0]) for _, runs in pools]
    identities = [identity for identity, _ in pools]
    if len(set(identities)) < len(identities):  # apart for their data alone
        for about, (_, runs) in zip(described, pools, strict=True):
            about["images"] = " ".join(sorted({group.images for group in runs[0].evaluation.groups.values()}))
    varying = [
        key
        for key in dict.fromkeys(key for one in described for key in one)
        if len({repr(one.get(key)) for one in described}) > 1
    ]
    labels = _labels([[run.name for run in runs] for _, runs in pools])
    return [
        Column(label, {key: about[key] for key in varying if key in about}, runs, _cells(runs))
        for label, about, (_, runs) in zip(labels, described, pools, strict=True)
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % t interval of the mean of independent values, two or more."""
    mean, half = float(np.mean(values)), float(student.ppf(0.975, len(values) - 1) * _standard_error(values))
    return mean - half, mean + half


def difference(a: Cell, b: Cell) -> Difference:
    """b less a, with its 95 % interval.

    Two pools: Welch's t. A pool and a single run: the pool's spread stands for that of the run too. Two single runs on
    the same images: the t interval of the differences image by image, in which what makes an image hard for both
    cancels. Two single runs without: the standard errors over images, taken as independent. What another seed would
    have given is in neither of the last two. No correction is made for many comparisons.

    Welch, The Generalization of Student's Problem when Several Different Population Variances Are Involved, 1947.
    """
    value = b.value - a.value
    if not math.isfinite(value):
        return Difference(value, None, None)
    if a.spread is not None and b.spread is not None:
        of_a, of_b = a.spread**2 / a.runs, b.spread**2 / b.runs
        se = math.sqrt(of_a + of_b)
        pieces = of_a**2 / (a.runs - 1) + of_b**2 / (b.runs - 1)
        half = float(student.ppf(0.975, (of_a + of_b) ** 2 / pieces)) * se if pieces > 0 else 0.0
    elif a.spread is not None or b.spread is not None:
        pooled = a if a.spread is not None else b
        assert pooled.spread is not None
        half = float(student.ppf(0.975, pooled.runs - 1)) * pooled.spread * math.sqrt(1 + 1 / pooled.runs)
    elif a.stderr is None or b.stderr is None:  # also where an evaluation withholds it
        return Difference(value, None, None)
    elif a.images is not None and b.images is not None and a.images.rows == b.images.rows:
        low, high = interval(np.subtract(b.images.values, a.images.values).tolist())
        return Difference(value, low, high, paired=True)
    else:
        half = NORMAL * math.hypot(a.stderr, b.stderr)
    return Difference(value, value - half, value + half)


def _described(result: Result) -> dict[str, object]:
    """What makes a run another experiment than a second one."""
    left_out = set(NOT_A_DIFFERENCE)
    if result.config.train.get("patience") is not None:  # training ends where a validation says so
        left_out -= {"train.eval_freq"}
    every = {key: value for key, value in flat(result.config.to_dict()).items() if key not in left_out}
    return every | {"checkpoint": result.checkpoint}


def _same_data(a: Result, b: Result) -> bool:
    """Whether no split has other images in one than in the other: the configuration says where they lie, not what."""
    images: list[dict[str, set[str]]] = [{}, {}]
    for found, result in zip(images, (a, b), strict=True):
        for group in result.evaluation.groups.values():
            found.setdefault(group.split, set()).add(group.images)
    first, second = images
    return all(first[split] & second[split] for split in first.keys() & second.keys())


def _labels(pools: Sequence[Sequence[str]]) -> list[str]:
    """A name for each pool of names: what its runs' names begin with, where no other's do."""
    labels = []
    for names in pools:
        least, most = min(names), max(names)  # what these share all do
        start = least[: next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))]
        others = [name for other in pools if other is not names for name in other]
        if len(names) == 1:
            labels.append(names[0])
        elif start and not any(name.startswith(start) for name in others):
            labels.append(start.removesuffix(",seed=") if start.endswith(",seed=") else f"{start}*")
        else:
            labels.append(f"{names[0]} +{len(names) - 1}")
    return labels


def _key(name: str, group: Group, metric: Metric, weights: str) -> Key:
    """K, steps and chains are in a metric's name or definition; what else a budget says comes down to the images."""
    chosen = group.chosen
    if chosen is None:  # the first format: where it names a seed, this and the budget say which images were taken
        known = f"seed {group.seed}, {group.budget.get('n_images')} at most"
        chosen = known if group.seed is not None else f"not said, of {weights[:16]}"
    return Key(
        name, metric.name, metric.definition, metric.version, metric.features, group.split, group.images, chosen,
        metric.n, group.seed,
    )  # fmt: skip


def _cells(runs: Sequence[Result]) -> dict[Key, Cell]:
    found: dict[Key, list[tuple[Metric, PerImage | None]]] = {}
    for run in runs:
        for name, group in run.evaluation.groups.items():
            for metric in group.metrics:
                key = _key(name, group, metric, run.evaluation.weights)
                found.setdefault(key, []).append((metric, group.columns.get(metric.name)))
    cells = {key: _cell(metrics) for key, metrics in found.items()}
    if ranked := ranking(runs):
        group, metric = ranked
        key = _key(GROUP, group, metric, "")
        cells[key] = Cell(metric.value, len(runs), metric.n, None, None, None, None)
    return cells


def _cell(found: Sequence[tuple[Metric, PerImage | None]]) -> Cell:
    values, n = [metric.value for metric, _ in found], found[0][0].n
    noted = any(metric.note for metric, _ in found)
    if len(values) > 1:
        mean = float(np.mean(values))
        if not math.isfinite(mean):
            return Cell(mean, len(values), n, None, None, None, None, None, noted)
        return Cell(mean, len(values), n, float(np.std(values, ddof=1)), None, *interval(values), None, noted)
    ((metric, images),) = found
    low, high = interval95(metric) or (None, None)
    return Cell(metric.value, 1, n, None, metric.stderr, low, high, images, noted)


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
