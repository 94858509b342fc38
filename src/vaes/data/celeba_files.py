"""CelebA, the aligned and cropped release."""

import os
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaes.data.cache import RowWriter, cached
from vaes.data.decoding import Wanted, decisions, decode_all
from vaes.data.images import Annotations, image_set
from vaes.data.resize import height_width
from vaes.data.roots import open_files, regular
from vaes.data.splits import Splits, report
from vaes.errors import UserError

__all__ = ["celeba"]

MAX_TEXT = 2**28

ALIGNED = (218, 178)
CROP = (25, 57, 153, 185)
"""128 x 128 pixels around (x, y) = (89, 121): the face, where the aligned release puts it."""


def celeba(*, root: str, image_size: int | tuple[int, int] = 64, attribute: str | None = None) -> Splits:
    """CelebA: 202,599 faces in colour, with the release's own train, validation and test splits.

    `root` holds `img_align_celeba/` (or `img_align_celeba.zip`), `list_eval_partition.txt` and, for `attribute`,
    `list_attr_celeba.txt`. The 178 x 218 pictures are cropped to the 128 x 128 pixels around (89, 121) and resized
    bilinearly with antialiasing to `image_size`; what is decoded is cached. `attribute` (Smiling, say) makes labels of
    one attribute: 0 without, 1 with. Flips belong to training: see `Batches.read`.

    Raises UserError for a missing file, a line that cannot be read, an image that is missing, damaged or of another
    size, an unknown attribute.

    "Deep learning face attributes in the wild", Liu, Luo, Wang and Tang, 2015, https://arxiv.org/abs/1411.7766.

    Args:
        root: the folder of the aligned release and its lists.
        image_size: a side, or height and width, that the crop of 128x128 around the face is resized to.
        attribute: the attribute that makes labels (Smiling, say); null for none.
    """
    base = Path(root)
    partition = _partition(base / "list_eval_partition.txt")
    labels = None if attribute is None else _attribute(base / "list_attr_celeba.txt", attribute, list(partition))
    folder, archive = base / "img_align_celeba", base / "img_align_celeba.zip"
    with closing(open_files(archive if os.path.isfile(archive) and not os.path.isdir(folder) else folder)) as files:
        found = {name.rpartition("/")[2]: name for name in files.sizes}
        missing = [name for name in partition if name not in found]
        if missing:
            raise UserError(
                f"{files.root}: lacks {len(missing)} of {len(partition)} images in list_eval_partition.txt:"
                f" {missing[0]}"
            )
        names = [found[name] for name in partition]
        wanted = Wanted(3, height_width(image_size), advice="replace it", box=CROP, box_of=ALIGNED)

        def build(writer: RowWriter) -> dict[str, Any]:
            return decode_all(files, names, wanted, writer, strict=True)

        decoded = cached("celeba", {"files": files.fingerprint, "names": names, "wanted": wanted}, build)
    hashes = torch.tensor(decoded.info["hashes"], dtype=torch.int64)
    label_names = () if labels is None else (f"not {attribute}", f"{attribute}")
    whole = image_set(decoded.images, Annotations(labels, label_names, paths=tuple(names), hashes=hashes))
    of = torch.tensor(list(partition.values()))
    train, valid, test = (whole.subset(torch.nonzero(of == split)[:, 0]) for split in range(3))
    said, warned, _ = decisions(decoded.info)
    cut = "the 128x128 around the face cut out of 218x178, and resized"
    reading = report(train, valid, test, "the release's own", more=[cut, *said], warnings=[*decoded.warnings, *warned])
    return Splits(train, valid, test, reading)


def _lines(path: Path) -> list[list[str]]:
    """The words of each line; empty lines at the end are passed over."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, more than {MAX_TEXT:,}; it is not the release's")
        regular(path, "data.root")
        return [line.split() for line in path.read_text().rstrip().split("\n")]
    except FileNotFoundError as error:
        raise UserError(f"data.root: {path} does not exist; it belongs to the aligned release of CelebA") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _partition(path: Path) -> dict[str, int]:
    partition = {}
    for number, words in enumerate(_lines(path), start=1):
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise UserError(f"{path}: line {number} is {' '.join(words)!r}, not a file name and 0, 1 or 2")
        partition[words[0]] = int(words[1])
    for split, name in enumerate(("train", "valid", "test")):
        if split not in partition.values():
            raise UserError(f"{path}: no image has {split}, the {name} split; use the file of the release")
    return partition


def _attribute(path: Path, attribute: str, names: list[str]) -> torch.Tensor:
    """0 or 1 for each of `names`."""
    lines = _lines(path)
    first, header, rows = lines[0], lines[1] if len(lines) > 1 else [], lines[2:]
    if first != [str(len(rows))] or not header:
        raise UserError(
            f"{path}: line 1 is {' '.join(first)!r}, not the number of lines from the third on, {len(rows)}"
        )
    if attribute not in header:
        near = get_close_matches(attribute, header, 1, 0)[0]
        raise UserError(f"data.attribute: {path} has no {attribute!r}; did you mean {near!r}? ({', '.join(header)})")
    column = 1 + header.index(attribute)
    values = {}
    for number, words in enumerate(rows, start=3):
        if len(words) != 1 + len(header) or words[column] not in ("-1", "1"):
            raise UserError(f"{path}: line {number} is not a file name and {len(header)} values of -1 or 1")
        values[words[0]] = words[column] == "1"
    missing = [name for name in names if name not in values]
    if missing:
        raise UserError(f"{path}: has no line for {missing[0]}, which list_eval_partition.txt names")
    return torch.from_numpy(np.array([values[name] for name in names], np.int64))
