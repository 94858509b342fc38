"""Omniglot: characters of fifty alphabets, from the two archives of the release."""

import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
import torch
from PIL import Image

from vaes.data.held_out import HeldOut
from vaes.data.images import Annotations
from vaes.data.picture_files import ZipFiles
from vaes.data.published import Chunk, Published, keep, splits
from vaes.data.splits import Splits
from vaes.errors import UserError

__all__ = ["omniglot"]

OMNIGLOT = Published(
    "Omniglot",
    "https://github.com/brendenlake/omniglot (python/)",
    ("", "omniglot-py"),
    {
        "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
        "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
    },
)
PARTS = ("images_background.zip", "images_evaluation.zip")
MEMBER = re.compile(r"(?:.*/)?([^/]+)/(character\d+)/[^/]+\.png")
SIDE = 105


def omniglot(
    *,
    root: str,
    image_size: int | tuple[int, int] | None = 28,
    n_valid: int | None = None,
    held_out: HeldOut = "content",
    seed: int = 0,
) -> Splits:
    """Omniglot: 1,623 characters of 50 alphabets, drawn by 20 people each: 32,460 grey images 105x105, white on black
    (the files are black on white). The release's 30 background alphabets train, the 20 for evaluation test; labels are
    the alphabets.

    "Human-level concept learning through probabilistic program induction", Lake, Salakhutdinov and Tenenbaum, 2015,
    https://doi.org/10.1126/science.aab3050.

    Args:
        root: the folder of images_background.zip and images_evaluation.zip.
        image_size: a side, or height and width, that images are resized to; null takes them as they are.
        n_valid: how many training images are held out for validation; null is a twentieth.
        held_out: by what validation images are chosen: their content, or their order.
        seed: chooses the images that are held out.
    """
    paths = OMNIGLOT.find(root, PARTS)
    alphabets: list[list[str]] = []
    kept = []
    for name in PARTS:
        with closing(ZipFiles(paths[name])) as files:
            members = [(match[1], member) for member in files.sizes if (match := MEMBER.fullmatch(member))]
            if not members:
                raise UserError(f"{paths[name]}: holds no ALPHABET/characterNN/*.png; it is not the release's")

            def chunks(files: ZipFiles = files, members: list[tuple[str, str]] = members) -> Iterator[Chunk]:
                return ((_drawing(files, member)[None, None], None) for _, member in members)

            kept.append(keep(OMNIGLOT, (paths[name],), image_size, chunks, partial(len, members)))
            alphabets.append([alphabet for alphabet, _ in members])
    names = tuple(sorted({alphabet for part in alphabets for alphabet in part}))
    number = {name: i for i, name in enumerate(names)}
    train, test = (
        one.as_set(Annotations(torch.tensor([number[name] for name in part]), names))
        for one, part in zip(kept, alphabets, strict=True)
    )
    warned = [text for one in kept for text in one.warnings]
    return splits(
        train, test, was=kept[0].was, image_size=image_size, n_valid=n_valid, held_out=held_out, seed=seed,
        warnings=warned,
    )  # fmt: skip


def _drawing(files: ZipFiles, member: str) -> np.ndarray:
    """A picture (105, 105), white on black."""
    try:
        with Image.open(io.BytesIO(files.read(member)), formats=["PNG"]) as picture:
            if picture.size != (SIDE, SIDE):
                raise ValueError(f"{picture.width}x{picture.height} pixels, not {SIDE}x{SIDE}")
            return 255 - np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{files.where(member)}: no picture of the release ({why}); replace the archive") from error
