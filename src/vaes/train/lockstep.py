"""Ordinary trainings in step: each has its loop, its listeners and its folder, and one stacked step is taken for all.

A training gives its steps to whoever takes them (:meth:`vaes.train.loop.Training.steps`); alone that is
:func:`vaes.train.step.advance`, here it is :class:`Lockstep`.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.train.groups import hold_encoder
from vaes.train.muon import slots
from vaes.train.noise import parts as parts_of
from vaes.train.skips import counted
from vaes.train.state import TrainState
from vaes.train.step import Asked, advance
from vaes.train.stop import Stop
from vaes.train.together import Stack, laid, stacked_context, stacked_noise

if TYPE_CHECKING:
    from vaes.train.listeners import Listener
    from vaes.train.loop import Training
    from vaes.train.runtime import Runtime

__all__ = ["Left", "Lockstep", "run_together"]

MISFITS = (RuntimeError, NotImplementedError, ValueError, TypeError)
"""What torch raises for what it cannot stack."""


class Left(NamedTuple):
    """A training that came to an end."""

    number: int
    error: BaseException | None


class Lockstep:
    """The states of trainings at one step, moved by one stacked step.

    Their parameters, buffers, moments, sums and counts lie in the stack, so that each is validated, saved and drawn as
    it is alone, without a copy.

    Args:
        states: on one device, of settings that differ in the learning rate and in what no step knows of.

    Raises:
        ValueError: they cannot be stacked.
    """

    def __init__(self, states: Sequence[TrainState]) -> None:
        self.states = list(states)
        first = states[0]
        self._stack = Stack([state.objective for state in states])
        self._optimizer = self._stack.optimizer(first.settings)
        self._skips = first.settings.skip_non_finite
        self._give_moments()
        self._stack.bind()
        for state in self.states:
            if state.average is not None:
                state.average.follow(state.model)
        self._bad = torch.stack([state.bad_step for state in self.states])
        self._counts = torch.stack([s.skips.counts for s in self.states if s.skips]) if self._skips else None
        self._sums: dict[str, Tensor] = {}
        if first.settings.compile:
            self._stack.compile()
        self._bind()

    def advance(self, asked: Sequence[Asked], runtime: "Runtime") -> None:
        """Take one step of all; see :func:`vaes.train.step.advance`."""
        first, stack = self.states[0], self._stack
        settings, step, parts = first.settings, first.step, first.settings.accumulate
        rates = [state.settings.lr_schedule(step) for state in self.states]
        lr = rates[0] if len(set(rates)) == 1 else torch.tensor(rates, dtype=torch.float64, device=first.device)
        for group in self._optimizer.param_groups:
            group["lr"] = lr if group["own_lr"] is None else group["own_lr"]
        held = {name: buffer.clone() for name, buffer in stack.buffers.items()} if self._skips else {}
        finite, found = torch.ones_like(self._bad, dtype=torch.bool), dict[str, Tensor]()
        noises = [parts_of(first.objective, one.noise, parts, len(one.x)) for one in asked]
        context = stacked_context([one.context for one in asked], asked[0].x)
        for part, x in enumerate(torch.stack([one.x for one in asked]).chunk(parts, 1)):
            with runtime.autocast():
                out = stack.backward(x, stacked_noise([noise[part] for noise in noises]), context, 1 / parts)
            finite &= torch.stack([out[name] for name in first.objective.losses]).sum(0).isfinite()
            found = {name: found.get(name, 0.0) + value / parts for name, value in out.items()}
        skipped = self._decide(finite, held, step)
        self._add(found, skipped)
        if settings.encoder_waits(step):
            hold_encoder(stack.parameters.items())
        if settings.clip_grad is not None:
            self._clip(settings.clip_grad)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if len(self._optimizer.state) != self._moved:
            self._bind()
        for i, state in enumerate(self.states):
            if state.average is not None:
                state.average.update(step, None if skipped is None else skipped[i])
            state.step += 1

    def release(self) -> None:
        """Give each its own memory again: they part."""
        for i, state in enumerate(self.states):
            for tensor in (*state.objective.parameters(), *state.objective.buffers()):
                tensor.data = tensor.data.clone()  # in its own layout
            if state.average is not None:
                state.average.follow(state.model)
            for held in state.optimizer.state.values():
                held.update({name: tensor.clone() for name, tensor in held.items()})
            state.sums = {name: tensor.clone() for name, tensor in state.sums.items()}
            state.bad_step = self._bad[i].clone()
            if state.skips:
                state.skips.counts = state.skips.counts.clone()

    def _decide(self, finite: Tensor, held: Mapping[str, Tensor], step: int) -> Tensor | None:
        """Who skips this step (N,), where steps may be; and the first bad step of each is remembered."""
        if self._counts is None:
            self._bad.copy_(torch.where((self._bad < 0) & ~finite, step, self._bad))
            return None
        gradients = [p.grad.flatten(1).isfinite().all(1) for p in self._stack.parameters.values() if p.grad is not None]
        bad = ~torch.stack([finite, *gradients]).all(0)
        counts, skipped = counted(self._counts, bad, self._skips)
        self._counts.copy_(counts)
        for name, before in held.items():
            self._stack.buffers[name].copy_(torch.where(_rows(bad, before), before, self._stack.buffers[name]))
        self._optimizer.found_inf = bad.float()
        self._bad.copy_(torch.where((self._bad < 0) & bad & ~skipped, step, self._bad))
        return skipped

    def _add(self, found: Mapping[str, Tensor], skipped: Tensor | None) -> None:
        if not self._sums:
            self._sums = {name: torch.zeros_like(value) for name, value in found.items()}
            for i, state in enumerate(self.states):
                for name, value in state.sums.items():
                    self._sums[name][i] = value
                if state.sums:
                    state.sums = {name: total[i] for name, total in self._sums.items()}
        for i, state in enumerate(self.states):
            if not state.sums:  # it has read them
                for total in self._sums.values():
                    total[i] = 0
                state.sums = {name: total[i] for name, total in self._sums.items()}
            state.summed += 1
        for name, value in found.items():
            self._sums[name] += value if skipped is None else torch.where(skipped, 0.0, value)

    def _clip(self, most: float) -> None:
        """Each member's players apart, as :func:`torch.nn.utils.clip_grad_norm_` does it."""
        for player in self._stack.players():
            gradients = [parameter.grad for parameter in player if parameter.grad is not None]
            if gradients:
                norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
                factor = (most / (norm + 1e-6)).clamp(max=1.0)
                for gradient in gradients:
                    gradient.mul_(_rows(factor, gradient))

    def _places(self) -> Iterator[tuple[torch.nn.Parameter, list[torch.nn.Parameter], tuple[str, ...]]]:
        """Each stacked parameter, the members' own, and what an optimiser keeps of them."""
        for number, group in enumerate(self._optimizer.param_groups):
            owners = [state.optimizer.param_groups[number]["params"] for state in self.states]
            for stacked, *own in zip(group["params"], *owners, strict=True):
                names = slots(self.states[0].optimizer, own[0], matrix=group["matrix"])
                yield stacked, own, names

    def _give_moments(self) -> None:
        """From the members to the stack."""
        for stacked, own, names in self._places():
            states = [state.optimizer.state.get(p, {}) for state, p in zip(self.states, own, strict=True)]
            if not any(states):
                if self._skips and "step" in names:
                    self._optimizer.state[stacked] = {"step": torch.zeros(len(own), device=stacked.device)}
                    self._optimizer.state[stacked] |= {n: torch.zeros_like(stacked) for n in names if n != "step"}
                continue
            found = {}
            for name in names:
                zero = torch.zeros(()) if name == "step" else torch.zeros_like(own[0])
                found[name] = laid([state.get(name, zero).to(stacked.device) for state in states])
            if "step" in found and not self._skips and len(set(found["step"].tolist())) == 1:
                found["step"] = found["step"][0].clone()  # one count for all, which the fused step wants
            self._optimizer.state[stacked] = found

    def _bind(self) -> None:
        """From the stack to the members, whose own lie in it from now on."""
        self._moved = len(self._optimizer.state)
        for stacked, own, _ in self._places():
            held = self._optimizer.state.get(stacked)
            if not held:
                continue  # it had no gradient yet
            for i, (state, parameter) in enumerate(zip(self.states, own, strict=True)):
                state.optimizer.state[parameter] = {n: t if t.dim() == 0 else t[i] for n, t in held.items()}
        for i, state in enumerate(self.states):
            state.bad_step = self._bad[i]
            if state.skips and self._counts is not None:
                state.skips.counts = self._counts[i]


def run_together(
    trainings: Sequence["Training"], callbacks: Sequence[Sequence["Listener"]]
) -> Generator[Left, None, None]:
    """Run trainings, those at the same step by one stacked step, until all have ended; each as it does.

    A training that fails, or is ended by a listener, leaves; those that went on from an earlier checkpoint catch up
    first. A signal stops all of them, saved.
    """
    with Stop() as stop:
        steps = [one.steps(nullcontext(stop), own) for one, own in zip(trainings, callbacks, strict=True)]
        asked: dict[int, Asked] = {}
        group: Lockstep | None = None
        members: list[int] = []
        try:
            for i in range(len(trainings)):
                yield from _next(i, steps[i], asked)
            while asked:
                least = min(trainings[i].state.step for i in asked)
                now = [i for i in sorted(asked) if trainings[i].state.step == least]
                if now != members:
                    if group is not None:
                        group.release()
                    group, members = None, now
                try:
                    if group is None and len(now) > 1:
                        group = _stacked([trainings[i] for i in now])
                    _take(trainings, now, group, asked)
                except Exception as error:  # of the step, and so of all that take it
                    for i in now:
                        yield from _thrown(i, steps[i], asked, error)
                    group, members = None, []
                    continue
                for i in now:
                    yield from _next(i, steps[i], asked)
        finally:
            for one in steps:
                one.close()


def _stacked(trainings: Sequence["Training"]) -> Lockstep:
    try:
        return Lockstep([one.state for one in trainings])
    except MISFITS as error:
        raise UserError(f"--together: {str(error).splitlines()[0]}; --together off trains them alone") from error


def _take(trainings: Sequence["Training"], now: Sequence[int], group: Lockstep | None, asked: dict[int, Asked]) -> None:
    runtime = trainings[now[0]].runtime
    if group is not None:
        group.advance([asked[i] for i in now], runtime)
        return
    for i in now:
        advance(trainings[i].state, trainings[i].state.objective, *asked[i], runtime)


def _next(i: int, steps: Generator[Asked, None, None], asked: dict[int, Asked]) -> Iterator[Left]:
    asked.pop(i, None)
    try:
        asked[i] = next(steps)
    except StopIteration:
        yield Left(i, None)
    except Exception as error:  # its own, and the others go on
        yield Left(i, error)


def _thrown(i: int, steps: Generator[Asked, None, None], asked: dict[int, Asked], error: Exception) -> Iterator[Left]:
    del asked[i]
    try:
        steps.throw(error)
    except Exception as own:
        yield Left(i, own)


def _rows(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.dim() - 1))
