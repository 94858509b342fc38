import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vaes.data import decode
from vaes.data.decode import Recipe

AS_IS = Recipe(3, None)
GREY = Recipe(1, None)


def decode_image(content: bytes, recipe: Recipe) -> np.ndarray:
    return decode.decode_image(content, recipe).pixels


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_colour_without_loss(rgb: np.ndarray, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode_image(encode(Image.fromarray(rgb), kind, **options), AS_IS)
    assert found.dtype == np.uint8
    assert np.array_equal(found, rgb.transpose(2, 0, 1))


def test_colour_to_grey_is_itu_r_601(rgb: np.ndarray) -> None:
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    found = decode_image(encode(Image.fromarray(rgb)), GREY)
    assert found.shape == (1, 6, 9)
    assert np.abs(found[0] - expected).max() <= 1


def test_grey_to_colour_repeats(rgb: np.ndarray) -> None:
    found = decode_image(encode(Image.fromarray(rgb[..., 0])), AS_IS)
    assert np.array_equal(found, np.stack([rgb[..., 0]] * 3))


def test_transparent_is_white_and_half_transparent_half() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)
    assert decode_image(encode(Image.fromarray(rgba)), AS_IS)[:, 0].tolist() == [[255, 127, 0]] * 3
    la = rgba[..., 2:]
    assert decode_image(encode(Image.fromarray(la, "LA")), GREY)[0, 0].tolist() == [255, 127, 0]


def test_palettes_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 9, 8, 7])
    assert decode_image(encode(image), AS_IS)[:, 0].T.tolist() == [[255, 0, 0], [0, 255, 0], [9, 8, 7]]
    found = decode_image(encode(image, transparency=1), AS_IS)
    assert found[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255], [9, 8, 7]]


def test_sixteen_bits_keep_the_range() -> None:
    # Rounded, not cut: half a step is 128.5.
    values = np.array([[0, 128, 129, 257, 385, 386, 32896, 65406, 65407, 65535]], np.uint16)
    assert decode_image(encode(Image.fromarray(values)), GREY)[0, 0].tolist() == [0, 0, 1, 1, 1, 2, 128, 254, 255, 255]


def test_one_bit_cmyk_and_animations(rgb: np.ndarray) -> None:
    bits = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
    assert decode_image(encode(bits), GREY)[0, 0].tolist() == [0, 255, 0]
    cmyk = Image.fromarray(rgb).convert("CMYK")
    assert np.array_equal(decode_image(encode(cmyk, "TIFF"), AS_IS), np.asarray(cmyk.convert("RGB")).transpose(2, 0, 1))
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    moving = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode_image(moving, GREY) == 10).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(rgb: np.ndarray, orientation: int) -> None:
    # What has to be done to the stored picture, by the standard's table.
    upright = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }[orientation](rgb)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode_image(encode(Image.fromarray(rgb), exif=exif), AS_IS)
    assert np.array_equal(found.transpose(1, 2, 0), upright)


def test_resizing_crops_centrally_first() -> None:
    # Black but for the outer quarters: a square of it is black.
    wide = np.full((40, 80), 255, np.uint8)
    wide[:, 20:60] = 0
    assert decode_image(encode(Image.fromarray(wide)), Recipe(1, (10, 10))).max() == 0
    assert decode_image(encode(Image.fromarray(wide.T.copy())), Recipe(1, (10, 10))).max() == 0
    assert decode_image(encode(Image.fromarray(wide)), Recipe(1, (7, 21))).shape == (1, 7, 21)


def test_resizing_is_antialiased() -> None:
    # Stripes of one pixel must become grey: without antialiasing they would stay black and white.
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    found = decode_image(encode(Image.fromarray(stripes)), Recipe(1, (16, 16)))[0, :, 1:-1]
    assert np.abs(found.astype(int) - 127).max() <= 2


def png(width: int, height: int) -> bytes:
    """A PNG that announces a size and has no such pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8200, 12_000, 100_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    with pytest.raises((ValueError, Image.DecompressionBombError), match="pixels"):
        decode_image(png(side, side), GREY)


def test_floats_and_large_integers_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        decode_image(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), GREY)
    with pytest.raises(ValueError, match="16 bits"):
        decode_image(encode(Image.fromarray(np.full((2, 2), 70_000, np.int32)), "TIFF"), GREY)
