"""One optimiser step: arithmetic, and nothing that waits for the device."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaes.objectives import Context, Noise
from vaes.train.groups import hold_encoder
from vaes.train.noise import parts as parts_of
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState

__all__ = ["Asked", "advance"]


class Asked(NamedTuple):
    """What a step is taken from."""

    x: Tensor
    """This process's images (B, C, H, W), in the model's value range."""
    noise: Noise
    context: Context


def advance(
    state: TrainState,
    spread: nn.Module,
    x: Tensor,
    noise: Noise,
    context: Context,
    runtime: Runtime,
) -> None:
    """Take one optimiser step.

    Args:
        state: changed in place.
        spread: its objective, or what :meth:`Runtime.spread` made of it.
        x: this process's images of the step (B, C, H, W), in the model's value range.
        noise: for them.
        context: of the step.
        runtime: where it runs.
    """
    settings, step = state.settings, state.step
    for group in state.optimizer.param_groups:
        group["lr"] = settings.lr_schedule(step) if group["own_lr"] is None else group["own_lr"]
    before = dict(state.sums)
    if state.skips:
        state.skips.begin()
    parts, finite = settings.accumulate, torch.ones_like(state.bad_step, dtype=torch.bool)
    noises = parts_of(state.objective, noise, parts, len(x)) if parts > 1 else [noise]
    for part, (x_part, noise_part) in enumerate(zip(x.chunk(parts), noises, strict=True)):
        with nullcontext() if part == parts - 1 else runtime.apart(spread):  # gradients meet in the last
            with runtime.autocast():
                out = spread(x_part, noise_part, context)
                loss = torch.stack([out[name] for name in state.objective.losses]).sum()
            (loss / parts).backward()
        finite &= torch.isfinite(loss.detach())
        for name, value in out.items():
            value = value.detach() / parts
            state.sums[name] = state.sums[name] + value if name in state.sums else value
    state.summed += 1
    bad, skipped = ~finite, None
    if state.skips:
        skipped, bad = state.skips.decide(finite, runtime.total)
        state.sums = {name: torch.where(skipped, before.get(name, 0.0), sum_) for name, sum_ in state.sums.items()}
    state.bad_step = torch.where((state.bad_step < 0) & bad, step, state.bad_step)
    if settings.encoder_waits(step):
        hold_encoder(state.objective.named_parameters())
    if settings.clip_grad is not None:
        for player in (state.model, *state.objective.terms.values()):  # a critic's gradient shortens no one else's
            if own := list(player.parameters()):
                nn.utils.clip_grad_norm_(own, settings.clip_grad)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update(step, skipped)
    state.step += 1
