"""Fitting a prior by flow matching."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaes.code_statistics import Statistics
from vaes.errors import UserError
from vaes.fitting.codes import Codes
from vaes.fitting.descent import Partial, descend
from vaes.fitting.kinds import RIDGE, Fitted, Numbers, build, check_options
from vaes.functional import log_normal
from vaes.priors import FlowMatching

__all__ = ["fit_matching"]

BATCH = {1: 256, 3: 64}
WARM_UP, CLIP, AVERAGE = 100, 1.0, 0.999
STOP, BLOCK, PATIENCE = 512, 256, 25  # errors of so few codes, and a slow average, say little from look to look
HELD = {1: 1_000, 3: 256}
"""Both by how many axes a code has."""
SHRUNK = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def fit_matching(
    codes: Codes,
    z_shape: tuple[int, ...],
    statistics: Statistics,
    *,
    own: Callable[[Tensor], Tensor],
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    weights: str = "",
    step: int = 0,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    progress: bool = False,
) -> Fitted:
    """Fit :class:`vaes.priors.FlowMatching` to codes, with Adam and a running average of the weights (decay 0.999).

    It starts as a Gaussian: mean and covariance of the normalised codes, the latter shrunk towards I by as much as
    explains the codes to stop by best. Times are the logistic of a standard normal (Esser et al., 2024,
    https://arxiv.org/abs/2403.03206, section 3.1); the error on the codes to stop by, over times spread evenly and
    noise that stays, says which weights are kept, the Gaussian alone among them. Its numbers are of at most 1,000
    codes held out (256 grids), and ``gaussian`` of the Gaussian that it starts from.

    Args:
        codes: see :func:`vaes.fitting.draw_codes`.
        z_shape: of a code.
        statistics: of the codes of these weights, that they are normalised by.
        own: codes (N, Z...) -> their log-density under the model's own prior, to compare with.
        options: of :data:`vaes.fitting.KINDS`.
        seed: of first weights, batches, times and noise.
        weights: SHA-256 of the weights file that the codes come from.
        step: of the weights.
        device: where it learns.
        folder: where what it has is left now and then, so that a fit that was killed goes on.
        progress: show a bar on a terminal.

    Raises:
        UserError: options that are not right, or codes that cannot be fitted so.
    """
    chosen = check_options("flow_matching", options or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = build("flow_matching", z_shape, chosen)
    assert isinstance(prior, FlowMatching)
    prior.shift.copy_(torch.tensor(statistics.mean))
    prior.scale.copy_(torch.tensor(statistics.std))
    x, stop = (prior.normalise(part.flatten(0, 1).unflatten(1, z_shape)) for part in (codes.fit, codes.stop))
    _start(prior, x, stop)
    numbers = torch.Generator().manual_seed(seed)
    rows = prior.normalise(codes.stop.transpose(0, 1).flatten(0, 1)[:STOP].unflatten(1, z_shape))  # of many images
    rows = rows.repeat(math.ceil(STOP / len(rows)), 1)[:STOP]
    noise, times = torch.randn(rows.shape, generator=numbers), (torch.arange(STOP) + 0.5) / STOP
    times = times[torch.randperm(STOP, generator=numbers)]
    size = min(BATCH[len(z_shape)], len(x))
    prior.to(device)

    def loss() -> Tensor:
        x_1 = x[torch.randint(len(x), (size,), generator=numbers)]
        x_0, t = torch.randn(x_1.shape, generator=numbers), torch.randn(size, generator=numbers).sigmoid()
        return prior.loss(x_1.to(device), x_0.to(device), t.to(device)).mean()

    @torch.no_grad()
    def score() -> float:
        parts = zip(rows.split(BLOCK), noise.split(BLOCK), times.split(BLOCK), strict=True)
        found = sum(float(prior.loss(*(each.to(device) for each in part)).sum()) for part in parts) / STOP
        return found if math.isfinite(found) else math.inf

    partial = Partial.of(folder, "flow_matching", codes.fit, chosen, seed, statistics)
    descend(
        prior.network, loss, score, chosen["steps"], numbers, clip=CLIP, warm_up=min(WARM_UP, chosen["steps"] // 10),
        average=AVERAGE, patience=PATIENCE, partial=partial, progress=progress,
    )  # fmt: skip
    prior.requires_grad_(False).eval()
    found = _numbers(prior.to(device), codes, own)
    return Fitted("flow_matching", prior.cpu(), chosen, found, seed, weights, step, time.time_ns())


def _start(prior: FlowMatching, x: Tensor, stop: Tensor) -> None:
    """Give the prior the Gaussian of normalised codes x (N, D), shrunk as codes to stop by (S, D) say."""
    wide = x.double()
    mean = wide.mean(0)
    if len(prior.basis):
        spectrum, basis = torch.linalg.eigh((wide - mean).T @ (wide - mean) / len(x))
        prior.basis.copy_(basis)
        inside = (stop.double() - mean) @ basis
    else:
        spectrum, inside = wide.var(0, correction=0), stop.double() - mean
    shrunk = [((1 - by) * spectrum + by).clamp_min(RIDGE) for by in SHRUNK]
    zero = torch.zeros((), dtype=torch.float64)
    prior.mean.copy_(mean)
    prior.spectrum.copy_(max(shrunk, key=lambda one: float(log_normal(inside, zero, one.log()).sum(-1).mean())))


@torch.no_grad()
def _numbers(prior: FlowMatching, codes: Codes, own: Callable[[Tensor], Tensor]) -> Numbers:
    held = codes.held[: HELD[len(prior.z_shape)]].unflatten(1, prior.z_shape)
    device = prior.mean.device
    nats = torch.cat([prior.log_prob(part.to(device)).double().cpu() for part in held.split(BLOCK)])
    gaussian = torch.cat([prior.log_gaussian(part.to(device)).double().cpu() for part in held.split(BLOCK)])
    if not nats.isfinite().all():
        raise UserError("the fitted prior gives codes that were held out no finite density; another kind may fit")
    gain = nats - gaussian
    stderr = float(gain.std(correction=0)) / math.sqrt(len(gain))
    n, k, _ = codes.fit.shape
    return Numbers(
        n, n * k, len(gain), float(nats.mean()), float(gaussian.mean()), float(own(held).double().mean()), stderr
    )
