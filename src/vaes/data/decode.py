"""One image file to a uint8 array."""

import io
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from vaes.data.hashing import content_hash
from vaes.data.resize import Box, crop_box

__all__ = ["MAX_PIXELS", "Channels", "Fit", "Header", "Picture", "Recipe", "decode_image", "formats", "image_suffixes"]
__all__ += ["lossless_white", "raw_brightest", "read_header"]

Channels = Literal["auto", 1, 3]

Fit = Literal["refuse", "crop", "pad", "stretch"]
"""What becomes of an image that has not the shape asked for: an error, its middle, black borders, or a distortion."""

MAX_PIXELS = 2**26
"""A picture that announces more is refused before it is decoded: a small file can announce any number."""

FORMATS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pgm", ".ppm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "ICO": (".ico",),
    "PCX": (".pcx",),
    "SGI": (".sgi",),
    "QOI": (".qoi",),
}
"""The formats that are tried, and the suffixes by which a file that cannot be decoded is still known for an image. All
are rasters that are decoded inside of the process: none has a language (PostScript, PDF, WMF) or starts a program."""

BAND = 512
"""Rows of a transparent picture that are laid on white at once."""

DEPTHS = (255, 1023, 4095, 16383, 65535)


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that can be read here; HEIF where pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        pass
    else:
        register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of the formats that can be read here."""
    return frozenset(suffix for name in formats() for suffix in FORMATS[name])


class Header(NamedTuple):
    """What an image's file says before it is decoded."""

    size: tuple[int, int]
    """(H, W), turned as EXIF says."""
    grey: bool
    deep: bool
    """More than 8 bits."""
    coarse: bool
    """Colour of 16 bits, of which Pillow gives the upper 8."""
    several: bool
    """More pictures follow the first: a moving one, or a stack."""


class Recipe(NamedTuple):
    """How each image of a set is decoded."""

    channels: int
    size: tuple[int, int] | None
    """(H, W), or None for the size that all images have."""
    fit: Fit = "crop"
    white: int = 65535
    """The value in files of 16 bits that becomes 255."""
    white8: int = 255
    """The same in files of 8 bits."""
    box: Box | None = None
    """What is cut out of each image before it is resized; None: what `fit` says."""
    box_of: tuple[int, int] | None = None
    """The (H, W) that images must have for `box` to mean anything."""


class Picture(NamedTuple):
    """A decoded file."""

    pixels: np.ndarray
    """(C, H, W) uint8."""
    hash: int
    """`content_hash` of what the file shows, before it was scaled, cut, resized and given its channels."""
    brightest: int
    """Of its values as 0 .. 255, before it was resized."""
    transparent: bool
    """It was, and was laid on white."""


def read_header(file: io.BufferedIOBase | object) -> Header:
    """What an open file says of its image; UnidentifiedImageError where it holds none of a format known, ValueError or
    another error of Pillow's for one that this package does not read."""
    with Image.open(file, formats=formats()) as image:  # type: ignore[arg-type]
        _check_size(image)
        if image.mode == "F":
            raise ValueError("floating-point pixels, whose range no file tells")
        # A PNG whose EXIF comes after its pixels would be decoded for it.
        known = image.format != "PNG" or "exif" in image.info
        turned = known and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        size = (image.width, image.height) if turned else (image.height, image.width)
        # A JPEG of a camera that holds several is one picture with its depth, its preview and the like.
        several = image.format not in ("MPO", "JPEG") and bool(getattr(image, "is_animated", False))
        deep = image.mode.startswith("I")
        coarse = not deep and any(";16" in str(tile) for tile in image.tile)
        return Header(size, _is_grey(image), deep, coarse, several)


def decode_image(content: bytes, recipe: Recipe) -> Picture:
    """Decode a file: its first frame, turned as EXIF says; ValueError for one that this package does not read
    (floating-point pixels, say).

    Transparent pictures are laid on white; grey of 16 bits becomes v * 255 / `white`, rounded; palettes, CMYK and the
    like become RGB; one channel is made of three by ITU-R 601 (0.299 R + 0.587 G + 0.114 B). Resizing is Pillow's
    bilinear filter with antialiasing.
    """
    with Image.open(io.BytesIO(content), formats=formats()) as image:
        _check_size(image)
        image.load()
        transparent = image.has_transparency_data
        ImageOps.exif_transpose(image, in_place=True)
        flat = _flatten(image)
    pixels = flat if isinstance(flat, np.ndarray) else np.asarray(flat)
    key = content_hash(pixels)
    white = recipe.white8 if pixels.dtype == np.uint8 else recipe.white
    brightest = -(-int(pixels.max()) * 255 // white)
    if white != 255 or isinstance(flat, np.ndarray):
        flat = Image.fromarray(_scale(pixels, white))
    del pixels
    mode = "L" if recipe.channels == 1 else "RGB"
    fitted = np.asarray(_fit(flat if flat.mode == mode else flat.convert(mode), recipe))
    out = fitted[None] if fitted.ndim == 2 else np.ascontiguousarray(fitted.transpose(2, 0, 1))
    return Picture(out, key, brightest, transparent)


def raw_brightest(content: bytes) -> int:
    """The largest value of a file of more than 8 bits, as it is stored."""
    with Image.open(io.BytesIO(content), formats=formats()) as image:
        _check_size(image)
        return int(np.asarray(image).max())


def lossless_white(brightest: int) -> int:
    """The white of 8, 10, 12, 14 or 16 bits: the smallest that loses no value up to `brightest`."""
    return next(white for white in DEPTHS if brightest <= white)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")


def _scale(values: np.ndarray, white: int) -> np.ndarray:
    if int(values.max()) > white:
        raise ValueError(f"it has the value {values.max():,}, above data.white {white:,}")
    table = (np.arange(white + 1, dtype=np.int64) * 255 + white // 2) // white
    return table.astype(np.uint8)[values]


def _fit(image: Image.Image, recipe: Recipe) -> Image.Image:
    if recipe.box_of is not None and image.size != recipe.box_of[::-1]:
        raise ValueError(f"{image.width} x {image.height} pixels, not {recipe.box_of[1]} x {recipe.box_of[0]}")
    if recipe.size is None:
        return image
    size, method = recipe.size[::-1], Image.Resampling.BILINEAR
    if recipe.box is None and recipe.fit == "pad":
        return ImageOps.pad(image, size, method)
    if recipe.box is None and recipe.fit == "stretch":
        return image.resize(size, method)
    # Cut before resizing: Pillow's own `box` lets the filter see what lies outside of it.
    box = recipe.box or crop_box((image.height, image.width), recipe.size)
    return (image if box == (0, 0, *image.size) else image.crop(box)).resize(size, method)


def _flatten(image: Image.Image) -> Image.Image | np.ndarray:
    """The image as L or RGB, whatever it was, or as (H, W) uint16 where it has more than 8 bits."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("integers outside of 16 bits")
        return values.astype(np.uint16)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range no file tells")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("L" if _is_grey(image) else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    flat = Image.new("L" if _is_grey(image) else "RGB", image.size)
    # By bands: four copies of a large picture would take gigabytes.
    for top in range(0, image.height, BAND):
        band = image.crop((0, top, image.width, min(top + BAND, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        flat.paste(Image.alpha_composite(white, band).convert("RGB").convert(flat.mode), (0, top))
    return flat


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
