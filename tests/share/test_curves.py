"""Curves of a training from what lies in its folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaes import share
from vaes.cli import main
from vaes.errors import UserError
from vaes.share.training_curves import ENDINGS, _best, _means


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run at work: gone on with once, no metrics.json, one loss that is no number, a name from somebody else."""
    lines: list[dict[str, object]] = []
    for step in range(10, 210, 10):
        train = {"loss": 100.0 / step, "rate": float(step), "mmd": 0.1 * step, "beta": step / 200, "gamma": 3.0}
        lines.append({"step": step, "split": "train", **train, "a$b_{<script>": 1.0 + step})
        if step % 50 == 0:
            valid = {"loss": None if step == 50 else abs(step - 150) + 7.0, "rate": 2.0, "mse": 0.1}
            lines.append({"step": step, "split": "valid", **valid})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 210, "spl')
    config = {"method": "vae", "data": {"kind": "digits"}, "train": {"n_steps": 100}}
    segments = [{"step": 0, "config": config}, {"step": 100, "config": {**config, "train": {"n_steps": 200}}}]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in segments))
    return tmp_path


def test_each_number_comes_with_its_unit_and_its_points(run: Path) -> None:
    found = {curve.name: curve for curve in share.curves(run)}
    assert list(found)[:2] == ["loss", "rate"]
    units = {name: curve.unit for name, curve in found.items()}
    nats = "nats per image"
    assert units == {"loss": nats, "rate": nats, "mmd": "", "mse": "per pixel", "beta": "", "gamma": "",
                     "a$b_{<script>": ""}  # fmt: skip
    assert found["loss"].train[0].tolist() == list(range(10, 210, 10))
    np.testing.assert_array_equal(found["loss"].valid[0], [50, 100, 150, 200])
    np.testing.assert_array_equal(found["loss"].valid[1], [np.nan, 57.0, 7.0, 57.0])
    assert _best(list(found.values())) == (150, 7.0)
    (run / "metrics.json").write_text(json.dumps({"valid": {"mse": {"unit": "pixels [0, 1]"}}}))
    assert {c.name: c.unit for c in share.curves(run)}["mse"] == "pixels [0, 1]"


def test_the_figure_marks_the_best_and_says_what_changed(run: Path) -> None:
    figure = share.plot(run)
    said = " ".join(text.get_text() for text in figure.texts)
    assert "from step 100 on: train.n_steps 200 (before: 100)" in said
    assert "constant: gamma 3" in said
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "training", "validation", "best, step 150: loss 7", "gone on from here"
    ]  # fmt: skip
    loss = figure.axes[0]
    assert [
        line.get_xydata().tolist() for line in loss.lines if line.get_marker() == "o" and line.get_markersize() == 9
    ] == [[[150.0, 7.0]]]
    assert any(line.get_xdata() == [100, 100] for line in loss.lines)
    assert len(figure.axes) == 6


def test_only_what_was_asked_for_is_smoothed(run: Path) -> None:
    plain, smooth = (share.plot(run, smooth=count).axes[1].lines for count in (1, 4))
    rate = np.arange(10.0, 210, 10)
    np.testing.assert_array_equal(plain[1].get_ydata(), rate)
    np.testing.assert_array_equal(smooth[1].get_ydata(), rate)
    np.testing.assert_allclose(smooth[2].get_ydata()[2:-1], rate[2:-1] - 5)
    np.testing.assert_allclose(_means(np.array([1.0, np.nan, 4.0, 8.0]), 3), [1, 2.5, 6, 6])
    names = [axes.get_title(loc="left") for axes in share.plot(run, smooth=4).axes]
    (beta,) = (axes for axes, name in zip(share.plot(run, smooth=4).axes, names, strict=True) if name == "beta")
    np.testing.assert_allclose(beta.lines[1].get_ydata(), rate / 200)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_are_whole_and_the_same_again(run: Path, ending: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path in paths:
        assert main(["plot", str(run), "-o", str(path)]) == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending])
    assert not list(tmp_path.glob(".*"))


def test_the_picture_lies_with_the_others(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run)]) == 0
    assert "pictures/curves.png" in capsys.readouterr().out
    assert Image.open(run / "pictures" / "curves.png").width > 1000


def test_what_cannot_be_drawn_is_a_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run), "-o", "x.jpg"]) == 2
    assert "x.jpg: curves are written as .png, .svg, .pdf" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl; give a run folder"):
        share.plot(tmp_path / "none")
    (run / "metrics.jsonl").unlink()
    (run / "config.yaml").write_text("")
    with pytest.raises(UserError, match=r"nothing was measured yet; the first numbers come after train\.print_freq"):
        share.plot(run)
