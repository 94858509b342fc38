"""What a metric returns, and the checks and standard errors that all of them share."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from vaes.errors import UserError

__all__ = [
    "Array",
    "Column",
    "Metric",
    "NotApplicable",
    "Skipped",
    "Tail",
    "attempt",
    "float_matrix",
    "float_tensor",
    "jackknife_stderr",
    "mean_metric",
    "median_metric",
    "parts_stderr",
    "proportion_metric",
    "same_length",
    "to_float64",
    "whole_numbers",
    "worst_percent",
]

Array = NDArray[Any] | Tensor
"""What the metrics take: a NumPy array or a tensor on any device."""


class NotApplicable(UserError):  # noqa: N818 - a finding about the inputs as much as an error
    """A metric has no meaning on these inputs; the message is the reason, one sentence."""


class Metric(NamedTuple):
    """One number with everything needed to trust it, or to refuse to compare it with another."""

    name: str
    value: float
    n: int  # rows (images, codes, samples) that the value rests on
    definition: str  # one line: what is computed, and the source
    stderr: float | None = None  # None where no honest one is known
    interval: tuple[float, float] | None = None  # 95 %
    seed: int | None = None  # None where nothing is drawn
    version: int = 1  # rises when the same inputs give another value
    features: str | None = None  # the feature network; numbers from different ones are not comparable
    note: str | None = None  # why this very number is to be read with care, one clause


class Column(NamedTuple):
    """One number for each of n images; the metric of its name, where there is one, is its mean."""

    rows: tuple[int, ...]  # (n,) where in their split the images stand, ascending
    values: tuple[float, ...]  # (n,)


class Skipped(NamedTuple):
    """A metric that was not computed, and why."""

    name: str
    reason: str


def attempt(name: str, metric: Callable[[], Metric | tuple[Metric | Skipped, ...]]) -> list[Metric | Skipped]:
    """The metrics that ``metric`` returns, or the reason why there are none; every other exception goes on."""
    try:
        found = metric()
    except NotApplicable as reason:
        return [Skipped(name, str(reason))]
    return [found] if isinstance(found, Metric) else list(found)


def float_matrix(x: Array, what: str, min_rows: int = 1) -> NDArray[np.float64]:
    """Check that ``x`` is (N, D), finite and at least ``min_rows`` long, as float64.

    Raises:
        NotApplicable: saying what ``what`` holds and what it should.
    """
    array = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    _check_matrix(array.shape, what, min_rows)
    if array.dtype.kind not in "fiub":
        raise NotApplicable(f"{what} are of type {array.dtype}: real numbers are wanted")
    array = array.astype(np.float64)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        raise NotApplicable(_not_finite(what, int(bad.sum()), len(array), int(bad.argmax())))
    return array


def float_tensor(x: Array, what: str, min_rows: int = 1, *, lift: bool = True) -> Tensor:
    """The check of :func:`float_matrix` for a tensor, which keeps its device; float64 if ``lift``, else as it is."""
    tensor = torch.as_tensor(x).detach()
    _check_matrix(tensor.shape, what, min_rows)
    if tensor.is_complex():
        raise NotApplicable(f"{what} are of type {tensor.dtype}: real numbers are wanted")
    if lift:
        tensor = to_float64(tensor)
    bad = ~torch.isfinite(tensor).all(1)
    if bad.any():
        raise NotApplicable(_not_finite(what, int(bad.sum()), len(tensor), int(bad.int().argmax())))
    return tensor


def to_float64(x: Tensor) -> Tensor:
    """In double precision, on the CPU where the device has none: differences of moments lose their digits otherwise."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def _check_matrix(shape: tuple[int, ...], what: str, min_rows: int) -> None:
    if len(shape) != 2 or shape[1] == 0:
        raise NotApplicable(f"{what} are of shape {tuple(shape)}: one flat vector per row is wanted, (N, D)")
    if shape[0] < min_rows:
        raise NotApplicable(f"{what} are {shape[0]} rows: at least {min_rows} are needed")


def _not_finite(what: str, bad: int, n: int, first: int) -> str:
    return f"{what} hold NaN or infinity in {bad} of {n} rows (the first is row {first})"


def whole_numbers(y: Array, what: str) -> NDArray[np.int64]:
    """Check that ``y`` (N,) holds whole numbers of at least two values.

    Raises:
        NotApplicable: the labels are not one whole number per row, or all the same.
    """
    array = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if array.ndim != 1:
        raise NotApplicable(f"{what} are of shape {array.shape}: one label per row is wanted, (N,)")
    if array.dtype.kind not in "iubf" or not np.isfinite(array).all() or (array != np.trunc(array)).any():
        raise NotApplicable(f"{what} are not whole numbers: class indices are wanted")
    if len(array) == 0 or (array == array[0]).all():
        raise NotApplicable(f"{what} are all alike: at least two classes are needed")
    return array.astype(np.int64)


def same_length(**arrays: Any) -> None:
    """Check that all the arrays have as many rows.

    Raises:
        UserError: naming each with its length. This is a mix-up of the caller's, not a metric that does not apply.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"mismatched lengths: {said} rows; row i of each must belong to the same image")


def mean_metric(name: str, values: Array, definition: str, **fields: Any) -> Metric:
    """The mean of per-item values with the standard error of independent items, ``sd / sqrt(n)``."""
    tensor = torch.as_tensor(values).double()
    n = len(tensor)
    stderr = float(tensor.std()) / math.sqrt(n) if n > 1 else None
    return Metric(name, float(tensor.mean()), n, definition, stderr=stderr, **fields)


def median_metric(name: str, values: Array, definition: str, **fields: Any) -> Metric:
    """The median of independent per-item values, with the exact 95 % interval of its order statistics from 6 items on.

    Thompson, On Confidence Ranges for the Median, Annals of Mathematical Statistics 1936.
    """
    ordered = torch.as_tensor(values).double().sort().values
    n = len(ordered)
    below = int(binom.ppf(0.025, n, 0.5))  # items that may lie beyond either end
    interval = (float(ordered[below - 1]), float(ordered[n - below])) if below > 0 else None
    return Metric(name, float(ordered.quantile(0.5)), n, definition, interval=interval, **fields)


class Tail(NamedTuple):
    """What the worst percent of items does to a mean."""

    items: int  # one in a hundred, rounded up
    share: float  # of all items' distances from the median
    pull: float  # the mean less the mean of the others

    def note(self, n: int, unit: str) -> str | None:
        """A warning where so few carry a quarter of what there is."""
        if self.share <= max(0.25, 5 / n):
            return None
        return (
            f"carried by few: the worst {self.items} of {n} images have {self.share:.0%} of the distance from the "
            f"median and move the mean by {self.pull:.4g} {unit}"
        )


def worst_percent(values: Array, *, low: bool) -> Tail:
    """The tail of per-item values, of which the lowest are the worst if ``low``, else the highest."""
    ordered = torch.as_tensor(values).double().sort(descending=not low).values
    items = -(-len(ordered) // 100)
    distance = (ordered - ordered.quantile(0.5)).abs()
    share = float(distance[:items].sum() / distance.sum().clamp_min(torch.finfo(torch.float64).tiny))
    rest = ordered[items:] if len(ordered) > items else ordered
    return Tail(items, share, float(ordered.mean() - rest.mean()))


def proportion_metric(name: str, hits: float, n: float, definition: str, **fields: Any) -> Metric:
    """A proportion of ``n`` independent trials: binomial standard error and Wilson's 95 % interval.

    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    p, z = hits / n, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    interval = (max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))  # rounding would leave p = 1 outside
    return Metric(name, p, int(n), definition, stderr=math.sqrt(p * (1 - p) / n), interval=interval, **fields)


def jackknife_stderr(values: Array) -> float:
    """Delete-one-group jackknife over G estimates, each without one of G equal groups of rows.

    ``sqrt((G - 1) / G sum_g (t_g - mean t)^2)``: Efron & Stein, The Jackknife Estimate of Variance, Annals of
    Statistics 1981.
    """
    array = np.asarray(values, dtype=np.float64)
    groups = len(array)
    return float(np.sqrt((groups - 1) / groups * np.square(array - array.mean()).sum()))


def parts_stderr(
    rows: Sequence[int], score: Callable[..., Any], *, parts: int = 2, repeats: int = 4, seed: int = 0
) -> NDArray[np.float64]:
    """Standard error of a score of one or more sets of independent rows, from its spread over disjoint parts of them.

    Each of ``repeats`` times every set is cut at random into ``parts`` parts, and the variance of the score over parts,
    each of one part of every set, is divided by ``parts``. Unlike the error of a mean over the rows counted, it knows
    what rows have in common; unlike a bootstrap it repeats no row, which would be its own nearest neighbour. It takes
    the variance to fall as 1 / rows.

    McCarthy, Pseudo-replication: Half Samples, Review of the International Statistical Institute 1969.

    Args:
        rows: in each set.
        score: takes the indices of a part of every set, and returns one number or several, (S,).
        parts: the more, the steadier the estimate and the smaller the parts.
        repeats: of the cutting.
        seed: of the cuts.
    """
    rng, variances = np.random.default_rng(seed), []
    for _ in range(repeats):
        cuts = [np.array_split(rng.permutation(n), parts) for n in rows]
        values = np.array([score(*pieces) for pieces in zip(*cuts, strict=True)], dtype=np.float64)
        variances.append(values.var(axis=0, ddof=1) / parts)
    return np.asarray(np.sqrt(np.mean(variances, axis=0)))
