"""Small trained models that come along, by name: ``vaes.load("zoo:mnist")``.

``benchmarks/zoo.py`` trains and writes them. Each is a file NAME.safetensors here, its numbers in float16, with its
experiment in its metadata, and a card NAME.md.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vaes.errors import UserError
from vaes.terminal import escape

__all__ = ["find", "holds", "home", "names", "whole"]

FOLDER = Path(__file__).parent
PREFIX = "zoo:"


def names() -> list[str]:
    """What there is."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(path: Path) -> Path | None:
    """The weights file that ``zoo:NAME`` stands for; None for a path that is something else, or is there.

    Raises:
        UserError: there is no such name.
    """
    text = str(path)
    if not text.startswith(PREFIX) or os.path.exists(path):  # False too of a name no file can have
        return None
    name = text.removeprefix(PREFIX)
    if name not in names():
        near = difflib.get_close_matches(name[:100], names(), n=1)
        meant = f"did you mean zoo:{near[0]}? " if near else ""
        known = f"{meant}those that come along: {', '.join(names())}"
        raise UserError(f"{escape(text[:100])}: there is no such model; {known}")
    return FOLDER / f"{name}.safetensors"


def holds(weights: Path) -> bool:
    """Whether a weights file is one of these."""
    return weights.resolve().parent == FOLDER.resolve()


def home(weights: Path) -> Path:
    """Where what is made with one of these goes: a run folder of its name below the current one, made when needed."""
    return Path("runs") / f"zoo-{weights.stem}"


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one of these as a model has them: float16 only saves room on the disk."""
    return {name: t.float() if t.dtype == torch.float16 else t for name, t in tensors.items()}
