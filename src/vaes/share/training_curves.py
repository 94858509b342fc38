"""The curves of a training, from what its run folder holds at this moment: it may be at work still."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vaes import drawing, files
from vaes.config.registry import TERMS
from vaes.errors import UserError
from vaes.train.folder import history
from vaes.train.record import read_lines
from vaes.train.units import unit as unit_beside
from vaes.view.layout import literal

__all__ = ["ENDINGS", "Curve", "curves", "plot", "units", "write_plot"]

ENDINGS = (".png", ".svg", ".pdf")
INK, MUTED, RULE, PAGE = "#1c1c22", "#62646e", "#d9dbe0", "#f7f7f9"
TRAIN, VALID = "#1070f0", "#e76300"
ACROSS, MOST = 3, 30
FIRST = ("loss", "elbo", "distortion", "rate")
NATS = "nats per image"
CHANGES = 3


class Curve(NamedTuple):
    """The values of one number over the steps of a training."""

    name: str
    unit: str  # "" for coefficients and learning rates, which have none
    train: tuple[np.ndarray, np.ndarray]  # steps (n,), values (n,): means since the value before; NaN is no number
    valid: tuple[np.ndarray, np.ndarray]


def curves(folder: Path) -> list[Curve]:
    """The curves of a run: losses and bounds, then terms, then coefficients.

    Raises:
        UserError: it is no run folder, or nothing was measured yet.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        if (folder / "config.yaml").is_file():
            raise UserError(f"{folder}: nothing was measured yet; the first numbers come after train.print_freq steps")
        raise UserError(f"{folder}: holds no metrics.jsonl; give a run folder")
    lines = sorted(read_lines(path), key=lambda line: int(line["step"]))
    names = {name: None for line in lines for name in line if name not in ("step", "split")}
    in_valid = {name for line in lines if line["split"] == "valid" for name in line}
    unit_of = units(folder, names, in_valid)

    def points(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
        found = [(x["step"], _number(x[name])) for x in lines if x["split"] == split and name in x]
        table = np.array(found, dtype=float).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def place(name: str) -> tuple[int, int]:
        kind = 0 if name in FIRST else 1 if name in in_valid or name in TERMS else 2
        return kind, FIRST.index(name) if kind == 0 else list(names).index(name)

    made = [
        Curve(name, unit_of[name], points(name, "train"), points(name, "valid")) for name in sorted(names, key=place)
    ]
    made = [c for c in made if np.isfinite(np.concatenate([c.train[1], c.valid[1]])).any()]
    if not made:
        raise UserError(f"{path}: holds no numbers yet; the first come after train.print_freq steps")
    return made


def plot(folder: Path, *, smooth: int = 1) -> Figure:
    """The curves of a run as a figure, a panel each, with the best step and where settings changed.

    Args:
        folder: a run folder.
        smooth: draw means of so many training lines over the lines themselves, which are pale; 1 draws them as they
            are. Coefficients are never smoothed.

    Raises:
        UserError: as :func:`curves` does.
    """
    found = curves(folder)
    still = [c for c in found if _is_coefficient(c) and np.ptp(c.train[1]) == 0]
    moving = [c for c in found if not any(c is other for other in still)] or found
    shown = moving[:MOST]
    segments = [line for line in history(folder) if isinstance(line.get("config"), Mapping)]
    best, across = _best(found), min(ACROSS, len(shown))
    rows = -(-len(shown) // across)
    said = [f"{len(moving) - MOST} more numbers are in metrics.jsonl"] if len(moving) > MOST else []
    if still and moving is not found:
        said.append(f"constant: {', '.join(f'{literal(c.name)} {c.train[1][0]:g}' for c in still)}")
    if smooth > 1:
        said.append(f"training: means of {smooth} lines around each step, the lines themselves pale")
    said += _changes(segments)
    below = 0.7 + 0.15 * len(said)
    with drawing.plain_style():
        figure = Figure(figsize=(4.2 * max(across, 2), 2.7 * rows + 1.05 + below - 0.45), dpi=120, facecolor=PAGE)
        FigureCanvasAgg(figure)
        height = figure.get_figheight()
        figure.subplots_adjust(
            left=0.75 / figure.get_figwidth(), right=1 - 0.2 / figure.get_figwidth(),
            top=1 - 1.05 / height, bottom=below / height, wspace=0.26, hspace=0.42,
        )  # fmt: skip
        for i, curve in enumerate(shown):
            axes = figure.add_subplot(rows, across, i + 1, facecolor="white")
            _panel(axes, curve, best, [int(s["step"]) for s in segments[1:]], smooth)
            if i + across >= len(shown):
                axes.set_xlabel("step", color=MUTED, fontsize=8.5)
        _head(figure, folder, segments, best)
        figure.text(
            0.2 / figure.get_figwidth(), 0.18 / height, "\n".join(said), color=MUTED, fontsize=8, parse_math=False
        )
    return figure


def write_plot(folder: Path, path: Path, *, smooth: int = 1) -> None:
    """Write :func:`plot` as .png, .svg or .pdf, whole or not at all; a run that has not changed gives the same bytes.

    Raises:
        UserError: another ending, a folder that cannot be written, or as :func:`curves` does.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UserError(f"{path}: curves are written as {', '.join(ENDINGS)}; give a name that ends in one of them")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    figure = plot(folder, smooth=smooth)
    files.refuse_unwritable(path.parent)
    undated: dict[str, Any] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[ending]
    import matplotlib

    with drawing.plain_style(), matplotlib.rc_context({"svg.hashsalt": "vaes"}):
        files.write_atomic(path, lambda temporary: figure.savefig(temporary, format=ending[1:], metadata=undated))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def units(folder: Path, names: Iterable[str], validated: Collection[str]) -> dict[str, str]:
    """The unit of each number of a run's ``metrics.jsonl``; "" for coefficients and learning rates, which have none.

    Args:
        folder: the run folder.
        names: of the numbers.
        validated: those of them that were taken over validation images.
    """
    known = _tested_units(folder)
    return {name: _unit(name, known, name in validated) for name in names}


def _tested_units(folder: Path) -> dict[str, str]:
    """What ``metrics.json``, which a finished training leaves, says of them."""
    try:
        document = json.loads(files.read_bytes(folder / "metrics.json", files.MAX_JSON).decode("utf-8"))
        return {name: str(found["unit"]) for name, found in document["valid"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # it is at work still


def _unit(name: str, units: Mapping[str, str], measured: bool) -> str:
    if name in units:
        return units[name]
    if name == "mse":
        return "per pixel"
    if (found := unit_beside(name)) is not None:
        return found
    if name in TERMS:
        return str(getattr(TERMS[name], "unit", ""))
    return NATS if name in FIRST or measured or name.removesuffix("_loss") in TERMS else ""


def _is_coefficient(curve: Curve) -> bool:
    return not curve.unit and not len(curve.valid[0]) and curve.name not in TERMS


def _best(found: Sequence[Curve]) -> tuple[int, float] | None:
    """The step of the lowest validation loss, the first where there are several, as training chooses it."""
    for curve in found:
        if curve.name == "loss" and np.isfinite(curve.valid[1]).any():
            at = int(np.nanargmin(curve.valid[1]))
            return int(curve.valid[0][at]), float(curve.valid[1][at])
    return None


def _panel(axes: Axes, curve: Curve, best: tuple[int, float] | None, resumed: Sequence[int], smooth: int) -> None:
    for step in resumed:
        axes.axvline(step, color=MUTED, lw=1, ls=(0, (1, 2)), zorder=1)
    steps, values = curve.train
    size = 3.5 if len(steps) < 30 else 0.0
    if smooth > 1 and len(steps) and not _is_coefficient(curve):
        axes.plot(steps, values, color=TRAIN, lw=1, alpha=0.3, zorder=2)
        axes.plot(steps, _means(values, smooth), color=TRAIN, lw=1.6, zorder=3)
    else:
        axes.plot(steps, values, color=TRAIN, lw=1.5, marker="o", ms=size, zorder=3)
    steps, values = curve.valid
    axes.plot(steps, values, color=VALID, lw=1.5, marker="o", ms=3.5 if len(steps) < 30 else 0.0, zorder=4)
    if best is not None and best[0] in steps:
        value = values[list(steps).index(best[0])]
        axes.plot([best[0]], [value], "o", ms=9, mfc="none", mec=VALID, mew=1.6, zorder=5)
    cut = _cut_the_start(axes, curve)
    unit = f", {curve.unit}" if curve.unit else ""
    axes.set_title(
        f"{literal(curve.name)}{literal(unit)}{' (its start lies outside)' if cut else ''}",
        fontsize=9.5, color=INK, loc="left", pad=6, parse_math=False,
    )  # fmt: skip
    axes.grid(axis="y", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(labelsize=8, colors=MUTED, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)


def _means(values: np.ndarray, count: int) -> np.ndarray:
    """The mean of each value and those around it, ``count`` in all or, at the ends, as many as there are; NaN is left
    out.

    >>> _means(np.array([2.0, 4.0, np.nan, 8.0]), 3).tolist()
    [3.0, 3.0, 6.0, 8.0]
    """
    known = np.isfinite(values)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(known, values, 0.0), known))
    at = np.arange(len(values))
    starts, ends = np.maximum(at - count // 2, 0), np.minimum(at + (count + 1) // 2, len(values))
    with np.errstate(invalid="ignore"):
        return (sums[ends] - sums[starts]) / (counts[ends] - counts[starts])


def _cut_the_start(axes: Axes, curve: Curve) -> bool:
    """Show the last nine tenths of the steps where the first tenth would flatten them; returns whether it does."""
    steps, values = (np.concatenate([a, b]) for a, b in zip(curve.train, curve.valid, strict=True))
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    late = values[steps > steps.min() + 0.1 * np.ptp(steps)]
    if len(late) < 4 or np.ptp(late) <= 0 or np.ptp(values) < 4 * np.ptp(late):
        return False
    axes.set_ylim(late.min() - 0.08 * np.ptp(late), late.max() + 0.25 * np.ptp(late))
    return True


def _head(figure: Figure, folder: Path, segments: Sequence[Mapping[str, Any]], best: tuple[int, float] | None) -> None:
    width, height = figure.get_figwidth(), figure.get_figheight()
    name = literal(folder.resolve().name, 60)
    if segments:
        config = segments[-1]["config"]
        kind = config["data"].get("kind") if isinstance(config.get("data"), Mapping) else None
        name = f"{name}: {literal(config.get('method'))} on {literal(kind)}"
    y = 1 - 0.3 / height
    figure.text(0.2 / width, y, name, color=INK, fontsize=12, weight="bold", va="center", parse_math=False)
    keys: list[tuple[str, dict[str, Any]]] = [
        ("training", {"color": TRAIN, "lw": 2}),
        ("validation", {"color": VALID, "lw": 2}),
    ]
    if best is not None:
        words = f"best, step {best[0]:,}: loss {best[1]:.5g}"
        keys.append((words, {"color": "none", "marker": "o", "ms": 9, "mfc": "none", "mec": VALID, "mew": 1.6}))
    if len(segments) > 1:
        keys.append(("gone on from here", {"color": MUTED, "lw": 1, "ls": (0, (1, 2))}))
    handles = [Line2D([], [], label=words, **style) for words, style in keys]
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(0.1 / width, 1 - 0.55 / height), ncols=len(keys),
        frameon=False, fontsize=8.5, labelcolor=INK,
    )  # fmt: skip


def _changes(segments: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each segment of a training has other than the one before, a line each."""
    said = []
    for before, now in pairwise(segments):
        ours, theirs = _flat(before["config"]), _flat(now["config"])
        differs = [
            f"{key} {theirs_of} (before: {ours.get(key, 'nothing')})"
            for key, theirs_of in theirs.items()
            if ours.get(key, None) != theirs_of
        ]
        what = ", ".join(literal(text, 80) for text in differs[:CHANGES]) or "the same settings"
        more = f" and {len(differs) - CHANGES} more" if len(differs) > CHANGES else ""
        said.append(f"from step {int(now['step']):,} on: {what}{more}")
    return said if len(said) <= CHANGES else [f"gone on with {len(said)} times; the last ones:", *said[-CHANGES:]]


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, Mapping):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()}
