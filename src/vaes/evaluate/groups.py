"""The groups of metrics of a model on a split: each a function of a :class:`Job`, from nothing but its inputs."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.data import ImageSet, Splits, to_float
from vaes.evaluate.annealed import annealed
from vaes.evaluate.disentanglement import disentanglement_metrics
from vaes.evaluate.features import Features, find_features
from vaes.evaluate.generation import fid, kid, memorisation, precision_recall
from vaes.evaluate.latent import (
    active_units,
    aggregate_mmd,
    draw_codes,
    kl_per_dimension,
    log_det_covariance,
    rate_split,
)
from vaes.evaluate.likelihood import Draws, LogMean, concatenate, dequantise, elbo, importance_weighted, to_bits, units
from vaes.evaluate.passes import Codes, batches, choose, decode_samples, encode, pixels, reconstruct
from vaes.evaluate.probes import auroc, knn_probe, linear_probe
from vaes.evaluate.reconstruction import reconstruction_metrics
from vaes.evaluate.record import Column, Metric, NotApplicable, Skipped, attempt, mean_metric, to_float64
from vaes.model import VAE
from vaes.priors import StandardNormal

__all__ = ["GROUPS", "Budget", "Job"]

Found = list[Metric | Skipped]

MAX_VALUES = 2**25  # pixels that reconstructions are compared on: four float64 copies of them are a gigabyte
MAX_TRAINING_BYTES = 2**28
MAX_TRAINING_ROWS = 60_000
MAX_SAMPLES_TO_PLACE = 1_000
MAX_CODES = 1_000  # codes that are stored: what an unsupervised ranking takes


class Budget(NamedTuple):
    """How much is spent; more gives smaller errors and takes longer."""

    n_images: int = 10_000
    """Images of the split, at random, and as many samples."""
    iw_samples: int = 100
    """K of the importance-weighted bound."""
    iw_images: int = 500
    """Images that the bound with K samples, and the bits per dimension, are taken over."""
    ais_images: int = 16
    ais_steps: int = 500
    ais_chains: int = 8
    batch_size: int = 500
    """Images or codes that are in a network at once."""


class Job:
    """A model, a split and a budget, with what several groups need computed once."""

    def __init__(
        self, model: VAE, splits: Splits, split: str, budget: Budget, seed: int, progress: bool,
        features: Features | str, cache: Path | None, outliers: ImageSet | None,
    ) -> None:  # fmt: skip
        self.model, self.splits, self.split, self.budget = model, splits, split, budget
        self.seed, self.progress, self.cache, self.outliers = seed, progress, cache, outliers
        self._features = features
        self.images: ImageSet = getattr(splits, split)
        self.index = choose(self.images, budget.n_images, seed)
        self.like = next(model.parameters())
        self.columns: dict[str, Column] = {}

    @cached_property
    def codes(self) -> Codes:
        """Codes of the images."""
        return encode(self.model, self.images, self.index, self.budget.batch_size, self.progress)

    @cached_property
    def features(self) -> Features:
        """The features, trained if need be."""
        if isinstance(self._features, Features):
            return self._features
        return find_features(self._features, self.splits, self.cache, progress=self.progress)

    def column(self, name: str, values: Tensor, index: Tensor) -> None:
        """Keep what the metric ``name`` is the mean of: ``values`` (n,) of the images at ``index`` (n,)."""
        self.columns[name] = Column(tuple(index.tolist()), tuple(values.double().tolist()))

    def floats(self, images: ImageSet, index: Tensor) -> Tensor:
        """Images at an index in the model's value range, on its device and in its type."""
        return to_float(pixels(images, index), self.model.value_range).to(self.like)


def _likelihood(job: Job) -> Found:
    found = attempt("elbo", lambda: _elbo(job))
    k = job.budget.iw_samples
    found += attempt(f"iw_bound_k{k}", lambda: _importance_weighted(job, k))
    found += attempt(f"bits_per_dim_k{k}", lambda: _bits(job, k))
    return found + attempt("rate_split", lambda: rate_split(*_gaussians(job), seed=job.seed))


def _elbo(job: Job) -> tuple[Metric, ...]:
    parts = []
    for index in batches(job.index, job.budget.batch_size, "ELBO", job.progress):
        x = job.floats(job.images, index)
        found = elbo(job.model, x, Draws(job.seed, index.tolist(), job.model.z_dim).of(job.model.noise, 1, x))
        parts.append(torch.stack([column.double().cpu() for column in found]))
    columns = _finite(torch.cat(parts, 1), "ELBO")
    unit = units(job.model, job.floats(job.images, job.index[:500]))
    about = {
        "elbo": f"evidence lower bound at beta = 1, one draw of q(z|x) for each image, {unit}; Kingma & Welling 2013",
        "distortion": f"-E log p(x|z), one draw of q(z|x) for each image, {unit}",
        "rate": "KL(q(z|x) || p(z)), nats per image; in closed form where there is one",
    }
    for name, column in zip(about, columns, strict=True):
        job.column(name, column, job.index)
    return tuple(
        mean_metric(name, column, definition, seed=job.seed)
        for (name, definition), column in zip(about.items(), columns, strict=True)
    )


def _importance_weighted(job: Job, k: int) -> tuple[Metric, ...]:
    index = _some(job, job.budget.iw_images)
    found = _weigh(job, index, k, lambda part: job.floats(job.images, part), f"K = {k}")
    unit = units(job.model, job.floats(job.images, index))
    about = f"importance-weighted bound, K = {k}, {unit}; Burda et al. 2016 (1509.00519)"
    return _log_mean_metrics(job, f"iw_bound_k{k}", found, index, about)


def _log_mean_metrics(job: Job, name: str, found: LogMean, index: Tensor, definition: str) -> tuple[Metric, ...]:
    value = _finite(found.value, name)
    job.column(name, value, index)
    metrics = [mean_metric(name, value, definition, seed=job.seed)]
    if found.k > 1:
        noise = float(found.stderr.square().sum().sqrt()) / len(value)
        error = f"Monte Carlo standard error of {name} on these images, K = {found.k} (its own stderr is over images)"
        metrics.append(Metric(f"{name}_mc_error", noise, len(value), error, seed=job.seed))
        about = f"mean over images of the effective sample size of {name}, (sum w)^2 / sum w^2, of {found.k}"
        job.column(f"{name}_ess", found.ess, index)
        metrics.append(mean_metric(f"{name}_ess", found.ess, about, seed=job.seed))
    return tuple(metrics)


def _weigh(job: Job, index: Tensor, k: int, read: Callable[[Tensor], Tensor], what: str) -> LogMean:
    size, parts = max(1, job.budget.batch_size // k), []
    for part in batches(index, size, what, job.progress):
        x = read(part)
        parts.append(
            importance_weighted(job.model, x, k, seed=job.seed, images=part.tolist(), batch_size=job.budget.batch_size)
        )
    return concatenate(parts)


def _bits(job: Job, k: int) -> Metric:
    index = _some(job, job.budget.iw_images)

    def read(part: Tensor) -> Tensor:
        drawn = np.stack([np.random.default_rng((job.seed, i, 1)).random(job.images.shape) for i in part.tolist()])
        return dequantise(pixels(job.images, part), job.model, torch.from_numpy(drawn)).to(job.like)

    found = _weigh(job, index, k, read, "bits")
    bits = to_bits(_finite(found.value, "bits per dimension"), job.model, math.prod(job.images.shape))
    job.column(f"bits_per_dim_k{k}", bits, index)
    return mean_metric(
        f"bits_per_dim_k{k}",
        bits,
        "upper bound on the bits per pixel and channel of 8-bit images, uniform dequantisation on bins of 1/255 about "
        f"the pixel values, importance-weighted with K = {k}; Theis et al. 2016 (1511.01844)",
        seed=job.seed,
    )


def _ais(job: Job) -> Found:
    budget = job.budget

    def metrics() -> tuple[Metric, ...]:
        index = _some(job, budget.ais_images)
        found = annealed(
            job.model,
            job.floats(job.images, index),
            steps=budget.ais_steps,
            chains=budget.ais_chains,
            seed=job.seed,
            images=index.tolist(),
            progress=job.progress,
        )
        unit = units(job.model, job.floats(job.images, index))
        about = (
            f"annealed importance sampling from the prior, {budget.ais_steps} temperatures, {budget.ais_chains} chains,"
            f" HMC of 10 leapfrogs, {unit}; Neal 2001, Wu et al. 2017 (1611.04273)"
        )
        share = "share of HMC proposals accepted, mean over images (0.65 is aimed at)"
        return (
            *_log_mean_metrics(job, "ais_log_evidence", found.log_mean, index, about),
            mean_metric("ais_acceptance", found.acceptance, share, seed=job.seed),
        )

    return attempt("ais_log_evidence", metrics)


def _reconstruction(job: Job) -> Found:
    index = _some(job, max(1, MAX_VALUES // math.prod(job.images.shape)))
    x = to_float(pixels(job.images, index), job.model.value_range)
    y = reconstruct(job.model, x.to(job.like.dtype), job.budget.batch_size, job.progress)
    low, high = job.model.value_range  # errors are told on [0, 1], so that models of either range meet
    x, y = ((images.double() - low) / (high - low) for images in (x, y))
    return reconstruction_metrics(x, y, data_range=1, keep=lambda name, values: job.column(name, values, index))


def _generation(job: Job) -> Found:
    samples = decode_samples(job.model, len(job.index), job.budget.batch_size, job.seed, job.progress)
    real = pixels(job.images, job.index)
    return _sample_quality(job, samples, real) + attempt("memorisation", lambda: _memorisation(job, samples, real))


def _sample_quality(job: Job, samples: Tensor, real: Tensor) -> Found:
    names = ("fid", "fid_floor", "kid", "precision_recall")
    try:
        features = job.features
    except NotApplicable as reason:
        return [Skipped(name, str(reason)) for name in names]
    x, y = features.extract(real), features.extract(samples)

    def floor() -> Metric:
        rows = choose(job.splits.train, len(job.index), job.seed + 1)
        if job.split == "train":
            raise NotApplicable("the split evaluated is the training split: no other images to set the floor")
        found = fid(x, features.extract(pixels(job.splits.train, rows)), features=features.name)
        return found._replace(
            name="fid_floor", definition=f"what training images get in the place of samples: {found.definition}"
        )

    return (
        attempt("fid", lambda: fid(x, y, features=features.name))
        + attempt("fid_floor", floor)
        + attempt("kid", lambda: kid(x, y, features=features.name, seed=job.seed))
        + attempt("precision_recall", lambda: precision_recall(x, y, features=features.name))
    )


def _memorisation(job: Job, samples: Tensor, real: Tensor) -> tuple[Metric, ...]:
    if job.split == "train":
        raise NotApplicable("the split evaluated is the training split: there are no fresh images to compare with")
    rows = min(MAX_TRAINING_ROWS, max(1, MAX_TRAINING_BYTES // math.prod(job.images.shape)))
    train = pixels(job.splits.train, choose(job.splits.train, rows, job.seed)).flatten(1)
    found = memorisation(samples[:MAX_SAMPLES_TO_PLACE].flatten(1), train, real[_rows(real, job.seed)].flatten(1))
    return tuple(
        metric._replace(features="pixels", definition=f"{metric.definition}; grey levels 0 .. 255") for metric in found
    )


def _rows(x: Tensor, seed: int) -> Tensor:
    """At most 1,000 rows of x at random."""
    return torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:MAX_SAMPLES_TO_PLACE]


def _disentanglement(job: Job) -> Found:
    factors = job.images.factors
    if factors is None:
        return [Skipped("disentanglement", "the images come without ground-truth factors")]
    varying = [k for k in range(factors.shape[1]) if len(factors[job.index, k].unique()) > 1]
    return disentanglement_metrics(
        job.codes.mean, factors[job.index][:, varying], logvar=job.codes.logvar, seed=job.seed
    )


def _latent(job: Job) -> Found:
    mean, logvar = job.codes
    rows = torch.linspace(0, len(mean) - 1, min(MAX_CODES, len(mean))).long()
    for j, values in enumerate(mean[rows].T):  # for scores across seeds
        job.column(f"code_{j}", values, job.index[rows])
    found = attempt("active_units", lambda: active_units(mean))
    found += attempt("kl_per_dimension", lambda: tuple(kl_per_dimension(*_gaussians(job))))
    found += attempt("log_det_covariance", lambda: log_det_covariance(mean, logvar))
    return found + attempt("aggregate_mmd", lambda: _mmd(job))


def _mmd(job: Job) -> tuple[Metric, ...]:
    _standard_normal(job.model)
    mean, logvar = job.codes
    if logvar is None:
        return aggregate_mmd(mean, seed=job.seed)
    drawn = draw_codes(to_float64(mean), to_float64(logvar), torch.Generator().manual_seed(job.seed))
    return aggregate_mmd(drawn, seed=job.seed)


def _downstream(job: Job) -> Found:
    return (
        attempt("linear_probe", lambda: _probe(job, linear_probe))
        + attempt("knn_probe", lambda: _probe(job, knn_probe))
        + attempt("outlier_auroc", lambda: _outliers(job))
    )


def _probe(job: Job, probe: Callable[..., Metric]) -> Metric:
    train = job.splits.train
    if train.labels is None or job.images.labels is None:
        raise NotApplicable("the images come without labels")
    if job.split == "train":
        raise NotApplicable("the split evaluated is the training split, which probes are fitted on")
    rows = choose(train, job.budget.n_images, job.seed)
    codes = encode(job.model, train, rows, job.budget.batch_size, job.progress)
    return probe(codes.mean, train.labels[rows], test=(job.codes.mean, job.images.labels[job.index]), seed=job.seed)


def _outliers(job: Job) -> Metric:
    other = job.outliers
    if other is None:
        raise NotApplicable("no second source was given (--outliers.kind mnist --outliers.root ...)")
    if other.shape != job.images.shape:
        raise NotApplicable(f"the outliers are {other.shape} and the images {job.images.shape}: they must be alike")
    scores = []
    for images in (job.images, other):
        parts = []
        for index in choose(images, job.budget.n_images, job.seed).split(job.budget.batch_size):
            x = job.floats(images, index)
            draws = Draws(job.seed, index.tolist(), job.model.z_dim)
            parts.append(-elbo(job.model, x, draws.of(job.model.noise, 1, x)).elbo.double().cpu())
        scores.append(torch.cat(parts))
    found = auroc(*scores)
    return found._replace(
        name="outlier_auroc", seed=job.seed, definition=f"score: the negative ELBO of one draw; {found.definition}"
    )


def _some(job: Job, n: int) -> Tensor:
    """At most n of the images, evenly spread over those chosen."""
    return job.index[torch.linspace(0, len(job.index) - 1, min(n, len(job.index))).long()]


def _gaussians(job: Job) -> tuple[Tensor, Tensor]:
    _standard_normal(job.model)
    mean, logvar = job.codes
    if logvar is None:
        raise NotApplicable(f"the posterior {type(job.model.posterior).__name__} is no Gaussian: it has no variances")
    return mean, logvar


def _standard_normal(model: VAE) -> None:
    if not isinstance(model.prior, StandardNormal):
        raise NotApplicable(f"the prior is {type(model.prior).__name__}, and this compares with N(0, I)")


def _finite(x: Tensor, what: str) -> Tensor:
    bad = int((~torch.isfinite(x)).sum())
    if bad:
        raise NotApplicable(f"{what}: {bad} of {x.numel()} values are NaN or infinite; the model diverged on them")
    return x


GROUPS: dict[str, Callable[[Job], Found]] = {
    "likelihood": _likelihood,
    "ais": _ais,
    "reconstruction": _reconstruction,
    "generation": _generation,
    "disentanglement": _disentanglement,
    "latent": _latent,
    "downstream": _downstream,
}
