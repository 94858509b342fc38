"""Pictures that a user names, for a model that is trained."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.decode import Channels, Fit, formats, image_suffixes
from vaes.data.decoding import Wanted, decisions, decode_all
from vaes.data.images import Annotations, ImageSet, image_set
from vaes.data.picture_files import Files, digest, stamp, suffix
from vaes.data.picture_folder import check_white
from vaes.data.roots import is_picture, open_files, regular
from vaes.data.splits import Reading
from vaes.errors import UserError

__all__ = ["pictures"]


def pictures(
    paths: Sequence[str | Path],
    shape: tuple[int, int, int],
    *,
    fit: Fit = "refuse",
    white: int | None = None,
    skip_bad: bool = False,
    own_size: bool = False,
) -> tuple[ImageSet, Reading]:
    """The pictures at `paths` (files, directories, zips, tars) as images of `shape` (C, H, W), in this order; those of
    a directory or an archive sorted by name.

    `notes.paths` are the paths as they were given, followed by the names inside; `fit`, `white` and `skip_bad` are
    those of `folder`; with `own_size` pictures that are all of one size keep it. What is decoded is
    cached. Raises UserError for a path that is missing or holds no picture.
    """
    check_white(white)
    c, h, w = shape
    if c not in (1, 3):
        raise UserError(f"the model takes images of {c} channels, which no picture has")
    if not paths:
        raise UserError("no pictures are given; name files, directories, zips or tars")
    channels: Channels = 1 if c == 1 else 3
    advice = "remove it, or give the others alone"
    wanted = Wanted(channels, (h, w), fit, white, skip_bad, advice, asked="the model's images,", own=own_size)
    with ExitStack() as stack:
        sources = [_open(Path(path)) for path in paths]
        for source in sources:
            stack.callback(source.close)
        together = _Together(sources)

        def build(writer: RowWriter) -> dict[str, Any]:
            together.begin()
            return decode_all(together, list(together.sizes), wanted, writer)

        decoded = cached("pictures", {"files": together.fingerprint, "formats": formats(), "wanted": wanted}, build)
    info = decoded.info
    notes = Annotations(paths=tuple(info["kept"]), hashes=torch.tensor(info["hashes"], dtype=torch.int64))
    said, warned, found = decisions(info)
    n, (h, w) = len(info["kept"]), decoded.images.shape[2:]
    sentence = f"{n:,} image{'s' * (n != 1)} {h}x{w} {'grey' if c == 1 else 'colour'}"
    reading = Reading("; ".join([sentence, *said]), (*decoded.warnings, *warned), found)
    return image_set(decoded.images, notes), reading


class _OneFile(Files):
    """A single picture."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sizes = {"": path.stat().st_size}
        self.fingerprint = digest(stamp(path))

    def open(self, name: str) -> IO[bytes]:
        """The file to read in."""
        return self.root.open("rb")


class _Together(Files):
    """Several sources as one, each file by the path that leads to it."""

    def __init__(self, sources: Sequence[Files]) -> None:
        super().__init__(Path())
        self.label = "pictures"
        self._sources = sources
        self._of: dict[str, tuple[Files, str]] = {}
        self.fingerprint = digest([[str(source.root), source.fingerprint] for source in sources])

    def begin(self) -> None:
        """List the files of all."""
        for source in self._sources:
            source.begin()
            for name, size in source.sizes.items():
                path = source.where(name)
                self._of[path], self.sizes[path] = (source, name), size
            self.unusable |= {source.where(name): why for name, why in source.unusable.items()}

    def open(self, name: str) -> IO[bytes]:
        """A file to read in; OSError where it cannot be."""
        source, inner = self._of[name]
        return source.open(inner)

    def where(self, name: str) -> str:
        """The path of a file."""
        return name


def _open(path: Path) -> Files:
    try:
        if path.is_file() and (suffix(path.name) in image_suffixes() or is_picture(path)):
            regular(path, str(path))
            return _OneFile(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}); check it") from error
    return open_files(path, "pictures")
