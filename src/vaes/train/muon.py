"""Muon: momentum whose matrices are orthogonalised."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from vaes.train.direct import Direct

__all__ = ["Muon", "orthogonalize", "slots"]

QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
RMS_OF_ADAM = 0.2


def orthogonalize(matrix: Tensor) -> Tensor:
    """(..., R, C) -> (..., R, C), each with the singular vectors of ``matrix`` and singular values between 0.68 and
    1.21, but for those below 1/500 of its Frobenius norm, which stay smaller; of zeros, zeros.

    Five Newton-Schulz steps ``X <- a X + b (X X') X + c (X X')^2 X``: Jordan et al., Muon, 2024,
    https://kellerjordan.github.io/posts/muon. All of them are polynomials in the Gram matrix ``X X'``, so they are
    multiplied out there, on the shorter side, and meet the matrix once.
    """
    if matrix.shape[-2] > matrix.shape[-1]:
        return orthogonalize(matrix.mT).mT
    gram = matrix @ matrix.mT
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    size = trace.clamp_min(torch.finfo(matrix.dtype).tiny)
    gram = gram / size
    product = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ matrix * size.rsqrt()


def _factor(gram: Tensor) -> Tensor:
    """What the quintic multiplies a matrix by, a I + b G + c G^2, from its Gram matrix G."""
    a, b, c = QUINTIC
    if gram.dim() == 2:
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    else:
        factor = torch.baddbmm(*[gram.flatten(0, -3)] * 3, beta=b, alpha=c).view_as(gram)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor


def _each(value: Any, like: Tensor) -> Any:
    """A number, or one for each member (N,), to be multiplied with parameters (N, ...)."""
    return (
        value.to(like).reshape(value.shape + (1,) * (like.dim() - value.dim())) if isinstance(value, Tensor) else value
    )


def _summed(beta: float, step: Tensor) -> Tensor:
    """1 - beta^step, what the weights of a decaying mean add up to, with all digits in single precision too."""
    return -torch.expm1(step * math.log(beta)) if beta else torch.ones_like(step)


class Muon(Direct):
    """Adam for biases, gains and all else that has one dimension; for weights (rows x the rest), Nesterov momentum,
    orthogonalised, at the size of Adam's steps, so that one learning rate serves both.

    An orthogonal step changes every direction of a weight by as much, where Adam's are ruled by a few; with a
    learning rate that goes to nothing it takes the networks here a fifth of the images (``docs/performance.md``).

    Jordan et al., Muon, 2024, https://kellerjordan.github.io/posts/muon; the factor 0.2 sqrt(max(R, C)) on the step is
    that of Liu et al., Muon is Scalable, 2025, https://arxiv.org/abs/2502.16982, equation 4.

    Args:
        parameters: all of them, or groups of them; which are weights is read off their dimensions, but in a group with
            ``matrix: False`` there are none. In a group with ``stacked: True`` a parameter (N, ...) is N parameters of
            members that do not know of each other, and the group's ``lr`` may be a number for each (N,).
        lr: of both parts.
        momentum: decay of the weights' momentum.
        betas: of Adam, for the rest.
        eps: of Adam, for the rest.
        weight_decay: decoupled, of both parts.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(parameters, options)
        self.found_inf: Tensor | None = None
        """Where it is above 0, a step changes nothing, as in torch's fused optimisers; for each member (N,) where they
        are stacked, with Adam's counts of steps (N,) too."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step from the gradients; ``closure`` is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            rows = 1 if group.get("stacked") else 0
            weights = [p for p in given if p.dim() > 1 + rows and group.get("matrix", True)]
            for weight in weights:
                self._step_of_weight(weight, group)
            taken = {id(p) for p in weights}
            self._steps_of_rest([p for p in given if id(p) not in taken], group)

    def _step_of_weight(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        held = self._held(weight, state["momentum"])
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        # The input's channels last, as they lie in memory: the order of columns does not matter, a copy would.
        rows = 1 if group.get("stacked") else 0
        step = gradient.lerp(momentum, group["momentum"]).movedim(rows + 1, -1)
        matrix = orthogonalize(step.flatten(rows + 1))
        lr = _each(group["lr"], weight)
        if group["weight_decay"]:
            weight.mul_(1 - lr * group["weight_decay"])
        size = RMS_OF_ADAM * max(matrix.shape[rows:]) ** 0.5
        moved = matrix.view(step.shape).movedim(-1, rows + 1)
        if isinstance(lr, Tensor):
            weight.sub_(lr * size * moved)
        else:
            weight.add_(moved, alpha=-lr * size)
        self._put_back(held)

    def _held(self, *tensors: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [] if self.found_inf is None else [(tensor, tensor.clone()) for tensor in tensors]

    def _put_back(self, held: list[tuple[Tensor, Tensor]]) -> None:
        for tensor, before in held:
            assert self.found_inf is not None
            tensor.copy_(torch.where(_each(self.found_inf, tensor) > 0, before, tensor))

    def _step_of_each(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Adam's step with a learning rate for each member, which the fused one does not know."""
        state, gradient, (beta1, beta2) = self.state[parameter], parameter.grad, group["betas"]
        assert gradient is not None
        lr, held = _each(group["lr"], parameter), self._held(parameter, *state.values())
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        first, second = (_each(_summed(beta, state["step"].to(parameter)), parameter) for beta in (beta1, beta2))
        size = (state["exp_avg_sq"] / second).sqrt_().add_(group["eps"])
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.sub_(lr * state["exp_avg"] / size / first)
        self._put_back(held)

    def _steps_of_rest(self, rest: list[nn.Parameter], group: dict[str, Any]) -> None:
        for parameter in rest:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zeros}
        if not rest:
            return
        if isinstance(group["lr"], Tensor) or self.state[rest[0]]["step"].dim():
            for parameter in rest:
                self._step_of_each(parameter, group)
            return
        states = [self.state[p] for p in rest]
        beta1, beta2 = group["betas"]
        adamw(
            list[Tensor](rest),
            [p.grad for p in rest if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def slots(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, *, matrix: bool = True) -> tuple[str, ...]:
    """What this or torch's Adam keeps of a parameter, of a group with or without ``matrix``: names in its state."""
    momentum = isinstance(optimizer, Muon) and parameter.dim() > 1 and matrix
    return ("momentum",) if momentum else ("step", "exp_avg", "exp_avg_sq")
