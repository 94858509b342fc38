"""Which images each split of a source holds."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaes.data.hashing import content_hashes
from vaes.data.images import ImageSet
from vaes.data.splits import Splits
from vaes.errors import UserError
from vaes.files import read_tensors, write_tensors

__all__ = ["Identity", "identify"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Identity:
    """The images of each split by their content; neither paths nor order nor how they are resized count."""

    hashes: Mapping[str, Tensor | None]
    """(N,) int64 of each split, sorted; None where a `definition` tells the images."""
    definitions: Mapping[str, str | None]

    @property
    def fingerprints(self) -> dict[str, str]:
        """16 hexadecimal digits of each split."""
        return {name: _fingerprint(self.hashes[name], self.definitions[name]) for name in SPLITS}

    def difference(self, old: "Identity") -> str | None:
        """What became of `old`, in one sentence; None where the images are the same."""
        if self.fingerprints == old.fingerprints:
            return None
        other = [name for name in SPLITS if self.hashes[name] is None or old.hashes[name] is None]
        changed = [name for name in other if self.fingerprints[name] != old.fingerprints[name]]
        if changed:
            return f"{' and '.join(changed)}: other images altogether"
        came = {name: _without(self._counts(name), old._counts(name)) for name in SPLITS}
        went = {name: _without(old._counts(name), self._counts(name)) for name in SPLITS}
        said = []
        for a in SPLITS:
            for b in SPLITS:
                if a != b and (n := _take_common(went[a], came[b])):
                    said.append(_words(n, "moved", f"from {a} to {b}"))
        added = [_words(sum(came[name].values()), "added", f"to {name}") for name in SPLITS if came[name]]
        gone = [_words(sum(went[name].values()), "gone", f"from {name}") for name in SPLITS if went[name]]
        first, *more = [*added, *gone, *said]
        count, _, rest = first.partition(" ")
        return ", ".join([f"{count} image{'s' * (count != '1')} {rest}", *more])

    def write(self, path: Path) -> None:
        """Write it as safetensors, 8 bytes an image; UserError where the disk does not take it."""
        tensors = {name: x for name, x in self.hashes.items() if x is not None}
        write_tensors(path, tensors, {"definitions": dict(self.definitions), "fingerprints": self.fingerprints})

    @classmethod
    def read(cls, path: Path) -> "Identity":
        """Read what `write` wrote; UserError where it is missing or damaged."""
        tensors, metadata = read_tensors(path)
        definitions = metadata.get("definitions")
        if isinstance(definitions, dict) and set(definitions) == set(SPLITS) and _sound(tensors, definitions):
            found = cls({name: tensors.get(name) for name in SPLITS}, definitions)
            if found.fingerprints == metadata.get("fingerprints"):
                return found
        raise UserError(f"{path}: damaged, or not what a run knows its images by; copy it anew from where it was made")

    def _counts(self, name: str) -> dict[int, int]:
        hashes = self.hashes[name]
        if hashes is None:  # the same in both
            return {}
        values, counts = np.unique(hashes.numpy(), return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


def identify(splits: Splits) -> Identity:
    """The identity of a source: from the hashes that it took of its files, or of the images themselves where it has
    none; sets that are drawn and not stored are known by what defines them."""
    parts = dict(zip(SPLITS, splits, strict=True))
    definitions = {name: None if x.notes.hashes is not None else x.definition() for name, x in parts.items()}
    hashes = {name: _hashes(x) if definitions[name] is None else None for name, x in parts.items()}
    return Identity(hashes, definitions)


def _hashes(images: ImageSet) -> Tensor:
    if images.notes.hashes is not None:
        return images.notes.hashes.sort().values
    found = [content_hashes(images.read(rows).cpu().numpy()) for rows in torch.arange(len(images)).split(1024)]
    return torch.from_numpy(np.concatenate(found)).sort().values


def _fingerprint(hashes: Tensor | None, definition: str | None) -> str:
    content = (definition or "").encode() if hashes is None else hashes.numpy().astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _sound(tensors: Mapping[str, Tensor], definitions: Mapping[str, Any]) -> bool:
    for name, definition in definitions.items():
        hashes = tensors.get(name)
        if (hashes is None) != isinstance(definition, str):
            return False
        if hashes is not None and (definition is not None or hashes.dtype != torch.int64 or hashes.ndim != 1):
            return False
    return True


def _without(a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
    return {key: n - b.get(key, 0) for key, n in a.items() if n > b.get(key, 0)}


def _take_common(a: dict[int, int], b: dict[int, int]) -> int:
    """How many images both have; they are taken out of both."""
    total = 0
    for key in a.keys() & b.keys():
        n = min(a[key], b[key])
        total += n
        for counts in (a, b):
            counts[key] -= n
            if not counts[key]:
                del counts[key]
    return total


def _words(n: int, what: str, where: str) -> str:
    return f"{n:,} {what} {where}"
