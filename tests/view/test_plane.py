import numpy as np
import pytest
import torch

from vaes.errors import UserError
from vaes.view.charts import LEFT, MAX_CLASSES, OTHER, PALETTE, latent_map
from vaes.view.plane import PANEL, Limits, limits_of, plane_points, plane_shape, project


def find(page, colour, tolerance=6):
    return np.nonzero((np.abs(np.asarray(page).astype(int) - colour) <= tolerance).all(-1))


def rgb(name: str):
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


def test_cells_tile_the_limits_from_the_top_left():
    points = plane_points(Limits(-3, 3, -2, 2), 2, 3)
    torch.testing.assert_close(points, torch.tensor([[-2.0, 1], [0, 1], [2, 1], [-2, -1], [0, -1], [2, -1]]))


@pytest.mark.parametrize("where", [(-2.0, 1.0), (1.0, 2.0), (2.0, -2.0), (-1.0, -1.0)])
def test_a_code_lies_at_the_same_place_among_the_points_and_on_the_decoded_plane(where):
    limits, rows, columns = Limits(-3, 3, -3, 3), 12, 12
    cells = plane_points(limits, rows, columns)
    near = (cells - torch.tensor(where)).square().sum(1).argmin()
    decoded = torch.zeros(rows * columns, 3, 8, 8, dtype=torch.uint8)
    decoded[near, 1] = 255
    page = latent_map(
        cells[near].expand(50, 2),
        limits,
        labels=torch.zeros(50, dtype=torch.int64),
        label_names=("",),
        decoded=decoded,
        columns=columns,
        scale=7,
    )
    green_rows, green_columns = find(page, (0, 255, 0))
    # The legend, at the right of the points, has the same colour.
    point_rows, point_columns = find(page.crop((0, 0, LEFT + 690, page.height)), rgb(PALETTE[0]), 40)
    panel = np.nonzero((np.asarray(page) == 0).all(-1))  # the decoded panel, black but for the one cell
    panel_left, panel_top, panel_bottom = panel[1].min(), panel[0].min(), panel[0].max()
    # Both panels have one height and one top, so rows compare as they are.
    assert point_rows.mean() == pytest.approx(green_rows.mean(), abs=4)
    down = (green_rows.mean() - panel_top) / (panel_bottom - panel_top)
    assert down == pytest.approx((limits.top - cells[near, 1].item()) / 6, abs=0.01)
    across = (green_columns.mean() - panel_left) / (panel[1].max() - panel_left)
    assert across == pytest.approx((cells[near, 0].item() - limits.left) / 6, abs=0.01)
    assert (point_columns.mean() - LEFT) / (panel_bottom - panel_top) == pytest.approx(across, abs=0.02)


def test_principal_components_are_the_eigenvectors_of_the_covariance_and_invert():
    codes = torch.randn(200, 5, dtype=torch.float64) @ torch.diag(torch.tensor([3.0, 1, 0.1, 5, 0.5]).double()) + 7
    plane = project(codes, "pca", 0)
    values, vectors = torch.linalg.eigh(codes.T.cov())
    torch.testing.assert_close(plane.points.var(0), values.flip(0)[:2])
    assert plane.inverse is not None
    origin, axes = plane.inverse
    torch.testing.assert_close((axes @ vectors).abs()[:, [4, 3]], torch.eye(2).double())
    torch.testing.assert_close(((origin + plane.points @ axes) - origin) @ axes.T, plane.points)
    assert f"{values[4] / values.sum():.0%}" in plane.names[0]
    # The sign is fixed: mirrored codes give the same axes.
    mirrored = project(2 * origin - codes, "pca", 0).inverse
    assert mirrored is not None
    torch.testing.assert_close(mirrored[1], axes)


def test_tsne_is_the_same_for_the_same_seed_and_keeps_clusters_apart():
    codes = torch.cat([torch.randn(15, 4), torch.randn(15, 4) + 30])
    plane = project(codes, "tsne", 3)
    assert plane.inverse is None
    torch.testing.assert_close(project(codes, "tsne", 3).points, plane.points)
    gap = torch.cdist(plane.points[:15], plane.points[15:]).min()
    near = torch.cdist(plane.points[:15], plane.points[:15]).fill_diagonal_(torch.inf).min(1).values.max()
    assert gap > near


def test_too_little_to_project_is_refused():
    with pytest.raises(UserError, match="tsne needs 4 images, got 3"):
        project(torch.randn(3, 5), "tsne", 0)
    with pytest.raises(ValueError, match="3 dimensions"):
        project(torch.randn(30, 3), None, 0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_principal_components_of_a_few_codes_still_are_a_plane(count):
    codes = torch.randn(count, 5)
    plane = project(codes, "pca", 0)
    assert plane.inverse is not None
    origin, axes = plane.inverse
    torch.testing.assert_close(axes @ axes.T, torch.eye(2))
    torch.testing.assert_close(origin + plane.points @ axes, codes, atol=1e-5, rtol=0)


def test_limits_reach_as_far_as_asked_and_hold_the_points():
    assert limits_of(torch.rand(100, 2), 3.0) == (-3, 3, -3, 3)
    far = torch.rand(1000, 2) * torch.tensor([50.0, 1.0])
    left, right, bottom, top = limits_of(far, 3.0)
    assert (left, bottom) == (-3, -3)
    assert top == right > 45
    assert limits_of(far, None).top < 1.1
    # Codes that all agree still have a plane around them.
    left, right, *_ = limits_of(torch.ones(10, 2), None)
    assert left < 1 < right


@pytest.mark.parametrize("size", [(8, 8), (28, 20), (32, 32), (64, 64), (256, 256), (1, 1)])
def test_the_decoded_plane_fills_a_panel(size):
    rows, columns, scale = plane_shape(*size)
    assert 7 <= rows <= 25
    assert 7 <= columns <= 25
    assert max(rows * size[0], columns * size[1]) * scale >= 600


@pytest.mark.parametrize("classes", [2, MAX_CLASSES, MAX_CLASSES + 5])
def test_every_class_is_in_the_legend(classes):
    page = latent_map(torch.zeros(200, 2), Limits(-3, 3, -3, 3), labels=torch.arange(200) % classes, label_names=("x",))
    legend = page.crop((LEFT + PANEL + 2, 0, page.width, page.height))
    shown = [colour for colour in (*PALETTE, OTHER) if len(find(legend, rgb(colour))[0]) > 40]
    assert shown == [*PALETTE[:classes], *([OTHER] if classes > MAX_CLASSES else [])]


def test_points_outside_of_the_frame_are_counted() -> None:
    points = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, -2.5], [1.0, 2.0]])
    assert Limits(-1.0, 1.0, -2.0, 2.0).outside(points).tolist() == [False, True, True, False]
