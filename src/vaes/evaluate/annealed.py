"""Annealed importance sampling: the log-evidence without trusting the encoder.

K independent chains for each of B images, D latent dimensions, nats.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vaes.errors import UserError
from vaes.evaluate.likelihood import Draws, LogMean, log_mean
from vaes.evaluate.record import NotApplicable
from vaes.functional import log_normal
from vaes.model import VAE
from vaes.posteriors import REAL
from vaes.randomness import Draw

__all__ = ["Annealing", "annealed", "sigmoid_schedule"]

TARGET_ACCEPTANCE = 0.65  # optimal for HMC in many dimensions, and what Wu et al. aim at
ADAPT = 1.05
FIRST_STEP = 0.1
LARGEST_STEP = 2.0  # in whitened coordinates a leapfrog is unstable beyond


class Annealing(NamedTuple):
    """Result of :func:`annealed`."""

    log_mean: LogMean  # over chains
    acceptance: Tensor  # (B,) share of HMC proposals accepted


class _Path(NamedTuple):
    """``log f_b(z) = (1 - b) log base(z) + b log joint(z)`` for one batch of images; codes are flattened."""

    base: Callable[[Tensor], Tensor]  # (K, B, D) -> (K, B)
    joint: Callable[[Tensor], Tensor]
    start: Callable[[Tensor], Tensor]  # noise (K, B, ...) -> draws from the base
    scale: Tensor  # (B, D) or scalar: a leapfrog step in dimension d is proportional to it
    noise: Draw  # what the start takes


def annealed(
    model: VAE,
    x: Tensor,
    *,
    steps: int = 1_000,
    chains: int = 16,
    leapfrogs: int = 10,
    start: Literal["prior", "posterior"] = "prior",
    seed: int = 0,
    images: Sequence[int] | None = None,
    double: bool = False,
    progress: bool = False,
) -> Annealing:
    """``log (1/K) sum_k w_k``, each weight from one forward pass through ``steps`` distributions between a start and
    p(z|x).

    The path is geometric, ``f_b = base^(1 - b) p(x, z)^b``, at temperatures of :func:`sigmoid_schedule`; base is the
    prior, or q(z|x) where it is Gaussian. At each temperature one Hamiltonian Monte Carlo transition of ``leapfrogs``
    steps is made and accepted or not. The step size of each image and temperature is fixed beforehand by a pilot of
    four chains with draws of their own, steered to an acceptance of 0.65. So the weights' mean is exactly p(x), which
    step sizes that follow the chains themselves would not give, and the value lies below log p(x) on average, as
    :func:`vaes.evaluate.likelihood.log_mean` says.

    Neal, Annealed Importance Sampling, 2001, https://arxiv.org/abs/physics/9803008, equation 5; Wu, Burda,
    Salakhutdinov & Grosse, On the Quantitative Analysis of Decoder-Based Generative Models, 2017,
    https://arxiv.org/abs/1611.04273, section 3 (there the step size follows the chains).

    Args:
        model: any decoder with a likelihood; the encoder is used only where ``start`` is ``posterior``.
        x: (B, C, H, W) images in the model's value range.
        steps: T, temperatures after the first; the error falls with it.
        chains: K.
        leapfrogs: in each transition.
        start: where the path begins.
        seed: of all draws.
        images: (B,) numbers that choose each image's stream; 0 .. B-1 by default.
        double: run in float64, on a copy of the model.
        progress: show a bar on a terminal.

    Raises:
        NotApplicable: ``start`` is ``posterior`` and q(z|x) is no Gaussian.
        UserError: steps, chains or leapfrogs below 1.
    """
    if min(steps, chains, leapfrogs) < 1:
        raise UserError(f"AIS needs at least 1 step, chain and leapfrog step, got {steps}, {chains} and {leapfrogs}")
    if double:
        model, x = copy.deepcopy(model).double(), x.double()
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            path = _path(model, x.clone(), start)  # a clone made here may meet autograd, an inference tensor may not
            numbers = list(range(len(x)) if images is None else images)
            with tqdm(total=2 * steps, desc="AIS", unit="step", disable=None if progress else True) as bar:
                sizes = _pilot(path, steps, leapfrogs, Draws(seed + 1_000_003, numbers, model.z_dim), x, bar)
                draws = Draws(seed, numbers, model.z_dim)
                log_weights, acceptance = _forward(path, sizes, chains, leapfrogs, draws, x, bar)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return Annealing(log_mean(log_weights), acceptance)


def sigmoid_schedule(steps: int, delta: float = 4.0) -> Tensor:
    """Temperatures b_0 = 0 < ... < b_T = 1, close together at both ends, (T + 1,) float64: the logistic function on an
    even grid over [-delta, delta], rescaled.

    Wu et al., 2017, appendix.
    """
    raw = torch.sigmoid(torch.linspace(-delta, delta, steps + 1, dtype=torch.float64))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def _path(model: VAE, x: Tensor, start: str) -> _Path:
    if model.prior.support != REAL:
        raise NotApplicable(f"codes are {model.prior.support}, and Hamiltonian Monte Carlo moves through all of R^D")

    def log_prior(z: Tensor) -> Tensor:
        return model.log_prior(z.unflatten(-1, model.z_shape))

    def joint(z: Tensor) -> Tensor:
        y = model.decoder(model.shaped(z.flatten(0, 1))).unflatten(0, z.shape[:2])
        return model.likelihood.log_prob(y, x) + log_prior(z)

    if start == "prior":
        return _Path(
            log_prior,
            joint,
            lambda noise: model.sample_codes(noise.flatten(0, 1)).flatten(1).unflatten(0, noise.shape[:2]),
            x.new_ones(()),
            model.prior.noise,
        )
    with torch.no_grad():
        latent = model.encode(x)
    mean, logvar = latent.mean, latent.logvar
    if mean is None or logvar is None:
        raise NotApplicable(f"the posterior {type(model.posterior).__name__} is no Gaussian: start AIS at the prior")
    mean, logvar = mean.flatten(1), logvar.flatten(1)
    scale = torch.exp(0.5 * logvar)
    return _Path(
        lambda z: log_normal(z, mean, logvar).sum(-1),
        joint,
        lambda noise: mean + scale * noise.flatten(2),
        scale,
        model.noise,
    )


class _State(NamedTuple):
    """Where chains are, with the two log-densities there and their gradients."""

    z: Tensor  # (K, B, D)
    base: Tensor  # (K, B)
    joint: Tensor
    base_gradient: Tensor  # (K, B, D)
    joint_gradient: Tensor

    def energy(self, b: float) -> Tensor:
        return -(1 - b) * self.base - b * self.joint

    def force(self, b: float) -> Tensor:
        return (1 - b) * self.base_gradient + b * self.joint_gradient


def _at(path: _Path, z: Tensor) -> _State:
    z = z.detach().requires_grad_(True)
    base, joint = path.base(z), path.joint(z)
    (of_base,) = torch.autograd.grad(base.sum(), z, retain_graph=True)
    (of_joint,) = torch.autograd.grad(joint.sum(), z)
    return _State(z.detach(), base.detach(), joint.detach(), of_base, of_joint)


def _transition(
    path: _Path, state: _State, b: float, size: Tensor, leapfrogs: int, draws: Draws
) -> tuple[_State, Tensor]:
    """One HMC transition that leaves f_b alone; size (B,). Returns the state and what was accepted, (K, B)."""
    stride = size[:, None] * path.scale  # momentum has unit variance in coordinates scaled by path.scale
    momentum = draws.normal(len(state.z), state.z)
    proposal, p = state, momentum
    for _ in range(leapfrogs):
        p = p + 0.5 * stride * proposal.force(b)
        proposal = _at(path, proposal.z + stride * p)
        p = p + 0.5 * stride * proposal.force(b)
    kinetic = 0.5 * (momentum.square() - p.square()).sum(-1)
    log_ratio = state.energy(b) - proposal.energy(b) + kinetic
    # A trajectory that diverged to NaN compares false, and is rejected.
    accepted = draws.uniform(len(state.z), kinetic).log() < log_ratio
    chosen = [
        torch.where(accepted if new.ndim == 2 else accepted[..., None], new, old)
        for new, old in zip(proposal, state, strict=True)
    ]
    return _State(*chosen), accepted


def _pilot(path: _Path, steps: int, leapfrogs: int, draws: Draws, x: Tensor, bar: tqdm) -> Tensor:
    """Step sizes (T, B) that gave an acceptance of about 0.65 to four chains."""
    size = torch.full((len(x),), FIRST_STEP, dtype=torch.float64).to(x)
    state, sizes = _at(path, path.start(draws.of(path.noise, 4, x))), []
    for b in sigmoid_schedule(steps)[1:].tolist():
        sizes.append(size)
        state, accepted = _transition(path, state, b, size, leapfrogs, draws)
        # Four chains take the larger steps of the shorter schedules: the power is the number that were above or below.
        excess = len(accepted) * (accepted.to(x).mean(0) - TARGET_ACCEPTANCE)
        size = (size * ADAPT ** excess.clamp(-4, 4)).clamp(1e-5, LARGEST_STEP)
        bar.update()
    return torch.stack(sizes)


def _forward(
    path: _Path, sizes: Tensor, chains: int, leapfrogs: int, draws: Draws, x: Tensor, bar: tqdm
) -> tuple[Tensor, Tensor]:
    """Log-weights (K, B) and the acceptance (B,)."""
    schedule = sigmoid_schedule(len(sizes)).tolist()
    state = _at(path, path.start(draws.of(path.noise, chains, x)))
    log_weights = torch.zeros(state.base.shape, dtype=torch.float64)
    accepted = torch.zeros(len(x), dtype=torch.float64)
    for size, before, b in zip(sizes, schedule[:-1], schedule[1:], strict=True):
        log_weights += (b - before) * (state.joint - state.base).cpu().double()
        state, took = _transition(path, state, b, size, leapfrogs, draws)
        accepted += took.cpu().double().mean(0)
        bar.update()
    if not torch.isfinite(log_weights).all():
        raise NotApplicable("AIS weights are not finite: the decoder gives NaN or infinity at some codes")
    return log_weights, accepted / len(sizes)
