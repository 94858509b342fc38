"""Contact sheets: many small pictures on one page, with a title, labels and a caption. Nothing here knows a model."""

import math
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["ACCENT", "INK", "MUTED", "PAGE", "font", "framed", "grid", "literal", "sheet"]

Colour = tuple[int, int, int]

PAGE: Colour = (247, 247, 249)
"""Not quite white, so that pictures on a white ground keep their edges."""
INK: Colour = (28, 28, 34)
MUTED: Colour = (98, 100, 110)
ACCENT: Colour = (231, 99, 0)

MARGIN = 24
TRACK = 34
PAD = 2
GAP = 12
MIN_WIDTH = 520
TITLE_SIZE, LABEL_SIZE, CAPTION_SIZE, MIN_LABEL_SIZE = 20, 13, 13, 8
MIN_CELL, MAX_CELL, MAX_SCALE = 40, 128, 8
TARGET_WIDTH, TARGET_HEIGHT = 1200, 1600
MAX_SIDE = 6000
"""A sheet that would be longer than this shows its pictures reduced."""
LONGEST_LABEL, LONGEST_TITLE, LONGEST_CAPTION = 40, 200, 1200


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries, at a size in pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


def literal(text: object, longest: int = LONGEST_LABEL) -> str:
    """A text from outside (the name of a file or class) as it can be drawn: on one line, with letters that are
    invisible, change the direction or lack in the font spelt ``\\uNNNN``; of more than `longest` letters the middle is
    left out.

    >>> literal("a\\nb", 40), literal("abcdefgh", 5)
    ('a\\\\nb', 'ab…gh')
    """
    text = str(text)
    if len(text) > longest:
        text = f"{text[: longest - longest // 2 - 1]}…{text[len(text) - longest // 2 :]}"
    if text.isascii() and text.isprintable():
        return text
    text = "".join(
        letter if letter.isprintable() and ord(letter) in _letters() else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


@cache
def _letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font(LABEL_SIZE).path).get_charmap())


def grid(
    images: Tensor | np.ndarray, columns: int, pad: int = 0, scale: int = 1, background: Colour = PAGE
) -> Image.Image:
    """The pictures (N, C, H, W) uint8 in rows of `columns`, each pixel `scale` x `scale`, `pad` pixels apart.

    C is 1 or 3; the result is grey where C is 1 and no background shows. Places after the last picture stay empty.
    """
    if columns < 1 or pad < 0 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1 and pad at least 0, got {columns}, {scale}, {pad}")
    pixels = _pixels(images)
    count, height, width, channels = pixels.shape
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    rows, height, width = -(-count // columns), height * scale, width * scale
    whole = pad == 0 and count == rows * columns
    if channels == 1 and not whole:
        pixels = pixels.repeat(3, axis=3)
    shape = (rows * (height + pad) - pad, columns * (width + pad) - pad, pixels.shape[3])
    canvas = np.empty(shape, dtype=np.uint8)
    canvas[:] = background if shape[2] == 3 else 0
    for i, picture in enumerate(pixels):
        y, x = (i // columns) * (height + pad), (i % columns) * (width + pad)
        canvas[y : y + height, x : x + width] = picture
    return Image.fromarray(canvas[..., 0] if shape[2] == 1 else canvas)


def sheet(
    images: Tensor | np.ndarray,
    columns: int,
    *,
    title: str = "",
    caption: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    row_breaks: Collection[int] = (),
    column_breaks: Collection[int] = (),
    faint_rows: Collection[int] = (),
    marks: Collection[int] = (),
    scale: int | None = None,
    track: tuple[float, str, str] | None = None,
) -> Image.Image:
    """A labelled page of the pictures (N, C, H, W) uint8 in rows of `columns`.

    Args:
        images: the pictures, row by row; C is 1 or 3.
        columns: pictures in a row.
        title: set large above.
        caption: set small below, wrapped; may have several lines.
        row_labels: one for each row, at its left.
        column_labels: one for each column, above it; where they do not fit, every second or third is shown.
        row_breaks: rows that a wider gap sets apart from the row above.
        column_breaks: columns that a wider gap sets apart from the column at their left.
        faint_rows: rows whose label is grey.
        marks: pictures (by index) that get a coloured frame.
        scale: how many pixels wide and high each pixel is drawn; by default what makes the page a pleasant size.
        track: of a film's frame: how far along it is, from 0 to 1, and what stands at either end; a bead on a line.
    """
    pixels = _pixels(images)
    rows = -(-len(pixels) // columns)
    for name, labels, expected in (("row", row_labels, rows), ("column", column_labels, columns)):
        if labels and len(labels) != expected:
            raise ValueError(f"{len(labels)} {name} labels for {expected} {name}s")
    row_labels, column_labels = [literal(x) for x in row_labels], [literal(x) for x in column_labels]
    pixels = _fit(pixels, rows, columns, scale)
    height, width = pixels.shape[1:3]
    ys, xs = _starts(rows, height, row_breaks), _starts(columns, width, column_breaks)
    row_font = _label_font(row_labels, height)
    left = math.ceil(max((row_font.getlength(label) for label in row_labels), default=-8)) + 8
    top = LABEL_SIZE + 8 if column_labels else 0
    bottom = top + ys[-1] + height + PAD
    page = Image.new("RGB", (left + xs[-1] + width + PAD, bottom + (TRACK if track else 0)), PAGE)
    draw = ImageDraw.Draw(page)
    for i, picture in enumerate(pixels):
        y, x = top + ys[i // columns], left + xs[i % columns]
        if i in marks:
            draw.rectangle((x - PAD, y - PAD, x + width + PAD - 1, y + height + PAD - 1), fill=ACCENT)
        page.paste(Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture), (x, y))
    for row, label in enumerate(row_labels):
        ink = MUTED if row in faint_rows else INK
        draw.text((left - 8, top + ys[row] + height / 2), label, fill=ink, font=row_font, anchor="rm")
    _draw_column_labels(draw, column_labels, [left + x + width / 2 for x in xs], width, top - 5)
    if track:
        _draw_track(page, track, left + PAD, bottom + TRACK / 2 + 4)
    return framed(page, title, caption)


def _draw_track(page: Image.Image, track: tuple[float, str, str], left: float, y: float) -> None:
    share, *names = track
    start, end = (font(LABEL_SIZE).getlength(name) for name in names)
    right, draw = float(page.width - PAD), ImageDraw.Draw(page)
    for x, name, anchor in ((left, names[0], "lm"), (right, names[1], "rm")):
        draw.text((x, y), name, fill=MUTED, font=font(LABEL_SIZE), anchor=anchor)
    left, right = left + start + 14, right - end - 14
    # Four times as large and reduced: Pillow's own discs have steps, and move by whole pixels.
    line = Image.new("RGB", (max(4, 4 * math.ceil(right - left + 12)), 48), PAGE)
    pen, at = ImageDraw.Draw(line), 24 + share * (line.width - 48)
    pen.rounded_rectangle((20, 20, line.width - 20, 28), 4, fill=(206, 208, 214))
    pen.ellipse((at - 24, 0, at + 24, 48), fill=ACCENT)
    page.paste(line.reduce(4), (round(left - 6), round(y - 6)))


def framed(picture: Image.Image, title: str, caption: str) -> Image.Image:
    """The picture on a page with margins, a title above and a caption (wrapped at the page's width) below."""
    width = max(picture.width, MIN_WIDTH)
    title_lines = _wrap(literal(title, LONGEST_TITLE), font(TITLE_SIZE, True), width)
    caption_lines = _wrap(caption[:LONGEST_CAPTION], font(CAPTION_SIZE), width)
    title_step, caption_step = TITLE_SIZE + 8, CAPTION_SIZE + 6
    above = len(title_lines) * title_step + (GAP if title_lines else 0)
    below = len(caption_lines) * caption_step + (GAP + 4 if caption_lines else 0)
    page = Image.new("RGB", (width + 2 * MARGIN, picture.height + above + below + 2 * MARGIN), PAGE)
    draw = ImageDraw.Draw(page)
    for i, line in enumerate(title_lines):
        draw.text((MARGIN, MARGIN + i * title_step), line, fill=INK, font=font(TITLE_SIZE, True))
    page.paste(picture, (MARGIN, MARGIN + above))
    for i, line in enumerate(caption_lines):
        y = MARGIN + above + picture.height + GAP + 4 + i * caption_step
        draw.text((MARGIN, y), line, fill=MUTED, font=font(CAPTION_SIZE))
    return page


def _pixels(images: Tensor | np.ndarray) -> np.ndarray:
    """(N, C, H, W) uint8 -> (N, H, W, C)."""
    array = images.cpu().numpy() if isinstance(images, Tensor) else images
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3) or len(array) == 0:
        raise ValueError(f"pictures are uint8 (N, 1 or 3, H, W) with N > 0, got {array.dtype} {array.shape}")
    return array.transpose(0, 2, 3, 1)


def _fit(pixels: np.ndarray, rows: int, columns: int, scale: int | None) -> np.ndarray:
    """Enlarge (by repeating pixels) or reduce (by averaging) pictures (N, H, W, C) by an integer factor."""
    height, width = pixels.shape[1:3]
    if scale is None:
        wanted_width = min(max(TARGET_WIDTH / columns, MIN_CELL), MAX_CELL)
        wanted_height = min(max(TARGET_HEIGHT / rows, MIN_CELL), MAX_CELL)
        scale = max(1, min(MAX_SCALE, int(min(wanted_width / width, wanted_height / height))))
        reduction = math.ceil(max(columns * width, rows * height) / MAX_SIDE)
        if reduction > 1:
            return _reduced(pixels, reduction)
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    mode = [Image.fromarray(p.squeeze(-1) if p.shape[-1] == 1 else p).reduce(factor) for p in pixels]
    array = np.stack([np.asarray(picture) for picture in mode])
    return array[..., None] if array.ndim == 3 else array


def _starts(count: int, size: int, breaks: Collection[int]) -> list[int]:
    """Where each of `count` cells starts; the first at PAD, which leaves room for its frame."""
    starts, at = [], PAD
    for i in range(count):
        at += GAP if i in breaks else 0
        starts.append(at)
        at += size + 2 * PAD
    return starts


def _label_font(labels: Sequence[str], room: int) -> ImageFont.FreeTypeFont:
    return font(max(MIN_LABEL_SIZE, min(LABEL_SIZE, room))) if labels else font(LABEL_SIZE)


def _draw_column_labels(
    draw: ImageDraw.ImageDraw, labels: Sequence[str], centres: Sequence[float], width: int, baseline: float
) -> None:
    """Write the labels at the largest size at which they all fit, or else only every k-th."""
    if not labels:
        return
    room = width + 2 * PAD - 4
    for size in range(LABEL_SIZE, MIN_LABEL_SIZE - 1, -1):
        widest = max(font(size).getlength(label) for label in labels)
        if widest <= room:
            break
    step = max(1, math.ceil((widest + 4) / (width + 2 * PAD)))
    for label, x in list(zip(labels, centres, strict=True))[::step]:
        draw.text((x, baseline), label, fill=MUTED, font=font(size), anchor="ms")


def _wrap(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split("\n") if text else ():
        line = ""
        for word in _cut(literal(paragraph, LONGEST_CAPTION).split(), face, width):
            longer = f"{line} {word}".strip()
            if line and face.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return lines


def _cut(words: Sequence[str], face: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """The words, those that are wider than a line in pieces."""
    for word in words:
        while len(word) > 1 and face.getlength(word) > width:
            size = len(word) - 1
            while size > 1 and face.getlength(word[:size]) > width:
                size = max(1, min(size - 1, int(size * width / face.getlength(word[:size]))))
            yield word[:size]
            word = word[size:]
        yield word
