"""What a training carries from step to step, and gives a checkpoint: nothing else has to be remembered."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.objectives import Objective
from vaes.train import checkpoint
from vaes.train.average import Average
from vaes.train.checkpoint import Checkpoint
from vaes.train.direct import AdamW
from vaes.train.groups import groups
from vaes.train.muon import Muon, slots
from vaes.train.settings import Settings
from vaes.train.skips import Skips, restored

__all__ = ["Best", "TrainState"]


class Best(NamedTuple):
    """The step whose validation loss was lowest."""

    step: int
    loss: float


class TrainState:
    """Model, optimiser, average of weights, sums of terms not yet printed, best step.

    There is no state of random numbers or of the order of images, because both are functions of (seed, step).

    Args:
        objective: on its device.
        settings: the optimiser's options.
    """

    def __init__(self, objective: Objective, settings: Settings) -> None:
        self.objective, self.model, self.settings = objective, objective.model, settings
        self.device = next(objective.parameters()).device
        self.optimizer = _optimizer(objective, settings)
        self.average = None if settings.ema is None else Average(self.model, settings.ema)
        most = settings.skip_non_finite
        self.skips = Skips(most, objective, self.optimizer, self.device) if most else None
        self.step = 0
        """Optimiser steps done."""
        self.sums: dict[str, Tensor] = {}
        """Of each term since the last printed line, on the device, over ``summed`` steps."""
        self.summed = 0
        self.bad_step = torch.full((), -1, device=self.device)
        """The first step whose loss was no number, remembered on the device; -1 for none."""
        self.best: Best | None = None
        self.stale = 0
        """Validations since the best."""

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated, drawn and shared."""
        return nullcontext() if self.average is None else self.average.in_place()

    def judge(self, loss: float) -> bool:
        """Whether a validation loss at this step is the best so far; one that is no number never is."""
        better = math.isfinite(loss) and (self.best is None or loss < self.best.loss)
        self.best, self.stale = (Best(self.step, loss), 0) if better else (self.best, self.stale + 1)
        return better

    def means(self) -> tuple[dict[str, Tensor], int]:
        """The mean of each term since the last call, on the device, and how many steps were skipped in between."""
        skipped = 0
        if self.skips:
            skipped = int(self.skips.counts[1])
            self.skips.counts[1] = 0
        found = {name: total / max(self.summed - skipped, 1) for name, total in self.sums.items()}
        found = found if skipped < self.summed else {}
        self.sums, self.summed = {}, 0
        return found, skipped

    def state_dict(self, metadata: Mapping[str, Any]) -> Checkpoint:
        """All of it, copied to the CPU, so that training may go on while it is written; ``metadata`` goes with the
        weights."""
        training = _moments(self.optimizer)
        training |= {f"sum.{name}": value for name, value in self.sums.items()}
        training |= {f"terms.{name}": value for name, value in self.objective.terms.state_dict().items()}
        if self.skips:
            training["skips"] = self.skips.counts
        weights = self.model.state_dict()
        if self.average is not None:
            training |= {f"raw.{name}": weights[name] for name in self.average.state}
            weights |= self.average.state
        state = {
            "optimizer": self.settings.optimizer,
            "best": None if self.best is None else list(self.best),
            "stale": self.stale,
            "summed": self.summed,
            "terms": list(self.sums),
        }
        return Checkpoint(self.step, _copies(weights), _copies(training), state, dict(metadata))

    def load_state_dict(self, saved: Checkpoint, *, branch: bool = False) -> None:
        """Go on from a checkpoint; a ``branch`` takes neither the other training's best nor the line it had begun.

        Raises:
            UserError: it is of another model, optimiser or program, or beyond the end of this training.
        """
        where = f"checkpoint of step {saved.step}"
        if saved.step > self.settings.n_steps:
            raise UserError(
                f"train.n_steps: {self.settings.n_steps} is less than the {saved.step} steps of the {where}"
            )
        optimizer = saved.state.get("optimizer", "adam")
        if optimizer != self.settings.optimizer:
            raise UserError(
                f"train.optimizer: {self.settings.optimizer} where the {where} was trained with {optimizer}"
            )
        # Where the shared weights are an average, training goes on from those that it had.
        checkpoint.load_weights(self.model, saved.weights | _below("raw.", saved.training), where)
        checkpoint.load_weights(self.objective.terms, _below("terms.", saved.training), where)
        if self.average is not None:
            self.average.load(saved.weights)
        _restore_optimizer(self.optimizer, saved)
        self.step = saved.step
        sums, summed, best, stale = _progress(saved)
        if branch:
            return
        self.summed, self.best, self.stale = summed, best, stale
        self.sums = {name: tensor.to(self.device) for name, tensor in sums.items()}
        if "skips" in saved.training:
            counts = restored(saved.training["skips"], self.device)
            if self.skips:
                self.skips.counts = counts
            else:
                self.summed -= int(counts[1])  # of the line that has begun, the steps that count


def _optimizer(objective: Objective, s: Settings) -> torch.optim.Optimizer:
    lr, parameters = s.lr_schedule(0), groups(objective, s)
    if s.optimizer == "muon":
        return Muon(parameters, lr=lr, momentum=s.momentum, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
    return AdamW(parameters, lr=lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay, fused=True)


def _progress(saved: Checkpoint) -> tuple[dict[str, Tensor], int, Best | None, int]:
    """Sums of terms, over how many steps they run, the best step, validations since.

    Raises:
        UserError: the checkpoint does not hold them.
    """
    try:
        state = saved.state
        sums = {name: saved.training[f"sum.{name}"] for name in state["terms"]}
        summed, best, stale = int(state["summed"]), state["best"], int(state.get("stale", 0))
        if summed < 0 or stale < 0 or any(t.dim() or not t.is_floating_point() for t in sums.values()):
            raise ValueError("sums of terms that are no numbers")
        found = None if best is None else Best(int(best[0]), float(best[1]))
        if found is not None and not 0 <= found.step <= saved.step:
            raise ValueError(f"a best step of {found.step}")
        # An older program kept a first loss that was no number as the best for ever.
        return sums, summed, found if found is None or math.isfinite(found.loss) else None, stale
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"checkpoint of step {saved.step}: not one that a training wrote ({type(error).__name__}: {error})"
        ) from None


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Checkpoint) -> None:
    """Give an optimiser its moments back; its options stay those of the present configuration.

    Raises:
        UserError: a moment is missing, or belongs to another parameter.
    """
    parameters = [(parameter, group["matrix"]) for group in optimizer.param_groups for parameter in group["params"]]
    unread = {name for name in saved.training if name.split(".")[0] == "optimizer"}
    state: dict[int, dict[str, Tensor]] = {}
    for index, (parameter, matrix) in enumerate(parameters):
        names = {slot: f"optimizer.{index}.{slot}" for slot in slots(optimizer, parameter, matrix=matrix)}
        if not unread.intersection(names.values()):
            continue  # it had no gradient yet
        for slot, name in names.items():
            tensor = saved.training.get(name)
            if (
                tensor is None
                or tensor.shape != (() if slot == "step" else parameter.shape)
                or not tensor.is_floating_point()
            ):
                raise UserError(
                    f"checkpoint of step {saved.step}: {name} is {'missing' if tensor is None else 'misshapen'}: "
                    "it was not written by this training"
                )
            if tensor.dim():  # a moment lies in memory as its parameter does, or the optimiser rounds otherwise
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(index, {})[slot] = tensor
        unread -= set(names.values())
    if unread:
        raise UserError(
            f"checkpoint of step {saved.step}: {min(unread)} belongs to no parameter: it was not written by this "
            "training"
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
