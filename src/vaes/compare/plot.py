"""The rate-distortion plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from vaes import files
from vaes.compare.pool import Cell, Column, Key
from vaes.drawing import plain_style

__all__ = ["rate_distortion"]

HALO = [withStroke(linewidth=3, foreground="white")]
INK, MUTED, RULE, PAGE = "#1c1c22", "#62646e", "#d9dbe0", "#f7f7f9"


class _Point(NamedTuple):
    column: Column
    rate: Cell
    distortion: Cell
    beta: float | None
    family: str  # in what the column differs from others, but for beta


@plain_style()
def rate_distortion(columns: Sequence[Column], path: Path) -> list[str]:
    """Draw every column in the plane of rate and distortion, nats per image, with lines of equal ELBO.

    Columns that differ in beta alone are joined in its order. Only those whose distortion is comparable with that of
    the first one that has it are drawn. Returns the labels drawn; without any, no file is written.

    Alemi et al., Fixing a Broken ELBO, 2018, https://arxiv.org/abs/1711.00464, figure 1.
    """
    points = _points(columns)
    if not points:
        return []
    figure = Figure(figsize=(7.6, 5.8), dpi=160, facecolor=PAGE, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="white")
    _limits(axes, points)
    _equal_elbo(axes)
    colours = _colours(points)
    for family in dict.fromkeys(point.family for point in points):
        line = sorted((p for p in points if p.family == family and p.beta is not None), key=lambda p: p.beta or 0.0)
        if len(line) > 1:
            axes.plot(
                [p.rate.value for p in line],
                [p.distortion.value for p in line],
                color=MUTED,
                lw=1.2,
                alpha=0.6,
                zorder=2,
            )
    labels = [_draw(axes, point, colour) for point, colour in zip(points, colours, strict=True)]
    axes.set_xlabel("rate  KL(q(z|x) || p(z)), nats per image", color=INK)
    axes.set_ylabel("distortion  -E log p(x|z), nats per image", color=INK)
    pooled = {len(p.column.runs) > 1 for p in points}
    over = {True: "seeds", False: "images"}
    bars = f"95 % intervals over {' or, for single runs, '.join(over[p] for p in sorted(pooled, reverse=True))}"
    axes.set_title(f"Rate and distortion: {bars}", color=INK, fontsize=10, loc="left", pad=12)
    axes.tick_params(colors=MUTED, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)
    canvas.draw()
    _set_apart(axes, labels)
    files.write_atomic(path, lambda temporary: canvas.print_png(str(temporary)))
    return [point.column.label for point in points]


def _points(columns: Sequence[Column]) -> list[_Point]:
    reference: Key | None = None
    found = []
    for column in columns:
        by_name = {key.name: key for key in column.cells if key.group in ("likelihood", "training")}
        if "rate" not in by_name or "distortion" not in by_name:
            continue
        key = by_name["distortion"]
        reference = reference or key
        if key != reference:
            continue
        value = column.runs[0].config.objective.get("beta")
        beta = float(value) if isinstance(value, int | float) else None
        family = repr(sorted((name, value) for name, value in column.differs.items() if name != "objective.beta"))
        found.append(_Point(column, column.cells[by_name["rate"]], column.cells[key], beta, family))
    return found


def _colours(points: Sequence[_Point]) -> list[tuple[float, float, float, float]]:
    """From blue to orange by the rank of beta, so that columns of one beta look alike."""
    ranks = {beta: i for i, beta in enumerate(sorted({p.beta for p in points if p.beta is not None}))}
    ramp = colormaps["plasma"]
    last = max(len(ranks) - 1, 1)
    return [ramp(0.08 + 0.74 * ranks[p.beta] / last) if p.beta is not None else (0.38, 0.39, 0.43, 1.0) for p in points]


def _draw(axes: Axes, point: _Point, colour: tuple[float, float, float, float]) -> Annotation:
    x, y = point.rate, point.distortion
    axes.errorbar(
        x.value, y.value, xerr=_reach(x), yerr=_reach(y), fmt="o", ms=8, color=colour, mec="white", mew=1.2,
        elinewidth=1.4, capsize=0, zorder=3,
    )  # fmt: skip
    beta = f"   β = {point.beta:g}" if point.beta is not None else ""
    return axes.annotate(
        f"{point.column.label}{beta}", (x.value, y.value), xytext=(8, 8), textcoords="offset points", color=INK,
        fontsize=9, zorder=4, path_effects=HALO, parse_math=False,
    )  # fmt: skip


def _set_apart(axes: Axes, labels: Sequence[Annotation]) -> None:
    """Put each label on the first side of its point where it meets no other label and no other point."""
    points = [axes.transData.transform(label.xy) for label in labels]
    taken: list[Bbox] = []
    for label, own in zip(labels, points, strict=True):
        others = [Bbox.from_extents(*(point - 6), *(point + 6)) for point in points if point is not own]
        sides = [(8, 8), (8, -8), (-8, 8), (-8, -8)]
        for right, up in [*sides, sides[0]]:  # where there is no room, the first
            label.set_position((right, up))
            label.set_horizontalalignment("left" if right > 0 else "right")
            label.set_verticalalignment("bottom" if up > 0 else "top")
            box = label.get_window_extent()
            if axes.bbox.x0 < box.x0 and not any(box.overlaps(other) for other in (*taken, *others)):
                break
        taken.append(box)


def _reach(cell: Cell) -> list[list[float]] | None:
    if cell.low is None or cell.high is None:
        return None
    return [[max(0.0, cell.value - cell.low)], [max(0.0, cell.high - cell.value)]]


def _limits(axes: Axes, points: Sequence[_Point]) -> None:
    """Room for the intervals and for labels at the right."""
    for cells, set_limits, right in (
        ([p.rate for p in points], axes.set_xlim, 0.16),
        ([p.distortion for p in points], axes.set_ylim, 0.1),
    ):
        low = min(c.value if c.low is None else c.low for c in cells)
        high = max(c.value if c.high is None else c.high for c in cells)
        room = max(high - low, 0.02 * abs(high), 1e-3)
        set_limits(low - 0.1 * room, high + right * room)


def _equal_elbo(axes: Axes) -> None:
    """Dashed lines on which rate + distortion is constant, each named at its upper end."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    span = (right + top) - (left + bottom)
    step = 10 ** np.floor(np.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (factor * step) <= 8)
    for level in np.arange(np.ceil((left + bottom) / step), np.floor((right + top) / step) + 1) * step:
        axes.plot([left, right], [level - left, level - right], color=RULE, lw=1, ls=(0, (5, 4)), zorder=1)
        x, y = (left, level - left) if level - left <= top else (level - top, top)
        if x < left + 0.93 * (right - left) and y > bottom + 0.05 * (top - bottom):
            axes.annotate(
                f"ELBO {-level:g}", (x, y), xytext=(4, 2 if y < top else -9), textcoords="offset points", color=MUTED,
                fontsize=7.5, zorder=1,
            )  # fmt: skip
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
