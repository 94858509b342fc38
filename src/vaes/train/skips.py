"""Steps whose loss or gradient is no number are undone, some of them in a row."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaes.errors import UserError

__all__ = ["Skips", "counted", "restored"]


class Skips:
    """Undoes a step on the device, without the host knowing: the optimiser leaves parameters, moments and its count of
    steps alone (the ``found_inf`` of torch's fused optimisers), and buffers (batch norm's running statistics, the
    likelihood's running variance) get back the values that they had before the step.

    Args:
        most: how many steps in a row are skipped.
        part: whose gradients decide, and whose buffers are given back.
        optimizer: a fused one.
        device: where the counts are kept.
    """

    def __init__(self, most: int, part: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
        self.most, self._part, self._optimizer = most, part, optimizer
        self._held: list[Tensor] = []
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        """Bad steps in a row up to now; steps skipped since the last printed line; steps skipped in all."""

    def begin(self) -> None:
        """Before the forward pass: keep the buffers."""
        self._held = [buffer.clone() for buffer in self._part.buffers()]

    @torch.no_grad()
    def decide(self, finite: Tensor, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """After the backward pass and before the optimiser: whether this step is skipped.

        Args:
            finite: whether this process's loss was finite.
            total: sums a number over processes, which decide together.

        Returns:
            Two truth values: the step is skipped; it is bad, but one too many in a row.
        """
        gradients = [p.grad for p in self._part.parameters() if p.grad is not None]
        good = torch.stack([finite, *(gradient.isfinite().all() for gradient in gradients)]).all()
        bad = total((~good).float()) > 0
        self.counts, skipped = counted(self.counts, bad, self.most)
        for buffer, old in zip(self._part.buffers(), self._held, strict=True):
            buffer.copy_(torch.where(bad, old, buffer))
        self._optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        return skipped, bad & ~skipped


def counted(counts: Tensor, bad: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Counts (..., 3) as of :attr:`Skips.counts` after a step that was bad or not (...), and whether it is skipped."""
    row = torch.where(bad, counts[..., 0] + 1, 0)
    skipped = bad & (row <= most)
    return torch.stack([row, counts[..., 1] + skipped, counts[..., 2] + skipped], -1), skipped


def restored(counts: Tensor, device: torch.device) -> Tensor:
    """The ``counts`` of a checkpoint, to go on with.

    Raises:
        UserError: they are none.
    """
    if counts.shape != (3,) or counts.dtype != torch.int64:
        raise UserError(f"skips is {tuple(counts.shape)} {counts.dtype} in the checkpoint: not of this program")
    return counts.to(device)
