"""Validation curves of pooled runs, with bands over seeds."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vaes import files
from vaes.compare.pool import Column, interval
from vaes.drawing import plain_style

__all__ = ["banded", "curves"]

INK, MUTED, RULE, PAGE = "#1c1c22", "#62646e", "#d9dbe0", "#f7f7f9"

Lines = Sequence[Mapping[str, Any]]


def banded(runs: Sequence[Lines], name: str) -> list[tuple[int, float, float, float]]:
    """Step, mean over runs, and the ends of its 95 % t interval, at each step at which all runs were validated; a
    single run has no interval.

    >>> banded([[{"step": 2, "split": "valid", "elbo": -3.0}]], "elbo")
    [(2, -3.0, -3.0, -3.0)]
    """
    found = [{x["step"]: float(x[name]) for x in run if x["split"] == "valid" and x.get(name) is not None}
             for run in runs]  # fmt: skip
    rows = []
    for step in sorted(set.intersection(*map(set, found))) if found else ():
        values = [run[step] for run in found]
        mean = float(np.mean(values))
        rows.append((step, mean, *(interval(values) if len(values) > 1 else (mean, mean))))
    return rows


@plain_style()
def curves(columns: Sequence[Column], lines: Callable[[Path], Lines], path: Path) -> str | None:
    """Draw the ELBO (or the loss, where one has no ELBO) of the validation images against the step, a line for each
    column and a band where it has several runs; ``lines`` reads those of a run folder.

    Returns the name of what was drawn; without any curve of two points, no file is written and it is None.
    """
    read = [[lines(run.path) for run in column.runs] for column in columns]
    for name in ("elbo", "loss"):
        found = [banded(runs, name) for runs in read]
        if all(len(rows) > 1 for rows in found):
            break
    else:
        return None
    figure = Figure(figsize=(7.6, 4.8), dpi=160, facecolor=PAGE, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="white")
    ramp = colormaps["plasma"]
    for i, (column, rows) in enumerate(zip(columns, found, strict=True)):
        step, mean, low, high = np.array(rows).T
        colour = ramp(0.08 + 0.74 * i / max(len(columns) - 1, 1))
        axes.plot(step, mean, color=colour, lw=1.6, label=column.label.replace("$", r"\$"))
        axes.fill_between(step, low, high, color=colour, alpha=0.18, lw=0)
    # The first steps would set the scale for all.
    late = np.array([row for rows in found for row in rows[len(rows) // 5 :]])[:, 1:]
    room = 0.08 * max(late.max() - late.min(), 1e-3)
    axes.set_ylim(late.min() - room, late.max() + room)
    axes.set_xlabel("step", color=INK)
    title = "ELBO" if name == "elbo" else name
    axes.set_ylabel(f"validation {title}, nats per image", color=INK)
    bands = "; bands: 95 % intervals of the mean over seeds" if any(len(c.runs) > 1 for c in columns) else ""
    axes.set_title(f"Validation {title}{bands}", color=INK, fontsize=10, loc="left", pad=12)
    axes.tick_params(colors=MUTED, length=3)
    axes.grid(color=RULE, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(columns) <= 20:
        axes.legend(fontsize=8, frameon=False)
    files.write_atomic(path, lambda temporary: canvas.print_png(str(temporary)))
    return name
