"""The groups of metrics of a model on a split: each a function of a :class:`Job`, from nothing but its inputs."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaes.data import to_float, to_uint8
from vaes.evaluate.annealed import annealed
from vaes.evaluate.disentanglement import (
    disentanglement_metrics,
    gaussian_total_correlation,
    gaussian_wasserstein,
    mutual_information_of_codes,
)
from vaes.evaluate.generation import fid, fid_with_bias, kid, memorisation, precision_recall
from vaes.evaluate.job import Job
from vaes.evaluate.latent import (
    active_units,
    aggregate_mmd,
    code_use,
    draw_codes,
    kl_per_dimension,
    log_det_covariance,
    rate_split,
)
from vaes.evaluate.likelihood import (
    Bound,
    LogMean,
    concatenate,
    dequantise,
    importance_weighted,
    mass_to_bits,
    to_bits,
    units,
)
from vaes.evaluate.passes import batches, choose, decode, pixels
from vaes.evaluate.predictive import predictive_checks
from vaes.evaluate.probes import auroc, knn_probe, linear_probe
from vaes.evaluate.reconstruction import reconstruction_metrics
from vaes.evaluate.record import (
    Metric,
    NotApplicable,
    Skipped,
    attempt,
    mean_metric,
    median_metric,
    to_float64,
    worst_percent,
)
from vaes.fitting import Fitted
from vaes.model import VAE
from vaes.posteriors import Quantizer
from vaes.priors import StandardNormal

__all__ = ["GROUPS"]

Found = list[Metric | Skipped]

GFID = " (gFID, as papers on tokenizers call it)"
MAX_VALUES = 2**25  # pixels that reconstructions are compared on: four float64 copies of them are a gigabyte
MAX_TRAINING_BYTES = 2**28
MAX_TRAINING_ROWS = 60_000
MAX_SAMPLES_TO_PLACE = 1_000
MAX_CODES = 1_000  # codes that are stored: what an unsupervised ranking takes


def _likelihood(job: Job) -> Found:
    found = attempt("elbo", lambda: _elbo(job))
    k = job.budget.iw_samples
    found += attempt(f"iw_bound_k{k}", lambda: _importance_weighted(job, k))
    found += attempt(f"bits_per_dim_k{k}", lambda: _bits(job, k))
    return found + attempt("rate_split", lambda: rate_split(*_gaussians(job), seed=job.seed))


def _elbo(job: Job) -> tuple[Metric, ...]:
    columns = Bound(*(_finite(column, "ELBO") for column in job.bounds[1]))
    unit = units(job.model, job.floats(job.images, job.index[:500]))
    draws = f"one draw of q(z|x) for each image, {unit}"
    tail = worst_percent(columns.elbo, low=True)
    share = (
        f"share of all distances of the ELBO from its median that the lowest percent of images ({tail.items}) has; a "
        "normal law gives 0.03"
    )
    distortion = f"-E log p(x|z), {draws}"
    rate = "KL(q(z|x) || p(z)), nats per image; in closed form where there is one"
    return (
        _per_image(job, "elbo", columns.elbo, f"evidence lower bound at beta = 1, {draws}; Kingma & Welling 2013"),
        _per_image(job, "distortion", columns.distortion, distortion, low=False),
        _per_image(job, "rate", columns.rate, rate, low=False),
        median_metric("elbo_median", columns.elbo, f"median over images of the ELBO, {draws}", seed=job.seed),
        Metric("elbo_worst_percent", tail.share, len(columns.elbo), share, seed=job.seed),
    )


def _per_image(
    job: Job, name: str, values: Tensor, definition: str, *, index: Tensor | None = None, low: bool = True,
    unit: str = "nats",
) -> Metric:  # fmt: skip
    """The mean over the images at an index (by default all that were chosen), which are kept one by one, with a note
    where few of them carry it; the lowest are the worst if ``low``."""
    job.column(name, values, job.index if index is None else index)
    note = worst_percent(values, low=low).note(len(values), unit)
    return mean_metric(name, values, definition, seed=job.seed, note=note)


def _importance_weighted(job: Job, k: int) -> tuple[Metric | Skipped, ...]:
    index = _some(job, job.budget.iw_images)
    found = _weigh(job, index, k, lambda part: job.floats(job.images, part), f"K = {k}")
    unit = units(job.model, job.floats(job.images, index))
    about = f"importance-weighted bound, K = {k}, {unit}; Burda et al. 2016 (1509.00519)"
    return _log_mean_metrics(job, f"iw_bound_k{k}", found, index, about)


def _log_mean_metrics(
    job: Job, name: str, found: LogMean, index: Tensor, definition: str
) -> tuple[Metric | Skipped, ...]:
    value, n = _finite(found.value, name), len(found.value)
    metric = _per_image(job, name, value, definition, index=index)
    if found.k == 1:
        return (metric,)
    about = f"mean over images of the effective sample size of {name}, (sum w)^2 / sum w^2, of {found.k}"
    job.column(f"{name}_ess", found.ess, index)
    ess = mean_metric(f"{name}_ess", found.ess, about, seed=job.seed)
    low = int((~found.trusted).sum())
    if low > n / 100:
        reason = (
            f"a lower bound of unknown slack: the effective sample size is below {found.ess_needed:.3g} of {found.k} "
            f"on {low} of {n} images (the least: {float(found.ess.min()):.1f})"
        )
        return metric._replace(stderr=None, note=reason), Skipped(f"{name}_mc_error", reason), ess
    noise = float(found.stderr.square().sum().sqrt()) / n
    error = f"Monte Carlo standard error of {name} on these images, K = {found.k} (its own stderr is over images)"
    return metric, Metric(f"{name}_mc_error", noise, n, error, seed=job.seed), ess


def _weigh(job: Job, index: Tensor, k: int, read: Callable[[Tensor], Tensor], what: str) -> LogMean:
    size, parts = max(1, job.budget.batch_size // k), []
    for part in batches(index, size, what, job.progress):
        x = read(part)
        parts.append(
            importance_weighted(job.model, x, k, seed=job.seed, images=part.tolist(), batch_size=job.budget.batch_size)
        )
    return concatenate(parts)


def _bits(job: Job, k: int) -> Metric:
    index, size = _some(job, job.budget.iw_images), math.prod(job.images.shape)
    x = job.floats(job.images, index)
    definition = f"importance-weighted with K = {k}"
    if job.model.likelihood.measure(x) == "mass of 8-bit values":
        found = _weigh(job, index, k, lambda part: job.floats(job.images, part), "bits")
        bits = mass_to_bits(_finite(found.value, "bits per dimension"), size)
        definition = f"bits per pixel and channel of 8-bit images, {definition}"
    else:

        def read(part: Tensor) -> Tensor:
            drawn = np.stack([np.random.default_rng((job.seed, i, 1)).random(job.images.shape) for i in part.tolist()])
            return dequantise(pixels(job.images, part), job.model, torch.from_numpy(drawn)).to(job.like)

        found = _weigh(job, index, k, read, "bits")
        bits = to_bits(_finite(found.value, "bits per dimension"), job.model, size)
        definition = (
            "upper bound on the bits per pixel and channel of 8-bit images, uniform dequantisation on bins of 1/255 "
            f"about the pixel values, {definition}; Theis et al. 2016 (1511.01844)"
        )
    return _per_image(job, f"bits_per_dim_k{k}", bits, definition, index=index, low=False, unit="bits")


def _ais(job: Job) -> Found:
    budget = job.budget

    def metrics() -> tuple[Metric | Skipped, ...]:
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
    rows = _spread(len(job.index), max(1, MAX_VALUES // math.prod(job.images.shape)))
    index = job.index[rows]
    x = to_float(job.chosen[rows], job.model.value_range)
    y = decode(job.model, job.codes.mean[rows], job.budget.batch_size, job.progress)
    low, high = job.model.value_range  # errors are told on [0, 1], so that models of either range meet
    x, y = ((images.double() - low) / (high - low) for images in (x, y))
    return reconstruction_metrics(x, y, data_range=1, keep=lambda name, values: job.column(name, values, index))


def _generation(job: Job) -> Found:
    def of(samples: Tensor) -> Found:
        return attempt("memorisation", lambda: _memorisation(job, samples, job.chosen))

    found = _sample_quality(job, job.samples.means) + of(job.samples.means)
    for split in dict.fromkeys((job.split, "train")):
        found += _reconstructed(job, split)
    for one in job.fitted:
        samples = job.samples_of(one).means
        found += _renamed([*_sample_quality(job, samples), *of(samples)], one)
    return found


def _reconstructed(job: Job, split: str) -> Found:
    """FID and perceptual distance of reconstructions, of as many images of the split evaluated or of the training
    split: the two part where a model knows its training images better than others."""
    own = split == job.split
    index, codes = (job.index, job.codes) if own else job.training
    images = job.chosen if own else pixels(job.splits.train, index)
    made = to_uint8(decode(job.model, codes.mean, job.budget.batch_size, job.progress), job.model.value_range)
    what = f"reconstructions of {len(index)} images of {split} and those images, mean images of central codes"
    suffix = "" if own else "_train"

    def rfid() -> Metric:
        real = job.features_of_chosen if own else job.features.extract(images)
        found = fid(real, job.features.extract(made), features=job.features.name)
        return found._replace(name=f"rfid{suffix}", definition=f"{what}: {found.definition}")

    def perceptual() -> Metric:
        name, features, _ = distance = job.distance
        values, name = distance.of(images, made), name + suffix
        if own:
            job.column(name, values, index)
        definition = (
            f"{what}: squared distance of features of length 1, mean over places, summed over layers; Zhang et al. 2018"
        )
        return mean_metric(name, values, definition, seed=job.seed)._replace(features=features)

    return attempt(f"rfid{suffix}", rfid) + attempt(f"perceptual{suffix}", perceptual)


def _renamed(found: Found, fitted: Fitted) -> Found:
    """The rows of samples from a prior that was fitted after training, without those in which no sample has a part."""
    renamed: Found = []
    for one in found:
        if one.name not in ("fid_floor", "nearest_train_test"):
            name = f"{one.name}_fitted_{fitted.kind}"
            renamed.append(
                one._replace(
                    name=name,
                    definition=f"samples from {fitted.words}{GFID * (one.name == 'fid')}: {one.definition}",
                )
                if isinstance(one, Metric)
                else one._replace(name=name)
            )
    return renamed


def _sample_quality(job: Job, samples: Tensor) -> Found:
    names = ("fid", "fid_bias", "fid_floor", "kid", "precision_recall")
    try:
        features = job.features
    except NotApplicable as reason:
        return [Skipped(name, str(reason)) for name in names]
    x, y = job.features_of_chosen, features.extract(samples)

    def floor() -> Metric:
        rows = choose(job.splits.train, len(job.index), job.seed + 1)
        if job.split == "train":
            raise NotApplicable("the split evaluated is the training split: no other images to set the floor")
        found = fid(x, features.extract(pixels(job.splits.train, rows)), features=features.name)
        return found._replace(
            name="fid_floor", definition=f"what training images get in the place of samples: {found.definition}"
        )

    own = samples is job.samples.means
    return (
        attempt("fid", lambda: fid_with_bias(x, y, features=features.name))
        + (attempt("fid_floor", floor) if own else [])
        + attempt("kid", lambda: kid(x, y, features=features.name, seed=job.seed))
        + attempt("precision_recall", lambda: precision_recall(x, y, features=features.name, seed=job.seed))
    )


def _predictive(job: Job) -> Found:
    if job.split == "train":
        raise NotApplicable("the split evaluated is the training split: samples are held against fresh images")
    samples: dict[str, Tensor] = {"means": job.samples.means}
    skipped: Found = []
    likelihood = job.model.likelihood
    if likelihood.measure(to_float(job.chosen[:500], job.model.value_range)) == "cross-entropy":
        reason = "its cross-entropy on grey pixels is no law that images could be drawn from"
        skipped.append(Skipped("draws", f"{type(likelihood).__name__}: {reason}"))
    elif job.samples.draws is None:
        skipped.append(Skipped("draws", f"{type(likelihood).__name__} does not say how images are drawn from it"))
    else:
        samples["draws"] = job.samples.draws
    return [*predictive_checks(job.chosen, samples, seed=job.seed), *skipped]


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
    found += attempt("gaussian_total_correlation", lambda: gaussian_total_correlation(mean))
    found += attempt("gaussian_wasserstein", lambda: gaussian_wasserstein(mean))
    found += attempt("mutual_information_of_codes", lambda: mutual_information_of_codes(mean))
    if isinstance(posterior := job.model.posterior, Quantizer):
        found += attempt("code_use", lambda: _code_use(job, posterior.use.shape[1]))
    return found + attempt("aggregate_mmd", lambda: _mmd(job))


def _code_use(job: Job, words: int) -> tuple[Metric, ...]:
    parts = batches(job.index, job.budget.batch_size, "indices", job.progress)
    indices = [job.model.encode(job.floats(job.images, part)).aux["indices"].cpu() for part in parts]
    return code_use(torch.cat(indices), words)


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
    rows, codes = job.training
    return probe(codes.mean, train.labels[rows], test=(job.codes.mean, job.images.labels[job.index]), seed=job.seed)


def _outliers(job: Job) -> Metric:
    other = job.outliers
    if other is None:
        raise NotApplicable("no second source was given (--outliers.kind mnist --outliers.root ...)")
    if other.shape != job.images.shape:
        raise NotApplicable(f"the outliers are {other.shape} and the images {job.images.shape}: they must be alike")
    index = choose(other, job.budget.n_images, job.seed)
    scores = [-job.bounds[1].elbo, -job.bounds_of(other, index, "outliers")[1].elbo]
    found = auroc(*scores)
    return found._replace(
        name="outlier_auroc", seed=job.seed, definition=f"score: the negative ELBO of one draw; {found.definition}"
    )


def _some(job: Job, n: int) -> Tensor:
    """At most n of the images, evenly spread over those chosen."""
    return job.index[_spread(len(job.index), n)]


def _spread(of: int, n: int) -> Tensor:
    return torch.linspace(0, of - 1, min(n, of)).long()


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
    "predictive": _predictive,
    "disentanglement": _disentanglement,
    "latent": _latent,
    "downstream": _downstream,
}
