"""PSNR, SSIM and rFID while a training is under way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainings import everything

from vaes import Experiment, UserError, load
from vaes.data import Splits, arrays, to_float, to_uint8
from vaes.evaluate import fid, psnr
from vaes.evaluate.feature_maps import find_feature_maps
from vaes.evaluate.features import leave
from vaes.evaluate.likeness import Distance
from vaes.evaluate.passes import choose, pixels
from vaes.objectives.terms import Perceptual
from vaes.train.units import unit

N, SIDE = 70, 8  # FID of 64 features takes 65 images
RAW = {
    "method": "kl_vae",
    "data": {"kind": "arrays"},
    "model": {
        "z_channels": 2,
        "network": {"kind": "autoencoder_kl", "ch": 4, "ch_mult": [1, 2], "num_res_blocks": 1, "groups": 2},
    },
    "objective": {"gamma": 0.0, "adversary": 0.0},
    "train": {"n_steps": 6, "batch_size": 8, "eval_freq": 3, "save_freq": 3, "sample_freq": 0, "trackers": []},
}
ON = {"train.monitor": N, "train.monitor_features": "pixels"}


def images() -> Splits:
    drawn = np.random.default_rng(0).integers(0, 256, (200, 1, SIDE, SIDE), dtype=np.uint8)
    return arrays(drawn[:90], drawn[90:120], valid=drawn[120:])


def fit(folder: Path, changes: dict[str, Any], **options: Any) -> Path:
    Experiment.of(RAW).replace(changes).fit(folder, data=images(), device="cpu", **options)
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["split"] == "valid"]


def test_the_numbers_are_those_of_the_run_and_change_nothing_else(tmp_path: Path) -> None:
    off, on = fit(tmp_path / "off", {}), fit(tmp_path / "on", ON)
    assert everything(off)["weights"] == everything(on)["weights"]
    last, splits, run = lines(on)[-1], images(), load(on, device="cpu")
    real = {s: pixels(getattr(splits, s), choose(getattr(splits, s), N, 0)) for s in ("valid", "train")}
    for split, suffix in (("valid", ""), ("train", "_train")):
        x = real[split]
        low, high = run.model.value_range
        with torch.inference_mode():
            y = to_uint8(run.model.reconstruct(low + (high - low) * x.float() / 255), run.model.value_range)
        flat = [one.flatten(1).double() / 255 for one in (x, y)]
        assert last[f"rfid{suffix}[pixels,{N}]"] == pytest.approx(fid(*flat, features="pixels").value, rel=1e-6)
        expected = psnr(x.double() / 255, y.double() / 255, data_range=1).mean().item()
        assert last[f"psnr{suffix}[{N}]"] == pytest.approx(expected, rel=1e-6)
    assert not any("[" in name for name in lines(off)[-1])
    assert not any("perceptual" in name for name in last)  # pixels are no features of places


def test_a_training_that_goes_on_has_the_same_numbers(tmp_path: Path) -> None:
    whole, cut = fit(tmp_path / "whole", ON), fit(tmp_path / "cut", ON)
    newest = max((cut / "ckpt").iterdir(), key=lambda path: int(path.name.strip("step")))
    for path in sorted(newest.rglob("*"), reverse=True):
        path.unlink()
    newest.rmdir()
    fit(cut, ON, resume="latest")
    assert lines(cut) == lines(whole)


def test_the_perceptual_distance_is_the_terms_in_the_network_of_rfid(tmp_path: Path) -> None:
    network = tmp_path / "random.safetensors"
    found = find_feature_maps("random", images())
    leave(network, *found)
    run = fit(tmp_path / "run", {"train.monitor": N, "train.monitor_features": str(network)})
    splits, model = images(), load(run, device="cpu").model
    term = Perceptual(model.value_range, lambda name: (found.name, found.maps))
    for split, suffix in (("valid", ""), ("train", "_train")):
        x = pixels(getattr(splits, split), choose(getattr(splits, split), N, 0))
        with torch.inference_mode():
            y = to_uint8(model.reconstruct(to_float(x, model.value_range)), model.value_range)
            expected = term.distance(x.float() / 255, y.float() / 255).mean().item()
        assert lines(run)[-1][f"perceptual{suffix}[{found.name.split(' ')[0]},{N}]"] == pytest.approx(
            expected, rel=1e-5
        )
    assert unit(f"perceptual_train[{found.name.split(' ')[0]},{N}]") == "0 for equal images"
    x, y = torch.rand(2, 130, 1, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = Distance("perceptual", found.name, found.maps.double())
    torch.testing.assert_close(ours.of(x, y), term.double().distance(x, y), rtol=1e-14, atol=0)
    assert not ours.of(x, x).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.monitor": 85}, "85 images of each split, and valid has 80"),
        ({"train.monitor": 64}, "65 of each are needed"),
        ({"train.eval_freq": 0}, "monitor measures at each validation"),
        ({"train.monitor_features": "vgg"}, "none of auto"),
        ({"train.monitor_perceptual": "vgg"}, "train.monitor_perceptual: 'vgg' is none of auto, .* lpips"),
        ({"train.monitor_perceptual": "timm:no"}, "train.monitor_perceptual: timm"),
        ({"train.monitor_perceptual": "none.safetensors"}, "train.monitor_perceptual: none.safetensors"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_first_step(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        fit(tmp_path / "run", {**ON, **changes})
    assert "\n" not in str(error.value)
