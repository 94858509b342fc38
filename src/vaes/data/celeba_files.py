"""CelebA, the aligned and cropped release, in its own files and in those of the site that ships its lists as CSV."""

import csv
import os
from collections.abc import Iterator
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.decoding import Wanted, decisions, decode_all
from vaes.data.images import Annotations, image_set
from vaes.data.picture_files import Files
from vaes.data.resize import height_width
from vaes.data.roots import open_files, regular
from vaes.data.splits import Splits, report
from vaes.errors import UserError

__all__ = ["celeba"]

MAX_TEXT = 2**28

ALIGNED = (218, 178)
CROP = (25, 57, 153, 185)
"""128 x 128 pixels around (x, y) = (89, 121): the face, where the aligned release puts it."""

PICTURES = ("img_align_celeba", "img_align_celeba_png")
"""Where the pictures lie, by rank: as JPEG, or as PNG."""

SUFFIXES = (".jpg", ".jpeg", ".png")


def celeba(*, root: str, image_size: int | tuple[int, int] = 64, attribute: str | None = None) -> Splits:
    """CelebA: 202,599 faces in colour, with the release's own train, validation and test splits.

    `root` holds `img_align_celeba` or `img_align_celeba_png` (a folder, with or without another of its name inside, or
    a zip), `list_eval_partition` and, for `attribute`, `list_attr_celeba` (`.txt` as released, or `.csv`); or it is a
    zip of all that. The 178 x 218 pictures are cropped to the 128 x 128 pixels around (89, 121) and resized
    bilinearly with antialiasing to `image_size`; what is decoded is cached. `attribute` (Smiling, say) makes labels of
    one attribute: 0 without, 1 with. Flips belong to training: see `Batches.read`.

    Raises UserError for a missing file, a line that cannot be read, a .txt and a .csv that contradict each other, an
    image that is missing, in no list, damaged or of another size, an unknown attribute.

    "Deep learning face attributes in the wild", Liu, Luo, Wang and Tang, 2015, https://arxiv.org/abs/1411.7766.

    Args:
        root: the folder of the aligned release and its lists, or a zip of it.
        image_size: a side, or height and width, that the crop of 128x128 around the face is resized to.
        attribute: the attribute that makes labels (Smiling, say); null for none.
    """
    with closing(_Release(Path(root))) as release:
        partition = _partition(release)
        labels = None if attribute is None else _attribute(release, attribute, partition)
        files, pictures = release.pictures()
        names = _names(files, pictures, partition)
        wanted = Wanted(3, height_width(image_size), advice="replace it", box=CROP, box_of=ALIGNED)

        def build(writer: RowWriter) -> dict[str, Any]:
            return decode_all(files, names, wanted, writer, strict=True)

        decoded = cached("celeba", {"files": files.fingerprint, "names": names, "wanted": wanted}, build)
    hashes = torch.tensor(decoded.info["hashes"], dtype=torch.int64)
    label_names = () if labels is None else (f"not {attribute}", f"{attribute}")
    whole = image_set(decoded.images, Annotations(labels, label_names, paths=tuple(names), hashes=hashes))
    of = torch.tensor(list(partition.rows.values()))
    train, valid, test = (whole.subset(torch.nonzero(of == split)[:, 0]) for split in range(3))
    said, warned, _ = decisions(decoded.info)
    cut = f"{'PNG, ' * names[0].endswith('.png')}the 128x128 around the face cut out of 218x178, and resized"
    warnings = [*release.warnings, *decoded.warnings, *warned]
    reading = report(train, valid, test, "the release's own", more=[cut, *said], warnings=warnings)
    return Splits(train, valid, test, reading)


class _Table(NamedTuple):
    """A list of the release: `columns`, and what stands in them for each picture, by its name in the release."""

    name: str
    columns: list[str]
    rows: dict[str, Any]


class _Release:
    """The files of the release: a folder with the pictures in a folder or a zip, or one zip of everything."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._all: Files | None = open_files(root) if os.path.isfile(root) else None
        if self._all is not None:
            self._all.begin()
        self._opened = self._all
        self.warnings: list[str] = []

    def close(self) -> None:
        """Let go of what was opened."""
        if self._opened is not None:
            self._opened.close()

    def pictures(self) -> tuple[Files, dict[str, list[str]]]:
        """Files, and the names in them of the pictures, by their names in the release."""
        if self._all is None:
            places = [self._root / f"{name}{end}" for name in PICTURES for end in ("", ".zip")]
            first, *rest = [path for path in places if os.path.exists(path)] or places[:1]
            self._opened = open_files(first)
            self.warnings = [f"{path} is there too, and is not read; {first.name} is" for path in rest]
        assert self._opened is not None
        names = [name for name in self._opened.sizes if name.lower().endswith(SUFFIXES)]
        if self._all is not None:
            by_place = ([name for name in names if place in name.split("/")[:-1]] for place in PICTURES)
            names = next(filter(None, by_place), [])
            if not names:
                raise UserError(f"data.root: {self._root} holds no folder {' or '.join(PICTURES)} with pictures")
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(_official(name), []).append(name)
        return self._opened, found

    def lists(self, name: str) -> dict[str, str]:
        """The texts of a list, of its .txt and of its .csv, by the paths that messages call them."""
        if self._all is None:
            paths = [path for end in (".txt", ".csv") if os.path.lexists(path := self._root / f"{name}{end}")]
            found = {str(path): _text(path) for path in paths}
        else:
            inside = [x for x in self._all.sizes if x.rpartition("/")[2] in (f"{name}.txt", f"{name}.csv")]
            found = {self._all.where(x): _inner_text(self._all, x) for x in inside}
        if not found:
            where = self._root / f"{name}.txt"
            raise UserError(
                f"data.root: {where} does not exist, nor as .csv; it belongs to the aligned release of CelebA"
            )
        return found


def _official(name: str) -> str:
    """What the release calls a picture, whatever folder it lies in and whatever its format is: 000001.jpg."""
    last = name.rpartition("/")[2]
    return f"{last.rpartition('.')[0] or last}.jpg"


def _names(files: Files, pictures: dict[str, list[str]], partition: _Table) -> list[str]:
    """The files of the pictures that a partition names, each of which is there once, and no others."""
    listed = partition.rows
    missing = [picture for picture in listed if picture not in pictures]
    if missing:
        raise UserError(
            f"{files.root}: lacks {len(missing)} of {len(listed)} images in {Path(partition.name).name}: "
            f"{missing[0]} (or .png)"
        )
    surplus = [picture for picture in pictures if picture not in listed]
    if surplus:
        raise UserError(
            f"{partition.name}: has no line for {len(surplus)} of {len(pictures)} images in {files.root}: "
            f"{pictures[surplus[0]][0]}; use the file of the release"
        )
    twice = next((found for found in pictures.values() if len(found) > 1), None)
    if twice:
        raise UserError(
            f"{files.root}: {_official(twice[0])} is there twice ({twice[0]}, {twice[1]}); remove one of them"
        )
    return [pictures[picture][0] for picture in listed]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEXT:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, more than {MAX_TEXT:,}; it is not the release's")
        regular(path, "data.root")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _inner_text(files: Files, name: str) -> str:
    try:
        return files.read(name).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{files.where(name)}: cannot be read ({error})") from error


def _lines(where: str, text: str) -> list[list[str]]:
    """The words of each line; empty lines at the end are passed over."""
    lines = text.rstrip().split("\n")
    if not where.endswith(".csv"):
        return [line.split() for line in lines]
    try:
        return [[word.strip() for word in words] for words in csv.reader(lines)] or [[]]
    except csv.Error as error:
        raise UserError(f"{where}: cannot be read ({error})") from error


def _agreed(tables: list[_Table]) -> _Table:
    """The first of tables that say the same."""
    first, *others = tables
    for other in others:
        if first.columns != other.columns:
            raise UserError(
                f"{first.name}: contradicts {Path(other.name).name}: {len(first.columns)} columns "
                f"({', '.join(first.columns[:3])}, ...) against {len(other.columns)} "
                f"({', '.join(other.columns[:3])}, ...); remove the one that is not the release's"
            )
        differing = [x for x in first.rows | other.rows if first.rows.get(x) != other.rows.get(x)]
        if differing:
            raise UserError(
                f"{first.name}: contradicts {Path(other.name).name} about {len(differing)} images, {differing[0]} for "
                "one; remove the one that is not the release's"
            )
    return first


def _rows(where: str, lines: list[list[str]], first: int) -> Iterator[tuple[int, str, list[str]]]:
    """The number of each line from `first` on, its picture and its words; a picture has one line."""
    seen = set()
    for number, words in enumerate(lines, start=first):
        picture = _official(words[0]) if words else ""
        if picture in seen:
            raise UserError(f"{where}: line {number} names {words[0]} again; use the file of the release")
        seen.add(picture)
        yield number, picture, words


def _partition(release: _Release) -> _Table:
    """0, 1 or 2 for each picture."""
    tables = []
    for where, text in release.lists("list_eval_partition").items():
        lines, begin, rows = _lines(where, text), 0, {}
        if where.endswith(".csv"):
            begin = 1
            if lines[0] != ["image_id", "partition"]:
                raise UserError(f"{where}: line 1 is {','.join(lines[0])!r}, not 'image_id,partition'")
        for number, picture, words in _rows(where, lines[begin:], begin + 1):
            if len(words) != 2 or words[1] not in ("0", "1", "2"):
                raise UserError(f"{where}: line {number} is {' '.join(words)!r}, not a file name and 0, 1 or 2")
            rows[picture] = int(words[1])
        tables.append(_Table(where, ["partition"], rows))
    found = _agreed(tables)
    for split, name in enumerate(("train", "valid", "test")):
        if split not in found.rows.values():
            raise UserError(f"{found.name}: no image has {split}, the {name} split; use the file of the release")
    return found


def _attributes(where: str, text: str) -> _Table:
    """A byte of 0 or 1 for each attribute of each picture."""
    lines = _lines(where, text)
    if where.endswith(".csv"):
        first, header, begin = lines[0][:1], lines[0][1:], 1
        if first != ["image_id"] or not header:
            raise UserError(f"{where}: line 1 is {','.join(lines[0])[:60]!r}, not 'image_id' and names of attributes")
    else:
        first, header, begin = lines[0], lines[1] if len(lines) > 1 else [], 2
        if first != [str(len(lines) - 2)] or not header:
            n = max(0, len(lines) - 2)
            raise UserError(f"{where}: line 1 is {' '.join(first)!r}, not the number of lines from the third on, {n}")
    rows = {}
    for number, picture, words in _rows(where, lines[begin:], begin + 1):
        if len(words) != 1 + len(header) or not {"-1", "1"}.issuperset(words[1:]):
            raise UserError(f"{where}: line {number} is not a file name and {len(header)} values of -1 or 1")
        rows[picture] = bytes(word == "1" for word in words[1:])
    return _Table(where, header, rows)


def _attribute(release: _Release, attribute: str, partition: _Table) -> torch.Tensor:
    """0 or 1 for each picture of a partition."""
    table = _agreed([_attributes(*found) for found in release.lists("list_attr_celeba").items()])
    header = table.columns
    if attribute not in header:
        near = get_close_matches(attribute, header, 1, 0)[0]
        raise UserError(
            f"data.attribute: {table.name} has no {attribute!r}; did you mean {near!r}? ({', '.join(header)})"
        )
    missing = [picture for picture in partition.rows if picture not in table.rows]
    if missing:
        raise UserError(f"{table.name}: has no line for {missing[0]}, which {Path(partition.name).name} names")
    column = header.index(attribute)
    return torch.from_numpy(np.array([table.rows[picture][column] for picture in partition.rows], np.int64))
