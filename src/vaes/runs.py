"""Runs on disk: finding their weights, loading their models."""

from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaes import config as configuration
from vaes import files
from vaes.config import Config
from vaes.errors import UserError
from vaes.model import VAE
from vaes.train import checkpoint

__all__ = ["Run", "find_weights", "load", "load_weights", "refuse_difference"]


class Run(NamedTuple):
    """A trained model and where it came from."""

    model: VAE  # in evaluation mode, on the CPU
    config: Config
    step: int
    weights: Path


def find_weights(path: Path) -> Path:
    """The weights file that a path stands for: itself, the one in a checkpoint folder, or a run folder's newest whole
    one.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    if (path / checkpoint.MODEL).is_file():
        return path / checkpoint.MODEL
    if (path / "ckpt").is_dir():
        return checkpoint.newest_folder(path) / checkpoint.MODEL
    what = "holds neither model.safetensors nor ckpt/" if path.is_dir() else "does not exist"
    raise UserError(f"{path}: {what}; give a weights file, a checkpoint folder or a run folder")


def load(path: str | Path, expected: Config | None = None) -> Run:
    """Load a model from a weights file, a checkpoint folder or a run folder (its newest checkpoint). Nothing in it is
    executed.

    Args:
        path: any of the three.
        expected: the configuration that the weights are thought to belong to; its data section then takes the place of
        theirs.

    Raises:
        UserError: nothing is there, it is damaged, it carries no configuration, or another one than expected.
    """
    weights = find_weights(Path(path))
    tensors, metadata = files.read_tensors(weights)
    config, shape, step = _configuration(weights, metadata)
    if expected is not None:
        refuse_difference(
            expected, config, ("method", "model"), f"{weights}: these weights belong to another configuration"
        )
        config = config._replace(data=expected.data)
    with torch.device("meta"):  # nothing is allocated before the weights are known to fit, whatever the metadata say
        checkpoint.refuse_misfit(configuration.build_model(config, shape), tensors, str(weights))
    model = configuration.build_model(config, shape)
    checkpoint.load_weights(model, tensors, str(weights))
    return Run(model.eval(), config, step, weights)


def refuse_difference(given: Config, stored: Config, sections: tuple[str, ...], what: str) -> None:
    """Refuse a configuration whose sections differ from a stored one's.

    Raises:
        UserError: naming the first key that differs, and both values.
    """
    ours, theirs = (_flat({name: c.to_dict()[name] for name in sections}) for c in (given, stored))
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key, "nothing"), theirs.get(key, "nothing")
        if a != b:
            raise UserError(f"{what}: {key} is {a} in the configuration given and {b} in theirs")


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}


def _configuration(weights: Path, metadata: dict[str, Any]) -> tuple[Config, tuple[int, int, int], int]:
    text = metadata.get("config")
    if not text or not isinstance(text, str):
        raise UserError(
            f"{weights}: carries no configuration; build its model in Python and use vaes.load_weights(model, path)"
        )
    config = configuration.load(configuration.parse(text, f"{weights}: its configuration"))
    try:
        channels, height, width = (int(size) for size in metadata["image_shape"])
        step = int(metadata["step"])
    except (KeyError, ValueError, TypeError, OverflowError):
        raise UserError(f"{weights}: its metadata name no image shape or step; not weights that vaes wrote") from None
    if not all(1 <= size <= 65536 for size in (channels, height, width)):
        raise UserError(f"{weights}: its image shape {(channels, height, width)} is absurd")
    return config, (channels, height, width), step


def load_weights(model: VAE, path: str | Path) -> VAE:
    """Put the weights at a path (a file, a checkpoint folder or a run folder) into a model of one's own; returns it.

    Raises:
        UserError: nothing is there, or it does not fit the model.
    """
    weights = find_weights(Path(path))
    checkpoint.load_weights(model, files.read_tensors(weights)[0], str(weights))
    return model
