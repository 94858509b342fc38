"""Shards to splits: all of their images in the ordinary store, or those looked at first, which stand for a stream."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch

from vaes.data.array_values import encode_labels
from vaes.data.cache import RowWriter, cached, scratch
from vaes.data.decode import Recipe, formats
from vaes.data.decoding import Wanted, decisions, decode_all
from vaes.data.held_out import divide, hashes_of
from vaes.data.images import Annotations, ImageSet, image_set
from vaes.data.picture_files import Files
from vaes.data.splits import Splits
from vaes.data.stream import DamagedShardError, Sample, Shards, Stream, ahead
from vaes.data.tar_files import window
from vaes.data.temporary import remove
from vaes.errors import UserError

__all__ = ["Streaming", "shard_splits"]

LOOKED_AT = 16
"""Shards, spread over all, whose first images are looked at before a stream begins."""


class Streaming(NamedTuple):
    """How shards are read: `streaming` says whether they are, and the rest how."""

    streaming: bool
    shuffle_buffer: int
    first: int
    timeout: float
    length: int | None

    def check(self) -> None:
        """UserError where a number makes no sense."""
        for name, value, least in (
            ("shuffle_buffer", self.shuffle_buffer, 1),
            ("first", self.first, 3),
            ("length", self.length, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"data.{name}: {value} is too few; it must be {least} or more")
        if not self.timeout > 0:
            raise UserError(f"data.timeout: {self.timeout:g} s; it must be above 0")


class _Samples(Files):
    """The samples of shards as files, in their order, their bytes in a file of the cache's folder while it is open."""

    def __init__(self, shards: Shards, how: Streaming, skip_bad: bool) -> None:
        super().__init__(Path(shards.label))
        self._shards, self._how, self._skip_bad = shards, how, skip_bad
        self._at: dict[str, int] = {}
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._where = shards.label
        self.labels: dict[str, int | str | None] = {}
        self.damaged: list[str] = []
        self.more = False

    def begin(self) -> None:
        """Read the shards: all of them, or the first samples of some."""
        self._path = scratch("shards")
        sizes: dict[str, int] = {}
        with self._path.open("wb") as file:
            for shard, sample in ahead(self._samples(), self._how.timeout, lambda: self._where):
                name = f"{shard}/{sample.name}"
                if name in sizes:
                    raise UserError(f"{name}: is there twice; give samples names of their own")
                self._at[name], sizes[name] = file.tell(), len(sample.content)
                self.labels[name] = sample.label
                file.write(sample.content)
        self.sizes = sizes
        self._file = self._path.open("rb")

    def open(self, name: str) -> IO[bytes]:
        """A sample to read in."""
        assert self._file is not None
        return window(self._file.fileno(), self._at[name], self.sizes[name])

    def where(self, name: str) -> str:
        """Its shard and its name there."""
        return name or self.label

    def close(self) -> None:
        """Let go of the bytes."""
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            remove(self._path)

    def _samples(self) -> Iterator[tuple[str, Sample]]:
        n = len(self._shards.names)
        chosen, each = list(range(n)), None
        if self._how.streaming:
            chosen = np.unique(np.linspace(0, n - 1, min(n, LOOKED_AT)).astype(int)).tolist()
            each = -(-self._how.first // len(chosen))
            self.more = len(chosen) < n
        for shard in chosen:
            name = self._where = self._shards.names[shard]
            try:
                for i, sample in enumerate(self._shards.samples(shard)):
                    if i == each:
                        self.more = True
                        break
                    yield name, sample
            except DamagedShardError as error:
                if not self._skip_bad:
                    raise DamagedShardError(
                        f"{name}: damaged ({error}); replace it, or set data.skip_bad to true"
                    ) from error
                self.damaged.append(f"{name}: {error}")


class _Part(NamedTuple):
    images: ImageSet
    info: dict[str, Any]
    warnings: tuple[str, ...]


def shard_splits(
    kind: str,
    parts: Mapping[str, Shards],
    wanted: Wanted,
    how: Streaming,
    *,
    label: str | None,
    n_valid: int | None,
    n_test: int | None,
    seed: int,
) -> Splits:
    """The splits of `parts` (train and, where the set has its own, valid and test).

    Without streaming all images are decoded into the cache, as a folder's are. With it those of `how.first` are, and
    train stands for a stream of all others: what is held out is chosen among those looked at, by content, and no image
    that shows the same is trained on.
    """
    how.check()
    read: dict[str, _Part] = {}
    for name in ("train", "valid", "test"):
        if name in parts:
            read[name] = _read(kind, parts[name], wanted, how)
            h, w = read["train"].images.shape[1:]
            info = read["train"].info
            size = (h, w) if wanted.size is not None else None
            wanted = wanted._replace(channels=read["train"].images.shape[0], size=size)  # type: ignore[arg-type]
            wanted = wanted._replace(white=wanted.white or (info["white"] if info["deep"] else None))
            if read[name].images.shape != read["train"].images.shape:
                raise UserError(f"data: {name} has images of another size than train; set data.image_size")
    unlabelled = [text for name, part in read.items() if (text := _unlabelled(name, part, label))]
    labels = {name: (_labels(part), len(part.images)) for name, part in read.items()}
    names = parts["train"].label_names
    texts = any(isinstance(y, list) and y and isinstance(y[0], str) for y, _ in labels.values())
    numbers, label_names = encode_labels(labels, () if texts else names)
    sets = {
        name: part.images.annotated(
            part.images.notes._replace(labels=numbers[name], label_names=() if numbers[name] is None else label_names)
        )
        for name, part in read.items()
    }
    divided = divide(sets["train"], sets.get("valid"), sets.get("test"), n_valid, n_test, seed)
    said, warned = decisions(read["train"].info)[:2]
    damaged = [text for part in read.values() for text in part.info["damaged"]]
    if damaged:
        warned = (*warned, f"data.skip_bad: {len(damaged)} damaged shards, read as far as they go: {damaged[0]}")
    stream = None
    if how.streaming:
        recipe = _recipe(read["train"].info["recipe"])
        held = torch.cat([hashes_of(divided.valid), hashes_of(divided.test)])
        length = how.length or parts["train"].length
        kept = sum(len(getattr(divided, name)) for name in ("valid", "test") if name not in parts)
        stream = Stream(
            parts["train"], recipe, divided.train.shape, held,
            buffer=how.shuffle_buffer, timeout=how.timeout, skip_bad=wanted.skip_bad,
            length=None if length is None else max(1, length - kept),
        )  # fmt: skip
        n = len(parts["train"].names)
        many = f"{stream.length:,} images" if stream.length else "images"
        first = (
            f"{many} streamed from {n:,} shard{'s' * (n != 1)} through a buffer of {how.shuffle_buffer:,}; the "
            f"{len(divided.train):,} of train are those looked at first, and stand for all where it is evaluated"
        )
        cut = [
            f"{name} is the first {len(part.images):,} images of {parts[name].label} (data.first), and not all of them"
            for name, part in read.items()
            if name != "train" and part.info["more"]
        ]
        said = (first, *cut, *said)
    if remark := parts["train"].remark:
        said = (*said, remark)
    warnings = [*(text for part in read.values() for text in part.warnings), *warned, *unlabelled]
    return replace(divided.splits(more=said, warnings=warnings), stream=stream)


def _read(kind: str, shards: Shards, wanted: Wanted, how: Streaming) -> _Part:
    with closing(_Samples(shards, how, wanted.skip_bad)) as files:

        def build(writer: RowWriter) -> dict[str, Any]:
            files.begin()
            info = decode_all(files, list(files.sizes), wanted, writer)
            labels = [files.labels[name] for name in info["kept"]]
            return {**info, "labels": labels, "damaged": files.damaged, "more": files.more}

        first = [how.first] if how.streaming else []
        key = {"shards": shards.stamp, "formats": formats(), "wanted": wanted, "looked at": first}
        decoded = cached(kind, key, build)
    info = decoded.info
    hashes = torch.tensor(info["hashes"], dtype=torch.int64)
    images = image_set(decoded.images, Annotations(paths=tuple(info["kept"]), hashes=hashes))
    return _Part(images, info, decoded.warnings)


def _unlabelled(name: str, part: _Part, label: str | None) -> str:
    """What is said where some images have labels and others have none, so that all of them go; UserError where
    `label` was asked for by its name."""
    found = part.info["labels"]
    none = sum(one is None for one in found)
    if none == 0 or (none == len(found) and (label is None or name != "train")):
        return "" if none == 0 or label is None else f"{name}: no image has a label {label!r}"
    example = part.info["kept"][next(i for i, one in enumerate(found) if one is None)]
    said = f"{name}: {none:,} of {len(found):,} images have no label"
    if label is not None:
        raise UserError(
            f"data.label: {said} {label!r} that is a whole number or a text ({example}); give each one, or leave "
            "data.label out"
        )
    return f"{said} ({example}): none is kept"


def _labels(part: _Part) -> Any:
    found = part.info["labels"]
    return None if any(label is None for label in found) else np.array(found)


def _recipe(said: Mapping[str, Any]) -> Recipe:
    values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in said.items()}
    return Recipe(**values)
