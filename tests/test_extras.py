"""Every extra is there, and what lacks one is a sentence with the command that installs it."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vaes.cli import main

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
NOT_ASKED_FOR = {
    "dev",
    "docs",
    "export",
    "slurm",
    "umap",
    "widget",
}  # export is onnx; slurm is asked for after the cluster's own commands; the last two are tested in explore/
LACKING: dict[str, tuple[str, list[str]]] = {
    "hub": ("huggingface_hub", ["push", "zoo:digits", "somebody/nothing"]),
    "wandb": ("wandb", ["train", "-e", "r", "--train.trackers", "[wandb]"]),
    "mlflow": ("mlflow", ["train", "-e", "r", "--train.trackers", "[mlflow]"]),
    "trackio": ("trackio", ["train", "-e", "r", "--train.trackers", "[trackio]"]),
    "remote": ("s3fs", ["train", "-e", "r", "--train.mirror", "s3://bucket/r"]),
    "search": ("optuna", ["sweep", "-e", "s", "--search", "optuna", "--range", "train.lr=0.001..0.01"]),
    "ray": ("ray", ["sweep", "-e", "s", "--engine", "ray", "--grid", "seed=0,1"]),
    "film": ("imageio_ffmpeg", ["sample", "zoo:digits", "--mode", "interpolate", "--format", "mp4"]),
    "parquet": ("pyarrow", ["encode", "zoo:digits", "--split", "test", "-o", "c.parquet"]),
    "explore": ("starlette", ["explore", "zoo:digits"]),
    "onnx": ("onnx", ["export", "zoo:digits", "--to", "onnx"]),
    "fid": ("torch_fidelity", ["evaluate", "zoo:digits", "--only", "generation", "--features", "inception"]),
    "lpips": ("lpips", ["train", "-e", "r", "--method", "kl_vae", "--objective.perceptual.features", "lpips"]),
    "timm": ("timm", ["train", "-e", "r", "--method", "kl_vae", "--objective.perceptual.features", "timm:resnet18"]),
    "h5": ("h5py", ["train", "-e", "r", "--data.kind", "shapes3d", "--data.root", "."]),
}
"""Extra -> a package of it, and a command that wants it."""


def test_each_extra_is_tried_below() -> None:
    assert set(EXTRAS) == set(LACKING) | NOT_ASKED_FOR


@pytest.mark.parametrize("extra", LACKING)
def test_a_missing_one_is_a_sentence_that_installs_it(
    extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, words = LACKING[extra]
    find = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name.partition(".")[0] == package else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "3dshapes.h5").touch()
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"pip install 'vaes\[{extra}\]'", said), said
