"""Checkpoints: ``ckpt/stepNNNNNN/`` with everything that going on needs, whole or absent, and nothing that could run.

``model.safetensors`` holds the weights, with the configuration in its metadata; ``training.safetensors`` the
optimiser's moments and the sums of the metrics not yet printed; ``state.json`` the step and the checksums of the two.
There is no state of random numbers or of the data order to save, because both are functions of (seed, step).
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vaes import files
from vaes.errors import UserError
from vaes.train.muon import slots

__all__ = [
    "Checkpoint",
    "checkpoints",
    "load_weights",
    "newest_folder",
    "progress",
    "read",
    "refuse_misfit",
    "restore_optimizer",
    "set_aside",
    "snapshot",
    "thin_out",
    "verify",
    "write",
]

FORMAT = "vaes-1"
MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"


class Checkpoint(NamedTuple):
    """What a checkpoint folder holds, or will hold once it is written."""

    step: int
    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]
    metadata: dict[str, Any]


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first."""
    found = [path for path in (run / "ckpt").glob("step*") if path.is_dir() and path.name[4:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[4:]), reverse=True)


def snapshot(
    step: int,
    weights: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    extra: dict[str, Tensor],
    state: dict[str, Any],
    metadata: dict[str, Any],
) -> Checkpoint:
    """What the checkpoint of a step will hold, copied to the CPU, so that training may go on while it is written.

    ``extra`` tensors go with the optimiser's moments, ``metadata`` with the weights; ``state`` and ``metadata`` are
    taken as they are, and must not be changed afterwards.
    """
    return Checkpoint(step, _copies(weights), _copies({**_moments(optimizer), **extra}), state, metadata)


def write(run: Path, taken: Checkpoint) -> Path:
    """Write a snapshot into the folder ``ckpt`` of a run, which is there: to a temporary name, synced, then renamed.

    Raises:
        OSError, UserError: the disk is full, or the folder cannot be written or is gone.
    """
    final = run / "ckpt" / f"step{taken.step:06d}"
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()  # without its parents: a run folder that was moved away is not made again
    try:
        metadata = {**taken.metadata, "format": FORMAT, "step": taken.step}
        files.write_atomic(temporary / MODEL, lambda path: files.write_tensors(path, taken.weights, metadata))
        files.write_atomic(temporary / TRAINING, lambda path: files.write_tensors(path, taken.training))
        sums_of_files = {name: files.checksum(temporary / name) for name in (MODEL, TRAINING)}
        document = {"format": FORMAT, "step": taken.step, "sha256": sums_of_files, **taken.state}
        text = json.dumps(document, indent=1)
        files.write_atomic(temporary / STATE, lambda path: path.write_text(text))
        files.replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def thin_out(run: Path, keep: int, best: int | None) -> None:
    """Delete all checkpoints but the newest ``keep`` and the one of step ``best``."""
    for path in checkpoints(run)[keep:]:
        if int(path.name[4:]) != best:
            files.remove(path)
    for leftover in (run / "ckpt").glob(".step*"):  # of runs that were killed
        shutil.rmtree(leftover, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check a checkpoint folder against its checksums; returns its state.

    Raises:
        UserError: a file is missing, damaged, or of another format.
    """
    try:
        state = json.loads((folder / STATE).read_text())
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise UserError(f"{folder / STATE}: not a checkpoint of this format ({FORMAT})")
        for name in (MODEL, TRAINING):
            if files.checksum(folder / name) != state["sha256"][name]:
                raise UserError(f"{folder / name}: damaged: its checksum is not the one that was saved")
        if type(state["step"]) is not int or not 0 <= state["step"] < 2**53:
            raise UserError(f"{folder / STATE}: its step is no whole number from 0 on")
        return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{folder}: not a whole checkpoint ({type(error).__name__}: {error})") from None


def _fault(folder: Path) -> str | None:
    """What :func:`verify` has to say of a checkpoint folder; None if it is whole."""
    try:
        verify(folder)
    except UserError as error:
        return str(error)
    return None


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint folder, verified.

    Raises:
        UserError: a file is missing, damaged, or of another format.
    """
    state = verify(folder)
    weights, metadata = files.read_tensors(folder / MODEL)
    training, _ = files.read_tensors(folder / TRAINING)
    return Checkpoint(state["step"], weights, training, state, metadata)


def newest_folder(run: Path) -> Path:
    """The newest whole checkpoint of a run; a damaged one is named on stderr and the one before it is taken.

    Raises:
        UserError: there is none.
    """
    folders = checkpoints(run)
    if not folders:
        raise UserError(f"{run}: no checkpoint was saved in it yet")
    for folder in folders:
        fault = _fault(folder)
        if fault is None:
            return folder
        print(f"warning: {fault}; trying the checkpoint before it", file=sys.stderr)
    raise UserError(f"{run}: no whole checkpoint in {run / 'ckpt'} ({len(folders)} there, all damaged)")


def set_aside(run: Path, step: int) -> None:
    """Before a run goes on from ``step``, get checkpoints beyond it out of the way: they are damaged, and are renamed
    ``damaged-stepNNNNNN``.

    Raises:
        UserError: one of them is whole, and would be written over.
    """
    beyond = [folder for folder in checkpoints(run) if int(folder.name[4:]) > step]
    for folder in beyond:
        if _fault(folder) is None:
            raise UserError(
                f"--resume: {folder} is newer than step {step}; give a new run folder with -e to branch off"
            )
    for folder in beyond:
        aside = folder.with_name(f"damaged-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)


def refuse_misfit(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Refuse weights that are not those of this model, which may lie on the meta device.

    Raises:
        UserError: names or shapes differ: the weights belong to another configuration.
    """
    expected = model.state_dict()
    lacking, surplus = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if lacking or surplus:
        example = f"it lacks {lacking[0]}" if lacking else f"it has {surplus[0]}, which the model lacks"
        raise UserError(f"{where}: these weights belong to another configuration: {example}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            raise UserError(
                f"{where}: these weights belong to another configuration: {name} is {tuple(tensor.shape)} "
                f"{tensor.dtype} where the model has {tuple(expected[name].shape)} {expected[name].dtype}"
            )


def load_weights(model: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    """Put weights into a model, all of them or none.

    Raises:
        UserError: names or shapes differ: the weights belong to another configuration.
    """
    refuse_misfit(model, weights, where)
    model.load_state_dict(weights)


def progress(found: Checkpoint) -> tuple[dict[str, Tensor], int, tuple[int, float] | None]:
    """The sums of the terms since the last printed line, over how many steps they run, and the best step so far with
    its loss.

    Raises:
        UserError: the checkpoint does not hold them.
    """
    try:
        state = found.state
        sums = {name: found.training[f"sum.{name}"] for name in state["terms"]}
        summed, best = int(state["summed"]), state["best"]
        if summed < 0 or any(tensor.dim() or not tensor.is_floating_point() for tensor in sums.values()):
            raise ValueError("sums of terms that are no numbers")
        return sums, summed, None if best is None else (int(best[0]), float(best[1]))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UserError(
            f"checkpoint of step {found.step}: not one that a training wrote ({type(error).__name__}: {error})"
        ) from None


def restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Give an optimiser its moments back; its options stay those of the present configuration.

    Raises:
        UserError: a moment is missing, or belongs to another parameter.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    unread = {name for name in checkpoint.training if name.split(".")[0] == "optimizer"}
    state: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(parameters):
        names = {slot: f"optimizer.{index}.{slot}" for slot in slots(optimizer, parameter)}
        if not unread.intersection(names.values()):
            continue  # it had no gradient yet
        for slot, name in names.items():
            tensor = checkpoint.training.get(name)
            if (
                tensor is None
                or tensor.shape != (() if slot == "step" else parameter.shape)
                or not tensor.is_floating_point()
            ):
                raise UserError(
                    f"checkpoint of step {checkpoint.step}: {name} is {'missing' if tensor is None else 'misshapen'}: "
                    "it was not written by this training"
                )
            if tensor.dim():  # a moment lies in memory as its parameter does, or the optimiser rounds otherwise
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
            state.setdefault(index, {})[slot] = tensor
        unread -= set(names.values())
    if unread:
        raise UserError(
            f"checkpoint of step {checkpoint.step}: {min(unread)} belongs to no parameter: it was not written by this "
            "training"
        )
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, slots in optimizer.state_dict()["state"].items()
        for name, value in slots.items()
    }


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
