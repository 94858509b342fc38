"""Checkpoints on the disk: ``ckpt/stepNNNNNN/``, whole or absent, and nothing in them that could run.

``model.safetensors`` holds the weights, with the configuration in its metadata; ``training.safetensors`` the
optimiser's moments and the sums of the metrics not yet printed; ``state.json`` the step, the checksums of the two, and
one of its own. What the tensors and numbers are is :class:`vaes.train.state.TrainState`'s.
"""

import json
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from vaes import files
from vaes.errors import UserError

__all__ = [
    "Checkpoint",
    "checkpoints",
    "load_weights",
    "Named",
    "named_folder",
    "newest_folder",
    "read",
    "refuse_misfit",
    "seal",
    "set_aside",
    "thin_out",
    "verify",
    "whole",
    "write",
]

FORMAT, FORMATS = "vaes-2", ("vaes-1", "vaes-2")
"""What is written, and what is read: vaes-1 had no checksum of the state, and split data by their order."""

MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"

FOLDER = re.compile(r"step([0-9]{6,18})")
LEFTOVER = re.compile(r"\.(damaged-)?step[0-9]{6,18}\.[0-9]+\.(tmp|old)")
"""What a process that was killed while it wrote or deleted a checkpoint leaves."""

logger = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What a checkpoint folder holds, or will hold once it is written."""

    step: int
    weights: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]
    metadata: dict[str, Any]


def checkpoints(run: Path) -> list[Path]:
    """The checkpoint folders of a run, the newest first."""
    found = {path: step for path in (run / "ckpt").glob("step*") if (step := step_of(path)) is not None}
    return sorted(found, key=lambda path: found[path], reverse=True)


def step_of(folder: Path) -> int | None:
    """The step that a checkpoint folder is named after; None if it is no such folder."""
    match = FOLDER.fullmatch(folder.name)
    return int(match[1]) if match and folder.is_dir() and not folder.is_symlink() else None


def write(run: Path, taken: Checkpoint) -> Path:
    """Write a checkpoint into the folder ``ckpt`` of a run, which is there: to a temporary name, synced, then renamed.

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
        files.write_json(temporary / STATE, seal(document))
        files.replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def thin_out(run: Path, keep: int, best: int | None) -> None:
    """Delete all checkpoints but the newest ``keep`` and the one of step ``best``."""
    for path in checkpoints(run)[keep:]:
        if step_of(path) != best:
            files.remove(path)
    for leftover in (run / "ckpt").glob(".*step*"):  # of runs that were killed
        if LEFTOVER.fullmatch(leftover.name) and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check a checkpoint folder against its checksums and its own name; returns its state.

    Raises:
        UserError: a file is missing, damaged, or of another format.
    """
    try:
        state = json.loads(files.read_bytes(folder / STATE, files.MAX_JSON).decode("utf-8"))
        if not isinstance(state, dict) or state.get("format") not in FORMATS:
            raise UserError(f"{folder / STATE}: not a checkpoint of this format ({FORMAT})")
        if state["format"] != "vaes-1" and state.get("checksum") != files.digest(state, "checksum"):
            raise UserError(f"{folder / STATE}: damaged: its checksum is not the one that was saved")
        state.pop("checksum", None)
        if type(state["step"]) is not int or not 0 <= state["step"] < 2**53:
            raise UserError(f"{folder / STATE}: its step is no whole number from 0 on")
        if FOLDER.fullmatch(folder.name) and step_of(folder) != state["step"]:
            raise UserError(f"{folder / STATE}: is of step {state['step']}, and its folder is called {folder.name}")
        for name in (MODEL, TRAINING):
            if files.checksum(folder / name) != state["sha256"][name]:
                raise UserError(f"{folder / name}: damaged: its checksum is not the one that was saved")
        return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        why = (
            f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        )
        raise UserError(f"{folder}: not a whole checkpoint ({why})") from None


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """A state with its own checksum."""
    return {**document, "checksum": files.digest(document, "checksum")}


def fault(folder: Path) -> str | None:
    """What :func:`verify` has to say of a checkpoint folder; None if it is whole."""
    try:
        verify(folder)
    except UserError as error:
        return str(error)
    return None


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint folder, verified.

    Raises:
        UserError: a file is missing, damaged, of another format, or of another step than the others.
    """
    state = verify(folder)
    weights, metadata = files.read_tensors(folder / MODEL)
    training, _ = files.read_tensors(folder / TRAINING)
    if metadata.get("step") != state["step"]:
        raise UserError(f"{folder / MODEL}: is of step {metadata.get('step')}, and {STATE} of step {state['step']}")
    return Checkpoint(state["step"], weights, training, state, metadata)


def whole(run: Path, step: int) -> dict[str, Tensor] | None:
    """The weights of the checkpoint of a step, or None if it is not there or damaged."""
    folder = run / "ckpt" / f"step{step:06d}"
    return files.read_tensors(folder / MODEL)[0] if folder.is_dir() and fault(folder) is None else None


def newest_folder(run: Path) -> Path:
    """The newest whole checkpoint of a run; a damaged one is named in a warning and the one before it is taken.

    Raises:
        UserError: there is none.
    """
    folders = checkpoints(run)
    if not folders:
        raise UserError(f"{run}: no checkpoint was saved in it yet")
    for folder in folders:
        found = fault(folder)
        if found is None:
            return folder
        logger.warning("%s; trying the checkpoint before it", found)
    raise UserError(f"{run}: no whole checkpoint in {run / 'ckpt'} ({len(folders)} there, all damaged)")


class Named(NamedTuple):
    """The checkpoint that a name stands for."""

    path: Path
    name: str
    """``best``, ``last`` or the step."""
    words: str
    """Which one it is, for people."""


def named_folder(run: Path, name: str | None) -> Named:
    """The checkpoint of a run that a name stands for.

    Args:
        run: the run folder.
        name: ``best`` (by validation loss), ``last``, a step, or None for the best where there was a validation and
            else the last.

    Raises:
        UserError: it is not there, or damaged where it was asked for by name.
    """
    if name not in (None, "best", "last"):
        step = str(name).removeprefix("step")
        if not re.fullmatch("[0-9]{1,18}", step):
            raise UserError(f"--checkpoint {name}: must be best, last or a step")
        folder = run / "ckpt" / f"step{int(step):06d}"
        if folder not in checkpoints(run):
            there = ", ".join(str(step_of(path)) for path in reversed(checkpoints(run))) or "none"
            raise UserError(f"--checkpoint {name}: {run} has no checkpoint of that step; there are {there}")
        return Named(folder, str(int(step)), f"step {int(step):,}, as asked")
    newest = newest_folder(run)
    state = verify(newest)
    last = f"the last, step {state['step']:,}"
    best = _best(state)
    if name == "last":
        return Named(newest, "last", last)
    if best is None:
        if name == "best":
            raise UserError(
                f"--checkpoint best: {run} has no best one: no validation (train.eval_freq 0), or a loss "
                "that a critic sets; give last or a step"
            )
        return Named(newest, "last", f"{last}; there was no validation loss to choose by")
    folder = run / "ckpt" / f"step{best[0]:06d}"
    problem = "it is gone" if folder not in checkpoints(run) else fault(folder)
    if problem is None:
        which = f"the last and the best, step {best[0]:,}," if folder == newest else f"the best, step {best[0]:,}"
        after = "" if folder == newest else f" of {state['step']:,}"
        return Named(folder, "best", f"{which}{after} by its validation loss, {best[1]:.4g}")
    if name == "best":
        raise UserError(f"--checkpoint best: step {best[0]}: {problem}; give last or a step")
    logger.warning("the best checkpoint, of step %s, cannot be used (%s); the last is taken", best[0], problem)
    return Named(newest, "last", last)


def _best(state: dict[str, Any]) -> tuple[int, float] | None:
    """The best step that a state names, and its validation loss; an older program may name one that is no number."""
    try:
        step, loss = state["best"]
        return (step, float(loss)) if type(step) is int and math.isfinite(float(loss)) else None
    except (KeyError, TypeError, ValueError):
        return None


def set_aside(run: Path, step: int) -> None:
    """Before a run goes on from ``step``, get checkpoints beyond it out of the way: they are damaged, and are renamed
    ``damaged-stepNNNNNN``.

    Raises:
        UserError: one of them is whole, and would be written over.
    """
    beyond = [folder for folder in checkpoints(run) if (step_of(folder) or 0) > step]
    for folder in beyond:
        if fault(folder) is None:
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
