"""Metrics as a document for programs and as a table for people."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes import files
from vaes.errors import UserError
from vaes.evaluate.record import Metric, Skipped

__all__ = ["FILE", "Evaluation", "Group", "group", "merge", "number", "read", "table", "write"]

FORMAT = "vaes-evaluation-1"
FILE = "evaluation.json"
MAX_BYTES = 20_000_000


class Group(NamedTuple):
    """The metrics of one group, and on what they were computed."""

    split: str
    images: str  # fingerprint of the split
    budget: dict[str, int]
    metrics: list[Metric]
    skipped: list[Skipped]


class Evaluation(NamedTuple):
    """What ``evaluation.json`` holds."""

    step: int
    weights: str  # SHA-256 of the weights file
    version: str  # of vaes
    groups: dict[str, Group]


def group(found: Sequence[Metric | Skipped], split: str, images: str, budget: dict[str, int]) -> Group:
    """The metrics of one group apart from those that were skipped; one that is not a finite number is skipped too."""
    metrics = [one for one in found if isinstance(one, Metric)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    broken = [one for one in metrics if not math.isfinite(one.value)]
    skipped += [Skipped(one.name, f"came out as {one.value}, which is no finite number") for one in broken]
    return Group(split, images, budget, [_plain(one) for one in metrics if one not in broken], skipped)


def _plain(metric: Metric) -> Metric:
    """Without an error that is no number."""
    stderr = metric.stderr if metric.stderr is not None and math.isfinite(metric.stderr) else None
    interval = metric.interval if metric.interval is not None and all(map(math.isfinite, metric.interval)) else None
    return metric._replace(stderr=stderr, interval=interval)


def merge(old: Evaluation | None, new: Evaluation) -> Evaluation:
    """The new groups beside those of an older evaluation, if it was of the same weights."""
    if old is None or old.weights != new.weights:
        return new
    return new._replace(groups={**old.groups, **new.groups})


def write(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation, whole or not at all."""
    groups = {
        name: group._asdict()
        | {"metrics": [metric._asdict() for metric in group.metrics]}
        | {"skipped": [skipped._asdict() for skipped in group.skipped]}
        for name, group in evaluation.groups.items()
    }
    text = json.dumps({"format": FORMAT, **evaluation._asdict(), "groups": groups}, indent=1, allow_nan=False)
    files.write_atomic(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def read(path: Path) -> Evaluation:
    """Read an evaluation.

    Raises:
        UserError: it is missing, damaged, or of another format.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than any evaluation")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not a JSON file; run vaes evaluate {path.parent} again") from None
    try:
        return _evaluation(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not an evaluation ({what}); run vaes evaluate {path.parent} again") from None


def _evaluation(document: Any) -> Evaluation:
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
    groups = {}
    for name, group in document["groups"].items():
        metrics = [_metric(metric) for metric in group["metrics"]]
        skipped = [Skipped(str(one["name"]), str(one["reason"])) for one in group["skipped"]]
        groups[str(name)] = Group(str(group["split"]), str(group["images"]), dict(group["budget"]), metrics, skipped)
    return Evaluation(int(document["step"]), str(document["weights"]), str(document["version"]), groups)


def _metric(raw: Mapping[str, Any]) -> Metric:
    metric = Metric(**raw)
    interval = None if metric.interval is None else (float(metric.interval[0]), float(metric.interval[1]))
    stderr = None if metric.stderr is None else float(metric.stderr)
    return metric._replace(value=float(metric.value), stderr=stderr, interval=interval, name=str(metric.name))


def table(groups: Mapping[str, Group]) -> str:
    """All the metrics, and the reasons where there are none, in lines."""
    lines = []
    for name, group in groups.items():
        lines.append(f"{name} ({group.split} images)")
        shown = _without_dimensions(group.metrics)
        width = max((len(row) for row, _ in shown), default=0)
        width = max([width, *(len(one.name) for one in group.skipped)])
        lines += [f"  {row:<{width}}  {text}" for row, text in shown]
        lines += [f"  {one.name:<{width}}  skipped: {one.reason}" for one in group.skipped]
    return "\n".join(lines)


def _without_dimensions(metrics: Sequence[Metric]) -> list[tuple[str, str]]:
    """Names and texts; the metrics of single dimensions in one line."""
    rows = [(one.name, _text(one)) for one in metrics if not one.name.startswith("kl_dim_")]
    single = sorted((one.value for one in metrics if one.name.startswith("kl_dim_")), reverse=True)
    if single:
        more = f" ... {number(single[-1])} ({len(single)} dimensions)" if len(single) > 10 else ""
        rows.append(("kl_per_dimension", " ".join(number(value) for value in single[:10]) + more))
    return rows


def _text(metric: Metric) -> str:
    spread = ""
    if metric.interval is not None:
        spread = f" [{number(metric.interval[0])}, {number(metric.interval[1])}]"
    elif metric.stderr is not None:
        spread = f" ± {metric.stderr:.2g}"
    features = f"  {metric.features}" if metric.features else ""
    note = f"  ! {metric.note}" if metric.note else ""
    return f"{number(metric.value):>10}{spread:<18}  n {metric.n:,}{features}{note}"


def number(value: float) -> str:
    """Five significant digits, without exponents where that stays short."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:.3g}"
