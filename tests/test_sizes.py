"""Runs on images of another size than they were trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_grids import experiment, images

from vaes import Experiment, load
from vaes.cli import main
from vaes.errors import UserError


def pictures(folder: Path, side: int, count: int = 3) -> Path:
    numbers = np.random.default_rng(side)
    folder.mkdir()
    for i in range(count):
        Image.fromarray(numbers.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def test_a_run_takes_images_of_another_size_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = experiment().fit(tmp_path / "run", data=images(), device="cpu")
    larger = run.at(16)
    assert (larger.model.z_shape, run.model.z_shape) == ((3, 8, 8), (3, 4, 4))
    assert "images are 16x16, and the weights were trained on 8x8: codes are 3x8x8" in larger.notes
    x = 2 * torch.rand(2, 1, 16, 16) - 1
    direct = experiment().build_model((1, 16, 16))
    direct.load_state_dict(run.model.state_dict())
    direct.eval()
    with torch.no_grad():
        latent = direct.encode(images(16).test.read(torch.arange(8)).float() / 127.5 - 1)
    codes = run.encode(images(16).test)
    np.testing.assert_allclose(codes.mean, latent.mean.flatten(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.decode(latent.mean), run.reconstruct(images(16).test)[1])
    assert run.at((16, 8)).decode(torch.zeros(1, 3, 8, 4)).shape == x[:1, :, :, :8].shape
    assert run.at(16).at(8).model is run.model
    with pytest.raises(UserError, match="divides their sides by 2: 8x14 fits, and 10x16"):
        run.at((9, 15))
    with pytest.raises(UserError, match=r"codes of \(4, 4, 4\) where"):
        run.decode(torch.zeros(1, 4, 4, 4))
    folder = pictures(tmp_path / "large", 16)
    assert main(["encode", str(tmp_path / "run"), str(folder), "-o", str(tmp_path / "c.npz")]) == 0
    assert "trained on 8x8: codes are 3x8x8" in capsys.readouterr().err
    assert [name for name in np.load(tmp_path / "c.npz") if name.startswith("z")][-1] == "z191"
    assert main(["sample", str(tmp_path / "run"), "--mode", "reconstruct", "--images", str(folder)]) == 0
    assert "trained on 8x8" in capsys.readouterr().err
    odd = pictures(tmp_path / "odd", 9)
    assert main(["encode", str(tmp_path / "run"), str(odd), "-o", str(tmp_path / "d.npz")]) == 2
    assert "8x8 fits, and 10x10" in capsys.readouterr().err


def test_pictures_are_brought_to_a_size_that_the_runs_own_were_brought_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(tmp_path / "p", 16, 30)
    made: dict[str, Any] = experiment().to_dict() | {"data": {"kind": "folder", "root": str(folder), "image_size": 8}}
    Experiment.of(made).fit(tmp_path / "run", device="cpu")
    for keys, last in (([], "z47"), (["--data.image_size=null"], "z191"), (["--data.image_size=16"], "z191")):
        out = str(tmp_path / "c.npz")
        assert main(["encode", str(tmp_path / "run"), str(folder), "-o", out, *keys]) == 0, capsys.readouterr().err
        assert [name for name in np.load(out) if name.startswith("z")][-1] == last
        assert ("--data.image_size null leaves" in capsys.readouterr().err) == (not keys)
    assert main(["evaluate", str(tmp_path / "run"), "--only", "reconstruction", "--data.image_size", "16"]) == 0
    assert (tmp_path / "run" / "at-16x16" / "evaluation.json").exists()
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_flat_codes_are_of_one_size(tmp_path: Path) -> None:
    Experiment(model={"network": "mlp"}, train={"n_steps": 1, "batch_size": 8, "eval_freq": 0}).fit(
        tmp_path / "run", data=images(), device="cpu"
    )
    with pytest.raises(UserError, match=r"\(1, 8, 8\), both \(C, H, W\): the network mlp makes flat codes"):
        load(tmp_path / "run").encode(images(16).test)
