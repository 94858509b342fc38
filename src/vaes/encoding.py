"""Images -> what a trained model says of each: its code, how well the model explains it, and how odd it is; as a table
on disk, and codes read back from one."""

import array
import csv
import hashlib
import importlib.util
import math
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from vaes import files
from vaes.data import ImageSet, to_float
from vaes.errors import UserError
from vaes.memory import available
from vaes.model import VAE, Trace, evaluation
from vaes.randomness import Draw, Use, draw, mirrored

__all__ = [
    "MEANING",
    "Codes",
    "check_output",
    "encode",
    "image_shape",
    "normalised",
    "read_codes",
    "refuse_other_shape",
    "write",
]

MEANING = {
    "path": "the image's file as it was given, or its number in the set; undecodable bytes as \\udcNN",
    "label": "the name of its class; empty without labels",
    "z0 ...": "the mean of q(z|x), or the code where the posterior is a point; of a grid, row after row",
    "logvar0 ...": "the log-variance of q(z|x); no such columns where the posterior is a point",
    "elbo": "evidence lower bound, nats: -distortion - rate; empty where the posterior is a point",
    "distortion": "-E_q log p(x|z), nats, the mean over a draw and its mirror image about the mean",
    "rate": "KL(q(z|x) || p(z)), nats; empty where the posterior is a point",
    "mse": "mean squared error of the reconstruction from the mean, per channel and pixel, pixels in [0, 1]",
    "score": "anomaly score, higher is odder: the share of the picture's own variance that the reconstruction misses",
    "index0 ...": "of the words of a codebook, position after position (row after row of a grid), book after book; no "
    "such columns where codes are not quantized",
}
"""The columns of a table of codes, in their order; one row an image."""

ROUNDING = 1 / (12 * 255**2)
"""The variance that rounding to 8 bits gives, pixels in [0, 1]: no picture is known to have less."""


class Codes(NamedTuple):
    """What a model says of N images; float32 but for the names. :data:`MEANING` defines the columns."""

    path: NDArray[np.str_]  # (N,)
    label: NDArray[np.str_]  # (N,) names of classes, "" without labels
    mean: NDArray[np.float32]  # (N, D)
    logvar: NDArray[np.float32] | None  # (N, D)
    elbo: NDArray[np.float32]  # (N,) NaN where the posterior has no density
    distortion: NDArray[np.float32]  # (N,)
    rate: NDArray[np.float32]  # (N,) NaN where the posterior has no density
    mse: NDArray[np.float32]  # (N,) pixels in [0, 1]
    score: NDArray[np.float32]  # (N,)
    indices: NDArray[np.int32] | None = None  # (N, P * Q) of words of a codebook; (N, 0) without


def encode(model: VAE, images: ImageSet, *, seed: int = 0, batch_size: int = 256, progress: bool = False) -> Codes:
    """The images in their order -> their codes, bounds, errors and anomaly scores.

    The noise of the ELBO is a function of (seed, the image's own pixels): an image has the same numbers (to rounding)
    in whatever batch and company it comes.

    The score is ``mse / (v + 1 / (12 255^2))``, v being the variance of the picture's pixels about the mean of their
    channel: 0 where the model draws the picture exactly, 1 where the picture's mean colour would do as well. It needs
    nothing but a reconstruction, so it means the same for every posterior, likelihood and scale of pixels. ELBO and
    MSE can find flat, dark and blurred pictures more normal than any that the model was trained on, because there is
    little in them to get wrong (Nalisnick et al., Do Deep Generative Models Know What They Don't Know?, 2019,
    https://arxiv.org/abs/1810.09136, section 5).

    Args:
        model: on any device; each of its modules keeps the mode (training or evaluation) that it came in.
        images: of the shape that the model was made for.
        seed: of the ELBO's noise.
        batch_size: codes decoded at once.
        progress: show a bar on a terminal.

    Raises:
        UserError: there are no images, they are of another shape, or what the model says of them is not finite.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name}: {value} is not right; it must be at least {least}")
    if not len(images):
        raise UserError("there are no images to encode")
    like = next(model.parameters())
    draws = 2 if "log_q" in model.posterior.gives else 0
    parts, words = [], []
    with evaluation(model), tqdm(total=len(images), desc="encoding", unit="image", disable=not progress or None) as bar:
        refuse_other_shape(model, images)
        for index in torch.arange(len(images)).split(max(1, batch_size // (1 + draws))):
            pixels = images.read(index.to(images.index_device))
            x = to_float(pixels, model.value_range).to(like)
            h = model.features(x)
            centre = model.trace(x, model.posterior.centre(h, model.z_shape))
            noise = _noise(pixels.cpu(), seed, model.noise).to(like) if draws else None
            parts.append(
                _describe(model, centre, centre if noise is None else model.trace(x, model.posterior(h, noise)))
            )
            if "indices" in centre.aux:
                words.append(centre.aux["indices"].flatten(1).int().cpu().numpy())
            bar.update(len(index))
    paths = getattr(images.notes, "paths", None)
    names = np.array([str(i) for i in range(len(images))] if paths is None else list(paths), dtype=np.str_)
    columns: list[Any] = [None if c[0] is None else np.concatenate(c) for c in zip(*parts, strict=True)]
    codes = Codes(names, _labels(images), *columns)._replace(
        indices=np.concatenate(words) if words else np.empty((len(images), 0), np.int32)
    )
    _refuse_non_finite(codes, bounded=draws > 0)
    return codes


def normalised(codes: Codes, model: VAE, mean: Sequence[float], std: Sequence[float]) -> Codes:
    """Codes whose means and log-variances are those of ``(z - mean) / std``, channel by channel (C,)."""
    each = math.prod(model.z_shape[1:])
    centre, scale = (np.repeat(np.asarray(values, dtype=np.float64), each) for values in (mean, std))
    logvar = None if codes.logvar is None else (codes.logvar - 2 * np.log(scale)).astype(np.float32)
    return codes._replace(mean=((codes.mean - centre) / scale).astype(np.float32), logvar=logvar)


def image_shape(model: VAE) -> tuple[int, ...]:
    """(C, H, W) of the pictures that a model makes."""
    with evaluation(model):
        return tuple(model.decode(torch.zeros(1, *model.z_shape).to(next(model.parameters()))).shape[1:])


def refuse_other_shape(model: VAE, images: ImageSet) -> None:
    """Refuse images that are not of the model's shape.

    Raises:
        UserError: naming both.
    """
    made = image_shape(model)
    if made != tuple(images.shape):
        sizes = " and ".join("x".join(map(str, shape)) for shape in (made, images.shape))
        raise UserError(f"the model's images and the data's (C x H x W) are {sizes}: give images of the model's shape")


def _noise(pixels: Tensor, seed: int, wanted: Draw) -> Tensor:
    """Noise and its mirror image (2, B, ...): what is linear in it cancels."""
    rows = []
    for picture in pixels.numpy():
        content = hashlib.sha256(picture.tobytes()).digest()[:8]
        rows.append(draw(wanted, (), seed, Use.ENCODING, int.from_bytes(content)))
    half = torch.stack(rows)
    return torch.stack([half, mirrored(half, wanted.law)])


def _describe(model: VAE, centre: Trace, drawn: Trace) -> tuple[NDArray[np.float32] | None, ...]:
    """The fields of Codes from mean on, from a pass of the central codes and one of draws."""
    low, high = model.value_range
    x = (centre.x - low) / (high - low)
    picture = (model.likelihood.mean(centre.y[0]) - low) / (high - low)
    mse = (x - picture).square().flatten(1).mean(1)
    variance = x.flatten(2).var(2, correction=0).mean(1)
    distortion = -drawn.log_px.mean(0)
    rate = torch.full_like(distortion, torch.nan) if drawn.rate is None else drawn.rate
    mean = centre.z[0] if centre.mean is None else centre.mean
    logvar = None if centre.logvar is None else centre.logvar.flatten(1)
    columns = (mean.flatten(1), logvar, -distortion - rate, distortion, rate, mse, mse / (variance + ROUNDING))
    return tuple(None if column is None else column.float().cpu().numpy() for column in columns)


def _labels(images: ImageSet) -> NDArray[np.str_]:
    labels, names = images.notes.labels, images.notes.label_names
    if labels is None:
        return np.full(len(images), "", dtype=np.str_)
    return np.array([names[k] if 0 <= k < len(names) else str(k) for k in labels.tolist()], dtype=np.str_)


def _refuse_non_finite(codes: Codes, bounded: bool) -> None:
    numbers = [codes.mean, codes.distortion[:, None], codes.score[:, None]]
    numbers += [] if codes.logvar is None else [codes.logvar]
    numbers += [codes.rate[:, None]] if bounded else []
    bad = np.asarray(~np.isfinite(np.concatenate(numbers, 1)).all(1))
    if bad.any():
        raise UserError(
            f"what the model says of {bad.sum():,} of {len(bad):,} images is not finite (the first is "
            f"{codes.path[bad.argmax()]}): its training diverged; take an earlier checkpoint"
        )


# Tables


def check_output(path: Path) -> None:
    """Refuse, before the work is done, a file that :func:`write` could not write. Its folder is made.

    Raises:
        UserError: it is of no known kind, is a folder, cannot be written, or needs a package that is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path}: codes are written as {', '.join(_WRITERS)}; give a name that ends in one of them")
    if path.suffix.lower() == ".parquet":
        _refuse_without_pyarrow(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise UserError(f"{path}: is {what}; give the name of a file")
    files.refuse_unwritable(path.parent)
    try:
        path.with_name(f".{path.name}.{os.getpid()}.tmp").lstat()  # as write_atomic calls it for a while
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give a shorter name") from None


def write(codes: Codes, path: Path) -> None:
    """Write the codes as ``.csv``, ``.npz`` or ``.parquet``, whole or not at all: the columns of :data:`MEANING` under
    the same names in each. What is not defined is empty in CSV, null in Parquet and NaN in NPZ.

    Raises:
        UserError: as :func:`check_output`, or the disk is full.
    """
    check_output(path)
    table = _columns(codes)
    try:
        files.write_atomic(path, lambda temporary: _WRITERS[path.suffix.lower()](temporary, table))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); give another place") from None


Table = dict[str, NDArray[np.str_] | NDArray[np.float32] | NDArray[np.int32]]


def _columns(codes: Codes) -> Table:
    table: Table = {"path": _encodable(codes.path), "label": _encodable(codes.label)}
    table |= {f"z{i}": column for i, column in enumerate(codes.mean.T)}
    if codes.logvar is not None:
        table |= {f"logvar{i}": column for i, column in enumerate(codes.logvar.T)}
    table |= {name: getattr(codes, name) for name in ("elbo", "distortion", "rate", "mse", "score")}
    return table if codes.indices is None else table | {f"index{i}": x for i, x in enumerate(codes.indices.T)}


def _encodable(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Bytes of a file's name that are no UTF-8, which Python holds as lone surrogates, as ``\\udcNN``."""
    return np.array([name.encode("utf-8", "backslashreplace").decode() for name in names.tolist()], dtype=np.str_)


def _write_csv(path: Path, table: Table) -> None:
    columns = []
    for column in table.values():
        if column.dtype.kind == "U":  # always quoted, so that no line break in a name ends the row
            columns.append(['"' + name.replace('"', '""') + '"' for name in column.tolist()])
        else:  # the shortest text that reads back as the same float32
            columns.append(np.where(np.isnan(column), "", column.astype(np.str_)).tolist())
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(table) + "\n")
        file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def _write_npz(path: Path, table: Table) -> None:
    with path.open("wb") as file:  # given a name, NumPy would add a suffix to it
        np.savez(file, **table)  # type: ignore[arg-type]


def _write_parquet(path: Path, table: Table) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: pyarrow.array(column.tolist() if column.dtype.kind == "U" else column, from_pandas=True)
               for name, column in table.items()}  # fmt: skip
    columns["label"] = pyarrow.array([label or None for label in table["label"].tolist()], pyarrow.string())
    with path.open("wb") as file:
        pyarrow.parquet.write_table(pyarrow.table(columns, metadata=MEANING), file)


_WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}


def _refuse_without_pyarrow(path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs a package more: pip install 'vaes[parquet]' (or give a .csv or .npz)")


# Codes read back


def read_codes(path: Path) -> Tensor:
    """The columns z0, z1, ... of a ``.csv``, ``.npz`` or ``.parquet`` file -> codes (N, D) float32; others are ignored.

    Raises:
        UserError: it is no such file, too large for the memory, has no such columns or leaves one out, or holds
            something that is no finite number.
    """
    kind = path.suffix.lower()
    if kind not in _READERS:
        raise UserError(f"{path}: codes are read from {', '.join(_READERS)}")
    if not path.is_file():
        raise UserError(f"{path}: {'is no regular file' if path.exists() else 'there is no such file'}")
    if path.stat().st_size > available() // 8:
        raise UserError(f"{path}: of {path.stat().st_size:,} bytes, too large for the memory that is free")
    try:
        codes = _READERS[kind](path)
    except UserError:
        raise
    except OSError as error:
        if error.strerror:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        raise UserError(f"{path}: is no whole {kind} file") from None
    except (ValueError, EOFError, MemoryError, csv.Error, zipfile.BadZipFile, zlib.error, NotImplementedError):
        raise UserError(f"{path}: is no whole {kind} file") from None
    if not len(codes):
        raise UserError(f"{path}: holds no codes: there are columns and no rows")
    bad = ~codes.isfinite().all(1)
    if bad.any():
        raise UserError(f"{path}: row {int(bad.int().argmax()) + 1} of codes holds NaN or infinity, or a cell is empty")
    return codes


def _order(names: Sequence[str], path: Path) -> list[str]:
    """z0, z1, ... as far as they go."""
    found = Counter(name for name in names if re.fullmatch(r"z(0|[1-9][0-9]{0,6})", name))
    if not found:
        said = ", ".join(map(repr, names[:5])) or "none"
        raise UserError(f"{path}: has no columns z0, z1, ... (its columns: {said[:200]}{', ...' if names[5:] else ''})")
    wanted = [f"z{i}" for i in range(found.total())]
    wrong = [name for name in wanted if found[name] != 1]
    if wrong:
        fault = "there twice" if wrong[0] in found else "missing"
        raise UserError(f"{path}: of its columns z0, z1, ... {wrong[0]} is {fault}")
    return wanted


def _read_csv(path: Path) -> Tensor:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        at = {name: i for i, name in enumerate(header)}
        places = [at[name] for name in _order(header, path)]
        numbers = array.array("f")
        for row in _whole_rows(rows, len(header), path):
            try:
                numbers.extend(float(row[place] or "nan") for place in places)
            except ValueError as error:
                raise UserError(f"{path}: line {rows.line_num}: {str(error)[:100]}") from None
    return torch.from_numpy(np.array(numbers, dtype=np.float32)).reshape(-1, len(places))


def _whole_rows(rows: Any, width: int, path: Path) -> Iterator[list[str]]:
    for row in rows:
        if len(row) not in (0, width):
            raise UserError(f"{path}: line {rows.line_num} has {len(row)} cells where the first has {width}")
        if row:
            yield row


def _read_npz(path: Path) -> Tensor:
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist() if re.fullmatch(r"z[0-9]+\.npy", member.filename))
    if size > available() // 4:
        raise UserError(f"{path}: holds {size:,} bytes of codes, too many for the memory that is free")
    with np.load(path, allow_pickle=False) as arrays:
        columns = [arrays[name] for name in _order(arrays.files, path)]
    return _stacked(columns, path)


def _read_parquet(path: Path) -> Tensor:
    _refuse_without_pyarrow(path)
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file:
            names = _order(file.schema_arrow.names, path)
            if file.metadata.num_rows * len(names) * 4 > available() // 4:
                raise UserError(f"{path}: holds {file.metadata.num_rows:,} rows, too many for the memory that is free")
            table = file.read(columns=names)
        return _stacked([table[name].to_numpy() for name in names], path)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: is no whole .parquet file ({str(error).splitlines()[0][:100]})") from None


def _stacked(columns: list[NDArray[np.generic]], path: Path) -> Tensor:
    for i, column in enumerate(columns):
        if column.ndim != 1 or column.dtype.kind not in "fiu" or len(column) != len(columns[0]):
            raise UserError(
                f"{path}: z{i} is {column.dtype} of shape {column.shape}; {len(columns[0])} numbers are wanted"
            )
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


_READERS: dict[str, Callable[[Path], Tensor]] = {".csv": _read_csv, ".npz": _read_npz, ".parquet": _read_parquet}
