"""Files that are whole or absent, and tensors that are never unpickled."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from vaes.errors import UserError

__all__ = ["checksum", "read_tensors", "remove", "replace_folder", "sync_folder", "write_atomic", "write_tensors"]


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path``, sync it to disk, and put it in place in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # one of writing, a full disk's, carries no name
        error.filename = path if error.filename in (None, str(temporary)) else error.filename
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder into place; a folder that was there goes afterwards."""
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        final.rename(old)
    temporary.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Delete a folder so that a half-deleted one is never taken for a whole one."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None) -> None:
    """Write tensors as safetensors; a name, a shape and numbers, nothing that could run.

    Raises:
        UserError: the disk is full, or the folder cannot be written or is gone.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One key: safetensors writes several in an order that changes from process to process.
    try:
        safetensors.torch.save_file(plain, path, metadata={"vaes": json.dumps(dict(metadata or {}))})
    except safetensors.SafetensorError as error:  # which hides the OSError in its text
        raise UserError(f"{path}: cannot be written ({error}); what was written before is whole") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a safetensors file; the metadata are empty if :func:`write_tensors` did not write them.

    Raises:
        UserError: it is missing or no such file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = _document((file.metadata() or {}).get("vaes", ""))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such weights file") from None
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); pickled weights are never read") from None


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
