"""The latent plane as it forms: what is kept of it, and its film."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.cli import main
from vaes.data import to_float, to_uint8
from vaes.errors import UserError
from vaes.posteriors import Point
from vaes.view import form, forms, planes, read_plane, write_forming, write_plane
from vaes.view.forming import HELD, MOST_BYTES, MOST_TILES, TILES


def test_a_plane_holds_the_codes_and_what_its_places_decode_to(build, images, tmp_path):
    model, seen = build(z_dim=2), images()
    made = form(model, seen)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        codes = model.eval().encode(to_float(seen.read(order), model.value_range)).z[0]
        left, right, bottom, top = made.limits
        # The second tile of the third row, by hand.
        x, y = left + 1.5 * (right - left) / TILES, top - 2.5 * (top - bottom) / TILES
        tile = to_uint8(model.decode(torch.tensor([[x, y]])), model.value_range)[0]
    assert torch.allclose(made.points, codes, atol=1e-6)
    assert torch.equal(made.labels, seen.labels[order])
    assert left == bottom == -right == -top
    assert right >= 3
    assert not made.limits.outside(codes).sum() > 1
    assert (made.tiles[2 * TILES + 1].int() - tile.int()).abs().max() <= 1
    write_plane(made, tmp_path, 7)
    first = (tmp_path / "plane" / "step000007.npz").read_bytes()
    write_plane(form(model, seen), tmp_path, 7)
    assert (tmp_path / "plane" / "step000007.npz").read_bytes() == first
    back = read_plane(tmp_path, 7)
    assert planes(tmp_path) == [7]
    assert torch.allclose(back.points, made.points, rtol=1e-3)
    assert torch.equal(back.labels, made.labels)
    assert torch.equal(back.tiles, made.tiles)
    assert back[2:4] == (made.names, made.limits)
    assert back.normal


def test_large_pictures_are_kept_small_by_the_mean_of_their_pixels(build, images):
    model = build((3, 64, 48), 2)
    tiles = form(model, images(4, (3, 64, 48), labelled=False)).tiles
    assert tiles.numel() <= MOST_TILES
    assert tiles.shape[1] == 3
    assert tiles.shape[2] / tiles.shape[3] == pytest.approx(64 / 48, rel=0.1)
    assert tiles.float().std() > 1


def test_only_planes_of_real_codes_form(build):
    assert forms(build(z_dim=2))
    assert forms(build(z_dim=2, posterior=Point()))
    assert not forms(build(z_dim=3))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_the_film_has_a_frame_for_each_step_and_rests_on_the_last(ending, build, images, tmp_path, capsys):
    for step in (0, 5, 1234):
        write_plane(form(build(z_dim=2, conv=step == 5), images()), tmp_path, step)
    path = tmp_path / f"plane.{ending}"
    assert main(["plot", str(tmp_path), "--plane", "-o", str(path)]) == 0
    film = Image.open(path)
    assert film.is_animated
    total, frames = 0, []
    for k in range(film.n_frames):
        film.seek(k)
        film.load()
        total += film.info["duration"]
        frames.append(np.asarray(film.convert("RGB")).astype(int))
    assert total == pytest.approx(100 * (3 + HELD), rel=0.05)  # equal frames may be told as a longer one
    assert all(np.abs(frames[k] - frames[k + 1]).mean() > 0.5 for k in range(2))
    assert np.abs(frames[-1] - frames[2]).mean() < 0.5


@pytest.mark.parametrize("damage", ["cut", "pickled", "bomb", "foreign", "labels"])
def test_a_damaged_plane_is_a_sentence(damage, build, images, tmp_path):
    write_plane(form(build(z_dim=2), images()), tmp_path, 3)
    path = tmp_path / "plane" / "step000003.npz"
    stored = dict(np.load(path))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "pickled":
        np.savez(path, **{**stored, "names": np.array([print], dtype=object)})
    elif damage == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            content = io.BytesIO()
            np.save(content, np.zeros((2 * MOST_BYTES, 2), np.uint8))
            archive.writestr("points.npy", content.getvalue())
    elif damage == "foreign":
        np.savez(path, points=stored["points"])
    else:
        np.savez(path, **{**stored, "labels": stored["labels"] - 5})
    with pytest.raises(UserError, match=r"step000003\.npz: is damaged; remove it"):
        read_plane(tmp_path, 3)


def test_what_cannot_be_made_a_film_of_is_said(build, images, tmp_path: Path, capsys):
    assert main(["plot", str(tmp_path), "--plane"]) == 2
    assert "keeps no latent planes" in capsys.readouterr().err
    write_plane(form(build(z_dim=2), images()), tmp_path, 0)
    with pytest.raises(UserError, match="films are written as gif, mp4, webp"):
        write_forming(tmp_path, tmp_path / "plane.png")
    with pytest.raises(UserError, match="no latent plane was kept at step 9"):
        read_plane(tmp_path, 9)
    assert main(["plot", str(tmp_path), "--plane", "--smooth", "3"]) == 2
    assert "--smooth: is of curves" in capsys.readouterr().err
