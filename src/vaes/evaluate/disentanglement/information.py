"""Scores from mutual information: the gap (MIG) in the two definitions that the literature mixes up, and modularity."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import xlogy
from torch import Tensor

from vaes.evaluate.disentanglement.inputs import Floats, Ints, coded, round_up
from vaes.evaluate.latent import draw_noise, gaussian_posteriors, jackknife_groups, leave_out_means
from vaes.evaluate.record import Array, Metric, NotApplicable, jackknife_stderr, same_length

__all__ = ["discretize", "mig_chen", "mig_locatello", "modularity", "mutual_information"]

GROUPS = 20  # of rows, for the jackknife


def discretize(codes: Floats, n_bins: int = 20) -> Ints:
    """Codes (N, D) to bins 0 .. n_bins-1, equally wide between each dimension's extremes; one for a constant."""
    bins = np.empty(codes.shape, np.int64)
    for d, column in enumerate(codes.T):
        edges = np.linspace(column.min(), column.max(), n_bins + 1)
        bins[:, d] = np.digitize(column, edges[:-1]) - 1
    return bins


def mutual_information(counts: NDArray[np.number]) -> Floats:
    """Mutual information of joint counts (..., A, B), nats, never negative: ``sum p(a, b) log p(a, b) / p(a) p(b)``."""
    joint = counts / counts.sum((-2, -1), keepdims=True)
    terms = xlogy(joint, joint).sum((-2, -1))
    for axis in (-1, -2):
        margin = joint.sum(axis)
        terms = terms - xlogy(margin, margin).sum(-1)
    # Rounding must not tell a dead code from another: modularity divides by the largest information.
    return np.where(terms < 1e-12, 0.0, terms)


def _counts(bins: Ints, column: Ints, groups: Ints) -> NDArray[np.int64]:
    """Joint counts (G, D, bins, K) of every binned code with one factor, in every group of rows."""
    n_groups, n_bins, n_values = GROUPS, int(bins.max()) + 1, int(column.max()) + 1
    shape = (n_groups, bins.shape[1], n_bins, n_values)
    index = np.ravel_multi_index((groups[:, None], np.arange(bins.shape[1])[None], bins, column[:, None]), shape)
    return np.bincount(index.ravel(), minlength=math.prod(shape)).reshape(shape)


def _information(codes: Floats, factors: Ints) -> tuple[Floats, Floats]:
    """MI (1 + G, D, F) of binned codes with factors and entropies (1 + G, F): of all rows, then without each group."""
    bins = discretize(codes)
    groups = np.random.default_rng(0).permutation(len(codes)) % GROUPS
    information, entropy = [], []
    for column in factors.T:
        counts = _counts(bins, column, groups)
        counts = np.concatenate([counts.sum(0, keepdims=True), counts.sum(0) - counts])
        information.append(mutual_information(counts))
        share = counts[:, 0].sum(-2) / counts[:, 0].sum((-2, -1))[:, None]
        entropy.append(-xlogy(share, share).sum(-1))
    return np.stack(information, axis=-1), np.stack(entropy, axis=-1)


def mig_locatello(codes: Array, factors: Array) -> Metric:
    """Mutual information gap of mean codes through histograms: ``mean_k (I(z_j1; v_k) - I(z_j2; v_k)) / H(v_k)``.

    Each code is cut into 20 bins of equal width; j1 and j2 are the two codes that know most of factor k. The standard
    error is a jackknife over 20 groups of rows, at fixed bins. Not comparable with :func:`mig_chen`.

    Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations, 2019,
    https://arxiv.org/abs/1811.12359.

    Args:
        codes: (N, D), D >= 2, means of the posterior (10,000 in the paper).
        factors: (N, F) whole numbers.

    Raises:
        NotApplicable: see :func:`coded`.
    """
    z, v = coded(codes, factors, min_codes=2)
    information, entropy = _information(z, v)
    ordered = np.sort(information, axis=1)
    scores = ((ordered[:, -1] - ordered[:, -2]) / entropy).mean(-1)
    return Metric(
        "mig_locatello",
        float(scores[0]),
        len(z),
        "mean over all given factors of the top-two gap of 20-bin histogram MI over the factor's entropy, on the codes "
        "given; Locatello et al. 2019 (1811.12359)",
        stderr=jackknife_stderr(scores[1:]),
    )


def modularity(codes: Array, factors: Array) -> Metric:
    """Modularity: ``mean_j 1 - sum_{k != k*} I_jk^2 / (I_jk*^2 (F - 1))``, k* the factor that code j knows most.

    The same 20-bin histograms as :func:`mig_locatello`; a code that knows nothing of any factor counts 0. A code of
    pure noise does not: it scores by the bias of its histogram alone, so judge modularity beside explicitness.

    Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, 2018,
    https://arxiv.org/abs/1802.05312, section 3.

    Args:
        codes: (N, D).
        factors: (N, F), F >= 2, whole numbers.

    Raises:
        NotApplicable: see :func:`coded`.
    """
    z, v = coded(codes, factors, min_factors=2)
    squared = np.square(_information(z, v)[0])
    best = squared.max(-1)
    rest = np.divide(squared.sum(-1) - best, best * (v.shape[1] - 1), out=np.ones_like(best), where=best > 0)
    scores = (1 - rest).mean(-1)
    return Metric(
        "modularity",
        float(scores[0]),
        len(z),
        "mean over codes of 1 - spread of squared 20-bin histogram MI over factors, dead codes 0; "
        "Ridgeway & Mozer 2018 (1802.05312) as in Locatello et al. 2019",
        stderr=jackknife_stderr(scores[1:]),
    )


def mig_chen(
    mean: Array, logvar: Array, factors: Array, *, n_samples: int = 10_000, min_rows: int = 50, seed: int = 0
) -> Metric:
    """Mutual information gap of sampled codes: ``mean_k (I(z_j1; v_k) - I(z_j2; v_k)) / H(v_k)``.

    ``I(z_j; v_k) = H(z_j) - H(z_j | v_k)``, where ``H(z_j) = -E log q(z_j)`` and ``q(z_j)`` is the mixture of the given
    posteriors: of all N rows, or of those with ``v_k = v``, averaged over v by its share. Each entropy rests on at most
    ``n_samples`` draws, one from each row. The paper uses every image of the data set and, on dSprites, four factors
    (scale, orientation, x, y; not shape): pass those columns to stand beside it.

    A mixture of few rows is a rough density where posteriors are narrow, and a code that knows nothing then seems to
    know something: gaps are wrong, mostly too small, the more the fewer rows share a value. So N is part of the
    definition, numbers of different N do not compare, and few rows are refused. The standard error, a jackknife over 20
    groups of rows, is of other rows and draws as many; the bias it does not know.

    Chen et al., Isolating Sources of Disentanglement in Variational Autoencoders, 2018,
    https://arxiv.org/abs/1802.04942, section 4.1.

    Args:
        mean: (N, D) of the Gaussian posteriors, D >= 2.
        logvar: (N, D).
        factors: (N, F) whole numbers.
        n_samples: draws per entropy.
        min_rows: that must share each value of each factor.
        seed: of the draws.

    Raises:
        NotApplicable: see :func:`coded`; or fewer rows share a value.
        UserError: mean, logvar and factors differ in length.
    """
    same_length(mean=mean, logvar=logvar, factors=factors)
    v = coded(mean, factors, min_codes=2).factors
    for k, column in enumerate(v.T):
        fewest = int(np.bincount(column).min())
        if fewest < min_rows:
            raise NotApplicable(
                f"factor {k} takes one of its values in {fewest} of {len(v)} rows, and {min_rows} are needed: about "
                f"{round_up(1.5 * len(v) * min_rows / fewest)} rows would do"
            )
    mu, lv = gaussian_posteriors(mean, logvar)
    generator = torch.Generator().manual_seed(seed)
    offset = torch.exp(0.5 * lv) * draw_noise(mu, generator)
    group = jackknife_groups(len(mu), GROUPS).to(mu.device)

    def entropies(rows: Tensor) -> Floats:
        """H(z_j) of the mixture of these rows, then without each group, (1 + G, D)."""
        drawn = rows
        if len(rows) > n_samples:
            drawn = rows[torch.randperm(len(rows), generator=generator)[:n_samples].to(rows.device)]
        found = leave_out_means(mu[drawn], offset[drawn], mu[rows], lv[rows], group[drawn], group[rows], GROUPS)
        return -found.marginals.cpu().numpy()

    marginal = entropies(torch.arange(len(mu), device=mu.device))
    gaps = []
    for column in v.T:
        counts = np.zeros((GROUPS, column.max() + 1))
        np.add.at(counts, (group.cpu().numpy(), column), 1)
        counts = np.concatenate([counts.sum(0, keepdims=True), counts.sum(0) - counts])
        share = counts / counts.sum(1, keepdims=True)  # (1 + G, values)
        conditional = np.zeros_like(marginal)
        for value, weight in enumerate(share.T):
            rows = torch.from_numpy(np.flatnonzero(column == value)).to(mu.device)
            conditional += weight[:, None] * np.where(weight[:, None] > 0, entropies(rows), 0.0)
        known = np.sort(np.maximum(marginal - conditional, 0.0), axis=1)
        gaps.append((known[:, -1] - known[:, -2]) / -xlogy(share, share).sum(1))
    scores = np.mean(gaps, axis=0)
    return Metric(
        "mig_chen",
        float(scores[0]),
        len(mu),
        f"mean over the given factors of the top-two gap of H(z_j) - H(z_j|v_k) over the factor's entropy, {len(mu)} "
        "sampled codes, entropies of the aggregate posterior of as many rows (biased by how few they are); Chen et al. "
        "2018 (1802.04942)",
        stderr=jackknife_stderr(scores[1:]),
        seed=seed,
        version=2,
    )
