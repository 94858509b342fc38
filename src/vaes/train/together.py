"""Trainings of one shape as one: parameters stacked, one step for all, each with the numbers that it has alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from vaes.objectives import Context, Noise, Objective
from vaes.train.groups import groups
from vaes.train.muon import Muon
from vaes.train.noise import of_step
from vaes.train.settings import Settings

__all__ = ["Stack", "obstacle", "stacked_context", "stacked_noise"]


class Stack:
    """N objectives that differ in their tensors alone.

    Members may have other seeds, weights, values of scheduled options and learning rates. All else, such as the kind of
    a part or its options, is the first one's, which the caller sees to.

    Args:
        objectives: copied; the first lends its code.

    Raises:
        ValueError: their parameters or buffers are not of one shape and type.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objective, self._objectives = objectives[0], list(objectives)
        for number, other in enumerate(objectives[1:], 1):
            _refuse_other_tensors(self.objective, other, number)
        named = [dict(each.named_parameters()) for each in objectives]
        self.parameters = {
            name: nn.Parameter(laid([each[name].detach() for each in named]), requires_grad=p.requires_grad)
            for name, p in named[0].items()
        }
        """Name -> (N, ...), each member's lying as it did."""
        held = [dict(each.named_buffers()) for each in objectives]
        self.buffers = {name: laid([each[name] for each in held]) for name in held[0]}
        self._pass: Any = self._gradients

    def compile(self) -> None:
        """From now on the pass runs compiled."""
        self._pass = torch.compile(self._gradients)

    def bind(self) -> None:
        """Let the members' own tensors lie in the stack: what moves it moves them."""
        for i, objective in enumerate(self._objectives):
            own = (*objective.named_parameters(), *objective.named_buffers())
            mine = self.member(i)
            for name, tensor in own:
                tensor.data = mine[name]

    def optimizer(self, settings: Settings) -> Muon:
        """What these settings train the stack with, by groups as alone; the ``lr`` of a group whose ``own_lr`` is None
        is the caller's to set before each step, one number or one for each member (N,).

        Raises:
            ValueError: model and critics play by turns, which a stack does not.
        """
        if settings.play == "alternate":
            raise ValueError("train.play: members of a stack play together, not by turns")
        names = {id(parameter): name for name, parameter in self.objective.named_parameters()}
        found: list[dict[str, Any]] = []
        for group in groups(self.objective, settings):
            members = [self.parameters[names[id(parameter)]] for parameter in group["params"]]
            matrix = group["matrix"] and settings.optimizer == "muon"  # without matrices it is Adam
            lr = settings.lr_schedule(0) if group["own_lr"] is None else group["own_lr"]
            found.append({**group, "params": members, "stacked": True, "matrix": matrix, "lr": lr})
        s = settings
        return Muon(found, lr=0.0, momentum=s.momentum, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)

    def players(self) -> Iterator[list[nn.Parameter]]:
        """The stacked parameters of the model, and of each term that has some."""
        names = {id(parameter): name for name, parameter in self.objective.named_parameters()}
        for player in (self.objective.model, *self.objective.terms.values()):
            if own := [self.parameters[names[id(parameter)]] for parameter in player.parameters()]:
                yield own

    def backward(self, x: Tensor, noise: Noise, context: Context, share: float = 1.0) -> dict[str, Tensor]:
        """Images (N, B, C, H, W), noise as of :func:`stacked_noise` and context as of :func:`stacked_context` -> what
        the objective says, each (N,). ``share`` times the gradients is added to those of :attr:`parameters`; buffers
        move on."""
        trained = {name: p.detach() for name, p in self.parameters.items() if p.requires_grad}
        constants = {name: p.detach() for name, p in self.parameters.items() if name not in trained}
        numbers = (dict(context.weights), {part: dict(own) for part, own in context.options.items()})
        given = (trained, constants, self.buffers, x, noise, numbers)
        gradients, (out, moved) = self._pass(given, context._replace(weights={}, options={}), share)
        for name, buffer in self.buffers.items():
            buffer.copy_(moved[name])
        for name in trained:
            parameter, gradient = self.parameters[name], gradients[name]
            if gradient.stride() != parameter.stride():  # fused optimisers go through memory, whatever the strides
                gradient = torch.empty_like(parameter).copy_(gradient)
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        found: dict[str, Tensor] = out
        return found

    def _gradients(self, given: tuple[Any, ...], plain: Context, share: float) -> Any:
        """Of the sum of losses, for each member; and what was found, and the buffers after it."""

        def loss(parameters: Any, constants: Any, buffers: Any, x: Tensor, noise: Noise, numbers: Any) -> Any:
            weights, options = numbers
            moved = {name: buffer.clone() for name, buffer in buffers.items()}
            known = plain._replace(weights=weights, options=options)
            out = functional_call(self.objective, (parameters | constants, moved), (x, noise, known))
            total = torch.stack([out[name] for name in self.objective.losses]).sum() * share
            return total, ({name: value.detach() for name, value in out.items()}, moved)

        return vmap(grad(loss, has_aux=True))(*given)

    def member(self, number: int) -> dict[str, Tensor]:
        """Parameters and buffers of one, views of the stack."""
        return {name: tensor.detach()[number] for name, tensor in (self.parameters | self.buffers).items()}


def laid(members: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape -> (N, ...), each lying in memory as it did."""
    first = members[0]
    if first.is_contiguous() or first.numel() == 0:
        return torch.stack(list(members))
    order = sorted(range(first.dim()), key=first.stride, reverse=True)
    found = torch.stack([member.permute(order) for member in members])
    back = [order.index(i) + 1 for i in range(first.dim())]
    return found.permute(0, *back)


def stacked_noise(members: Sequence[Noise]) -> Noise:
    """The noise of each member -> that of all (N, ...)."""
    found: Noise = tree_map(lambda *each: torch.stack(each), *(m._replace(terms=dict(m.terms)) for m in members))
    return found


def stacked_context(members: Sequence[Context], like: Tensor) -> Context:
    """The context of each member -> that of all, whose weights and options are (N,), in the type of ``like``.

    Raises:
        ValueError: an option follows a schedule in some alone. A number that differs is to be a constant schedule in
            all.
    """
    kinds = [sorted((part, name) for part, own in m.options.items() for name in own) for m in members]
    for number, own in enumerate(kinds):
        if own != kinds[0]:
            part, name = next(iter(set(own) ^ set(kinds[0])))
            raise ValueError(
                f"member {number} cannot be stacked with the first: {part}.{name} follows a schedule in one of them "
                "alone; give both one (constant is one)"
            )

    def together(each: Sequence[float | Tensor]) -> Tensor:
        if any(isinstance(value, Tensor) for value in each):
            return torch.stack([torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in each])
        return torch.tensor(each, dtype=like.dtype, device=like.device)

    weights = {name: together([m.weights[name] for m in members]) for name in members[0].weights}
    options = {
        part: {name: together([m.options[part][name] for m in members]) for name in own}
        for part, own in members[0].options.items()
    }
    return members[0]._replace(weights=weights, options=options)


def obstacle(objective: Objective, image_shape: tuple[int, int, int]) -> str | None:
    """Why this objective cannot be stacked, in words, found by trying it on two images; None where it can.

    The package's parts all can. Networks of one's own cannot that draw random numbers (dropout), or whose Python reads
    a tensor's value (``.item()``, ``if x.sum() > 0``; batch norm with ``momentum=None`` does).
    """
    like = next(objective.parameters())
    stack, noise = Stack([objective, objective]), of_step(objective, 2, 0, 0, like.device)
    context = stacked_context([Context(dict.fromkeys(objective.weights, 1.0), n=2)] * 2, like)
    try:
        noise = tree_map(lambda tensor: tensor.to(like), stacked_noise([noise, noise]))
        stack.backward(like.new_full((2, 2, *image_shape), 0.5), noise, context)
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        return f"it cannot be stacked: {str(error).strip().splitlines()[0]}"
    return None


def _refuse_other_tensors(first: Objective, other: Objective, number: int) -> None:
    def shapes(objective: Objective) -> Mapping[str, tuple[Any, ...]]:
        tensors = [*objective.named_parameters(), *objective.named_buffers()]
        return {name: (tuple(t.shape), t.dtype, t.device) for name, t in tensors}

    mine, others = shapes(first), shapes(other)
    wrong = next((name for name in [*mine, *others] if mine.get(name) != others.get(name)), None)
    if wrong is not None:
        raise ValueError(
            f"member {number} cannot be stacked with the first: {wrong} is {_said(others.get(wrong))} and "
            f"{_said(mine.get(wrong))}"
        )


def _said(tensor: tuple[Any, ...] | None) -> str:
    return "missing" if tensor is None else f"{'x'.join(map(str, tensor[0])) or 'a number'} of {tensor[1]}"
