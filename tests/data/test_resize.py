import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data.resize import crop_box, height_width, resize
from vaes.errors import UserError


@pytest.mark.parametrize(("side", "to"), [(28, 32), (28, 16), (64, 20)])
def test_agrees_with_pillow(side: int, to: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(x).resize((to, to), Image.Resampling.BILINEAR)).astype(int)
    found = resize(torch.from_numpy(x)[None, None], to)[0, 0].numpy().astype(int)
    assert np.abs(found - expected).max() <= 1


def test_none_and_the_same_size_change_nothing() -> None:
    x = torch.randint(0, 256, (2, 1, 6, 4), dtype=torch.uint8)
    assert resize(x, None) is x
    assert resize(x, (6, 4)) is x


def test_crops_centrally_to_the_aspect() -> None:
    # A wide picture whose outer quarters are white: a square of it must be black.
    x = torch.full((1, 1, 8, 16), 255, dtype=torch.uint8)
    x[..., 4:12] = 0
    assert resize(x, 4).eq(0).all()
    assert resize(x.mT.contiguous(), 4).eq(0).all()
    assert resize(x, (4, 8)).shape == (1, 1, 4, 8)


def test_crop_box_is_centred_largest_and_of_the_aspect() -> None:
    rng = np.random.default_rng(0)
    for h, w, th, tw in rng.integers(1, 200, (200, 4)):
        left, top, right, bottom = crop_box((h, w), (th, tw))
        assert 0 <= left < right <= w
        assert 0 <= top < bottom <= h
        assert (left, top).count(0) >= 1
        assert 0 <= (w - right) - left <= 1
        assert 0 <= (h - bottom) - top <= 1
        # One side is the image's own; the other is what the aspect makes of it, to half a pixel.
        width, height = right - left, bottom - top
        assert abs(width - h * tw / th) <= 0.5 or abs(height - w * th / tw) <= 0.5 or 1 in (width, height)
        assert width == w or height == h


@pytest.mark.parametrize("bad", [0, -3, (0, 5), (5, 5000)])
def test_sizes_that_are_none(bad) -> None:
    with pytest.raises(UserError, match=r"data\.image_size"):
        height_width(bad)


def test_height_comes_first() -> None:
    assert height_width((28, 20)) == (28, 20)
    assert height_width(7) == (7, 7)
    assert height_width(None) is None
