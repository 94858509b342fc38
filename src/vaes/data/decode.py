"""Image files to uint8 arrays, in parallel."""

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import chain, islice
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from vaes.data.cache import RowWriter
from vaes.data.picture_files import Files
from vaes.data.resize import Box, crop_box
from vaes.errors import UserError

__all__ = ["Channels", "Recipe", "decode_all", "decode_image"]

Channels = Literal["auto", 1, 3]

MAX_PIXELS = 2**26
"""A picture that announces more is refused before it is decoded: a small file can announce any number."""

SMALL_BYTES = 4096
"""Files smaller than this decode so fast that threads mostly wait for the interpreter: two are then slower than one."""

CHUNK = 64
"""Images decoded by one call: enough to make the calls' cost small, few enough for all threads to end together."""

S = TypeVar("S")
T = TypeVar("T")


class Recipe(NamedTuple):
    """How each image of a set is decoded."""

    channels: Channels
    size: tuple[int, int] | None
    """(H, W), or None for the size that all images have."""
    box: Box | None = None
    """What is cut out of each image before it is resized; None: the largest centred box with the aspect of `size`."""
    box_of: tuple[int, int] | None = None
    """The (H, W) that images must have for `box` to mean anything."""


class _Bad(NamedTuple):
    why: str


def decode_all(
    files: Files, names: Sequence[str], recipe: Recipe, writer: RowWriter, skip_bad: bool | None = None
) -> list[str]:
    """Decode the files `names` in order into `writer` and return the names of those left out.

    An image that cannot be decoded is a UserError that names it, or is left out with `skip_bad` (None where the user
    has no such choice). Without a size in the recipe all images must have the same one.
    """
    bad: list[str] = []
    first: tuple[str, tuple[int, ...]] | None = None
    with closing(_decode_chunks(files, names, recipe)) as chunks:
        for name, image in chain.from_iterable(chunks):
            if isinstance(image, _Bad):
                if not skip_bad:
                    advice = "replace it" if skip_bad is None else "remove it, or set data.skip_bad to true"
                    raise UserError(f"{files.root}/{name}: cannot be decoded ({image.why}); {advice}")
                bad.append(name)
                continue
            first = first or (name, image.shape)
            _same_size(files, first, name, image.shape)
            writer.append(image[None])
    if first is None:
        raise UserError(f"{files.root}: none of its {len(names)} images can be decoded")
    return bad


def decode_image(content: bytes, recipe: Recipe) -> np.ndarray:
    """Decode a file as (C, H, W) uint8: its first frame, turned as EXIF says; ValueError for one that this package does
    not read (floating-point pixels, say).

    Transparent pictures are laid on white; 16-bit grey keeps its 8 high bits' worth (v / 257, rounded); palettes, CMYK
    and the like become RGB; one channel is made of three by ITU-R 601 (0.299 R + 0.587 G + 0.114 B). Resizing is
    Pillow's bilinear filter with antialiasing.
    """
    with Image.open(io.BytesIO(content)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
        image.load()
        mode = "L" if recipe.channels == 1 else "RGB"
        upright = _flatten(ImageOps.exif_transpose(image))
        picture = upright if upright.mode == mode else upright.convert(mode)
    array = np.asarray(_fit(picture, recipe))
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _fit(image: Image.Image, recipe: Recipe) -> Image.Image:
    if recipe.box_of is not None and image.size != recipe.box_of[::-1]:
        raise ValueError(f"{image.width} x {image.height} pixels, not {recipe.box_of[1]} x {recipe.box_of[0]}")
    if recipe.size is None:
        return image
    # Cut before resizing: Pillow's own `box` lets the filter see what lies outside of it.
    cut = image.crop(recipe.box or crop_box((image.height, image.width), recipe.size))
    return cut.resize(recipe.size[::-1], Image.Resampling.BILINEAR)


def _flatten(image: Image.Image) -> Image.Image:
    """The image as L or RGB, whatever it was."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integers outside of 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range no file tells")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        flat = Image.alpha_composite(white, layered).convert("RGB")
        return flat.convert("L") if _is_grey(image) else flat
    return image.convert("L" if _is_grey(image) else "RGB")


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _decode_chunks(
    files: Files, names: Sequence[str], recipe: Recipe
) -> Generator[list[tuple[str, np.ndarray | _Bad]], None, None]:
    """The images in order, by threads: Pillow lets go of the interpreter while it decodes."""
    workers = 1 if files.mean_bytes < SMALL_BYTES else os.cpu_count() or 1
    chunks = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        # Pillow warns of large pictures and damaged metadata; what matters of it is an error here.
        warnings.filterwarnings("ignore", module="PIL")
        if recipe.channels == "auto":
            # Ends at the first image in colour.
            grey = all(_in_order(pool, partial(_all_grey, files), chunks, 2 * workers))
            recipe = recipe._replace(channels=1 if grey else 3)
        # A bar only for work that lasts.
        with tqdm(total=len(names), desc="decoding", unit=" images", delay=1.0) as bar:
            for chunk in _in_order(pool, partial(_decode_chunk, files, recipe), chunks, 2 * workers):
                yield chunk
                bar.update(len(chunk))


def _all_grey(files: Files, names: Sequence[str]) -> bool:
    def grey(name: str) -> bool:
        try:
            with Image.open(io.BytesIO(files.read(name))) as image:
                return _is_grey(image)
        # Whatever is wrong with the file is said when it is decoded.
        except Exception:
            return True

    return all(grey(name) for name in names)


def _decode_chunk(files: Files, recipe: Recipe, names: Sequence[str]) -> list[tuple[str, np.ndarray | _Bad]]:
    def decode(name: str) -> np.ndarray | _Bad:
        try:
            return decode_image(files.read(name), recipe)
        except MemoryError:
            raise
        except UnidentifiedImageError:
            return _Bad("not an image of any format known")
        # On bytes that are no image Pillow's many readers raise nearly every exception there is.
        except Exception as error:
            return _Bad(" ".join(str(error).split()) or type(error).__name__)

    return [(name, decode(name)) for name in names]


def _same_size(files: Files, first: tuple[str, tuple[int, ...]], name: str, shape: tuple[int, ...]) -> None:
    if shape != first[1]:
        (_, h, w), (_, h2, w2) = first[1], shape
        raise UserError(
            f"{files.root}: {first[0]} is {h} x {w} pixels high and wide but {name} is {h2} x {w2};"
            " set data.image_size, to which all are cropped and resized"
        )


def _in_order(pool: ThreadPoolExecutor, work: Callable[[S], T], items: Iterable[S], ahead: int) -> Iterator[T]:
    """`map` on the pool with at most `ahead` results waiting, so that memory stays bounded and stopping early is
    cheap."""
    remaining = iter(items)
    waiting: deque[Future[T]] = deque(pool.submit(work, item) for item in islice(remaining, ahead))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(remaining, 1))
    finally:
        for future in waiting:
            future.cancel()
