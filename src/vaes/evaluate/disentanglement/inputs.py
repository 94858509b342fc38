"""Checks and random draws that the disentanglement scores share: codes (N, D) beside ground-truth factors (N, F)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaes.errors import UserError
from vaes.evaluate.record import Array, NotApplicable, float_matrix, same_length, whole_numbers

__all__ = ["Coded", "FixedFactor", "Split", "coded", "split"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_ROWS = 100  # below, the bias of a 20-bin histogram is larger than any score


class Coded(NamedTuple):
    """Checked inputs."""

    codes: Floats  # (N, D)
    factors: Ints  # (N, F), each column renumbered 0 .. K-1


class Split(NamedTuple):
    """Rows to fit on and rows to score."""

    train: Coded
    test: Coded


def coded(codes: Array, factors: Array, *, min_codes: int = 1, min_factors: int = 1, min_rows: int = MIN_ROWS) -> Coded:
    """Check codes (N, D) and factors (N, F).

    Raises:
        NotApplicable: codes or factors that no score is defined on: not finite, not two-dimensional, fewer than 100
        rows, no code that varies, a factor that does not, too few codes or factors for the score.
        UserError: codes and factors differ in length.
    """
    same_length(codes=codes, factors=factors)
    z, v = float_matrix(codes, "codes", min_rows), float_matrix(factors, "factors", min_rows)
    if z.shape[1] < min_codes:
        raise NotApplicable(f"the codes have {z.shape[1]} dimension(s): this score compares at least {min_codes}")
    if v.shape[1] < min_factors:
        raise NotApplicable(f"there are {v.shape[1]} factor(s): this score compares at least {min_factors}")
    if (z == z[0]).all():
        raise NotApplicable("the codes are constant: every row has the same code (a collapsed encoder)")
    columns = [whole_numbers(v[:, k], f"values of factor {k}") for k in range(v.shape[1])]
    return Coded(z, np.stack([np.unique(column, return_inverse=True)[1] for column in columns], axis=1))


def split(
    codes: Array,
    factors: Array,
    test: tuple[Array, Array] | None,
    seed: int,
    *,
    min_codes: int = 1,
    min_factors: int = 1,
) -> Split:
    """The given test rows, or a seeded third of all rows: the reference's 10,000 to 5,000.

    Raises:
        NotApplicable: see :func:`coded`; or the test rows hold a value of a factor that the training rows do not.
        UserError: the test set's codes or factors are of other dimensions than the training set's.
    """
    limits = {"min_codes": min_codes, "min_factors": min_factors}
    if test is None:
        whole = coded(codes, factors, min_rows=MIN_ROWS * 3 // 2, **limits)
        order = np.random.default_rng(seed).permutation(len(whole.codes))
        rows, held = np.split(order, [len(order) - len(order) // 3])
        codes, factors, test = whole.codes[rows], whole.factors[rows], (whole.codes[held], whole.factors[held])
    same_length(test_codes=test[0], test_factors=test[1])
    train = coded(codes, factors, **limits)
    z, v = float_matrix(test[0], "test codes"), float_matrix(test[1], "test factors")
    if z.shape[1] != train.codes.shape[1] or v.shape[1] != train.factors.shape[1]:
        raise UserError(
            f"training rows have {train.codes.shape[1]} codes and {train.factors.shape[1]} factors, "
            f"test rows {z.shape[1]} and {v.shape[1]}: they must have the same"
        )
    v_train = float_matrix(factors, "factors")
    return Split(train, Coded(z, np.stack([_renumber(v_train[:, k], v[:, k], k) for k in range(v.shape[1])], axis=1)))


def _renumber(train: Floats, test: Floats, k: int) -> Ints:
    values = np.unique(train)
    missing = np.setdiff1d(test, values)
    if len(missing):
        raise NotApplicable(
            f"factor {k} takes the value {missing[0]:g} in the test rows but never in the training rows"
        )
    return np.searchsorted(values, test).astype(np.int64)


class FixedFactor:
    """Draws rows that share the value of one factor from a finite set of rows.

    The published protocol renders a fresh image for every draw, the other factors independent of the fixed one. Here
    the draws come from the rows at hand: the same law where the rows are independent draws from the grid or the whole
    grid, up to the finite number of rows that share a value. Values that a single row has are never drawn: a row paired
    with itself would make every code look fixed.
    """

    def __init__(self, factors: Ints, k: int) -> None:
        column = factors[:, k]
        self.value = column
        self.order = np.argsort(column, kind="stable")
        self.count = np.bincount(column)
        self.start = np.cumsum(self.count) - self.count
        self.place = np.empty(len(column), np.int64)
        self.place[self.order] = np.arange(len(column))
        self.eligible = np.flatnonzero(self.count[column] > 1)
        if len(self.eligible) == 0:
            raise NotApplicable(f"no two rows share a value of factor {k}: it cannot be held fixed")

    def anchors(self, shape: int | tuple[int, int], rng: np.random.Generator) -> Ints:
        """Rows drawn uniformly among those whose value some other row shares."""
        return self.eligible[rng.integers(len(self.eligible), size=shape)]

    def partners(self, rows: Ints, rng: np.random.Generator) -> Ints:
        """For each row, another one with its value of the factor, uniformly."""
        value = self.value[rows]
        start, count = self.start[value], self.count[value]
        shift = 1 + np.floor(rng.random(rows.shape) * (count - 1)).astype(np.int64)
        return self.order[start + (self.place[rows] - start + shift) % count]

    def batches(self, anchors: Ints, size: int, rng: np.random.Generator) -> Ints:
        """For each of A anchors, ``size`` rows with its value of the factor, with replacement: (A, size)."""
        value = self.value[anchors][:, None]
        draw = np.floor(rng.random((len(anchors), size)) * self.count[value]).astype(np.int64)
        return self.order[self.start[value] + draw]
