"""Anyone's images: a directory, or an archive of one."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from vaes.data.cache import Decoded, RowWriter, cached
from vaes.data.decode import Channels, Fit, formats
from vaes.data.decoding import Wanted, decisions, decode_all
from vaes.data.held_out import HeldOut, divide
from vaes.data.images import Annotations, image_set
from vaes.data.layout import FIRST_SPLITS, SPLITS, lay_out
from vaes.data.picture_files import Files, suffix
from vaes.data.resize import height_width
from vaes.data.roots import open_files
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["check_white", "folder"]

PARTS = ("train", "valid", "test")

FIRST_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Those that the first version read: the order of its images is that of these files."""


def folder(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = None,
    fit: Fit = "refuse",
    channels: Channels = "auto",
    white: int | None = None,
    skip_bad: bool = False,
    n_valid: int | None = None,
    n_test: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """The images in a directory, a zip or a tar, any depth; hidden files and `__MACOSX` are passed over. What is an
    image is found by content: see `vaes.data.decode.FORMATS`. Other files are skipped, and counted in the reading.

    Splits: the folders train, test and valid (or training, training_set, val, validation, testing and so on, in any
    case), where there are any; all images must then lie in them. What has no folder is held out of train: `held_out`
    by content is `hold_out_by_content`, a tenth (or `n_test`) for test, a twentieth of the rest (or `n_valid`) for
    validation (with a number, a set that grows may move images); by order is the rule of runs made before there was
    another, for the suffixes and names of folders that it knew. Labels: where every image lies in a folder
    of its split, those folders' names, sorted, are the labels; else there are none. A single folder at the top that
    holds everything is looked through.

    `image_size` is a side, or (height, width), to which images are resized bilinearly with antialiasing; None takes
    them as they are, all of one size. `fit` says what becomes of images of another shape. `channels`: "auto" is 1 if
    all images are grey, else 3. `white` is the value that becomes white, in files of 16 bits or, where there are none
    and it is 255 at most, of 8; None is 255, and in files of 16 bits the smallest of 255, 1023, 4095, 16383 and 65535
    that no value exceeds. See `decode_image` for transparency and the like. `skip_bad` leaves out images that do not
    decode. What is decoded is cached.

    Raises UserError for a missing or empty root, an image that does not decode, sizes that differ, and an archive that
    is damaged or points outside.

    Args:
        root: a directory, zip or tar of pictures.
        image_size: a side, or height and width, that all are brought to; null takes them as they are.
        fit: what becomes of pictures of another shape: refuse, crop to the middle, pad with black, stretch.
        channels: 1 is grey, 3 colour; auto is grey where all pictures are.
        white: the value that becomes white, in files of more than 8 bits; null finds it.
        skip_bad: leave out pictures that cannot be decoded, and count them.
        n_valid: how many are held out for validation; null is a twentieth.
        n_test: how many are held out for testing; null is a tenth.
        held_out: by what test and validation images are chosen: their content, so that none moves where a set grows, or
            their order, as in runs made before that was possible.
        seed: chooses the images that are held out.
    """
    check_white(white)
    wanted = Wanted(channels, height_width(image_size), fit, white, skip_bad)
    known = SPLITS if held_out == "content" else FIRST_SPLITS
    with closing(open_files(Path(root))) as files:
        decoded = _decoded(files, wanted, held_out, lambda names: lay_out(root, names, files.folders, known))
    info = decoded.info
    layout = lay_out(root, info["kept"], info["folders"], known)
    hashes = torch.tensor(info["hashes"], dtype=torch.int64)
    notes = Annotations(layout.labels, layout.label_names, paths=tuple(info["kept"]), hashes=hashes)
    whole = image_set(decoded.images, notes)
    train, valid, test = (whole.subset(rows) if len(rows) else None for rows in map(layout.rows, PARTS))
    divided = divide(train or whole, valid, test, n_valid, n_test, seed, held_out)
    said = decisions(info)
    return divided.splits(
        no_labels=layout.no_labels,
        more=said.said,
        warnings=[*decoded.warnings, *layout.warnings, *said.warnings],
        white=said.white,
    )


def check_white(white: int | None) -> None:
    """UserError unless it is a value that white can be."""
    if white is not None and not 1 <= white <= 65535:
        raise UserError(f"data.white: {white} is not a value that can be white; use 1 to 65535, or null")


def _decoded(files: Files, wanted: Wanted, held_out: HeldOut, check: Callable[[Sequence[str]], object]) -> Decoded:
    first = held_out == "order"

    def build(writer: RowWriter) -> dict[str, Any]:
        files.begin()
        names = [name for name in files.sizes if not first or suffix(name) in FIRST_SUFFIXES]
        info = decode_all(files, names, wanted, writer, check)
        untried = Counter(suffix(name) for name in files.sizes.keys() - set(names))
        return {**info, "folders": files.folders, "skipped": dict(Counter(info["skipped"]) + untried)}

    return cached("folder", {"files": files.fingerprint, "formats": formats(), "wanted": wanted, "first": first}, build)
