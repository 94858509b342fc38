"""Weights on the disk: which file a path stands for, and what it says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vaes import config as configuration
from vaes import files, zoo
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.model import VAE
from vaes.train import checkpoint
from vaes.train.checkpoint import Named

__all__ = ["experiment_of", "find_weights", "load_weights", "open_weights"]


def find_weights(path: Path, checkpoint_name: str | None = None) -> Named:
    """The weights file that a path stands for: itself, the one in a checkpoint folder, one of a run folder's, or that
    of ``zoo:NAME``.

    Raises:
        UserError: there is none.
    """
    home = zoo.find(path) or (path.resolve() if path.exists() else path)
    if home.is_file() or (home / checkpoint.MODEL).is_file():
        if checkpoint_name is not None:
            raise UserError(f"--checkpoint {checkpoint_name}: {path} is one checkpoint; give its run folder to choose")
        return Named(home if home.is_file() else home / checkpoint.MODEL, "", "")
    if (home / "ckpt").is_dir():
        found = checkpoint.named_folder(home, checkpoint_name)
        return found._replace(path=found.path / checkpoint.MODEL)
    what = "does not exist"
    if home.exists():
        what = "holds neither model.safetensors nor ckpt/" if home.is_dir() else "is no regular file"
    raise UserError(f"{path}: {what}; give a weights file, a checkpoint folder or a run folder")


def open_weights(path: Path, name: str | None) -> tuple[Named, tuple[dict[str, Tensor], dict[str, Any], str]]:
    """Weights, held: a training that goes on beside may delete their file at any moment."""
    for _ in range(20):
        found = find_weights(path, name)
        try:
            tensors, metadata, sha256 = files.hold_tensors(found.path)
            return found, (zoo.whole(tensors) if zoo.holds(found.path) else tensors, metadata, sha256)
        except UserError:
            if found.path.exists():
                raise
    raise UserError(f"{path}: its checkpoints are replaced faster than they can be read; give one by --checkpoint STEP")


def experiment_of(weights: Path, metadata: Mapping[str, Any]) -> tuple[Experiment, tuple[int, int, int], int]:
    """The experiment, the image shape and the step that a weights file's metadata name.

    Raises:
        UserError: they name none, or what no training wrote.
    """
    text = metadata.get("config")
    if not text or not isinstance(text, str):
        raise UserError(
            f"{weights}: carries no configuration; build its model in Python and use vaes.load_weights(model, path)"
        )
    raw = configuration.of_weights(metadata, str(weights))
    try:
        experiment = Experiment.of(raw)
    except UserError as error:
        raise UserError(f"{weights}: {error}") from error
    try:
        channels, height, width = (int(size) for size in metadata["image_shape"])
        step = int(metadata["step"])
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"{weights}: its metadata name no image shape or step; not weights that vaes wrote") from None
    if not all(1 <= size <= 65536 for size in (channels, height, width)):
        raise UserError(f"{weights}: its image shape {(channels, height, width)} is absurd")
    return experiment, (channels, height, width), step


def load_weights(model: VAE, path: str | Path) -> VAE:
    """Put the weights at a path (a file, a checkpoint folder or a run folder) into a model of one's own; returns it.

    Raises:
        UserError: nothing is there, or it does not fit the model.
    """
    named, (tensors, _, _) = open_weights(Path(path), None)
    checkpoint.load_weights(model, tensors, str(named.path))
    return model
