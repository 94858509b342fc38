"""Evaluations of a run as files for programs and as a table for people.

``evaluation.json`` holds one evaluation for each checkpoint that was evaluated, the last written at its top level and
the rest under ``others``. The numbers of single images lie beside it, in a safetensors file for each evaluation that is
named by its contents, so that a process that is killed leaves what was there before. Checksums cover both.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import safetensors
import safetensors.torch
import torch

from vaes import files
from vaes.errors import UserError
from vaes.evaluate.record import Column, Metric, Skipped
from vaes.terminal import brief

__all__ = [
    "FILE",
    "Evaluation",
    "Group",
    "add",
    "group",
    "interval95",
    "not_finite",
    "number",
    "read",
    "ready",
    "shown",
    "table",
    "with_error",
]

logger = logging.getLogger(__name__)

FORMAT, FIRST_FORMAT = "vaes-evaluation-2", "vaes-evaluation-1"
FILE = "evaluation.json"
LOCK = ".evaluation.lock"
COLUMNS = re.compile(r"evaluation-[0-9a-f]{16}\.safetensors")
LEFT = re.compile(r"\.evaluation(\.json|-[0-9a-f]{16}\.safetensors)\.[0-9]+\.tmp")  # by a process that was killed
MAX_BYTES = 100_000_000
NORMAL = 1.959963984540054


class Group(NamedTuple):
    """The metrics of one group, and on what they were computed."""

    split: str
    images: str  # fingerprint of the split
    budget: dict[str, int]
    metrics: list[Metric]
    skipped: list[Skipped]
    chosen: str | None = None  # fingerprint of the images taken; None where the first format did not say
    seed: int | None = None  # of the evaluation
    columns: dict[str, Column] = {}  # noqa: RUF012 (never changed)


class Evaluation(NamedTuple):
    """One checkpoint's evaluation."""

    step: int
    weights: str  # SHA-256 of the weights file
    version: str  # of vaes
    groups: dict[str, Group]
    asked: tuple[str, ...] = ()  # how the checkpoint was asked for: best, last, a step, a path
    config: str | None = None  # the configuration that the weights carry, as YAML


def group(
    found: Sequence[Metric | Skipped],
    split: str,
    images: str,
    budget: dict[str, int],
    chosen: str | None = None,
    seed: int | None = None,
    columns: Mapping[str, Column] | None = None,
) -> Group:
    """The metrics of one group apart from those that were skipped."""
    metrics = [_plain(one) for one in found if isinstance(one, Metric)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    return Group(split, images, budget, metrics, skipped, chosen, seed, dict(columns or {}))


def _plain(metric: Metric) -> Metric:
    """Without an error that is no number."""
    stderr = metric.stderr if metric.stderr is not None and math.isfinite(metric.stderr) else None
    interval = metric.interval if metric.interval is not None and all(map(math.isfinite, metric.interval)) else None
    return metric._replace(stderr=stderr, interval=interval)


def not_finite(groups: Mapping[str, Group]) -> list[str]:
    """The metrics that came out as NaN or infinite."""
    return [one.name for group in groups.values() for one in group.metrics if not math.isfinite(one.value)]


def ready(folder: Path) -> None:
    """Refuse before the work what :func:`add` would refuse after it.

    Raises:
        UserError: what is there is damaged or a symbolic link, or the folder cannot be written.
    """
    files.refuse_unwritable(folder)
    files.refuse_links(folder, (FILE, LOCK))
    if (folder / FILE).exists():
        read(folder)


def add(folder: Path, evaluation: Evaluation) -> Path:
    """Put an evaluation into a folder beside those of other checkpoints; its groups replace those of their names of the
    same weights. One process at a time reads, merges and writes. Returns the document's path.

    Raises:
        UserError: what is there is damaged, a symbolic link, or cannot be written.
    """
    path = folder / FILE
    with files.locked(folder / LOCK):
        files.refuse_links(path.parent, [path.name])
        there = read(folder) if path.exists() else []
        same = [old for old in there if old.weights == evaluation.weights]
        merged = [_merge(same[0] if same else None, evaluation)] + [old for old in there if old not in same]
        try:
            documents = [_document(one, _write_columns(folder, one)) for one in merged]
            document: dict[str, Any] = {"format": FORMAT, **documents[0], "others": documents[1:]}
            text = json.dumps(document | {"sha256": files.digest(document, "sha256")}, indent=1, allow_nan=False) + "\n"
            files.write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
            used = {one["columns"]["file"] for one in documents if one["columns"]}
            for left in folder.iterdir():
                if LEFT.fullmatch(left.name) or (COLUMNS.fullmatch(left.name) and left.name not in used):
                    left.unlink()
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); what was there before is whole") from None
    return path


def _merge(old: Evaluation | None, new: Evaluation) -> Evaluation:
    if old is None:
        return new
    return new._replace(
        groups={**old.groups, **new.groups},
        asked=tuple(dict.fromkeys((*old.asked, *new.asked))),
        config=new.config or old.config,
    )


def _document(evaluation: Evaluation, columns: dict[str, str] | None) -> dict[str, Any]:
    groups = {}
    for name, one in evaluation.groups.items():
        found: dict[str, Any] = {key: value for key, value in one._asdict().items() if key != "columns"}
        found["metrics"] = [_numbers(metric) for metric in one.metrics]
        found["skipped"] = [skipped._asdict() for skipped in one.skipped]
        groups[name] = found
    return {**evaluation._asdict(), "asked": list(evaluation.asked), "groups": groups, "columns": columns}


def _numbers(metric: Metric) -> dict[str, Any]:
    found = metric._asdict()
    if not math.isfinite(metric.value):
        found |= {"value": None, "not_finite": str(metric.value)}
    return found


def _write_columns(folder: Path, evaluation: Evaluation) -> dict[str, str] | None:
    """Write the columns of all groups into a file of their own; its name and checksum, None where there are none."""
    tensors = {}
    for name, one in evaluation.groups.items():
        for metric, column in one.columns.items():
            rows = torch.tensor(column.rows, dtype=torch.float64)
            tensors[f"{name}/{metric}"] = torch.stack([rows, torch.tensor(column.values, dtype=torch.float64)])
    if not tensors:
        return None
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tuple(tensor.shape)} ".encode() + tensor.numpy().tobytes())
    path = folder / f"evaluation-{content.hexdigest()[:16]}.safetensors"
    files.refuse_links(path.parent, [path.name])
    about = {"rows": "where in its split an image stands, and its number"}
    files.write_atomic(path, lambda temporary: files.write_tensors(temporary, tensors, about))
    return {"file": path.name, "sha256": files.checksum(path)}


def read(folder: Path) -> list[Evaluation]:
    """The evaluations in a folder, the last written first.

    Raises:
        UserError: they are missing, damaged, edited, or of another format.
    """
    text = _text_of(folder / FILE)
    while True:
        lost: list[str] = []
        try:
            found = _parse(folder, text, lost)
        except UserError as error:
            found, fault = [], error
        else:
            if not lost:
                return found
        # It may have been written while it was read, and a file of columns exchanged.
        before, text = text, _text_of(folder / FILE)
        if text != before:
            continue
        if not found:
            raise fault
        logger.warning("%s, the numbers of single images, is missing: differences cannot be paired", lost[0])
        return found


def _again(folder: Path) -> str:
    return f"delete it and run vaes evaluate {folder} again"


def _text_of(path: Path) -> bytes:
    try:
        if not path.is_file() and path.exists():
            raise UserError(f"{path}: not an evaluation (no regular file); {_again(path.parent)}")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: not an evaluation (larger than any); {_again(path.parent)}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _parse(folder: Path, text: bytes, lost: list[str]) -> list[Evaluation]:
    path, again = folder / FILE, _again(folder)
    try:
        document = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a JSON file; {again}") from None
    try:
        return _evaluations(folder, document, lost)
    except (*_DAMAGES, safetensors.SafetensorError, OSError) as error:
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not an evaluation ({shown(what)}); {again}") from None


_DAMAGES = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _evaluations(folder: Path, document: Any, lost: list[str]) -> list[Evaluation]:
    """Files of columns that are missing are added to ``lost``."""
    if document["format"] == FIRST_FORMAT:
        return [_evaluation(document, {})]
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
    if document["sha256"] != files.digest(document, "sha256"):
        raise UserError("edited or damaged: its checksum is not the one that was saved")
    found = [_evaluation(one, _read_columns(folder, one["columns"], lost)) for one in (document, *document["others"])]
    if len({one.weights for one in found}) < len(found):
        raise ValueError("the same weights twice")
    return found


def _read_columns(folder: Path, named: Mapping[str, str] | None, lost: list[str]) -> dict[str, Column]:
    if named is None:
        return {}
    if not COLUMNS.fullmatch(named["file"]):
        raise ValueError(f"{named['file']!r} is no file of columns")
    path = folder / named["file"]
    try:
        content = files.read_bytes(path)
    except FileNotFoundError:
        lost.append(str(path))
        return {}
    if hashlib.sha256(content).hexdigest() != named["sha256"]:
        raise UserError(f"{path.name}, with its numbers of single images, is damaged: its checksum is another")
    found = {}
    for name, tensor in safetensors.torch.load(content).items():
        rows, values = tensor.unbind()
        found[name] = Column(tuple(rows.long().tolist()), tuple(values.tolist()))
    return found


def _evaluation(document: Mapping[str, Any], columns: Mapping[str, Column]) -> Evaluation:
    groups = {}
    for name, raw in document["groups"].items():
        metrics = [_metric(metric) for metric in raw["metrics"]]
        skipped = [Skipped(str(one["name"]), str(one["reason"])) for one in raw["skipped"]]
        chosen, seed = _optional(raw.get("chosen"), str), _optional(raw.get("seed"), int)
        if seed is None:  # the first format says it of what was drawn alone
            seed = next((metric.seed for metric in metrics if metric.seed is not None), None)
        own = {key.removeprefix(f"{name}/"): one for key, one in columns.items() if key.startswith(f"{name}/")}
        budget = {str(key): int(value) for key, value in raw["budget"].items()}
        groups[str(name)] = Group(str(raw["split"]), str(raw["images"]), budget, metrics, skipped, chosen, seed, own)
    config = _optional(document.get("config"), str)
    asked = tuple(str(one) for one in document.get("asked", ()))
    return Evaluation(int(document["step"]), str(document["weights"]), str(document["version"]), groups, asked, config)


def _metric(raw: Mapping[str, Any]) -> Metric:
    given = dict(raw)
    value = given.pop("not_finite", given["value"])
    metric = Metric(**{**given, "value": float(value), "n": int(given["n"]), "version": int(given.get("version", 1))})
    interval = None if metric.interval is None else (float(metric.interval[0]), float(metric.interval[1]))
    stderr = None if metric.stderr is None else float(metric.stderr)
    for kind, field in ((str, metric.features), (str, metric.note), (int, metric.seed)):
        _optional(field, kind)
    return metric._replace(stderr=stderr, interval=interval, name=str(metric.name), definition=str(metric.definition))


T = TypeVar("T")


def _optional(value: Any, kind: type[T]) -> T | None:
    if value is not None and type(value) is not kind:
        raise TypeError(f"{brief(value)} where {kind.__name__} is wanted")
    found: T | None = value
    return found


def table(groups: Mapping[str, Group]) -> str:
    """All the metrics, and the reasons where there are none, in lines."""
    lines = ["± is half a 95 % interval; [low, high] is one that is not symmetric"]
    for name, group in groups.items():
        lines.append(f"{name} ({group.split} images)")
        rows = _without_dimensions(group.metrics)
        width = max((len(row) for row, _ in rows), default=0)
        reasons: dict[str, list[str]] = {}
        for one in group.skipped:
            reasons.setdefault(shown(one.reason), []).append(shown(one.name))
        width = max([width, *(len(names[0]) for names in reasons.values() if len(names) == 1)])
        lines += [f"  {row:<{width}}  {text}" for row, text in rows]
        for reason, names in reasons.items():
            if len(names) == 1:
                lines.append(f"  {names[0]:<{width}}  skipped: {reason}")
            else:
                lines += [f"  {', '.join(names)}", f"  {'':<{width}}  skipped: {reason}"]
    return "\n".join(lines)


def _without_dimensions(metrics: Sequence[Metric]) -> list[tuple[str, str]]:
    """Names and texts; the metrics of single dimensions in one line."""
    rows = [(shown(one.name), _text(one)) for one in metrics if not one.name.startswith("kl_dim_")]
    single = sorted((one.value for one in metrics if one.name.startswith("kl_dim_")), reverse=True)
    if single:
        more = f" ... {number(single[-1])} ({len(single)} dimensions)" if len(single) > 10 else ""
        rows.append(("kl_per_dimension", " ".join(number(value) for value in single[:10]) + more))
    return rows


def _text(metric: Metric) -> str:
    if not math.isfinite(metric.value):
        return f"{number(metric.value):>10}  which is no finite number: nothing rests on it"
    text, spread = number(metric.value), ""
    if metric.interval is not None:
        spread = f" [{number(metric.interval[0])}, {number(metric.interval[1])}]"
    elif metric.stderr:
        text, _, half = with_error(metric.value, NORMAL * metric.stderr).partition(" ")
        spread = f" {half}"
    features = f"  {shown(metric.features)}" if metric.features else ""
    note = f"  ! {shown(metric.note)}" if metric.note else ""
    return f"{text:>10}{spread:<18}  n {metric.n:,}{features}{note}"


def interval95(metric: Metric) -> tuple[float, float] | None:
    """The 95 % interval of a metric, from its standard error where it has no other; None where its noise is not
    known."""
    if metric.interval is not None or metric.stderr is None:
        return metric.interval
    return metric.value - NORMAL * metric.stderr, metric.value + NORMAL * metric.stderr


def number(value: float) -> str:
    """Five significant digits, without exponents where that stays short."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:.3g}"


def with_error(value: float, half: float) -> str:
    """A value and half its interval, above 0, to the interval's second digit."""
    if not 1e-4 <= half < 1e6:
        return f"{number(value)} ± {half:.2g}"
    digits = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def shown(text: str) -> str:
    """Names and texts that come from files as they may stand in a line on a terminal: control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
