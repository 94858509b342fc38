"""The running average of a model's weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """An exponential moving average of weights and running statistics, ``a <- d a + (1 - d) w``.

    d is at most (1 + t) / (10 + t) after t updates, so that the average forgets where it began.

    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992, https://doi.org/10.1137/0330046,
    with the exponential weights and the warm-up that are in use since.

    Args:
        model: its state is where the average begins; all that is no floating-point number is left to the model.
        decay: d.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.follow(model)
        self.state = {name: tensor.clone() for name, tensor in self._own.items()}

    def follow(self, model: nn.Module) -> None:
        """Read the weights where they lie now: they were moved in memory."""
        self._own = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor | None = None) -> None:
        """Take the model's state after the optimiser step with index ``step`` into the average, unless that step was
        skipped."""
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        if skipped is None:
            torch._foreach_lerp_(list(self.state.values()), list(self._own.values()), weight)
            return
        for name, tensor in self.state.items():
            tensor.copy_(torch.where(skipped, tensor, tensor.lerp(self._own[name], weight)))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an average that was saved; the model's own names and shapes are wanted."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """The model carries the average inside, and its own state afterwards."""
        held = {name: tensor.clone() for name, tensor in self._own.items()}
        self._put(self.state)
        try:
            yield
        finally:
            self._put(held)

    def _put(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self._own.items():
            tensor.copy_(state[name])
