"""Fitting by gradients: Adam, the best weights kept, and going on where a process was killed."""

import copy
import hashlib
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vaes import files
from vaes.errors import UserError

__all__ = ["Partial", "descend"]

logger = logging.getLogger(__name__)

RATE, CHECKS, PATIENCE = 1e-3, 50, 10


class Partial(NamedTuple):
    """Where a fit leaves what it has so far at each look, and what it is of; of another fit it is not taken up."""

    path: Path
    about: str

    @classmethod
    def of(cls, folder: Path | None, kind: str, data: Tensor, *what: Any) -> "Partial | None":
        """In a run folder, of a kind of prior fitted to these codes or indices; None without a folder."""
        if folder is None:
            return None
        content = hashlib.sha256(repr((kind, tuple(data.shape), torch.__version__, *what)).encode())
        content.update(data.contiguous().numpy().data)
        return cls(cls.file(folder, kind), content.hexdigest())

    @staticmethod
    def file(folder: Path, kind: str) -> Path:
        """Its path."""
        return folder / f"prior-{kind}.partial.safetensors"


def descend(
    inner: nn.Module,
    loss: Callable[[], Tensor],
    score: Callable[[], float],
    steps: int,
    numbers: torch.Generator,
    *,
    clip: float = 100.0,
    warm_up: int = 0,
    average: float = 0.0,
    patience: int = PATIENCE,
    partial: Partial | None = None,
    progress: bool,
) -> None:
    """Adam with a rate that falls to 0 along a cosine, and rises before that along a line over ``warm_up`` steps; the
    weights whose ``score`` was least are kept, the first ones among them, and it ends where ``patience`` looks in a
    row, of fifty, found none better. The prior lies on the CPU after.

    Args:
        inner: what learns.
        loss: of a batch that it draws from ``numbers``.
        score: of the weights that ``inner`` has.
        steps: at most.
        numbers: all randomness.
        clip: the most that a gradient's norm may be.
        warm_up: steps.
        average: decay of the running average of the weights, which is scored and kept in their place; it is less over
            the first steps, ``(1 + step) / (10 + step)``. 0 is none.
        patience: looks.
        partial: where all is left at each look, so that a fit that was killed goes on and ends in the same bits.
        progress: show a bar on a terminal.
    """
    fit = _Descent(inner, steps, numbers, score)
    start = fit.take_up(partial)
    every = max(1, steps // CHECKS)
    with tqdm(
        total=steps, initial=start, desc="fitting", unit="step", disable=not progress or None, leave=False
    ) as bar:
        for step in range(start + 1, steps + 1):
            if fit.worse == patience:
                break
            rate = RATE * min(1.0, step / (warm_up + 1)) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
            fit.optimizer.param_groups[0]["lr"] = rate
            fit.optimizer.zero_grad(set_to_none=True)
            loss().backward()
            nn.utils.clip_grad_norm_(inner.parameters(), clip)
            fit.optimizer.step()
            fit.follow(min(average, (1 + step) / (10 + step)))
            bar.update()
            if step % every == 0 or step == steps:
                fit.look()
                fit.leave(partial, step)
    inner.load_state_dict(fit.kept)
    inner.cpu()


class _Descent:
    """What a fit carries from step to step."""

    def __init__(self, inner: nn.Module, steps: int, numbers: torch.Generator, score: Callable[[], float]) -> None:
        self.inner, self.numbers, self.score = inner, numbers, score
        self.optimizer = torch.optim.Adam(inner.parameters(), RATE)
        self.mean = copy.deepcopy(inner.state_dict())
        self.kept, self.best, self.worse = copy.deepcopy(self.mean), score(), 0

    def follow(self, decay: float) -> None:
        """Move the average towards the weights; of decay 0 it is they."""
        now = self.inner.state_dict()
        for name, tensor in self.mean.items():
            if tensor.is_floating_point():
                tensor.lerp_(now[name], 1 - decay)
            else:
                tensor.copy_(now[name])

    def look(self) -> None:
        """Score the average, and keep it where it is the best."""
        held = copy.deepcopy(self.inner.state_dict())
        self.inner.load_state_dict(self.mean)
        now = self.score()
        if now < self.best:
            self.best, self.kept, self.worse = now, copy.deepcopy(self.mean), 0
        else:
            self.worse += 1
        self.inner.load_state_dict(held)

    def leave(self, partial: Partial | None, step: int) -> None:
        """Write all of it.

        Raises:
            UserError: it cannot be written.
        """
        if partial is None:
            return
        tensors = {"numbers": self.numbers.get_state(), "best": torch.tensor(self.best, dtype=torch.float64)}
        for part, state in (("now", self.inner.state_dict()), ("mean", self.mean), ("kept", self.kept)):
            tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": tensor for name, tensor in state.items()}
        about = {"about": partial.about, "step": step, "worse": self.worse}
        files.refuse_links(partial.path.parent, [partial.path.name])
        try:
            files.write_atomic(partial.path, lambda temporary: files.write_tensors(temporary, tensors, about))
        except OSError as error:
            raise UserError(f"{partial.path}: cannot be written ({error.strerror or error})") from None

    def take_up(self, partial: Partial | None) -> int:
        """Go on from what this very fit left, if it did; returns the step."""
        if partial is None or not partial.path.exists():
            return 0
        try:
            tensors, about, _ = files.hold_tensors(partial.path)
        except UserError as error:
            logger.warning("%s; the fit begins anew", error)
            return 0
        like = self.inner.state_dict()
        if about.get("about") != partial.about:
            return 0
        now, self.mean, self.kept = (
            {name: tensors[f"{part}.{name}"].to(like[name].device) for name in like} for part in ("now", "mean", "kept")
        )
        self.inner.load_state_dict(now)
        state = self.optimizer.state_dict()
        for key, tensor in tensors.items():
            if key.startswith("adam."):
                _, i, name = key.split(".")
                state["state"].setdefault(int(i), {})[name] = tensor
        self.optimizer.load_state_dict(state)
        self.numbers.set_state(tensors["numbers"])
        self.best, self.worse, step = float(tensors["best"]), int(about["worse"]), int(about["step"])
        logger.warning("%s: a fit that was cut off goes on after step %s", partial.path, f"{step:,}")
        return step
