"""Do seeds find the same dimensions? The unsupervised disentanglement ranking of runs of one configuration."""

import re
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from vaes.compare.runs import Result
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Group

__all__ = ["GROUP", "ranking", "scores"]

Floats = NDArray[np.float64]

GROUP = "across seeds"
INFORMATIVE = 0.01  # nats


def scores(codes: Sequence[Floats], kl: Sequence[Floats]) -> list[float]:
    """How far each of P models agrees with the others on what its informative dimensions are, between 0 and 1.

    ``UDR_ij = 1 / (d_i + d_j) [sum_b max_a R(a, b)^2 / sum_a R(a, b) + sum_a max_b R(a, b)^2 / sum_b R(a, b)]`` with R
    the absolute rank correlations of i's dimensions a with j's dimensions b, of which those count whose KL is above
    0.01; a model's score is the median over the others. A dimension without a partner counts as 0, and so do two models
    without an informative dimension.

    Duan et al., Unsupervised Model Selection for Variational Disentangled Representation Learning, ICLR 2020,
    https://arxiv.org/abs/1905.12614, equations 2 and 3, with Spearman's correlation (their UDR_S).

    Args:
        codes: P arrays (N, D), the means of one set of images.
        kl: P arrays (D,), nats.
    """
    informative = [each[:, nats > INFORMATIVE] for each, nats in zip(codes, kl, strict=True)]
    ranked = [_standardised(each) for each in informative]
    found: list[list[float]] = [[] for _ in codes]
    for i, j in combinations(range(len(codes)), 2):
        agreement = _agreement(np.abs(ranked[i].T @ ranked[j]))
        found[i].append(agreement)
        found[j].append(agreement)
    return [float(np.median(each)) for each in found]


def _standardised(codes: Floats) -> Floats:
    """Ranks of each dimension, of mean 0 and length 1; zeros where a dimension is constant."""
    ranks = rankdata(codes, axis=0) if codes.size else codes
    ranks = ranks - ranks.mean(0)
    length = np.linalg.norm(ranks, axis=0)
    return ranks / np.where(length == 0, 1.0, length)


def _agreement(similarity: Floats) -> float:
    if not similarity.size:
        return 0.0
    total = 0.0
    for axis in (0, 1):
        sums = similarity.sum(axis)
        total += float((similarity.max(axis) ** 2 / np.where(sums == 0, 1.0, sums)).sum())
    return total / sum(similarity.shape)


def ranking(runs: Sequence[Result]) -> tuple[Group, Metric] | None:
    """The mean score of the runs of one pool, with the group that their codes come from; None where there are not two
    whose codes of the same images were stored."""
    groups = [run.evaluation.groups.get("latent") for run in runs]
    there = [(group, found) for group in groups if group is not None and (found := _codes(group)) is not None]
    if len(there) < max(2, len(runs)):
        return None
    (first, (rows, codes, _)), *others = there
    if any((group.chosen, group.images, group.split) != (first.chosen, first.images, first.split) or found[0] != rows
           for group, found in others):  # fmt: skip
        return None
    value = float(np.mean(scores([found[1] for _, found in there], [found[2] for _, found in there])))
    definition = (
        f"mean over {len(runs)} seeds of the unsupervised disentanglement ranking, Spearman, dimensions of more than "
        f"{INFORMATIVE:g} nats; Duan et al. 2020 (1905.12614)"
    )
    return first, Metric("udr", value, len(codes), definition)


def _codes(group: Group) -> tuple[tuple[int, ...], Floats, Floats] | None:
    """The images, codes (N, D) and nats (D,) of a run; None where they were not stored or are no numbers."""
    names = sorted(
        (name for name in group.columns if re.fullmatch(r"code_[0-9]+", name)), key=lambda name: int(name[5:])
    )
    nats = {metric.name: metric.value for metric in group.metrics}
    if not names or any(f"kl_dim_{name[5:]}" not in nats for name in names):
        return None
    codes = np.array([group.columns[name].values for name in names]).T
    kl = np.array([nats[f"kl_dim_{name[5:]}"] for name in names])
    if not (np.isfinite(codes).all() and np.isfinite(kl).all()):
        return None
    return group.columns[names[0]].rows, codes, kl
