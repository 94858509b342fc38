"""Weights that a training begins with in place of drawn ones: a run's, or those of a diffusers folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaes import config as configuration
from vaes import diffusers_folder, files
from vaes.errors import UserError
from vaes.model import VAE
from vaes.weights import open_weights

__all__ = ["Initial", "read_initial"]

NETWORKS = ("encoder.", "decoder.")
"""What must fit as a whole; what else a model has (a learned scale, a prior's parameters) may begin anew."""


class Initial(NamedTuple):
    """Weights to begin with, and where they are from."""

    path: str
    sha256: str
    words: str
    weights: Mapping[str, Tensor]
    raw: dict[str, Any]
    """A configuration that they fit."""
    narrow: str = ""
    """What they were before they became float32."""

    @property
    def record(self) -> dict[str, str]:
        """For the run's history."""
        return {"path": self.path, "sha256": self.sha256, "weights": self.words}

    def put_into(self, model: VAE, section: Mapping[str, Any]) -> list[str]:
        """Give the model, of these keys of ``model``, the weights; returns what there is to say of it, a line each.

        Raises:
            UserError: encoder or decoder has other weights, naming them.
        """
        own = model.state_dict()
        spoilt = sorted(name for name, tensor in self.weights.items() if not tensor.isfinite().all())
        if spoilt:
            raise UserError(
                f"--init {self.path}: holds numbers that are not finite: {_some(spoilt)}; give other weights"
            )
        wrong = [name for name, tensor in self.weights.items() if name in own and own[name].shape != tensor.shape]
        lacking, surplus = own.keys() - self.weights.keys(), self.weights.keys() - own.keys()
        faults = {
            "it lacks": sorted(name for name in lacking if name.startswith(NETWORKS)),
            "it has, and the model has not,": sorted(name for name in surplus if name.startswith(NETWORKS)),
            "of another shape:": sorted(name for name in wrong if name.startswith(NETWORKS)),
        }
        said = [f"{what} {_some(names)}" for what, names in faults.items() if names]
        if said:
            raise UserError(
                f"--init {self.path}: its networks are not this model's: {'; '.join(said)}; take its model.network, "
                "model.z_channels and channels of images, or leave -c out"
            )
        with torch.no_grad():
            for name, tensor in self.weights.items():
                if name in own and name not in wrong:
                    own[name].copy_(tensor)
        anew = sorted(name for name in {*lacking, *wrong} if name in own)
        notes = [f"begins with the weights of {self.words} ({self.sha256[:8]})"]
        if self.narrow:
            notes.append(f"note: they are {self.narrow} there, and float32 here")
        if anew:
            notes.append(f"note: begins anew, since the weights lack it or have it in another shape: {_some(anew)}")
        if surplus:
            notes.append(f"note: of no use here, and left out: {_some(sorted(surplus))}")
        theirs = configuration.resolve(self.raw).model
        for key, ours, other in (
            ("likelihood.link", section["likelihood"].get("link"), theirs["likelihood"].get("link")),
            ("value_range", _pair(section["value_range"]), _pair(theirs["value_range"])),
        ):
            if ours != other:
                notes.append(f"note: model.{key} is {ours} here, and the weights were trained with {other}")
        return notes


def read_initial(path: Path) -> Initial:
    """What ``--init`` stands for: a run folder, a checkpoint, a weights file, or a diffusers folder.

    Raises:
        UserError: there is none of these, or it is damaged.
    """
    where = str(path.expanduser().absolute())
    if (path / diffusers_folder.CONFIG).is_file():
        found = diffusers_folder.read_folder(path)
        sha256 = files.checksum(path / diffusers_folder.WEIGHTS)
        model = {
            "network": found.network,
            "z_channels": found.z_channels,
            "likelihood": {"kind": "laplace", "link": "identity"},
        }
        raw = {"method": "kl_vae", "data": configuration.DEFAULTS["data"], "model": model}
        return Initial(where, sha256, f"the diffusers folder {path}", found.weights, raw, found.narrow)
    if (path / diffusers_folder.WEIGHTS).is_file():
        raise UserError(
            f"--init {path}: holds {diffusers_folder.WEIGHTS} without {diffusers_folder.CONFIG}, which says what "
            "network it is of; fetch both"
        )
    named, (tensors, metadata, sha256) = open_weights(path, None)
    if "config" not in metadata:
        raise UserError(f"--init {path}: carries no configuration; give a run, its checkpoint, or a diffusers folder")
    raw = configuration.of_weights(metadata, str(named.path))
    words = named.words or f"step {metadata.get('step')}"
    return Initial(where, sha256, f"{path}, {words}", tensors, raw)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _pair(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(value)
