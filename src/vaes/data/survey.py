"""What the headers of files say, before any is decoded: which are images, their sizes, their depth."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from vaes.data.decode import Fit, Header, image_suffixes, read_header
from vaes.data.parallel import in_order
from vaes.data.picture_files import MAX_FILE_BYTES, Files, suffix
from vaes.data.resize import crop_box
from vaes.errors import UserError

__all__ = ["Bad", "Shape", "Survey", "reason", "same_aspect", "settle", "survey"]

PIECE = 256
"""Headers read by one call."""


class Bad(NamedTuple):
    """Why a picture cannot be decoded."""

    why: str


class Survey(NamedTuple):
    """The files of a set, by name."""

    headers: dict[str, Header]
    bad: dict[str, str]
    """Pictures that cannot be decoded, and why."""
    skipped: tuple[str, ...]
    """What is no picture."""


class Shape(NamedTuple):
    """The size that all images get, and what is done to them for it."""

    size: tuple[int, int]
    """(H, W)."""
    resized: bool
    said: tuple[str, ...]
    warnings: tuple[str, ...]


def survey(files: Files, names: Sequence[str], strict: bool = False) -> Survey:
    """Read the headers of `names`. What is no image is skipped; where it has an image's suffix, or with `strict`, it is
    bad."""
    headers: dict[str, Header] = {}
    unusable = {} if strict else files.unusable
    bad = {name: why for name, why in unusable.items() if name.endswith("/") or _named_so(name)}
    skipped = [name for name in unusable if name not in bad]

    def look(piece: Sequence[str]) -> list[Header | Bad | None]:
        return [_look(files, name, strict or _named_so(name)) for name in piece]

    pieces = [names[i : i + PIECE] for i in range(0, len(names), PIECE)]
    found = in_order(look, pieces, lambda _: 0, workers=min(4, os.cpu_count() or 1), limit=1)
    for piece, results in zip(pieces, found, strict=True):
        for name, result in zip(piece, results, strict=True):
            if isinstance(result, Header):
                headers[name] = result
            elif isinstance(result, Bad):
                bad[name] = result.why
            else:
                skipped.append(name)
    return Survey(headers, dict(sorted(bad.items())), tuple(sorted(skipped)))


def reason(error: Exception) -> str:
    """An exception of Pillow's or of a file's as a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of any format known"
    return " ".join(str(error).split()) or type(error).__name__


def _named_so(name: str) -> bool:
    return suffix(name) in image_suffixes()


def _look(files: Files, name: str, expected: bool) -> Header | Bad | None:
    try:
        with files.open(name) as file:
            found = read_header(file)
        if files.sizes[name] > MAX_FILE_BYTES:
            return Bad(f"{files.sizes[name]:,} bytes, more than {MAX_FILE_BYTES:,}")
        return found
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:  # so it is an image
        return Bad(reason(error))
    # On bytes that are no image Pillow's many readers raise nearly every exception there is.
    except Exception as error:
        return Bad(reason(error)) if expected else None


def settle(
    root: str, headers: dict[str, Header], size: tuple[int, int] | None, fit: Fit, asked: str = "data.image_size"
) -> Shape:
    """The size of all images: `size`, or the one that all of them have. Raises UserError where they differ without
    `size`, or in aspect from `size` with `fit` refuse."""
    sizes = Counter(header.size for header in headers.values())
    if size is None:
        if len(sizes) > 1:
            raise _differ(root, headers, sizes)
        return Shape(next(iter(sizes)), False, (), ())
    other = {found: n for found, n in sizes.items() if not same_aspect(found, size)}
    if other and fit == "refuse":
        raise _misfit(root, headers, sizes, other, size, asked)
    if set(sizes) == {size}:
        return Shape(size, False, (), ())
    said, warnings = [_resized(sizes, size)], []
    if other:
        action = {"crop": "cropped", "pad": "padded with black", "stretch": "stretched"}[fit]
        said.append(f"{sum(other.values()):,} {action}{_lost(other, size) if fit == 'crop' else ''}")
    small = sum(n for (h, w), n in sizes.items() if h < size[0] or w < size[1])
    if small:
        said.append(f"{small:,} enlarged")
        if small > sum(sizes.values()) / 2:
            warnings.append(
                f"data.image_size: {small:,} of {sum(sizes.values()):,} images are smaller than {_by(size)} and were "
                "enlarged, which adds pixels and no detail; a smaller size trains faster"
            )
    return Shape(size, True, tuple(said), tuple(warnings))


def same_aspect(found: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether cutting to the aspect of `size` takes less than half a pixel of the result from either side."""
    left, top, right, bottom = crop_box(found, size)
    return (1 - (bottom - top) / found[0]) * size[0] < 0.5 and (1 - (right - left) / found[1]) * size[1] < 0.5


def _lost(other: dict[tuple[int, int], int], size: tuple[int, int]) -> str:
    boxes = [(found, crop_box(found, size)) for found in other]
    most = max(1 - (box[2] - box[0]) * (box[3] - box[1]) / (h * w) for (h, w), box in boxes)
    return f" (up to {most:.0%} of an image cut away)"


def _resized(sizes: Counter[tuple[int, int]], size: tuple[int, int]) -> str:
    ordered = sorted(sizes, key=lambda hw: hw[0] * hw[1])
    of = _by(ordered[0]) if len(ordered) == 1 else f"{_by(ordered[0])} to {_by(ordered[-1])}"
    return f"resized from {of}"


def _differ(root: str, headers: dict[str, Header], sizes: Counter[tuple[int, int]]) -> UserError:
    first = next(iter(headers))
    h, w = headers[first].size
    name, (h2, w2) = next((name, header.size) for name, header in headers.items() if header.size != (h, w))
    common = sizes.most_common(1)[0][0]
    return UserError(
        f"{root}: {first} is {h} x {w} pixels high and wide but {name} is {h2} x {w2}; set data.image_size, a side or"
        f" [height, width] (the most common is [{common[0]}, {common[1]}]), and data.fit where shapes differ too"
    )


def _misfit(
    root: str,
    headers: dict[str, Header],
    sizes: Counter[tuple[int, int]],
    other: dict[tuple[int, int], int],
    size: tuple[int, int],
    asked: str,
) -> UserError:
    names = [name for name, header in headers.items() if header.size in other]
    h, w = headers[names[0]].size
    common = sizes.most_common(1)[0][0]
    scale = max(size) / max(common)
    keep = [max(1, round(side * scale)) for side in common]
    key = asked.startswith("data.")
    most = sum(count for (h, w), count in sizes.items() if abs(h * common[1] - w * common[0]) <= max(common))
    alike = key and tuple(keep) != size and 2 * most > len(headers)  # else there is no shape to keep
    keeping = f", or {asked} to their shape ([{keep[0]}, {keep[1]}])" if alike else ""
    stretch = max(max(h / size[0] / (w / size[1]), w / size[1] / (h / size[0])) for h, w in other)
    return UserError(
        f"{root}: {len(names):,} of {len(headers):,} images have not the shape of {asked} {size[0]} x {size[1]}"
        f" ({names[0]} is {h} x {w} high and wide); set data.fit: crop (their middle{_lost(other, size)}),"
        f" pad (black borders), stretch (distorts up to {stretch:.2g} to 1){keeping}"
    )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
