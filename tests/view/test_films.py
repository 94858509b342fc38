"""Films of walks and paths, read back by other programs than those that wrote them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from vaes.cli import main
from vaes.errors import UserError
from vaes.view import Options, check_film, draw_film, film
from vaes.view.films import FORMATS
from vaes.view.layout import ACCENT, PAGE
from vaes.view.modes import MODES

SHORT = Options(n_samples=3, fps=10, seconds=1.0)


@pytest.mark.parametrize("dim", [None, 1])
def test_a_walk_goes_there_and_back_by_the_cosine(dim, build, monkeypatch):
    seen, model = [], build()
    monkeypatch.setattr("vaes.view.films.decode", _recording(seen))
    made = film("traverse", model, SHORT._replace(traverse_dim=dim, traverse_range=2.0))
    codes = seen[0].unflatten(0, (6, -1))  # 10 frames, of which 4 are shown twice
    values = -2 * torch.cos(2 * torch.pi * torch.arange(6) / 10)
    rows = codes.shape[1] // 3
    assert rows == (model.z_dim if dim is None else 1)
    for row in range(rows):
        moved = row if dim is None else dim
        of_row = codes[:, 3 * row : 3 * row + 3]
        torch.testing.assert_close(of_row[..., moved], values[:, None].expand(-1, 3))
        held = [d for d in range(model.z_dim) if d != moved]
        assert (of_row[..., held] == of_row[0, :, held]).all()
    frames = [np.asarray(frame) for frame in made.frames()]
    assert len(frames) == made.length == 10
    assert all((frames[k] == frames[10 - k]).all() for k in range(1, 10))
    assert len({frame.tobytes() for frame in frames}) == 6


def test_a_path_begins_and_ends_at_its_codes_with_the_images_beside_it(build, images):
    model, found = build(), images()
    of_sheet = draw_pictures("interpolate", model, found, n_interpolate=2)
    frames = list(film("interpolate", model, SHORT._replace(between="test"), found).frames())
    for frame, shown in ((frames[0], of_sheet[1]), (frames[5], of_sheet[2])):
        assert _holds(frame, of_sheet[0])
        assert _holds(frame, shown)
        assert _holds(frame, of_sheet[3])
    assert not _holds(frames[0], of_sheet[2])


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_read_back_is_what_was_drawn(format, build, tmp_path):
    if format == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        pytest.skip("imageio-ffmpeg is not installed")
    model, options = build(), SHORT._replace(traverse_dim=0)
    drawn = draw_film("traverse", model, tmp_path, format, options)
    assert drawn.paths == [tmp_path / f"traverse-film.{format}"]
    assert [path.name for path in tmp_path.iterdir()] == [f"traverse-film.{format}"]
    wanted = [np.asarray(frame).astype(int) for frame in film("traverse", model, options).frames()]
    found = _mp4(drawn.paths[0]) if format == "mp4" else _animation(drawn.paths[0])
    assert len(found) == len(wanted) == 10
    height, width, _ = wanted[0].shape
    for ours, theirs in zip(wanted, found, strict=True):
        error = np.abs(ours - theirs[:height, :width])
        assert error.mean() < {"gif": 1, "webp": 0.01, "mp4": 3}[format]
    if format != "mp4":
        image = Image.open(drawn.paths[0])
        assert image.info["loop"] == 0
        assert (found[0][0, 0] == PAGE).all()
        assert (found[3] == ACCENT).all(-1).any()  # the bead on its track


def test_a_film_is_whole_or_absent(build, tmp_path, monkeypatch):
    (tmp_path / "traverse-film.gif").write_bytes(b"before")

    def full(made, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(importlib.import_module("vaes.view.films")._WRITERS, "gif", full)
    with pytest.raises(UserError, match=r"traverse-film.gif: the film cannot be written \(No space left on device\)"):
        draw_film("traverse", build(), tmp_path, "gif", SHORT)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"traverse-film.gif": b"before"}


def test_a_gif_says_that_its_clock_is_coarse(build, tmp_path):
    said = draw_film("traverse", build(), tmp_path, "gif", SHORT._replace(fps=30, seconds=0.2)).remarks
    assert said == ["a GIF counts hundredths of a second: 33.3 frames a second instead of 30"]
    assert Image.open(tmp_path / "traverse-film.gif").info["duration"] == 30


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("traverse", "interpolate")])
def test_modes_without_a_film_name_those_with_one(mode, capsys):
    with pytest.raises(UserError, match=f"--format gif: {mode} has no film; --mode traverse and interpolate have"):
        check_film(mode, "gif")
    assert main(["sample", "R", "--mode", mode, "--format", "webp"]) == 2
    assert f"{mode} has no film; --mode traverse and interpolate have" in capsys.readouterr().err


def test_mp4_without_its_encoder_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mp4 needs an encoder: pip install 'vaes\[film\]'"):
        check_film("traverse", "mp4")
    check_film("traverse", "gif")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fps": 51}, "--fps 51: must be 50 at most"), ({"seconds": 0.0}, "--seconds 0.0: must be at least 0.1")],
)
def test_lengths_out_of_range_are_refused(options, message, build, tmp_path):
    with pytest.raises(UserError, match=message):
        draw_film("traverse", build(), tmp_path / "new", "gif", SHORT._replace(**options))
    assert not (tmp_path / "new").exists()


def _recording(seen):
    from vaes.view.decoding import decode

    def recorded(model, codes, batch_size):
        seen.append(codes)
        return decode(model, codes, batch_size)

    return recorded


def draw_pictures(mode, model, images, **options):
    from vaes.view import make

    single = make(mode, model, SHORT._replace(between="test", **options), images).singles[0]
    return single.unflatten(2, (4, -1)).permute(2, 0, 1, 3)  # input, begin, end, input


def _holds(frame: Image.Image, picture: torch.Tensor) -> bool:
    """Whether a picture (C, H, W) stands somewhere on the page, each of its pixels a square of 8."""
    page, large = np.asarray(frame), picture.permute(1, 2, 0).numpy().repeat(8, 0).repeat(8, 1)
    height, width = large.shape[:2]
    corners = (page == large[0, 0]).all(-1)[: 1 - height, : 1 - width]
    corners &= (page == large[-1, -1]).all(-1)[height - 1 :, width - 1 :]
    return any((page[y : y + height, x : x + width] == large).all() for y, x in np.argwhere(corners))


def _animation(path: Path) -> list[np.ndarray]:
    return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(Image.open(path))]


def _mp4(path: Path) -> list[np.ndarray]:
    import imageio_ffmpeg

    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(height, width, 3).astype(int) for frame in frames]
