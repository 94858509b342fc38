"""Networks in whose features a training compares images."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vaes import Experiment
from vaes.data import Splits, arrays, digits
from vaes.errors import UserError
from vaes.evaluate import feature_maps
from vaes.evaluate.feature_maps import FILE, Found, find_feature_maps
from vaes.evaluate.features import classifier_features, find_features


@pytest.fixture(scope="module")
def splits() -> Splits:
    return digits(image_size=8)


def noise() -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    return arrays(pixels[:64], pixels[64:80], valid=pixels[80:])


def test_a_network_is_trained_left_taken_again_and_not_the_one_that_judges(splits: Splits, tmp_path: Path) -> None:
    found = find_feature_maps("auto", splits, tmp_path, steps=60)
    assert found.name.startswith("classifier-")
    assert found.metadata["accuracy"] > 0.8
    assert found.metadata["test_images"] == len(splits.valid)
    found.write(tmp_path)
    again, anew = (find_feature_maps("auto", splits, run, steps=60) for run in (tmp_path, None))
    assert found.name == again.name == anew.name
    x = splits.test.read(torch.arange(5)).float() / 255
    maps = found.maps(x)
    assert [tuple(part.shape) for part in maps] == [(5, 32, 4, 4), (5, 64, 2, 2), (5, 64, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(maps, again.maps(x), strict=True))
    hidden = found.network.body[:6](x)
    torch.testing.assert_close(maps[-1], hidden)
    assert found.name[:19] == find_features(str(tmp_path / FILE), splits, None).name[:19]
    assert found.name[:19] != classifier_features(splits, steps=60).name[:19]
    assert find_feature_maps("auto", splits, tmp_path, steps=30).name != found.name
    assert find_feature_maps("random", splits, tmp_path, steps=60).name.startswith("random-")  # not what was asked for


def test_auto_takes_what_the_images_allow(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Splits(*(arrays(part.read(torch.arange(len(part))).numpy(), n_test=2).train
                    for part in (splits.train, splits.valid, splits.test)))  # fmt: skip
    assert find_feature_maps("auto", bare, steps=150).name.startswith("pretext-")
    none = find_feature_maps("auto", noise(), steps=20)
    assert none.name.startswith("random-")
    assert none.name == find_feature_maps("random", splits).name  # it does not look at the images


def settings(**objective: Any) -> Experiment:
    raw = {
        "method": "perceptual_vae",
        "objective": {"perceptual": objective},
        "model": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [16]}},
        "train": {"n_steps": 4, "batch_size": 16, "eval_freq": 0, "sample_freq": 0, "save_freq": 2, "keep": 9},
    }
    return Experiment.of(raw)


def test_a_training_goes_on_with_its_own_features_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, data = settings(features="random"), noise()
    run = made.fit(tmp_path / "run", data=data)
    halfway = tmp_path / "run" / "ckpt" / "step000002"
    own = (tmp_path / "run" / FILE).read_bytes()

    with monkeypatch.context() as m:  # it is taken from the run, into a new one too
        m.setattr(feature_maps, "_random", lambda channels: pytest.fail("made anew"))
        made.replace({"train.n_steps": 6}).fit(tmp_path / "run", data=data, resume="latest")
        branch = made.fit(tmp_path / "branch", data=data, resume=halfway)
    assert (tmp_path / "branch" / FILE).read_bytes() == own
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), branch.model.parameters(), strict=True))

    (tmp_path / "run" / FILE).unlink()  # it is made again as it was
    made.replace({"train.n_steps": 7}).fit(tmp_path / "run", data=data, resume="latest")
    assert (tmp_path / "run" / FILE).read_bytes() == own

    found = find_feature_maps("random", data, tmp_path / "run")
    with torch.no_grad():
        found.network.body[0].bias += 1e-3
    Found(found.network, found.metadata).write(tmp_path / "run")
    with pytest.raises(UserError, match=r"objective: .*random-.*was trained with others") as caught:
        made.replace({"train.n_steps": 8}).fit(tmp_path / "run", data=data, resume="latest")
    assert "\n" not in str(caught.value)

    shutil.rmtree(tmp_path / "run")  # the network of one run for another
    path = str(tmp_path / "branch" / FILE)
    settings(features=path).fit(tmp_path / "run", data=data)
    assert find_feature_maps("random", data).name in find_feature_maps(path, data, tmp_path / "run").name


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            "vgg",
            "features: 'vgg' is none of auto, classifier, pretext, random, lpips, timm:NAME, nor a .safetensors file",
        ),
        ("classifier", "features: the images come without labels"),
        ("none.safetensors", "features: none.safetensors: there is no such weights file"),
    ],
)
def test_features_that_cannot_be_had_are_refused_before_a_run_is_made(
    features: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        settings(features=features).fit(tmp_path / "run", data=noise())
    assert str(caught.value).startswith(f"objective.perceptual: {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
