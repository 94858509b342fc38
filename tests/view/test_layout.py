import numpy as np
import pytest
import torch
from PIL import Image

from vaes.view.layout import ACCENT, MAX_SIDE, PAGE, grid, sheet


def pictures(count, channels, height, width):
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 28, 20), (3, 1, 5)])
@pytest.mark.parametrize("scale", [1, 3])
def test_every_pixel_of_a_grid_is_where_it_belongs(shape, scale):
    images, columns, pad = pictures(7, *shape), 3, 2
    drawn = np.asarray(grid(images, columns, pad, scale).convert("RGB"))
    height, width = shape[1] * scale, shape[2] * scale
    assert drawn.shape == (3 * (height + pad) - pad, 3 * (width + pad) - pad, 3)
    seen = np.zeros(drawn.shape[:2], dtype=bool)
    for i, image in enumerate(images.numpy()):
        y, x = (i // columns) * (height + pad), (i % columns) * (width + pad)
        cell = np.s_[y : y + height, x : x + width]
        want = np.kron(image.transpose(1, 2, 0), np.ones((scale, scale, 1), dtype=np.uint8))
        np.testing.assert_array_equal(drawn[cell], np.broadcast_to(want, (height, width, 3)))
        seen[cell] = True
    assert (drawn[~seen] == PAGE).all()


def test_a_grid_without_gaps_keeps_its_channels():
    assert grid(pictures(4, 1, 5, 6), 2).mode == "L"
    assert grid(pictures(4, 3, 5, 6), 2).mode == "RGB"


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 1, 4, 4), pictures(2, 2, 4, 4), pictures(2, 1, 4, 4)[:0], pictures(2, 1, 4, 4)[0]]
)
def test_what_is_no_picture_is_refused(bad):
    with pytest.raises(ValueError, match="uint8"):
        grid(bad, 1)


def found(page: Image.Image, colour) -> np.ndarray:
    """Where a colour lies: its rows and columns (2, n)."""
    return np.stack(np.nonzero((np.asarray(page) == colour).all(-1)))


def test_a_sheet_has_the_pictures_in_rows_and_wider_gaps_at_the_breaks():
    colours = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], dtype=torch.uint8)
    page = sheet(colours[:, :, None, None].expand(4, 3, 5, 6), 2, scale=2, row_breaks=[1])
    plain = sheet(colours[:, :, None, None].expand(4, 3, 5, 6), 2, scale=2)
    corners = [found(page, tuple(c.tolist())).min(1) for c in colours]
    for corner, c in zip(corners, colours, strict=True):
        rows, columns = found(page, tuple(c.tolist()))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (10, 12, 120)
        assert corner.tolist() == [rows.min(), columns.min()]
    assert corners[0][0] == corners[1][0] < corners[2][0] == corners[3][0]
    assert corners[0][1] == corners[2][1] < corners[1][1] == corners[3][1]
    across = corners[1][1] - corners[0][1] - 12
    assert corners[2][0] - corners[0][0] - 10 > across > 0
    assert page.height > plain.height
    assert page.width == plain.width


def test_a_marked_picture_is_framed_on_all_four_sides_also_in_the_last_corner():
    page = sheet(torch.zeros(4, 1, 5, 5, dtype=torch.uint8), 2, scale=4, marks=[3])
    rows, columns = found(page, ACCENT)
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == 24
    assert len(rows) == 24 * 24 - 20 * 20


def test_labels_title_and_caption_take_room_and_leave_the_pictures_alone():
    images = torch.full((6, 1, 20, 20), 200, dtype=torch.uint8)
    bare = sheet(images, 3, scale=1)
    full = sheet(
        images, 3, scale=1, title="Title", caption="a long caption " * 30, row_labels=["z0  1.32 nats", "z1"],
        column_labels=["−3", "0", "3"],
    )  # fmt: skip
    assert full.height > bare.height + 100
    places, bare_places = found(full, (200, 200, 200)), found(bare, (200, 200, 200))
    assert (np.ptp(places, axis=1) == np.ptp(bare_places, axis=1)).all()
    assert (places.min(1) > bare_places.min(1)).all()
    with pytest.raises(ValueError, match="2 row labels for 3 rows"):
        sheet(images, 2, row_labels=["a", "b"])


@pytest.mark.parametrize(
    ("count", "columns", "size"), [(1, 1, 8), (64, 8, 8), (1000, 32, 8), (64, 8, 28), (16, 4, 256), (1000, 32, 256)]
)
def test_sheets_come_out_at_a_pleasant_size(count, columns, size):
    page = sheet(torch.zeros(count, 1, size, size, dtype=torch.uint8), columns, title="t", caption="c")
    assert 500 < page.width < MAX_SIDE + 500
    assert page.height < MAX_SIDE + 500


def test_a_page_too_long_is_reduced_by_averaging():
    images = torch.tensor([0, 100], dtype=torch.uint8).repeat(150)[None, None, None, :].expand(32, 1, 300, 300)
    page = np.asarray(sheet(images, 32))
    assert page.shape[1] < 32 * 200
    assert (page == 50).all(-1).sum() == 32 * 150 * 150
    assert not (page == 100).all(-1).any()
