"""Files of images to the rows of the cache, and what was decided on the way, in words."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from vaes.data.cache import RowWriter
from vaes.data.decode import Channels, Fit, Header, Picture, Recipe, decode_image, lossless_white, raw_brightest
from vaes.data.parallel import in_order, memory_limit
from vaes.data.picture_files import Files, suffix
from vaes.data.progress import tell
from vaes.data.resize import Box
from vaes.data.roots import heif_advice, no_images
from vaes.data.splits import some
from vaes.data.survey import Bad, Shape, Survey, reason, settle, survey
from vaes.errors import UserError

__all__ = ["Wanted", "Words", "decisions", "decode_all"]

SMALL_BYTES = 4096
"""Files smaller than this decode so fast that threads mostly wait for the interpreter: two are then slower than one."""

CHUNK = 64
"""Images decoded by one call at most: enough to make the calls' cost small, few enough for all threads to end
together."""

BYTES_A_PIXEL = 14
"""What decoding a picture takes at its worst, in memory."""


class Wanted(NamedTuple):
    """How a set of images is to be decoded, as its user says it."""

    channels: Channels
    size: tuple[int, int] | None
    fit: Fit = "refuse"
    white: int | None = None
    skip_bad: bool = False
    advice: str = "remove it, or set data.skip_bad to true"
    """What to do about an image that cannot be decoded: where the images are no data of a configuration, it has no such
    key."""
    box: Box | None = None
    box_of: tuple[int, int] | None = None
    asked: str = "data.image_size"
    """What the size comes from, as messages say it."""
    own: bool = False
    """Images that are all of one size keep it, whatever ``size`` is."""


class Words(NamedTuple):
    """What `decode_all` decided."""

    said: tuple[str, ...]
    warnings: tuple[str, ...]
    white: int | None


def decode_all(
    files: Files,
    names: Sequence[str],
    wanted: Wanted,
    writer: RowWriter,
    check: Callable[[Sequence[str]], object] = len,
    strict: bool = False,
) -> dict[str, Any]:
    """Decode the images among the files `names`, in order, into `writer`; `check` sees the images' names before.

    Returns `kept` (their names), `hashes`, `white`, `channels` and what `decisions` needs. Files that are no images are
    left out (with `strict` they are an error), and images that cannot be decoded are a UserError that names one, or
    left out with `skip_bad`. Headers are all read before the first image is decoded.
    """
    with warnings.catch_warnings():
        # Pillow warns of large pictures and damaged metadata; what matters of it is an error here.
        warnings.filterwarnings("ignore", module="PIL")
        found = survey(files, names, strict)
        skipped = dict(Counter(suffix(name) for name in found.skipped))
        _refuse(files, found.bad, wanted)
        if not found.headers and not found.bad:
            raise no_images(files, skipped)
        if not found.headers:
            raise UserError(f"{files.label}: none of its {len(found.bad):,} images can be decoded")
        check([name for name in names if name in found.headers])
        recipe, shape, deep = _settle(files, found, wanted)
        writer.reserve(len(found.headers), (recipe.channels, *shape.size))
        info: dict[str, Any] = {"kept": [], "hashes": [], "bad": found.bad, "brightest": 0, "transparent": 0}
        for name, picture in _decoded(files, found.headers, recipe, shape.size):
            if isinstance(picture, Bad):
                _refuse(files, {name: picture.why}, wanted)
                info["bad"][name] = picture.why
                continue
            writer.append(picture.pixels[None])
            info["kept"].append(name)
            info["hashes"].append(picture.hash)
            info["brightest"] = max(info["brightest"], picture.brightest)
            info["transparent"] += picture.transparent
    if not info["kept"]:
        raise UserError(f"{files.label}: none of its {len(info['bad']):,} images can be decoded")
    headers = found.headers.values()
    return {
        **info,
        "skipped": skipped,
        "white": recipe.white if deep else recipe.white8,
        "recipe": recipe._asdict(),
        "deep": len(deep),
        "coarse": sum(header.coarse for header in headers),
        "several": sum(header.several for header in headers),
        "coloured": 0 if recipe.channels == 3 else sum(not header.grey for header in headers),
        "said": shape.said,
        "warnings": shape.warnings,
    }


def decisions(info: dict[str, Any]) -> Words:
    """What `decode_all` decided, as parts of the reading's sentence and as warnings."""
    said, warned = list(info["said"]), list(info["warnings"])
    if info["deep"]:
        said.append(f"{info['deep']:,} of 16 bits, white is {info['white']:,}")
    elif info["white"] != 255:
        said.append(f"white is {info['white']}")
    for key, text in (
        ("coloured", "colour made grey"),
        ("coarse", "in colour of 16 bits, of which the upper 8 are read"),
        ("transparent", "transparent, laid on white"),
        ("several", "of several frames, the first taken"),
    ):
        if info[key]:
            said.append(f"{info[key]:,} {text}")
    if info["skipped"]:
        said.append(_skipped(info["skipped"]))
        if advice := heif_advice(info["skipped"]):
            warned.append(f"HEIC files were skipped{advice}")
    if info["bad"]:
        said.append(f"{len(info['bad']):,} that cannot be decoded left out")
        name, why = next(iter(info["bad"].items()))
        warned.append(
            f"data.skip_bad: left out {len(info['bad']):,} images: {some(sorted(info['bad']))} ({name}: {why})"
        )
    if info["brightest"] < 64:
        warned.append(
            f"data.white: the brightest value is {info['brightest']} of 255, so that the images are nearly black; "
            f"where that is not meant, set data.white to the value that is white"
        )
    return Words(tuple(said), tuple(warned), info["white"] if info["deep"] or info["white"] != 255 else None)


def _skipped(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = some([f"{end or 'no suffix'} {n:,}" for end, n in most], 8)
    return f"{total:,} file{'s' * (total != 1)} skipped ({kinds})"


def _refuse(files: Files, bad: dict[str, str], wanted: Wanted) -> None:
    if bad and not wanted.skip_bad:
        name, why = next(iter(bad.items()))
        more = f", and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        raise UserError(f"{files.where(name)}: cannot be decoded ({why}){more}; {wanted.advice}")


def _settle(files: Files, found: Survey, wanted: Wanted) -> tuple[Recipe, Shape, list[str]]:
    """What is the same for all images: channels, size and white; and the names of those of 16 bits."""
    headers = found.headers
    if wanted.box is None:
        sizes = {header.size for header in headers.values()}
        size = None if wanted.own and len(sizes) == 1 else wanted.size
        shape = settle(files.label, headers, size, wanted.fit, wanted.asked)
    else:
        assert wanted.size is not None
        shape = Shape(wanted.size, True, (), ())
    grey = all(header.grey for header in headers.values())
    channels = (1 if grey else 3) if wanted.channels == "auto" else wanted.channels
    deep = [name for name, header in headers.items() if header.deep]
    white = wanted.white or (lossless_white(_brightest(files, deep, headers)) if deep else 255)
    size = shape.size if shape.resized else None
    recipe = Recipe(channels, size, wanted.fit, white, 255 if deep or white > 255 else white, wanted.box, wanted.box_of)
    return recipe, shape, deep


def _brightest(files: Files, deep: Sequence[str], headers: dict[str, Header]) -> int:
    """The largest value in the files of 16 bits: each has its own range, and the set has one."""

    def brightest(name: str) -> int:
        try:
            return raw_brightest(files.read(name))
        except MemoryError:
            raise
        except Exception:  # it is said when it is decoded
            return 0

    cost = partial(_cost, files, headers)
    return max(in_order(brightest, deep, cost, workers=os.cpu_count() or 1, limit=memory_limit()), default=0)


def _cost(files: Files, headers: dict[str, Header], name: str) -> int:
    h, w = headers[name].size
    return BYTES_A_PIXEL * h * w + files.sizes[name]


def _decoded(
    files: Files, headers: dict[str, Header], recipe: Recipe, size: tuple[int, int]
) -> Iterator[tuple[str, Picture | Bad]]:
    """The images in order, by threads: Pillow lets go of the interpreter while it decodes."""
    mean = sum(files.sizes[name] for name in headers) / len(headers)
    workers = 1 if mean < SMALL_BYTES else os.cpu_count() or 1
    limit = memory_limit()
    result = recipe.channels * size[0] * size[1]
    each = max(1, min(CHUNK, limit // (8 * workers * result)))
    names = list(headers)
    chunks = [names[i : i + each] for i in range(0, len(names), each)]

    def cost(chunk: Sequence[str]) -> int:
        return max(_cost(files, headers, name) for name in chunk) + len(chunk) * result

    def decode(chunk: Sequence[str]) -> list[Picture | Bad]:
        return [_decode(files, name, headers[name], recipe) for name in chunk]

    done = 0
    for chunk, pictures in zip(chunks, in_order(decode, chunks, cost, workers=workers, limit=limit), strict=True):
        yield from zip(chunk, pictures, strict=True)
        done += len(chunk)
        tell(done, len(names))


def _decode(files: Files, name: str, header: Header, recipe: Recipe) -> Picture | Bad:
    try:
        picture = decode_image(files.read(name), recipe)
    except MemoryError:
        raise
    except Exception as error:  # see `survey`
        return Bad(reason(error))
    if recipe.size is None and picture.pixels.shape[1:] != header.size:
        (h, w), (h2, w2) = header.size, picture.pixels.shape[1:]
        return Bad(f"its header says {h} x {w} pixels, its picture has {h2} x {w2}")
    return picture
