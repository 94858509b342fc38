"""The statistics of a comparison: runs that differ in their seed alone become one column, with intervals."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from vaes.compare.runs import Result, flat
from vaes.errors import UserError
from vaes.evaluate.record import Metric

__all__ = ["Cell", "Column", "Difference", "Key", "difference", "interval", "pool"]

NORMAL = 1.959963984540054
NOT_A_DIFFERENCE = ("seed", "data.root", "data.download", "data.mirrors")  # where images lie is not what they are


class Key(NamedTuple):
    """What must agree for two numbers to be comparable."""

    group: str
    name: str
    definition: str
    version: int
    features: str | None
    split: str
    images: str


class Cell(NamedTuple):
    """One metric of one column."""

    value: float  # the mean over runs
    runs: int
    n: int  # images, the fewest of any run
    spread: float | None  # standard deviation over runs; None for a single one
    stderr: float | None  # of a single run, over its images
    low: float | None  # 95 % interval
    high: float | None


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

    @property
    def within_noise(self) -> bool | None:
        """Whether the interval holds 0; None where there is none."""
        return None if self.low is None or self.high is None else self.low <= 0 <= self.high


def pool(results: Sequence[Result]) -> list[Column]:
    """Columns in the order of their first runs; runs of one configuration and step that differ in seed share one.

    Raises:
        UserError: two runs of one configuration have the same seed.
    """
    columns: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        identity = repr(sorted(_configuration(result).items(), key=lambda item: item[0]))
        same = columns.setdefault((identity, result.evaluation.step), [])
        for other in same:
            if other.config.seed == result.config.seed:
                raise UserError(
                    f"{other.path} and {result.path} have the same configuration and seed {result.config.seed}: "
                    "pooled, they would look like two independent runs"
                )
        same.append(result)
    runs = list(columns.values())
    described = [_configuration(group[0]) | {"step": group[0].evaluation.step} for group in runs]
    varying = [
        key
        for key in dict.fromkeys(key for one in described for key in one)
        if len({repr(one.get(key)) for one in described}) > 1
    ]
    differs: list[dict[str, object]] = [{key: one[key] for key in varying if key in one} for one in described]
    return [Column(_letter(i), differs[i], group, _cells(group)) for i, group in enumerate(runs)]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % t interval of the mean of independent values, two or more."""
    mean, half = float(np.mean(values)), float(student.ppf(0.975, len(values) - 1) * _standard_error(values))
    return mean - half, mean + half


def difference(a: Cell, b: Cell) -> Difference:
    """b less a, with its 95 % interval.

    Two pools: Welch's t. A pool and a single run: the pool's spread stands for that of the run too. Two single runs:
    the standard errors over images, taken as independent; what another seed would have given is not in it. No
    correction is made for many comparisons.

    Welch, The Generalization of Student's Problem when Several Different Population Variances Are Involved, 1947.
    """
    value = b.value - a.value
    if a.spread is not None and b.spread is not None:
        of_a, of_b = a.spread**2 / a.runs, b.spread**2 / b.runs
        se = math.sqrt(of_a + of_b)
        pieces = of_a**2 / (a.runs - 1) + of_b**2 / (b.runs - 1)
        half = float(student.ppf(0.975, (of_a + of_b) ** 2 / pieces)) * se if pieces > 0 else 0.0
    elif a.spread is not None or b.spread is not None:
        pooled = a if a.spread is not None else b
        assert pooled.spread is not None
        half = float(student.ppf(0.975, pooled.runs - 1)) * pooled.spread * math.sqrt(1 + 1 / pooled.runs)
    elif a.stderr is not None and b.stderr is not None:
        half = NORMAL * math.hypot(a.stderr, b.stderr)
    else:
        return Difference(value, None, None)
    return Difference(value, value - half, value + half)


def _configuration(result: Result) -> dict[str, object]:
    return {key: value for key, value in flat(result.config.to_dict()).items() if key not in NOT_A_DIFFERENCE}


def _letter(i: int) -> str:
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _cells(runs: Sequence[Result]) -> dict[Key, Cell]:
    found: dict[Key, list[Metric]] = {}
    for run in runs:
        for name, group in run.evaluation.groups.items():
            for metric in group.metrics:
                key = Key(
                    name, metric.name, metric.definition, metric.version, metric.features, group.split, group.images
                )
                found.setdefault(key, []).append(metric)
    return {key: _cell(metrics) for key, metrics in found.items()}


def _cell(metrics: Sequence[Metric]) -> Cell:
    values, n = [metric.value for metric in metrics], min(metric.n for metric in metrics)
    if len(values) > 1:
        low, high = interval(values)
        return Cell(float(np.mean(values)), len(values), n, float(np.std(values, ddof=1)), None, low, high)
    (metric,) = metrics
    if metric.interval is not None:
        return Cell(metric.value, 1, n, None, metric.stderr, *metric.interval)
    if metric.stderr is not None:
        half = NORMAL * metric.stderr
        return Cell(metric.value, 1, n, None, metric.stderr, metric.value - half, metric.value + half)
    return Cell(metric.value, 1, n, None, None, None, None)


def _standard_error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
