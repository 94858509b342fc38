"""Gradient-boosted classification trees, exact and fast enough for DCI.

The model is scikit-learn's ``GradientBoostingClassifier`` with its defaults: 100 stages, depth 3, shrinkage 0.1, log
loss, exact greedy splits on float32 inputs by variance reduction. Every class of a 40-valued factor needs a tree in
every stage, and the library sorts the inputs anew at every node. Here they are sorted once for all trees, and a node
inherits its order from its parent, which is several times as fast. The trees are the same; ties between two
inputs are broken by a random draw in both, so scores differ by as much as between two seeds of the library.

Friedman, Greedy Function Approximation: A Gradient Boosting Machine, Annals of Statistics 2001, algorithm 6.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boosted", "boost"]

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

SAME_VALUE = np.float32(1e-7)  # neighbours this close count as equal, so no split falls between them


class Boosted(NamedTuple):
    """A fitted ensemble: only what DCI asks of it."""

    importances: Floats  # (D,) variance reduction per input, summing to 1 (all 0 if no tree could split)
    train_prediction: NDArray[np.int64]  # (N,) classes
    test_prediction: NDArray[np.int64]  # (M,)


class _Node(NamedTuple):
    order: Rows  # (D, n) the node's rows, sorted by each input
    rank: NDArray[np.int32] | None  # (D, n) rank of the value at that place, equal values sharing one; None: no ties
    test: Rows  # rows of the test set that fall here


class _Split(NamedTuple):
    gain: float  # drop of the residuals' sum of squares
    feature: int
    n_left: int


def boost(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    x_test: NDArray[np.float32],
    *,
    n_stages: int = 100,
    max_depth: int = 3,
    shrinkage: float = 0.1,
    seed: int = 0,
) -> Boosted:
    """Fit classes y (N,), numbered 0 .. C-1 and each present, to x (N, D), and predict x (N, D) and x_test (M, D)."""
    n, n_classes = len(x), int(y.max()) + 1
    factor = (n_classes - 1) / n_classes if n_classes > 2 else 1.0
    ensemble = _Ensemble(x, x_test, max_depth, factor, np.random.default_rng(seed))
    prior = np.bincount(y, minlength=n_classes) / n
    # Two classes need one function, the log-odds; more need one each, up to a shift that the softmax cancels.
    start = np.log(prior) if n_classes > 2 else np.log(prior[1:] / prior[:1])
    target = (y == np.arange(n_classes)[:, None]).astype(np.float64)[-len(start) :]  # (C, N)
    raw, raw_test = np.repeat(start[:, None], n, 1), np.repeat(start[:, None], len(x_test), 1)
    for _ in range(n_stages):
        residual = target - _probability(raw)
        for k in range(len(start)):
            step, step_test = ensemble.tree(residual[k])
            raw[k] += shrinkage * step
            raw_test[k] += shrinkage * step_test
    total = ensemble.gains.sum()
    return Boosted(ensemble.gains / total if total > 0 else ensemble.gains, _classify(raw), _classify(raw_test))


def _probability(raw: Floats) -> Floats:
    if len(raw) == 1:
        return 1 / (1 + np.exp(-raw))
    exp = np.exp(raw - raw.max(axis=0))
    return exp / exp.sum(axis=0)


def _classify(raw: Floats) -> NDArray[np.int64]:
    return (raw[0] >= 0).astype(np.int64) if len(raw) == 1 else raw.argmax(axis=0).astype(np.int64)


class _Ensemble:
    """The inputs, sorted once, and the gain that each has brought so far."""

    def __init__(
        self,
        x: NDArray[np.float32],
        x_test: NDArray[np.float32],
        max_depth: int,
        factor: float,
        rng: np.random.Generator,
    ) -> None:
        self.columns, self.test_columns = np.ascontiguousarray(x.T), np.ascontiguousarray(x_test.T)
        self.max_depth, self.factor, self.rng = max_depth, factor, rng
        order = np.argsort(self.columns, axis=1, kind="stable")
        ordered = np.take_along_axis(self.columns, order, axis=1)
        distinct = ordered[:, 1:] > ordered[:, :-1] + SAME_VALUE
        rank = np.zeros(order.shape, np.int32)
        np.cumsum(distinct, axis=1, out=rank[:, 1:])
        self.root = _Node(order, None if distinct.all() else rank, np.arange(len(x_test)))
        below = np.arange(1.0, max(2, len(x)))
        self.inverse = 1 / below  # 1 / n for n = 1, 2, ...
        self.gains = np.zeros(len(self.columns))
        self.in_left = np.zeros(len(x), bool)

    def tree(self, residual: Floats) -> tuple[Floats, Floats]:
        """Grow one tree on residuals (N,); returns its step for the training rows (N,) and the test rows (M,)."""
        step, step_test = np.empty(len(residual)), np.empty(self.test_columns.shape[1])
        nodes = [(self.root, 0)]
        while nodes:
            node, depth = nodes.pop()
            split = self._best_split(node, residual) if depth < self.max_depth else None
            if split is None:
                rows = node.order[0]
                step[rows] = step_test[node.test] = self._leaf(residual[rows])
                continue
            self.gains[split.feature] += split.gain
            nodes += [(child, depth + 1) for child in self._divide(node, split, depth + 1 == self.max_depth)]
        return step, step_test

    def _leaf(self, residual: Floats) -> float:
        """One Newton step on the log loss; ``|r| (1 - |r|)`` is ``p (1 - p)`` for either class."""
        size = np.abs(residual)
        curvature = float((size * (1 - size)).sum())
        return self.factor * float(residual.sum()) / curvature if curvature > 1e-150 else 0.0

    def _best_split(self, node: _Node, residual: Floats) -> _Split | None:
        """The place that lowers the sum of squares most, by C^2 (1/l + 1/r), C the cumulated centred residuals."""
        n = node.order.shape[1]
        if n < 2:
            return None
        gain = residual[node.order]
        gain -= gain[0].mean()
        if float(gain[0] @ gain[0]) / n <= np.finfo(np.float64).eps:
            return None
        np.cumsum(gain, axis=1, out=gain)
        gain = gain[:, :-1]
        np.square(gain, out=gain)
        gain *= self.inverse[: n - 1] + self.inverse[n - 2 :: -1]
        if node.rank is not None:
            gain[node.rank[:, 1:] == node.rank[:, :-1]] = -1.0
        places = gain.argmax(axis=1)
        gains = gain[np.arange(len(gain)), places]
        best = float(gains.max())
        if best < 0:
            return None
        # Two codes that say the same must share the credit, not leave it all to the one of lower index.
        tied = np.flatnonzero(gains >= best * (1 - 1e-12))
        feature = int(tied[self.rng.integers(len(tied))] if len(tied) > 1 else tied[0])
        return _Split(best, feature, int(places[feature]) + 1)

    def _divide(self, node: _Node, split: _Split, last: bool) -> tuple[_Node, _Node]:
        column, order = self.columns[split.feature], node.order[split.feature]
        left, right = order[: split.n_left], order[split.n_left :]
        threshold = column[left[-1]] / 2.0 + column[right[0]] / 2.0
        goes_left = self.test_columns[split.feature][node.test] <= threshold
        tests = node.test[goes_left], node.test[~goes_left]
        if last:  # leaves need their rows, in no order
            return _Node(left[None], None, tests[0]), _Node(right[None], None, tests[1])
        self.in_left[left] = True
        side = self.in_left[node.order]
        self.in_left[left] = False
        return self._child(node, side, tests[0]), self._child(node, ~side, tests[1])

    def _child(self, node: _Node, side: NDArray[np.bool_], test: Rows) -> _Node:
        d = len(node.order)
        places = np.flatnonzero(side)  # several times as fast as indexing by the mask itself
        rank = None if node.rank is None else node.rank.take(places).reshape(d, -1)
        return _Node(node.order.take(places).reshape(d, -1), rank, test)
