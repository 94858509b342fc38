"""One optimiser step: arithmetic, and nothing that waits for the device."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from vaes.objectives import Noise
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState

__all__ = ["advance"]


def advance(
    state: TrainState,
    spread: nn.Module,
    x: Tensor,
    noise: Noise,
    weights: Mapping[str, float],
    runtime: Runtime,
) -> None:
    """Take one optimiser step.

    Args:
        state: changed in place.
        spread: its objective, or what :meth:`Runtime.spread` made of it.
        x: this process's images of the step (B, C, H, W), in the model's value range.
        noise: for them.
        weights: of bound and terms.
        runtime: where it runs.
    """
    settings, step = state.settings, state.step
    for group in state.optimizer.param_groups:
        group["lr"] = settings.lr_schedule(step)
    before = dict(state.sums)
    if state.skips:
        state.skips.begin()
    parts, finite = settings.accumulate, torch.ones_like(state.bad_step, dtype=torch.bool)
    for part, (x_part, z_part, prior_part) in enumerate(
        zip(x.chunk(parts), noise.posterior.chunk(parts, 1), noise.prior.chunk(parts), strict=True)
    ):
        with nullcontext() if part == parts - 1 else runtime.apart(spread):  # gradients meet in the last
            with runtime.autocast():
                out = spread(x_part, Noise(z_part, prior_part), weights)
            (out["loss"] / parts).backward()
        finite &= torch.isfinite(out["loss"].detach())
        for name, value in out.items():
            value = value.detach() / parts
            state.sums[name] = state.sums[name] + value if name in state.sums else value
    state.summed += 1
    bad, skipped = ~finite, None
    if state.skips:
        skipped, bad = state.skips.decide(finite, runtime.total)
        state.sums = {name: torch.where(skipped, before.get(name, 0.0), sum_) for name, sum_ in state.sums.items()}
    state.bad_step = torch.where((state.bad_step < 0) & bad, step, state.bad_step)
    if settings.clip_grad is not None:
        nn.utils.clip_grad_norm_(state.objective.parameters(), settings.clip_grad)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update(step, skipped)
    state.step += 1
