import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data.images import Annotations, TensorSet
from vaes.errors import UserError
from vaes.view import Options, draw, output
from vaes.view.layout import PAGE, font, framed, literal

SINGLES = Options(n_samples=5, singles=True)


def test_a_full_disk_leaves_the_folder_as_it_was(build, tmp_path, monkeypatch):
    model = build()
    draw("sample", model, tmp_path, SINGLES._replace(n_samples=2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    save, calls = Image.Image.save, []

    def full(self, path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left"):
        draw("sample", model, tmp_path, SINGLES._replace(seed=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {output.LOCK}


def test_a_sheet_is_all_there_is_unless_singles_are_asked_for(build, tmp_path):
    assert draw("sample", build(), tmp_path, Options()).paths == [tmp_path / "sample-sheet.png"]
    assert names(tmp_path) == {"sample-sheet.png"}


def test_singles_of_an_earlier_call_never_stay_and_nothing_else_is_deleted(build, tmp_path):
    model = build((1, 1, 1))
    own = [
        "sample-1.png",
        "sample-007.png.bak",
        "sample-2024.png",
        "sample-abc.png",
        "interpolate-000.png",
        "x-000.png",
    ]
    for name in own:
        (tmp_path / name).touch()
    (tmp_path / "sample-900.png").mkdir()
    (tmp_path / "sample-901.png").symlink_to(tmp_path / "x-000.png")
    kept = {*own, "sample-900.png", "sample-901.png", "sample-sheet.png"}
    assert draw("sample", model, tmp_path, SINGLES).remarks == []
    assert names(tmp_path) == kept | {f"sample-{i:03d}.png" for i in range(5)}
    removed = draw("sample", model, tmp_path, SINGLES._replace(n_samples=2)).remarks
    assert removed == [f"3 single pictures of an earlier sample were removed from {tmp_path}"]
    assert names(tmp_path) == kept | {"sample-000.png", "sample-001.png"}
    (tmp_path / "sample-2024.png").unlink()
    draw("sample", model, tmp_path, SINGLES._replace(n_samples=1001))
    assert (tmp_path / "sample-1000.png").exists()
    draw("sample", model, tmp_path, Options())
    assert names(tmp_path) == kept - {"sample-2024.png"}


def test_a_folder_that_cannot_be_written_is_said_before_the_decoding(build, tmp_path, monkeypatch):
    monkeypatch.setattr("vaes.view.output.make", lambda *a: pytest.fail("decoded"))
    (tmp_path / "file").touch()
    (tmp_path / "sample-sheet.png").mkdir()
    for folder in (tmp_path / "file" / "x", tmp_path / "file", tmp_path / ("n" * 300), tmp_path):
        with pytest.raises(UserError, match=r"cannot be written|is a folder") as error:
            draw("sample", build(), folder, SINGLES)
        assert str(folder) in str(error.value)


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(build, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".sample.{dead.pid}.tmp", f".sample.{os.getppid()}.tmp", ".sample.x.tmp"):
        (tmp_path / name).mkdir()
    draw("sample", build(), tmp_path, Options(n_samples=1))
    assert names(tmp_path) == {f".sample.{os.getppid()}.tmp", ".sample.x.tmp", "sample-sheet.png"}


ODD = {
    "$\\alpha$ $x$ $$": "$\\alpha$ $x$ $$",
    "_hidden": "_hidden",
    "a\nb\x1b[31m\r": "a\\nb\\x1b[31m\\r",
    "\u05d0\u202eb\u2028": "\u05d0\\u202eb\\u2028",
    "\u732b": "\\u732b",
    "\udcff": "\\udcff",
    "x" * 3000: "x" * 19 + "…" + "x" * 20,
    "\x00" * 3000: "\\x00" * 9 + "\\x0…",
    "": "",
}


def test_texts_are_drawn_literally_and_clipped():
    assert {text: literal(text) for text in ODD} == ODD


@pytest.mark.parametrize("z_dim", [1, 2, 3])
def test_no_name_stops_a_map(z_dim, build, tmp_path):
    count = 20 * len(ODD)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8)
    data = TensorSet(pixels, Annotations(torch.arange(count) % len(ODD), tuple(ODD)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = draw("visualize_latent", build(z_dim=z_dim), tmp_path, Options(), data, "".join(ODD)).paths[-1]
    with Image.open(path) as page:
        assert max(page.size) < 3000


@pytest.mark.parametrize("text", ["w" * 5000, "a b " * 3000, "\x1b" * 900, "wide words " + "m" * 400])
def test_no_text_runs_over_the_margins_or_makes_a_page_of_its_own(text):
    page = np.asarray(framed(Image.new("RGB", (600, 10)), text, text))
    assert page.shape[0] < 1000
    margins = np.concatenate([page[:, :22], page[:, -22:]], axis=1)
    assert (margins == PAGE).all()
    assert font(13).getlength("w") > 5


SCRIPT = """
import os, sys
import torch
import {first}
import matplotlib
user = dict(matplotlib.rcParams) if {first!r} == "matplotlib" else None
matplotlib.rcParams["text.usetex"] = True
from vaes.view.charts import latent_map
from vaes.view.plane import Limits
latent_map(torch.randn(30, 2), Limits(-1, 1, -1, 1), labels=torch.arange(30) % 2, label_names=("a_b", "$"))
assert matplotlib.rcParams["text.usetex"] is True
assert "matplotlib.pyplot" not in sys.modules
print(os.environ["MPLBACKEND"], dict.__getitem__(matplotlib.rcParams, "backend"))
"""


@pytest.mark.parametrize(
    ("first", "backend", "then"),
    [("vaes.view", "nonsense", None), ("vaes.view", "TkAgg", "tkagg"), ("matplotlib", "svg", "svg")],
)
def test_the_environment_chooses_no_backend_of_ours_and_keeps_its_own(first, backend, then):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(first=first)],
        env={**os.environ, "MPLBACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, chosen = done.stdout.split(maxsplit=1)
    assert said == backend
    assert then is None or chosen.strip().lower() == then
