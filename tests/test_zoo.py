"""The models that come along fit the program as it is, are small, and are found by name."""

import re
from pathlib import Path

import pytest
import torch

import vaes
from vaes import files, zoo
from vaes.cli import main
from vaes.errors import UserError


def test_there_are_those_that_the_documentation_names(repo: Path) -> None:
    text = (repo / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert zoo.names() == sorted(set(re.findall(r"`zoo:(\w+)`", text)))
    assert sum(path.stat().st_size for path in zoo.FOLDER.iterdir() if path.is_file()) < 3e6


@pytest.mark.parametrize("name", zoo.names())
def test_each_fits_the_present_program_and_its_card(name: str) -> None:
    run = vaes.load(f"zoo:{name}")
    tensors, metadata, sha256 = files.hold_tensors(run.weights)
    assert sha256 in (zoo.FOLDER / f"{name}.md").read_text(encoding="utf-8"), "python benchmarks/zoo.py"
    assert {t.dtype for t in tensors.values()} <= {torch.float16, torch.int64}
    assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert not re.search(r"(?m)(?<![\w:/])/\w", str(metadata["config"]))  # no path of the machine that trained it
    images = run.sample(4)
    assert tuple(images.shape) == (4, *run.image_shape)
    assert images.isfinite().all()
    assert images.flatten(1).std(0).mean() > 0.01  # a trained decoder: codes matter


def test_the_numbers_of_a_card_are_what_the_model_gets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = vaes.load("zoo:digits").evaluate(["reconstruction"], write=False)
    (said,) = re.findall(r"\| mse \| (\S+) ±", (zoo.FOLDER / "digits.md").read_text(encoding="utf-8"))
    (mse,) = (one for one in found.groups["reconstruction"].metrics if one.name == "mse")
    assert mse.value == pytest.approx(float(said), rel=1e-3)
    assert not list(tmp_path.iterdir())


def test_a_command_takes_the_name_and_writes_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "zoo:sprites", "--mode", "sample", "--n_samples", "4"]) == 0
    assert list(tmp_path.glob("runs/zoo-sprites/pictures/*.png"))
    assert main(["evaluate", "zoo:digits", "--only", "reconstruction"]) == 0
    assert (tmp_path / "runs/zoo-digits/evaluation.json").is_file()
    assert {path.suffix for path in zoo.FOLDER.iterdir() if path.is_file()} == {".py", ".md", ".safetensors"}


@pytest.mark.parametrize("name", ["mnits", "", "../zoo/mnist", "MNIST", "x" * 3000])
def test_another_name_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"there is no such model; .*digits, mnist, sprites"):
        vaes.load(f"zoo:{name}")
    assert main(["sample", f"zoo:{name}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_of_that_name_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo:mnist").mkdir()
    with pytest.raises(UserError, match="holds neither"):
        vaes.load("zoo:mnist")
