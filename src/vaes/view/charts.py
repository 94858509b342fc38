"""Maps of the latent space: codes as points coloured by label, and the pictures that a plane or a line decodes to."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from vaes.drawing import plain_style
from vaes.view.layout import INK, MUTED, PAGE, font, grid, literal
from vaes.view.plane import PANEL, Limits

__all__ = ["latent_line", "latent_map"]

PALETTE = (
    "#1070f0", "#f09070", "#7010b0", "#e8c810", "#701010", "#20d8c0", "#e8188c", "#103070", "#907010", "#90b0f0",
)  # fmt: skip
"""Ten colours whose smallest distance (Oklab) is the largest that a search found over normal vision and simulated
protanopia, deuteranopia and tritanopia together."""
MARKERS = ("o", "^")
MAX_CLASSES = len(PALETTE) * len(MARKERS)
OTHER = "#c4c6cc"

LEFT, RIGHT, TOP, BOTTOM = 72, 20, 36, 60
DPI = 100
LEGEND_SIZE, NAME_SIZE, LONGEST_NAME = 14, 20, 16
RULE = (206, 208, 214)
HALO = [withStroke(linewidth=3, foreground="white")]


@plain_style()
def latent_map(
    points: Tensor,
    limits: Limits,
    *,
    labels: Tensor | None = None,
    label_names: Sequence[str] = (),
    axis_names: tuple[str, str] = ("z0", "z1"),
    title: str = "codes of test images",
    decoded: Tensor | None = None,
    columns: int = 1,
    scale: int = 1,
    prior: bool = False,
) -> Image.Image:
    """Codes as points on a plane, coloured by label, and beside them what the plane decodes to, on the same axes.

    Args:
        points: (N, 2).
        limits: the part of the plane shown.
        labels: (N,) int64, or None.
        label_names: the name of each label, by number.
        axis_names: of the two axes.
        title: of the points.
        decoded: the pictures (rows * columns, C, H, W) uint8 at :func:`plane_points`.
        columns: how many of them are in a row.
        scale: how many pixels wide each of their pixels is drawn.
        prior: draw the prior's standard deviations 1, 2 and 3 as ellipses (for a standard normal).
    """
    styles = [] if labels is None else _styles(labels, label_names)
    picture = None if decoded is None else grid(decoded, columns, 2 if scale > 1 else 0, scale).convert("RGB")
    width, height = picture.size if picture else (PANEL, PANEL)
    shrink = math.ceil(max(width, height) / (2 * PANEL))
    width, height = width // shrink, height // shrink
    legend = math.ceil(max((font(LEGEND_SIZE).getlength(name) for name, *_ in styles), default=-40)) + 56
    second = LEFT + width + legend + LEFT - 20
    size = (second + width + RIGHT if picture else LEFT + width + legend, TOP + height + BOTTOM)
    figure = _figure(size)

    def panel(x: int, name: str) -> Axes:
        box = (x / size[0], BOTTOM / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(box, facecolor="white", xlim=limits[:2], ylim=limits[2:])
        axes.set_title(name, fontsize=10.5, color=_unit(INK), loc="left", pad=8)
        axes.set_xlabel(axis_names[0], color=_unit(MUTED))
        _quieten(axes)
        return axes

    axes = panel(LEFT, title)
    axes.set_ylabel(axis_names[1], color=_unit(MUTED))
    _draw_points(axes, points, labels, styles)
    if prior:
        _draw_prior(axes)
    if picture:
        pixels = np.asarray(picture.reduce(shrink))
        extent = (limits.left, limits.right, limits.bottom, limits.top)
        panel(second, "what each point decodes to").imshow(
            pixels, extent=extent, aspect="auto", interpolation="nearest"
        )
    return _drawn(figure)


@plain_style()
def latent_line(
    codes: Tensor,
    limits: tuple[float, float],
    decoded: Tensor,
    *,
    labels: Tensor | None = None,
    label_names: Sequence[str] = (),
    title: str = "codes of test images",
    scale: int = 1,
) -> Image.Image:
    """Codes (N,) of one dimension as points on a line, a line for each class, and below it what it decodes to.

    Args:
        codes: (N,).
        limits: the part of the line shown.
        decoded: the pictures (n, C, H, W) uint8 that n equal parts of the line decode to at their middles.
        labels: (N,) int64, or None.
        label_names: the name of each label, by number.
        title: of the points.
        scale: how many pixels wide each pixel of a picture is drawn.
    """
    one = _Style("", (0,), PALETTE[0], "o")
    classes = torch.zeros(len(codes), dtype=torch.int64) if labels is None else labels
    styles = [one] if labels is None else _styles(labels, label_names)
    strip = grid(decoded, len(decoded), 0, scale).convert("RGB")
    strip = strip.reduce(math.ceil(strip.width / (2 * PANEL)))
    left = 24 + math.ceil(max(font(LEGEND_SIZE).getlength(style.name) for style in styles))
    height = max(34 * len(styles), 140)
    width, bottom = strip.width, BOTTOM + strip.height + 30
    size = (left + width + RIGHT, TOP + height + bottom)
    figure = _figure(size)
    axes = figure.add_axes((left / size[0], bottom / size[1], width / size[0], height / size[1]), facecolor="white")
    axes.set(xlim=limits, ylim=(len(styles) - 0.5, -0.5), yticks=range(len(styles)) if labels is not None else ())
    axes.set_title(title, fontsize=10.5, color=_unit(INK), loc="left", pad=8)
    _quieten(axes)
    for sigma in range(-3, 4):
        axes.axvline(sigma, color=_unit(RULE), linewidth=0.8, zorder=0)
    for row, style in enumerate(styles):
        x = codes[torch.isin(classes, torch.tensor(style.members))].numpy()
        y = row + 0.7 * ((np.arange(len(x)) * 0.6180339887) % 1 - 0.5)  # spread evenly, whatever their number
        axes.scatter(x, y, s=float(np.clip(12_000 / len(codes), 6, 30)), color=style.colour, alpha=0.6, linewidths=0)
    axes.tick_params(labelbottom=False)  # the strip below has the same axis
    if labels is not None:
        axes.set_yticklabels([style.name for style in styles], fontsize=9.5, color=_unit(INK), parse_math=False)
    below = figure.add_axes((left / size[0], BOTTOM / size[1], width / size[0], strip.height / size[1]))
    below.imshow(np.asarray(strip), extent=(*limits, 0, 1), aspect="auto", interpolation="nearest")
    below.set(yticks=[])
    below.set_title("what each point decodes to", fontsize=10.5, color=_unit(INK), loc="left", pad=6)
    below.set_xlabel("z0 (lines: standard deviations of the prior)", color=_unit(MUTED))
    _quieten(below)
    return _drawn(figure)


def _figure(size: tuple[int, int]) -> Figure:
    return Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor=_unit(PAGE))


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _quieten(axes: Axes) -> None:
    axes.tick_params(labelsize=8.5, color=_unit(RULE), labelcolor=_unit(MUTED), length=3)
    axes.spines[:].set_color(_unit(RULE))


class _Style(NamedTuple):
    name: str
    members: tuple[int, ...]
    colour: str
    marker: str


def _styles(labels: Tensor, names: Sequence[str]) -> list[_Style]:
    """A colour and a marker for each class; from the 20th most frequent on they share one, and say so."""
    present, counts = labels.unique(return_counts=True)
    kept, rest = present.tolist(), []
    if len(kept) > MAX_CLASSES:
        order = counts.argsort(descending=True, stable=True)
        kept = sorted(present[order[: MAX_CLASSES - 1]].tolist())
        rest = present[order[MAX_CLASSES - 1 :]].tolist()
    styles = [
        _Style(literal(names[k] if k < len(names) else k) or "''", (k,), PALETTE[i % 10], MARKERS[i // 10])
        for i, k in enumerate(kept)
    ]
    return styles + ([_Style(f"{len(rest)} rarer classes", tuple(rest), OTHER, "o")] if rest else [])


def _draw_points(axes: Axes, points: Tensor, labels: Tensor | None, styles: Sequence[_Style]) -> None:
    xy = points.numpy()
    size = float(np.clip(30_000 / len(xy), 9, 40))
    if labels is None:
        axes.scatter(xy[:, 0], xy[:, 1], s=size, color=PALETTE[0], alpha=0.75, linewidths=0)
        return
    members = [np.flatnonzero(np.isin(labels.numpy(), style.members)) for style in styles]
    # One class after the other would bury the first: they are drawn in slices, in turn.
    for part in range(8):
        for style, member in zip(styles, members, strict=True):
            x, y = xy[member[part::8]].T
            axes.scatter(x, y, s=size, color=style.colour, marker=style.marker, alpha=0.75, linewidths=0)
    handles = [axes.scatter([], [], s=44, color=s.colour, marker=s.marker, linewidths=0, label="x") for s in styles]
    legend = axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9.5)
    for text, style in zip(legend.get_texts(), styles, strict=True):
        # As labels, names with dollars would be formulas and those that begin with "_" left out.
        text.set(text=style.name, color=_unit(INK), parse_math=False)
    many = [(member, style) for member, style in zip(members, styles, strict=True) if len(member) > 4]
    _draw_names(axes, [np.median(xy[member], axis=0) for member, _ in many], [style for _, style in many])


def _draw_names(axes: Axes, places: Sequence[np.ndarray], styles: Sequence[_Style]) -> None:
    """Write each class's name at its median, where it does not run into another's: the legend has them all."""
    taken: list[tuple[float, float, float]] = []
    for (x, y), style in zip(places, styles, strict=True):
        across, up = axes.transData.transform((x, y))
        short = literal(style.name, LONGEST_NAME)
        half = font(NAME_SIZE, True).getlength(short) / 2
        if any(abs(across - a) < half + b + 4 and abs(up - u) < NAME_SIZE for a, u, b in taken):
            continue
        taken.append((across, up, half))
        name = axes.text(x, y, short, ha="center", va="center", fontsize=NAME_SIZE * 72 / DPI, weight="bold", zorder=4)
        name.set(color=style.colour, path_effects=HALO, clip_on=True, parse_math=False)


def _draw_prior(axes: Axes) -> None:
    for sigma in (1, 2, 3):
        ring = Ellipse((0, 0), 2 * sigma, 2 * sigma, fill=False, edgecolor=_unit(MUTED), linewidth=0.7, zorder=3)
        axes.add_patch(ring)
        at = sigma * math.sqrt(0.5)
        name = axes.text(at, at, f"{sigma}σ", ha="center", va="center", fontsize=8, zorder=4)
        name.set(color=_unit(MUTED), path_effects=HALO, clip_on=True)


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
