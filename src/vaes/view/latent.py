"""Maps of the latent space: codes as points coloured by label, and the pictures that a plane decodes to."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from vaes.errors import UserError
from vaes.view.sheet import INK, MUTED, PAGE, font, grid

__all__ = ["Limits", "Projection", "latent_map", "limits_of", "plane_points", "plane_shape", "project"]

PALETTE = (
    "#1070f0", "#f09070", "#7010b0", "#e8c810", "#701010", "#20d8c0", "#e8188c", "#103070", "#907010", "#90b0f0",
)  # fmt: skip
"""Ten colours whose smallest distance (Oklab) is the largest that a search found over normal vision and simulated
protanopia, deuteranopia and tritanopia together."""
MARKERS = ("o", "^")
MAX_CLASSES = len(PALETTE) * len(MARKERS)
OTHER = "#c4c6cc"

PANEL = 800
"""Side of a panel in pixels, about."""
LEFT, RIGHT, TOP, BOTTOM = 72, 20, 36, 60
DPI = 100
LEGEND_SIZE, NAME_SIZE = 14, 20
RULE = (206, 208, 214)
HALO = [withStroke(linewidth=3, foreground="white")]


class Limits(NamedTuple):
    """The part of the plane that is shown."""

    left: float
    right: float
    bottom: float
    top: float

    def outside(self, points: Tensor) -> Tensor:
        """Which of the points (N, 2) lie outside, (N,)."""
        x, y = points.unbind(1)
        return (x < self.left) | (x > self.right) | (y < self.bottom) | (y > self.top)


class Projection(NamedTuple):
    """Codes brought to the plane."""

    points: Tensor  # (N, 2)
    names: tuple[str, str]
    inverse: tuple[Tensor, Tensor] | None  # origin (D,), axes (2, D): the point (a, b) is origin + (a, b) @ axes


def project(codes: Tensor, how: Literal["pca", "tsne"] | None, seed: int) -> Projection:
    """Codes (N, D) -> their places on a plane: themselves for D = 2, principal components, or t-SNE.

    van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008, https://jmlr.org/papers/v9/vandermaaten08a.html;
    perplexity 30, or what few points allow.

    Raises:
        UserError: there are too few codes or dimensions to project.
    """
    count, dims = codes.shape
    if how is None:
        if dims != 2:
            raise ValueError(f"codes of {dims} dimensions need a projection to lie on a plane")
        return Projection(codes, ("z0", "z1"), (torch.zeros(2), torch.eye(2)))
    if dims < 2 or count < 4:
        raise UserError(f"--projection {how} needs z_dim >= 2 and 4 test images, got z_dim = {dims} and {count} images")
    if how == "tsne":
        # scikit-learn takes a second to import, and the other maps do not need it.
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (count - 1) / 3)
        placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes.numpy())
        return Projection(torch.from_numpy(placed), ("t-SNE 1", "t-SNE 2"), None)
    origin = codes.mean(0)
    _, spread, axes = torch.linalg.svd(codes - origin, full_matrices=False)
    # Singular vectors have no sign of their own: the largest entry is made positive.
    axes = axes[:2] * axes[:2].gather(1, axes[:2].abs().argmax(1, keepdim=True)).sign()
    share = spread.square() / spread.square().sum().clamp_min(1e-12)
    names = (f"component 1 ({share[0]:.0%} of the variance)", f"component 2 ({share[1]:.0%} of the variance)")
    return Projection((codes - origin) @ axes.T, names, (origin, axes))


def limits_of(points: Tensor, reach: float | None) -> Limits:
    """What to show of the plane: all but 1 in 100 of the points (N, 2); with a reach, a square that holds
    [-reach, reach]^2 too."""
    edges = torch.quantile(points.double(), torch.tensor([0.005, 0.995], dtype=torch.float64), dim=0)
    room = (0.05 * (edges[1] - edges[0])).clamp_min(1e-6)
    low, high = edges[0] - room, edges[1] + room
    if reach is not None:
        low = low.min().clamp_max(-reach).expand(2)
        high = high.max().clamp_min(reach).expand(2)
    return Limits(low[0].item(), high[0].item(), low[1].item(), high[1].item())


def plane_shape(height: int, width: int) -> tuple[int, int, int]:
    """Rows, columns and scale of the decoded pictures (H, W) that fill a panel; at least 7, for 256x256 and more."""
    scale = max(1, 56 // max(height, width))
    rows, columns = (min(25, max(7, PANEL // (side * scale))) for side in (height, width))
    return rows, columns, scale


def plane_points(limits: Limits, rows: int, columns: int) -> Tensor:
    """The centres (rows * columns, 2) of the cells that tile the limits, row by row from the top left: a picture's
    place on the page is the place of its code among the points."""
    x = limits.left + (torch.arange(columns, dtype=torch.float64) + 0.5) / columns * (limits.right - limits.left)
    y = limits.top - (torch.arange(rows, dtype=torch.float64) + 0.5) / rows * (limits.top - limits.bottom)
    return torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1).reshape(-1, 2).float()


def latent_map(
    points: Tensor,
    limits: Limits,
    *,
    labels: Tensor | None = None,
    label_names: Sequence[str] = (),
    axis_names: tuple[str, str] = ("z0", "z1"),
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
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor=_unit(PAGE))

    def panel(x: int, name: str) -> Axes:
        box = (x / size[0], BOTTOM / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(box, facecolor="white", xlim=limits[:2], ylim=limits[2:])
        axes.set_title(name, fontsize=10.5, color=_unit(INK), loc="left", pad=8)
        axes.set_xlabel(axis_names[0], color=_unit(MUTED))
        axes.tick_params(labelsize=8.5, color=_unit(RULE), labelcolor=_unit(MUTED), length=3)
        axes.spines[:].set_color(_unit(RULE))
        return axes

    axes = panel(LEFT, "codes of test images")
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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


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
        _Style(names[k] if k < len(names) else str(k), (k,), PALETTE[i % 10], MARKERS[i // 10])
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
    handles = [axes.scatter([], [], s=44, color=s.colour, marker=s.marker, linewidths=0, label=s.name) for s in styles]
    legend = axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9.5)
    for text in legend.get_texts():
        text.set_color(_unit(INK))
    _draw_names(axes, [np.median(xy[member], axis=0) for member in members], styles)


def _draw_names(axes: Axes, places: Sequence[np.ndarray], styles: Sequence[_Style]) -> None:
    """Write each class's name at its median, where it does not run into another's: the legend has them all."""
    taken: list[tuple[float, float, float]] = []
    for (x, y), style in zip(places, styles, strict=True):
        across, up = axes.transData.transform((x, y))
        half = font(NAME_SIZE, True).getlength(style.name) / 2
        if any(abs(across - a) < half + b + 4 and abs(up - u) < NAME_SIZE for a, u, b in taken):
            continue
        taken.append((across, up, half))
        name = axes.text(
            x, y, style.name, ha="center", va="center", fontsize=NAME_SIZE * 72 / DPI, weight="bold", zorder=4
        )
        name.set(color=style.colour, path_effects=HALO, clip_on=True)


def _draw_prior(axes: Axes) -> None:
    for sigma in (1, 2, 3):
        ring = Ellipse((0, 0), 2 * sigma, 2 * sigma, fill=False, edgecolor=_unit(MUTED), linewidth=0.7, zorder=3)
        axes.add_patch(ring)
        at = sigma * math.sqrt(0.5)
        name = axes.text(at, at, f"{sigma}σ", ha="center", va="center", fontsize=8, zorder=4)
        name.set(color=_unit(MUTED), path_effects=HALO, clip_on=True)


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255
