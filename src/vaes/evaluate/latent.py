"""Collapse and coverage of the latent space: what each dimension carries, how the aggregate posterior meets the prior.

Posteriors are Gaussians, given by means and log-variances (N, D), one row per image; the aggregate posterior is their
mixture ``q(z) = (1/N) sum_n q(z | x_n)``, and the prior is N(0, I). Nats throughout.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vaes.evaluate.record import (
    Array,
    Metric,
    NotApplicable,
    float_tensor,
    jackknife_stderr,
    mean_metric,
    parts_stderr,
    same_length,
)
from vaes.functional import LOG_2PI, Kernel, gaussian_kernel, kl_normal
from vaes.posteriors import use_of

__all__ = [
    "AggregateDensity",
    "active_units",
    "aggregate_log_density",
    "aggregate_mmd",
    "code_use",
    "draw_codes",
    "draw_noise",
    "gaussian_posteriors",
    "jackknife_groups",
    "kl_per_dimension",
    "leave_out_means",
    "log_det_covariance",
    "rate_split",
]

CHUNK = 8_000_000  # densities held at once, 64 MB
GROUPS = 20  # of rows, for the jackknife
NARROW = 1e9  # largest squared distance over variance whose rounding leaves 1e-6 nats


def gaussian_posteriors(mean: Array, logvar: Array, min_rows: int = 1) -> tuple[Tensor, Tensor]:
    """Check means and log-variances (N, D) of Gaussian posteriors; float64.

    Raises:
        NotApplicable: not finite, not flat, or too few.
        UserError: of different lengths.
    """
    same_length(mean=mean, logvar=logvar)
    mu, lv = float_tensor(mean, "means", min_rows), float_tensor(logvar, "log-variances", min_rows)
    if mu.shape != lv.shape:
        raise NotApplicable(f"means are {tuple(mu.shape)} and log-variances {tuple(lv.shape)}: they must be alike")
    if lv.abs().max() > 700:
        raise NotApplicable(f"log-variances reach {float(lv.abs().max()):.3g} in size: exp of that is no number")
    return mu, lv


def code_use(indices: Array, words: int) -> tuple[Metric, Metric]:
    """How the words of a codebook are used: the share that occurs at least a tenth as often as it would if all were
    alike, and the perplexity ``exp(-sum p log p)`` of their frequencies; the mean over books.

    Args:
        indices: (N, P, Q) of N images, P positions and Q books.
        words: K, of each book.

    Raises:
        NotApplicable: there are none.
    """
    found = torch.as_tensor(indices).cpu()
    if not found.numel():
        raise NotApplicable("there are no indices")
    books = found.flatten(0, 1).T
    share = torch.stack([torch.bincount(book, minlength=words) for book in books]).double() / books.shape[1]
    usage, perplexity = (float(value) for value in use_of(share))
    n = books.shape[1]
    note = f"{n:,} indices do not tell {words:,} words well" if n < 5 * words else None
    if usage < 0.25 and note is None:
        note = "the codebook has collapsed: most of its words are out of use"
    about = f"of {words:,} words, over {n:,} positions of {len(found):,} images, the mean over {len(books)} books"
    return (
        Metric("code_usage", usage, n, f"share that is in use (a tenth of an even share or more) {about}", note=note),
        Metric("code_perplexity", perplexity, n, f"exp of the entropy of the frequencies {about}", note=note),
    )


def jackknife_groups(rows: int, groups: int) -> Tensor:
    """The group (N,) of each row, 0 .. G - 1, at random and of equal sizes."""
    return torch.randperm(rows, generator=torch.Generator().manual_seed(0)) % groups


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers (N, D), drawn on the CPU so that they are the same on any device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def draw_codes(mean: Tensor, logvar: Tensor, generator: torch.Generator) -> Tensor:
    """One code (N, D) from each posterior."""
    return mean + torch.exp(0.5 * logvar) * draw_noise(mean, generator)


class AggregateDensity(NamedTuple):
    """Log-densities of S codes under the aggregate posterior, nats."""

    joint: Tensor  # (S,) log q(z)
    marginals: Tensor  # (S, D) log q(z_j)


def aggregate_log_density(z: Tensor, mean: Tensor, logvar: Tensor, *, offset: Tensor | None = None) -> AggregateDensity:
    """``log (1/N) sum_n q(z | x_n)`` of codes z (S, D), jointly and per dimension, in memory that does not grow with S.

    ``offset`` (S, D) is added to z; a step from a posterior's mean that is smaller than the mean's rounding is not lost
    if it is given so.
    """
    joint, marginals = [], []
    for log_density in _log_densities(z, torch.zeros_like(z) if offset is None else offset, mean, logvar):
        joint.append(_log_mean_exp(log_density.sum(0)))
        marginals.append(_log_mean_exp(log_density).T)
    return AggregateDensity(torch.cat(joint), torch.cat(marginals))


def _log_densities(z: Tensor, offset: Tensor, mean: Tensor, logvar: Tensor) -> Iterator[Tensor]:
    """``log q(z_j | x_n)``, (D, s, N), for s of the codes z + offset at a time.

    It is a quadratic in z_j, so that a batch of codes costs one matrix product of (s, 3) by (3, N) for each dimension.
    Where posteriors are so narrow that its terms would cancel to more than 1e-6, differences are taken one by one.
    """
    centre = mean.mean(0)
    mu, lv = (mean - centre).T, logvar.T  # (D, N)
    at = z - centre
    size = max(1, CHUNK // mean.numel())
    precision = torch.exp(-lv)
    reach = torch.maximum((at + offset).abs().amax(0), mu.abs().amax(1))  # (D,)
    if float((precision.amax(1) * reach.square()).max()) < NARROW:
        coefficients = torch.stack(
            [-0.5 * precision, precision * mu, -0.5 * (precision * mu.square() + lv + LOG_2PI)], 1
        )
        for part in (at + offset).split(size):
            powers = torch.stack([part.square(), part, torch.ones_like(part)], -1).transpose(0, 1)  # (D, s, 3)
            yield powers @ coefficients
        return
    root, constant = torch.exp(-0.5 * lv)[:, None], -0.5 * (lv + LOG_2PI)[:, None]
    for part, step in zip(z.split(size), offset.split(size), strict=True):
        difference = part.T[:, :, None] - mean.T[:, None]  # exactly 0 from a code's own mean
        yield constant - 0.5 * ((difference + step.T[:, :, None]) * root).square()


def leave_out_means(
    z: Tensor, offset: Tensor, mean: Tensor, logvar: Tensor, of_code: Tensor, of_row: Tensor, groups: int
) -> AggregateDensity:
    """Mean log-densities of codes z + offset (S, D) under the aggregate posterior of N rows: of all of them, then with
    the codes and rows of each group left out, (1 + G,) and (1 + G, D). For a jackknife; NaN where nothing is left.

    Args:
        z: (S, D).
        offset: (S, D).
        mean: (N, D).
        logvar: (N, D).
        of_code: (S,) group of each code, 0 .. G - 1.
        of_row: (N,) group of each row.
        groups: G.
    """
    member = F.one_hot(of_row, groups).float()
    kept_rows = torch.cat([torch.ones(groups, 1), 1 - torch.eye(groups)], 1).to(member)  # (G, 1 + G)
    count = (member.sum(0) @ kept_rows).double()
    kept_codes = kept_rows.T.double() @ F.one_hot(of_code, groups).T.double()  # (1 + G, S)

    def left(log_density: Tensor) -> Tensor:
        """(..., s, N) -> (..., s, 1 + G)."""
        peak = log_density.amax(-1, keepdim=True)
        terms = (log_density - peak).float().clamp_min_(-80).exp_()  # as in _log_mean_exp
        return peak + ((terms @ member) @ kept_rows).to(peak.dtype).log() - count.to(peak.dtype).log()

    joint: Tensor | float = 0.0
    marginals: Tensor | float = 0.0
    start = 0
    for log_density in _log_densities(z, offset, mean, logvar):
        keep = kept_codes[:, start : start + log_density.shape[1]].to(log_density)  # (1 + G, s)
        for_joint, for_marginals = left(log_density.sum(0)), left(log_density)
        joint = joint + torch.where(keep > 0, for_joint.T, 0.0).sum(1)
        marginals = marginals + torch.where(keep > 0, for_marginals.transpose(1, 2), 0.0).sum(-1).T
        start += log_density.shape[1]
    codes = kept_codes.sum(1).to(mean)
    return AggregateDensity(torch.as_tensor(joint) / codes, torch.as_tensor(marginals) / codes[:, None])


def _log_mean_exp(x: Tensor) -> Tensor:
    """``log mean exp`` over the last dimension, to about 1e-6 nats."""
    peak = x.amax(-1, keepdim=True)
    # Less the peak, float32 holds all that counts and exponentiates several times as fast; denormals would be slow.
    terms = (x - peak).float().clamp_min_(-80).exp_().mean(-1)
    return peak[..., 0] + terms.to(x.dtype).log()


def active_units(mean: Array, *, threshold: float = 0.01) -> Metric:
    """Number of dimensions whose mean moves with the image: ``Var_x(E[z_j | x]) > threshold``.

    Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519.

    Args:
        mean: (N, D).
        threshold: on the variance.

    Raises:
        NotApplicable: the means are not finite, not flat, or fewer than 2.
    """
    mu = float_tensor(mean, "means", min_rows=2)
    return Metric(
        "active_units",
        float((mu.var(0) > threshold).sum()),
        len(mu),
        f"number of dimensions with Var_x(E[z|x]) > {threshold:g}; Burda et al. 2016 (1509.00519)",
    )


def kl_per_dimension(mean: Array, logvar: Array) -> list[Metric]:
    """The rate of each dimension, ``E_x KL(q(z_j | x) || N(0, 1))``, nats; a collapsed one is near 0. D metrics.

    Args:
        mean: (N, D).
        logvar: (N, D).

    Raises:
        NotApplicable: see :func:`gaussian_posteriors`.
    """
    kl = kl_normal(*gaussian_posteriors(mean, logvar)).cpu()
    definition = "mean over images of KL(q(z_j|x) || N(0, 1)), nats; closed form (Kingma & Welling 2013, appendix B)"
    return [mean_metric(f"kl_dim_{j}", column, definition) for j, column in enumerate(kl.T)]


def log_det_covariance(mean: Array, logvar: Array | None = None) -> Metric:
    """``log det Cov(q(z))``: 0 where the aggregate posterior has the prior's volume, above where it is too wide.

    ``Cov(q(z)) = Cov_x(E[z | x]) + E_x[Var(z | x)]``, the covariance of the mixture in closed form, where the paper
    takes that of samples. Without ``logvar``, that of the rows given (a deterministic encoder's codes, or samples). The
    standard error is a jackknife over 20 groups of rows.

    Zhao, Song & Ermon, InfoVAE, 2017, https://arxiv.org/abs/1706.02262.

    Args:
        mean: (N, D).
        logvar: (N, D).

    Raises:
        NotApplicable: see :func:`gaussian_posteriors`; or too few rows, or a singular covariance.
    """
    mu = float_tensor(mean, "codes")
    needed = 2 * max(mu.shape[1] + 1, GROUPS)
    if len(mu) < needed:
        raise NotApplicable(
            f"{len(mu)} rows are too few for a covariance in {mu.shape[1]} dimensions: {needed} are needed"
        )
    spread = torch.zeros_like(mu) if logvar is None else torch.exp(gaussian_posteriors(mean, logvar)[1])
    group = jackknife_groups(len(mu), GROUPS).to(mu.device)
    value = _log_det(mu, spread)
    left_out = [_log_det(mu[group != g], spread[group != g]) for g in range(GROUPS)]
    what = "Cov(E[z|x]) + E[Var(z|x)]" if logvar is not None else "the rows' covariance"
    return Metric(
        "log_det_covariance",
        value,
        len(mu),
        f"log det of {what}, nats (prior: 0); Zhao et al. 2017 (1706.02262)",
        stderr=jackknife_stderr(torch.tensor(left_out)),
    )


def _log_det(mean: Tensor, variance: Tensor) -> float:
    covariance = torch.atleast_2d(torch.cov(mean.T)) + torch.diag(variance.mean(0))
    eigenvalues = torch.linalg.eigvalsh(covariance)
    if eigenvalues[0] <= eigenvalues[-1] * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps:
        raise NotApplicable("the covariance of the codes is singular (a dimension is constant, or a copy of others)")
    return float(eigenvalues.log().sum())


def rate_split(mean: Array, logvar: Array, *, n_samples: int = 2_000, seed: int = 0) -> tuple[Metric, ...]:
    """The rate as mutual information + total correlation + dimension-wise KL, and the rate itself; nats, four metrics.

    ``E KL(q(z|x) || p(z)) = E log q(z|x)/q(z) + E log q(z)/prod_j q(z_j) + sum_j E log q(z_j)/p(z_j)``, each over one
    code from each of at most ``n_samples`` of the images, with q(z) the mixture of all N given. The three add up
    exactly to ``rate_sampled``, which estimates the mean rate. Mutual information is that with the index of the image
    among the N, so at most log N: where it is near that, N is too small to tell it, and total correlation is then wrong
    by as much. The standard errors are those of other images and draws, by a jackknife over 20 groups of rows; that N
    is finite they do not know.

    Hoffman & Johnson, ELBO surgery, 2016; Chen et al., Isolating Sources of Disentanglement in Variational
    Autoencoders, 2018, https://arxiv.org/abs/1802.04942, equation 2.

    Args:
        mean: (N, D).
        logvar: (N, D).
        n_samples: draws; N x n_samples x D densities are computed, a few million at a time.
        seed: of the draws.

    Raises:
        NotApplicable: see :func:`gaussian_posteriors`.
    """
    mu, lv = gaussian_posteriors(mean, logvar, min_rows=2)
    generator = torch.Generator().manual_seed(seed)
    noise = draw_noise(mu, generator)
    rows = torch.randperm(len(mu), generator=generator)[:n_samples].to(mu.device)
    offset, groups = (torch.exp(0.5 * lv) * noise)[rows], min(GROUPS, len(mu))
    of_row = jackknife_groups(len(mu), groups).to(mu.device)
    joint, marginals = leave_out_means(mu[rows], offset, mu, lv, of_row[rows], of_row, groups)
    log_q = _left_out(-0.5 * (LOG_2PI + lv + noise.square()).sum(-1)[rows], of_row[rows], groups)
    log_p = _left_out(-0.5 * (LOG_2PI + (mu[rows] + offset).square()).sum(-1), of_row[rows], groups)
    product = marginals.sum(-1)
    about = (
        f"q(z) the mixture of {len(mu)} posteriors, nats; Hoffman & Johnson 2016, Chen et al. 2018 (1802.04942) eq. 2"
    )
    parts = {
        "mutual_information": (log_q - joint, f"E log q(z|x)/q(z) (at most log N = {math.log(len(mu)):.2f})"),
        "total_correlation": (joint - product, "E log q(z)/prod_j q(z_j)"),
        "dimension_wise_kl": (product - log_p, "sum_j E log q(z_j)/p(z_j)"),
        "rate_sampled": (log_q - log_p, "E log q(z|x)/p(z) on the same draws, the sum of the three parts"),
    }
    return tuple(
        Metric(
            name, float(values[0]), len(rows), f"{what}, {about}", stderr=jackknife_stderr(values[1:].cpu()), seed=seed
        )
        for name, (values, what) in parts.items()
    )


def _left_out(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """The mean of values (S,), then without each group, (1 + G,)."""
    sums = torch.zeros(groups, dtype=values.dtype, device=values.device).index_add(0, group, values)
    count = torch.bincount(group, minlength=groups)
    return torch.cat([values.mean()[None], (values.sum() - sums) / (len(values) - count)])


def aggregate_mmd(
    codes: Array, *, kernel: Kernel | None = None, n_max: int = 2_000, n_permutations: int = 1_000, seed: int = 0
) -> tuple[Metric, Metric]:
    """Squared MMD between codes and as many draws from N(0, I), and the p-value of a permutation test that they agree.

    The unbiased U-statistic, negative by chance where the two agree. The p-value is the share of random relabellings of
    the pooled sample, the true one among them, with as large a statistic; it falls with N however small the mismatch.
    The standard error of the statistic is from halves of codes and draws; where the two agree it errs on the wide side.
    At most ``n_max`` codes are used, at random, since the kernel matrix is (2 n)^2. The default kernel, ``exp(-|x -
    y|^2 / 2 D)``, is scaled to the prior, not to the codes, so numbers of different models compare.

    Gretton et al., A Kernel Two-Sample Test, JMLR 2012, equation 3 and section 5; Phipson & Smyth, Permutation P-values
    Should Never Be Zero, 2010.

    Args:
        codes: (N, D) drawn from the aggregate posterior: one sample of q(z|x) for each image.
        kernel: (N, D), (M, D) -> (N, M).
        n_max: codes used.
        n_permutations: relabellings.
        seed: of the choice of codes, the prior's draws and the relabellings.

    Raises:
        NotApplicable: the codes are not finite, not flat, or fewer than 20.
    """
    z = float_tensor(codes, "codes", min_rows=20).cpu()
    generator = torch.Generator().manual_seed(seed)
    z = z[torch.randperm(len(z), generator=generator)[:n_max]]
    n, d = z.shape
    pooled = torch.cat([z, torch.randn(z.shape, generator=generator, dtype=z.dtype)])
    k = kernel or gaussian_kernel(2.0 * d)
    # The kernels take differences explicitly, (rows, 2n, D) at a time.
    gram = torch.cat([k(part, pooled) for part in pooled.split(max(1, CHUNK // pooled.numel()))])
    gram.fill_diagonal_(0)
    # With s = +1 for codes and -1 for the prior, s' K s holds both within-sums less twice the cross-sum.
    sign = torch.ones(2 * n, dtype=z.dtype)
    sign[n:] = -1
    relabelled = [sign[torch.randperm(2 * n, generator=generator)] for _ in range(n_permutations)]
    signs = torch.stack([sign, *relabelled], 1)
    quadratic = (signs * (gram @ signs)).sum(0)
    within = (quadratic + gram.sum()) / 2  # sums of K within the two groups, off the diagonal
    cross = gram.sum() - within  # both triangles
    statistic = within / (n * (n - 1)) - cross / n**2
    as_large = int((statistic[1:] >= statistic[0]).sum()) + 1

    def of_parts(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        rows, draws = torch.from_numpy(i), torch.from_numpy(j) + n
        inside = [float(gram[part][:, part].sum()) / (len(part) * (len(part) - 1)) for part in (rows, draws)]
        return sum(inside) - 2 * float(gram[rows][:, draws].mean())

    error = float(parts_stderr((n, n), of_parts, repeats=8, seed=seed))
    name = "exp(-|x-y|^2 / 2D)" if kernel is None else "of the caller's"
    about = f"{n} codes against as many draws from N(0, I), kernel {name}; Gretton et al. 2012"
    return (
        Metric("aggregate_mmd2", float(statistic[0]), n, f"unbiased MMD^2, {about} eq. 3", stderr=error, seed=seed),
        Metric(
            "aggregate_mmd_p",
            as_large / (n_permutations + 1),
            n,
            f"p-value over {n_permutations} permutations, {about}",
            seed=seed,
        ),
    )
