"""Codes brought to a plane, and the codes that a page's places stand for."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vaes.errors import UserError

__all__ = ["PANEL", "Limits", "Projection", "limits_of", "plane_points", "plane_shape", "project"]

PANEL = 800
"""Side of a panel in pixels, about."""


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
    """Codes (N, D), D at least 2 -> their places on a plane: themselves for D = 2, principal components, or t-SNE.

    van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008, https://jmlr.org/papers/v9/vandermaaten08a.html;
    perplexity 30, or what few points allow.

    Raises:
        UserError: there are too few codes for t-SNE.
    """
    count, dims = codes.shape
    if how is None:
        if dims != 2:
            raise ValueError(f"codes of {dims} dimensions need a projection to lie on a plane")
        return Projection(codes, ("z0", "z1"), (torch.zeros(2), torch.eye(2)))
    if how == "tsne":
        if count < 4:
            raise UserError(f"--projection tsne needs 4 images, got {count}; --projection pca draws any number")
        # scikit-learn takes a second to import, and the other maps do not need it.
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (count - 1) / 3)
        placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes.numpy())
        return Projection(torch.from_numpy(placed), ("t-SNE 1", "t-SNE 2"), None)
    origin = codes.mean(0)
    centred = (codes - origin).double()
    # Of the covariance, because the singular vectors of fewer than two codes span no plane.
    spread, vectors = torch.linalg.eigh(centred.T @ centred)
    axes = vectors.T.flip(0)[:2].to(codes)
    # Eigenvectors have no sign of their own: the largest entry is made positive.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    share = spread.flip(0).clamp_min(0) / spread.sum().clamp_min(1e-12)
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
