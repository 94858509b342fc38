"""Fitted priors on the disk: ``prior-KIND.safetensors`` in the run folder, whole or absent, of one kind one.

Their metadata name the weights that they belong to by their SHA-256, and hold a checksum of all that the file says.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaes import files
from vaes.errors import UserError
from vaes.fitting.descent import Partial
from vaes.fitting.kinds import KINDS, Fitted, Numbers, build, check_options
from vaes.nn.weightless import weightless
from vaes.priors import Prior
from vaes.terminal import quote

__all__ = ["choose", "chosen", "file_of", "find", "read", "ready", "write"]

logger = logging.getLogger(__name__)

FORMAT = "vaes-prior-1"
LOCK = ".prior.lock"
LEFT = re.compile(r"\.prior-[\w.]+\.safetensors\.[0-9]+\.tmp")  # by a process that was killed


def file_of(folder: Path, kind: str) -> Path:
    """Where the prior of a kind is, or would be."""
    return folder / f"prior-{kind}.safetensors"


def ready(folder: Path, kind: str) -> None:
    """Refuse before the work what :func:`write` would refuse after it.

    Raises:
        UserError: the folder cannot be written, or what is there is a link or a folder.
    """
    files.refuse_unwritable(folder)
    path = file_of(folder, kind)
    files.refuse_links(folder, (path.name, Partial.file(folder, kind).name, LOCK))
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no regular file; move it away")


def write(folder: Path, fitted: Fitted) -> Path:
    """Put a prior into a folder, in the place of an earlier one of its kind. Returns its path.

    Raises:
        UserError: the disk is full, the folder cannot be written, or what is there is a link.
    """
    path = file_of(folder, fitted.kind)
    tensors = fitted.prior.state_dict()
    about = {
        "format": FORMAT,
        "kind": fitted.kind,
        "options": fitted.options,
        "z_shape": list(fitted.prior.z_shape),
        "seed": fitted.seed,
        "weights": fitted.weights,
        "step": fitted.step,
        "when": fitted.when,
        "numbers": fitted.numbers._asdict(),
    }
    metadata = {**about, "sha256": _checksum(tensors, about)}
    with files.locked(folder / LOCK):
        ready(folder, fitted.kind)
        for left in folder.iterdir():
            if LEFT.fullmatch(left.name) and not left.is_symlink():
                left.unlink()
        try:
            files.write_atomic(path, lambda temporary: files.write_tensors(temporary, tensors, metadata))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); what was there before is whole") from None
        Partial.file(folder, fitted.kind).unlink(missing_ok=True)
    return path


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    content = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def read(path: Path) -> Fitted:
    """Read a prior, whatever weights it belongs to.

    Raises:
        UserError: it is missing, damaged, edited, or of another format.
    """
    tensors, metadata, _ = files.hold_tensors(path)
    again = "delete it and fit it again (vaes fit-prior), or do without it (--prior own)"
    about = {key: value for key, value in metadata.items() if key != "sha256"}
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a fitted prior of this format ({FORMAT}); {again}")
    if metadata.get("sha256") != _checksum(tensors, about):
        raise UserError(f"{path}: edited or damaged: its checksum is not the one that was saved; {again}")
    try:
        kind, z_shape = about["kind"], tuple(int(size) for size in about["z_shape"])
        options = check_options(kind, about["options"])
        prior = _built(kind, z_shape, options, tensors)
        numbers = Numbers(**about["numbers"])
        fitted = Fitted(
            kind, prior, options, numbers, int(about["seed"]), about["weights"], int(about["step"]), int(about["when"])
        )
    except (LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"{path}: not a fitted prior ({type(error).__name__}: {str(error)[:200]}); {again}") from None
    return fitted


def _built(kind: str, z_shape: tuple[int, ...], options: Mapping[str, Any], tensors: dict[str, Tensor]) -> Prior:
    """The prior with these tensors, once it is known that they are its own: nothing is allocated before."""
    with weightless():
        blank = build(kind, z_shape, options, tensors.get("words"))
    if _shapes(blank.state_dict()) != _shapes(tensors):
        raise ValueError("its tensors are of another prior")
    with torch.random.fork_rng(devices=[]):
        prior = build(kind, z_shape, options, tensors.get("words"))
    prior.load_state_dict(tensors)
    return prior.requires_grad_(False).eval()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def find(folder: Path, weights: str, z_shape: tuple[int, ...], only: str | None = None) -> dict[str, Fitted]:
    """The priors in a folder that were fitted to these weights (their SHA-256), of all kinds or one; that fitted last
    comes first. One that belongs to other weights is named in a warning.

    Raises:
        UserError: one is damaged, or the one that was asked for belongs to other weights.
    """
    priors = []
    for kind in KINDS if only is None else (only,):
        path = file_of(folder, kind)
        if not path.exists():
            continue
        one = read(path)
        if one.kind != kind:
            raise UserError(f"{path}: holds a {one.kind}; give the file its own name back, or delete it")
        if one.weights == weights and one.prior.z_shape == z_shape:
            priors.append(one)
            continue
        again = f"vaes fit-prior {quote(folder)} --kind {kind} fits it to these"
        if only is not None:
            raise UserError(f"{path}: was fitted to other weights (step {one.step:,}); {again}")
        logger.warning("%s was fitted to other weights (step %s) and is not used; %s", path, f"{one.step:,}", again)
    return {one.kind: one for one in sorted(priors, key=lambda one: -one.when)}


def choose(folder: Path, weights: str, z_shape: tuple[int, ...], name: str | None) -> Fitted | None:
    """The prior that a name stands for: ``own`` is None, ``fitted`` the one fitted last, or a kind; without a name the
    one fitted last, or None where there is none.

    Raises:
        UserError: what was asked for is not there, belongs to other weights, or is damaged.
    """
    if name == "own":
        return None
    if name not in (None, "fitted", *KINDS):
        raise UserError(f"--prior {name}: must be own, fitted, {' or '.join(KINDS)}")
    only = name if name in KINDS else None
    priors = find(folder, weights, z_shape, only)
    if name is not None and not priors:
        kind = f" --kind {only}" if only else ""
        raise UserError(
            f"--prior {name}: {folder} holds none of these weights; vaes fit-prior {quote(folder)}{kind} makes it"
        )
    return next(iter(priors.values()), None)


def chosen(folder: Path, weights: str, z_shape: tuple[int, ...], name: str | None) -> tuple[Fitted, ...]:
    """What :func:`choose` gives for a name; without one all the priors that belong to these weights."""
    if name is None:
        return tuple(find(folder, weights, z_shape).values())
    one = choose(folder, weights, z_shape, name)
    return () if one is None else (one,)
