"""A run, or several, as one HTML file: the page, what it shows, and the decoders, which run without a network."""

import base64
import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vaes import __version__, files
from vaes.errors import UserError
from vaes.explore import assets, numbers
from vaes.explore.pack import pack
from vaes.explore.source import Source, sentence
from vaes.run import Run
from vaes.view.plane import limits_of, plane_points

__all__ = ["write_report"]

LIVE, STATIC = 9_850_000, 1_950_000
"""Bytes of the file that parts which can be left out (encoder, pictures of the training) may fill it to."""
MOST = {False: 10_000_000, True: 2_000_000}
"""Bytes above which it is said that the file is large, by whether it is static."""
IMAGES = {False: (3_000_000, 2500), True: (900_000, 1000)}
"""Bytes of test images before they are compressed, and their number, at most; by whether the file is static."""
MOST_SIDE = 24
"""Decoded places along each side of the plane in a static file."""
ROOM = 250_000
"""Bytes that the page itself, its curves and its words take."""
WALK, MOST_WALKS, DRAWS = 11, 16, 64
REACH = 3.0
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'sha256-{style}'; img-src blob: data:; "
    "connect-src blob: data:; base-uri 'none'; form-action 'none'"
)


def write_report(source: Source | Sequence[Source], path: Path, *, static: bool = False) -> list[str]:
    """Write the report of a run, or of several side by side, to one HTML file, whole or not at all; returns what there
    is to say about it.

    Args:
        source: the run, or the runs.
        path: the file.
        static: without the decoders: what the plane and the dimensions decode to is stored as pictures.

    Raises:
        UserError: there is no model, ONNX Runtime Web or vaes[onnx] is missing, or the file cannot be written.
    """
    sources = [source] if isinstance(source, Source) else list(source)
    for one in sources:
        if one.run is None:
            raise UserError(one.error or f"{one.path}: no model")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    files.refuse_unwritable(path.parent)
    engine = None if static else assets.runtime()
    if not static and engine is None:
        raise assets.advice()
    parts = {} if engine is None else {"runtime": _inlined(engine[0]), "wasm": _inlined(engine[1])}
    most = STATIC if static else LIVE
    room = (most - sum(map(len, parts.values())) - ROOM) // len(sources)
    infos: list[dict[str, Any]] = []
    remarks: list[str] = []
    for number, one in enumerate(sources):
        info, found, said = _run_in(one, room, static)
        infos.append(info)
        parts |= {f"{number}-{name}": content for name, content in found.items()}
        remarks += [f"{one.name}: {remark}" if len(sources) > 1 else remark for remark in said]
    text = _html(infos, parts)
    if len(text) > MOST[static]:
        smaller = "fewer runs make" if static else "--static (pictures instead of the decoder) makes"
        remarks.append(
            f"the file is {len(text) / 1e6:.1f} MB, more than the {MOST[static] / 1e6:.0f} MB that are aimed at; "
            f"{smaller} it smaller"
        )
    files.write_atomic(path, lambda temporary: temporary.write_bytes(text))
    return remarks


def _run_in(source: Source, room: int, static: bool) -> tuple[dict[str, Any], dict[str, bytes], list[str]]:
    """What the page shows of a run, the parts of the file that hold it, in ``room`` bytes where that can be, and what
    there is to say."""
    run = source.run
    assert run is not None
    remarks: list[str] = []
    parts = {} if static else {"decoder": _inlined(_network(run, "decoder", remarks))}
    source.begin(_count(run, static)).join()
    if source.data_error:
        remarks.append(f"no test images are shown: {source.data_error}")
    info = source.info()
    held = sum(map(len, parts.values()))
    for share in (1.0, 0.5, 0.25, 0.1):  # how well pictures are compressed is not known before
        parts["arrays"] = _inlined(pack(_arrays(source, info, static, share)))
        size = held + len(parts["arrays"])
        if size <= room:
            break
    if not static:
        size += _fit(run, "encoder", parts, room - size, remarks)
    left = room - size
    readers = {"planes": lambda step: _plane(source, step), "film": lambda step: numbers.frame(source.folder, step)}
    for key, most in (("planes", left * 3 // 4), ("film", left)):
        info[key], took = _kept(key, info.get(key) or [], readers[key], parts, min(most, left), remarks)
        left -= took
    return info, parts, remarks


def _count(run: Run, static: bool) -> int:
    room, most = IMAGES[static]
    return max(16, min(most, room // int(np.prod(run.image_shape))))


def _network(run: Run, part: str, remarks: list[str]) -> bytes:
    """A part of the model as ONNX: in float16 where that changes no pixel that was checked by more than one level, and
    no code by more than 0.01, else in float32."""
    from vaes.share import export_onnx

    half = export_onnx(run, part, "float16")  # type: ignore[arg-type]
    if half.difference <= 0.01 if half.levels is None else half.levels <= 1:
        return half.content
    if part == "decoder":
        remarks.append(
            f"the decoder is stored in float32: float16 would change a pixel by {half.levels:.2g} levels of 255"
        )
    return export_onnx(run, part, "float32").content  # type: ignore[arg-type]


def _fit(run: Run, part: str, parts: dict[str, bytes], room: int, remarks: list[str]) -> int:
    """Put a network into the file where it can be exported and there is room; returns what it takes."""
    try:
        content = _inlined(_network(run, part, remarks))
    except UserError as error:
        remarks.append(f"pictures of one's own cannot be given to the report: {error}")
        return 0
    if (size := len(content)) > room:
        remarks.append(
            f"pictures of one's own cannot be given to the report: its {part} would take {size / 1e6:.1f} MB"
        )
        return 0
    parts[part] = content
    return size


def _plane(source: Source, step: int) -> bytes:
    arrays, said = numbers.plane(source.folder, step)
    return pack(arrays, **said)


def _kept(
    name: str,
    steps: list[int],
    read: Callable[[int], bytes],
    parts: dict[str, bytes],
    room: int,
    remarks: list[str],
) -> tuple[list[int], int]:
    """Put as much of what was kept at steps of the training into the file as there is room for, evenly, the last first;
    returns the steps, and the bytes that they take."""
    kept: list[int] = []
    took = 0
    for step in _spread(steps):
        try:
            content = _inlined(read(step))
        except (UserError, OSError) as error:
            remarks.append(f"left out: {sentence(error)}")
            continue
        if took + len(content) > room:
            break
        parts[f"{name}-{step}"] = content
        kept.append(step)
        took += len(content)
    return sorted(kept), took


def _spread(steps: list[int]) -> list[int]:
    """The last, the first, then the middles of what is between."""
    if len(steps) < 3:
        return steps[::-1]
    order, gaps = [len(steps) - 1, 0], [(0, len(steps) - 1)]
    for low, high in gaps:
        if high - low > 1:
            middle = (low + high) // 2
            order.append(middle)
            gaps += [(low, middle), (middle, high)]
    return [steps[i] for i in order][:24]


def _arrays(source: Source, info: dict[str, Any], static: bool, share: float) -> dict[str, NDArray[Any]]:
    """What the page asks for; ``share``: of the pictures that a file may hold."""
    there = source.table
    arrays = source.columns(None if there is None else max(16, int(share * len(there.at))))
    arrays["prior"] = arrays["prior"][: DRAWS if static else None]
    if "index" in arrays:
        arrays["pixels"] = source.originals(arrays["index"].tolist())
        arrays.pop("logvar", None)
    if static:
        arrays["draws"] = source.decode(arrays["prior"])
        if "codes" in arrays:
            arrays["again"] = source.decode(arrays["codes"])
        arrays |= _stored(source, info, arrays.get("codes"), share)
    return arrays


class _Plane(NamedTuple):
    origin: NDArray[np.float32]
    axes: NDArray[np.float32]


def _stored(
    source: Source, info: dict[str, Any], codes: NDArray[np.float32] | None, share: float
) -> dict[str, NDArray[Any]]:
    """What stands for the decoder in a static file: the plane and a walk along each dimension, decoded."""
    dim, size = info["z_dim"], int(np.prod(info["shape"]))
    stored: dict[str, NDArray[Any]] = {}
    order = info["dims"]["order"][:MOST_WALKS]
    values = np.linspace(-REACH, REACH, WALK).astype(np.float32)
    walks = np.zeros((len(order), WALK, dim), np.float32)
    if info["support"] != "real vectors":
        walks[:] = source.columns()["prior"][0]
    for row, at in enumerate(order):
        walks[row, :, at] = values
    stored["walks"] = source.decode(walks.reshape(-1, dim))
    info["walks"] = {"dims": order, "values": values.tolist()}
    side = max(7, min(MOST_SIDE, int((share * 700_000 / size) ** 0.5)))
    plane = _plane_of(info, dim)
    if plane is not None:
        points = np.zeros((1, 2), np.float32) if codes is None else (codes - plane.origin) @ plane.axes.T
        limits = limits_of(torch.from_numpy(points.astype(np.float32)), REACH if dim == 2 else None)
        places = plane.origin + plane_points(limits, side, side).numpy() @ plane.axes
        stored["gridcodes"] = places.astype(np.float32)
        stored["grid"] = source.decode(stored["gridcodes"])
        info["grid"] = {"limits": list(limits), "rows": side, "columns": side}
    return stored


def _plane_of(info: dict[str, Any], dim: int) -> _Plane | None:
    if dim == 2:
        return _Plane(np.zeros(2, np.float32), np.eye(2, dtype=np.float32))
    if info.get("plane"):
        return _Plane(*(np.array(info["plane"][key], np.float32) for key in ("origin", "axes")))
    return None


# The file


def _inlined(content: bytes) -> bytes:
    return base64.b64encode(gzip.compress(content, 9, mtime=0))


def _html(infos: Sequence[dict[str, Any]], parts: dict[str, bytes]) -> bytes:
    style, script = assets.page()["style.css"], assets.bundled()
    said = json.dumps(files.finite({"version": __version__, "runs": list(infos)}), allow_nan=False)
    scripts = f"'sha256-{_digest(script)}'" + (" blob: 'wasm-unsafe-eval'" if "runtime" in parts else "")
    policy = POLICY.format(scripts=scripts, style=_digest(style))
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_escaped(', '.join(info['name'] for info in infos))}: vaes report</title>\n<style>{style}</style>"
    )
    # What the file holds stands in its head: the page fills the body anew.
    blocks = [_block("info", "application/json", _harmless(said).encode())]
    blocks += [_block(name, "text/plain", content) for name, content in parts.items()]
    tail = (
        f'<script type="module">{script}</script>\n</head>\n'
        "<body><noscript>This page needs JavaScript.</noscript></body>\n</html>\n"
    )
    return b"\n".join([head.encode(), *blocks, tail.encode()])


def _block(name: str, kind: str, content: bytes) -> bytes:
    return f'<script type="{kind}" id="vaes-{name}">'.encode() + content + b"</script>"


def _harmless(text: str) -> str:
    """JSON that ends no element and opens none, whatever a run's files say."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
