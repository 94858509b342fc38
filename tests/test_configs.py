"""Every shipped configuration trains on its data, through the command line."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes import Experiment
from vaes.cli import main
from vaes.diffusers_folder import to_diffusers

SHORT = ["--train.n_steps=2", "--train.batch_size=8"]
GRID = [
    "--model.network.ch=8",
    "--model.network.groups=4",
    "--objective.patch_critic.width=4",
    "--objective.perceptual.features=random",
]


def celeba(root: Path) -> Path:
    """A few pictures in the layout of the aligned release."""
    (root / "img_align_celeba").mkdir(parents=True)
    rng, names = np.random.default_rng(0), [f"{i:06d}.jpg" for i in range(1, 31)]
    for name in names:
        picture = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "img_align_celeba" / name)
    partition = [f"{name} {0 if i < 20 else 1 if i < 25 else 2}\n" for i, name in enumerate(names)]
    (root / "list_eval_partition.txt").write_text("".join(partition))
    rows = "".join(f"{name} {1 if i % 2 else -1} 1\n" for i, name in enumerate(names))
    (root / "list_attr_celeba.txt").write_text(f"{len(names)}\nSmiling Young\n{rows}")
    return root


def some(pictures: Path, target: Path) -> Path:
    """Every thirtieth picture of an archive."""
    with zipfile.ZipFile(pictures) as source, zipfile.ZipFile(target, "w") as few:
        for name in sorted(name for name in source.namelist() if not name.endswith("/"))[::30]:
            few.writestr(name, source.read(name))
    return target


@pytest.mark.parametrize(
    "name",
    [
        "vae-digits",
        "vae-numerals",
        "vae-mnist",
        "mmd-vae-mnist",
        "vae-celeba",
        "beta-vae-celeba",
        "vae-faces",
        "beta-vae-sprites",
        "kl-vae-faces",
        "vq-faces",
    ],
)
def test_a_shipped_configuration_trains(
    name: str, repo: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"kl": GRID, "vq": GRID[:2]}.get(name.split("-")[0], ["--model.network.dim=4"])
    if "numerals" in name:
        options = ["--model.network.hidden=[8]", "--data.n_test=60", "--data.n_valid=50"]
    if "mnist" in name:
        options += [f"--data.root={request.getfixturevalue('shared_data') / 'mnist'}"]
    elif "faces" in name:
        faces = request.getfixturevalue("shared_data") / "faces" / "faces.zip"
        options += [f"--data.root={some(faces, tmp_path / 'faces.zip')}"]
    elif "celeba" in name:
        options += [f"--data.root={celeba(tmp_path / 'celeba')}"]
    elif "sprites" in name:
        options += ["--data.n_valid=50", "--data.n_test=50"]
    arguments = ["train", "-c", str(repo / "configs" / f"{name}.yaml"), "-e", str(tmp_path / "run"), *options, *SHORT]
    assert main(arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert found["step"] == 2
    expected = {"mnist": 10_000, "faces": 44, "digits": 297, "celeba": 5, "sprites": 50, "numerals": 60}
    assert found["test"]["elbo"]["n"] == next(n for data, n in expected.items() if data in name)


def test_the_published_tokenizer_is_built_of_any_folder(repo: Path, tmp_path: Path) -> None:
    experiment = Experiment.read(repo / "configs" / "kl-vae-f8.yaml", ["--data.root", str(tmp_path)])
    with torch.device("meta"):
        model = experiment.build_model((3, 256, 256))
    assert model.z_shape == (4, 32, 32)
    parameters = sum(p.numel() for part in (model.encoder, model.decoder) for p in part.parameters())
    assert parameters == 83_653_863  # of the released weights
    assert to_diffusers(model, experiment.model, (3, 256, 256))["block_out_channels"] == [128, 256, 512, 512]
