"""The kinds of prior that are fitted after training, and how those over real vectors are."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.fitting.codes import Codes
from vaes.fitting.descent import Partial, descend
from vaes.priors import MAF, Affine, Autoregressive, FlowMatching, FullMixture, Prior, RealNVP, TwoStage

__all__ = ["KINDS", "Fitted", "Numbers", "build", "check_options", "fit", "gaussian_of"]

KINDS: Mapping[str, Mapping[str, Any]] = {
    "gmm": {"components": 10, "steps": 500},
    "flow": {"flow": "realnvp", "steps": 5000, "width": None},
    "two_stage": {"steps": 5000, "width": 256},
    "autoregressive": {"steps": 5000, "width": 128},
    "flow_matching": {"steps": 2000, "width": None, "solver_steps": 20},
}
"""Kind -> its options and their defaults; null is what the flow, or the shape of the codes, has by itself."""

FLOWS: Mapping[str, Callable[..., RealNVP | MAF]] = {"realnvp": RealNVP, "maf": MAF}
MOST = {"components": 10_000, "steps": 10_000_000, "width": 100_000, "solver_steps": 10_000}

BATCH = 256
RIDGE = 1e-6
"""Added to the correlations' diagonal: dimensions may be copies of one another, or carry nothing."""


class Numbers(NamedTuple):
    """How well a prior explains the codes that were held out: means over them, nats a code."""

    images: int  # that it was fitted to
    codes: int
    held: int
    nats: float  # log p; a bound of two_stage, an estimate of flow_matching
    gaussian: float  # of the one Gaussian that fits best; of indices, each by its own frequencies
    own: float  # of the model's own prior
    gain_stderr: float  # of nats - gaussian


class Fitted(NamedTuple):
    """A prior that was fitted to the codes of some weights."""

    kind: str
    prior: Prior
    options: dict[str, Any]
    numbers: Numbers
    seed: int
    weights: str
    """SHA-256 of the weights file whose codes it was fitted to."""
    step: int
    """Of these weights."""
    when: int
    """Nanoseconds since the epoch."""

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.kind == "gmm":
            n = self.options["components"]
            what = f"mixture of {n} Gaussians with full covariances" if n > 1 else "Gaussian with a full covariance"
        else:
            flow = f"{self.options.get('flow')} flow"
            named = {
                "flow": flow, "two_stage": "second VAE", "autoregressive": "causal transformer over indices",
                "flow_matching": "flow-matching prior",
            }  # fmt: skip
            what = named[self.kind]
        return f"the {what} fitted after training"

    @property
    def nats(self) -> str:
        """``numbers.nats`` and what they are, for people."""
        said = f"{self.numbers.nats:.2f}"
        if self.kind == "flow_matching":
            return f"about {said} (an equation solved in {self.options['solver_steps']} steps)"
        return said if self.prior.exact else f"at least {said} (a bound)"

    @property
    def simplest(self) -> str:
        """What ``numbers.gaussian`` is of, for people."""
        return "each index by its own frequencies" if self.kind == "autoregressive" else "one Gaussian"


def check_options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a kind, those that were not given (None) at their defaults.

    Raises:
        UserError: an unknown kind, an option of another kind, or a value that is not right.
    """
    if kind not in KINDS:
        raise UserError(f"kind: {kind!r} is no prior that is fitted after training; choose from {', '.join(KINDS)}")
    options = dict(KINDS[kind])
    for name, value in given.items():
        if value is None:
            continue
        if name not in options:
            homes = [other for other, names in KINDS.items() if name in names]
            where = f"it is of {' and '.join(homes)}" if homes else "there is no such option"
            raise UserError(f"{name}: {kind} has {', '.join(options)}; {where}")
        if name == "flow" and value not in FLOWS:
            raise UserError(f"flow: {value!r} is not right; choose from {', '.join(FLOWS)}")
        if name != "flow" and (type(value) is not int or not 1 <= value <= MOST[name]):
            raise UserError(f"{name}: {value!r} is not right; it must be a whole number from 1 to {MOST[name]:,}")
        options[name] = value
    return options


def build(kind: str, z_shape: tuple[int, ...], options: Mapping[str, Any], words: Tensor | None = None) -> Prior:
    """The prior of a kind as it is before it is fitted; it draws its first weights from torch's generator. ``words``
    (Q, K, C) are those that an autoregressive one draws.

    Raises:
        UserError: codes of this shape cannot be fitted so.
    """
    if kind == "gmm":
        return FullMixture(z_shape, components=options["components"])
    if kind == "flow_matching":
        try:
            return FlowMatching(z_shape, width=options["width"], solver_steps=options["solver_steps"])
        except ValueError as error:
            raise UserError(f"{kind}: {error}; gmm takes any code") from None
    if kind == "autoregressive":
        if words is None or words.dim() != 3:
            raise ValueError("an autoregressive prior is of words (Q, K, C)")
        positions = math.prod(z_shape) // max(1, words.shape[2])
        return Autoregressive(z_shape, positions, words, width=options["width"])
    try:
        if len(z_shape) != 1:
            raise ValueError(f"codes are {z_shape}, and it is of flat ones")
        width = {} if options["width"] is None else {"width": options["width"]}
        inner = FLOWS[options["flow"]](z_shape, **width) if kind == "flow" else TwoStage(z_shape, **width)
    except ValueError as error:
        raise UserError(f"{kind}: {error}; gmm and flow_matching take any code") from None
    return Affine(inner)


def fit(
    kind: str,
    codes: Codes,
    z_shape: tuple[int, ...],
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
    """Fit a prior to codes.

    Args:
        kind: ``gmm`` (Ghosh et al., 2020, https://arxiv.org/abs/1903.12436, section 4: EM from k-means), ``flow`` (by
            maximum likelihood) or ``two_stage`` (Dai & Wipf, 2019, https://arxiv.org/abs/1903.05789). The last two
            learn in coordinates in which the codes have mean 0 and covariance I, and keep what was best on codes that
            are held out for that; a flow begins as the one Gaussian that fits best.
        codes: see :func:`vaes.fitting.draw_codes`.
        z_shape: of a code.
        own: codes (N, Z...) -> their log-density under the model's own prior, to compare with.
        options: of :data:`KINDS`.
        seed: of first weights, batches and noise.
        weights: SHA-256 of the weights file, and ``step``, that the codes come from.
        step: of the weights.
        device: where a flow or a second VAE learns.
        folder: where what it has is left now and then, so that a fit that was killed goes on.
        progress: show a bar on a terminal.

    Raises:
        UserError: options that are not right, or codes that cannot be fitted so.
    """
    chosen = check_options(kind, options or {})
    if kind == "gmm":  # EM needs nothing to stop by
        codes = codes._replace(fit=torch.cat([codes.fit, codes.stop]))
        _refuse_few(codes, chosen["components"])
    flat = codes.fit.flatten(0, 1)
    mean, factor = gaussian_of(flat)
    white = _whitened(flat, mean, factor)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = build(kind, z_shape, chosen)
    if isinstance(prior, FullMixture):
        _fit_mixture(prior, white, mean, factor, chosen["steps"], seed)
    else:
        assert isinstance(prior, Affine)
        prior.mean.copy_(mean)
        prior.factor.copy_(factor)
        stop = _whitened(codes.stop.flatten(0, 1), mean, factor)
        partial = Partial.of(folder, kind, codes.fit, chosen, seed)
        _descend(
            prior.inner, white, stop, chosen["steps"], seed=seed, device=device, partial=partial, progress=progress
        )
    prior.requires_grad_(False).eval()
    numbers = _numbers(prior, codes, mean, factor, own)
    return Fitted(kind, prior, chosen, numbers, seed, weights, step, time.time_ns())


def gaussian_of(z: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (N, D) -> mean (D,) and Cholesky factor (D, D) of their covariance, float64; a millionth is added to the
    correlations' diagonal.

    Raises:
        UserError: all codes are the same.
    """
    x = z.double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    widest = float(spread.max())
    if not widest > 1e-6 * float(x.abs().max()):
        raise UserError("all codes are the same: the model's codes carry nothing, and any prior would do")
    spread = spread.clamp_min(RIDGE * widest)
    standard = (x - mean) / spread
    correlation = standard.T @ standard / len(x) + RIDGE * torch.eye(z.shape[1], dtype=x.dtype)
    return mean, spread[:, None] * torch.linalg.cholesky(correlation)


def _whitened(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(factor, (z.double() - mean).T, upper=False).T.float()


def _refuse_few(codes: Codes, components: int) -> None:
    images, draws, _ = codes.fit.shape
    if images * draws < components:
        raise UserError(
            f"components: {components:,} for {images * draws:,} codes of {images:,} images; at most {images * draws:,} "
            "can be fitted, and a hundredth of that is more sensible"
        )


def _fit_mixture(prior: FullMixture, white: Tensor, mean: Tensor, factor: Tensor, steps: int, seed: int) -> None:
    """EM in coordinates in which the codes have covariance I; its result is carried back exactly."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(
        len(prior.log_weights), covariance_type="full", reg_covar=RIDGE, max_iter=steps, random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what was found is measured on codes held out
        model.fit(white.numpy().astype(np.float64))
    prior.log_weights.copy_(torch.from_numpy(model.weights_).log())
    prior.mean.copy_(mean + torch.from_numpy(model.means_) @ factor.T)
    prior.factor.copy_(factor @ torch.linalg.cholesky(torch.from_numpy(model.covariances_)))


def _descend(
    inner: Prior, white: Tensor, stop: Tensor, steps: int, *, seed: int, device: torch.device | str,
    partial: Partial | None, progress: bool,
) -> None:  # fmt: skip
    """By gradients, until no better weights are found on the codes to stop by."""
    numbers = torch.Generator().manual_seed(seed)
    inner.to(device)
    eps = torch.randn(stop.shape, generator=numbers)

    def loss(z: Tensor, noise: Tensor | None) -> Tensor:
        if isinstance(inner, TwoStage):
            noise = torch.randn(z.shape, generator=numbers) if noise is None else noise
            return -inner.elbo(z.to(device), noise.to(device)).mean()
        return -inner.log_prob(z.to(device)).mean()

    def score() -> float:
        with torch.no_grad():
            found = float(loss(stop, eps))
        return found if math.isfinite(found) else math.inf

    def of_batch() -> Tensor:
        return loss(white[torch.randint(len(white), (min(BATCH, len(white)),), generator=numbers)], None)

    descend(inner, of_batch, score, steps, numbers, partial=partial, progress=progress)


def _numbers(prior: Prior, codes: Codes, mean: Tensor, factor: Tensor, own: Callable[[Tensor], Tensor]) -> Numbers:
    held = codes.held.unflatten(1, prior.z_shape)
    with torch.no_grad():
        nats = prior.log_prob(held).double()
    one = torch.distributions.MultivariateNormal(mean, scale_tril=factor, validate_args=False)
    gaussian = one.log_prob(codes.held.double())
    gain = nats - gaussian
    if not nats.isfinite().all():
        raise UserError("the fitted prior gives codes that were held out no finite density; another kind may fit")
    stderr = float(gain.std(correction=0)) / math.sqrt(len(gain))
    found = float(own(held).double().mean())
    n, k, _ = codes.fit.shape
    return Numbers(n, n * k, len(held), float(nats.mean()), float(gaussian.mean()), found, stderr)
