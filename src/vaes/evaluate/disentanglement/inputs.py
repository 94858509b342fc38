"""Checks and random draws that the disentanglement scores share: codes (N, D) beside ground-truth factors (N, F)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaes.errors import UserError
from vaes.evaluate.record import Array, NotApplicable, float_matrix, same_length, whole_numbers

__all__ = ["Coded", "FixedFactor", "Split", "coded", "repeated", "round_up", "split"]

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
    the draws come from the rows at hand, and no row twice in one draw: a draw without replacement from independent rows
    is a draw of independent rows, so that each has the law of fresh ones, whatever the number of rows. (With
    replacement, the rows of a value are a small population of their own, of other variances.)
    """

    def __init__(self, factors: Ints, k: int) -> None:
        column = factors[:, k]
        self.k, self.value = k, column
        self.order = np.argsort(column, kind="stable")
        self.count = np.bincount(column)
        self.start = np.cumsum(self.count) - self.count
        if self.count.max() < 2:
            raise NotApplicable(f"no two rows share a value of factor {k}: it cannot be held fixed")

    def need(self, rows: Ints | int) -> None:
        """Check that each value has so many rows (one number, or one for each value).

        Raises:
            NotApplicable: with the number of rows that would do, and for half of them too.
        """
        lack = np.where(self.count > 0, rows / np.maximum(self.count, 1), 0.0)
        worst = int(lack.argmax())
        if lack[worst] > 1:
            needed = int(np.broadcast_to(rows, lack.shape)[worst])
            raise NotApplicable(
                f"factor {self.k} takes one of its values in {self.count[worst]} of {len(self.value)} rows, and "
                f"{needed} are drawn at a time: about {round_up(2.5 * lack[worst] * len(self.value))} rows would do"
            )

    def values(self, shape: int | tuple[int, int], rng: np.random.Generator) -> Ints:
        """Values drawn by their shares of the rows."""
        return self.value[rng.integers(len(self.value), size=shape)]

    def batches(self, values: Ints, size: int, rng: np.random.Generator) -> Ints:
        """For each of A values, ``size`` different rows that have it: (A, size). R. W. Floyd's sampling, 1987."""
        count, found = self.count[values], np.empty((len(values), size), np.int64)
        for i in range(size):
            last = count - size + i
            draw = np.floor(rng.random(len(values)) * (last + 1)).astype(np.int64)
            taken = (found[:, :i] == draw[:, None]).any(1)
            found[:, i] = np.where(taken, last, draw)
        return self.order[self.start[values][:, None] + found]

    def pairs(self, values: Ints, rng: np.random.Generator) -> Ints:
        """For values (A, B), pairs of rows that have them, the 2 B rows of each of the A all different: (A, B, 2).

        Raises:
            NotApplicable: a value is wanted more often than rows have it.
        """
        self.need(2 * np.stack([np.bincount(line, minlength=len(self.count)) for line in values]).max(0))
        value = np.repeat(values, 2, axis=1)
        drawn = np.empty(value.shape, np.int64)
        again = np.ones(value.shape, np.bool_)
        while again.any():  # what a row before it has taken is drawn anew: the law of drawing one after another
            at = value[again]
            drawn[again] = self.start[at] + np.floor(rng.random(len(at)) * self.count[at]).astype(np.int64)
            again = repeated(drawn)
        return self.order[drawn].reshape(*values.shape, 2)


def repeated(rows: Ints) -> NDArray[np.bool_]:
    """Which entries of (A, B) have occurred before in their line."""
    order = np.argsort(rows, axis=1, kind="stable")
    line = np.take_along_axis(rows, order, 1)
    found = np.zeros(rows.shape, np.bool_)
    np.put_along_axis(found, order[:, 1:], line[:, 1:] == line[:, :-1], 1)
    return found


def round_up(rows: float) -> int:
    """To two digits."""
    unit = 10 ** max(0, math.floor(math.log10(rows)) - 1)
    return math.ceil(rows / unit) * unit
