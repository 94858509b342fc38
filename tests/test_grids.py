"""Grids named by a configuration, from training to pictures, on images of no size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from trainings import everything

from vaes import Experiment, config, evaluate, view
from vaes.config.registry import NETWORKS
from vaes.data import Splits, arrays
from vaes.errors import UserError
from vaes.evaluate import Budget, Metric

NETWORK = {"kind": "autoencoder_kl", "ch": 8, "ch_mult": [1, 2], "groups": 4, "attention": True}


def images(side: int = 8) -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 1, side, side), dtype=np.uint8)
    return arrays(pixels[:32], pixels[32:40], valid=pixels[40:])


def experiment(**model: Any) -> Experiment:
    return Experiment(
        model={"network": NETWORK, "z_channels": 3, **model},
        train={"n_steps": 4, "batch_size": 8, "eval_freq": 2, "sample_freq": 4, "save_freq": 2, "keep": 9},
    )


def test_a_grid_trains_resumes_encodes_and_is_looked_at(tmp_path: Path) -> None:
    made = experiment()
    assert made == Experiment.of(made.to_dict()) == Experiment.of({}, made.to_arguments())
    run = made.fit(tmp_path / "whole", data=images(), device="cpu")
    assert run.model.z_shape == (3, 4, 4)
    made.fit(tmp_path / "resumed", data=images(), device="cpu", resume=tmp_path / "whole" / "ckpt" / "step000002")
    assert everything(tmp_path / "whole")["weights"] == everything(tmp_path / "resumed")["weights"]
    assert run.sample(3).shape == (3, 1, 8, 8)
    codes = run.with_data(images()).encode("test")
    assert codes.mean.shape == (8, 48)
    torch.testing.assert_close(run.decode(torch.from_numpy(codes.mean)), run.reconstruct("test")[1])
    only = ["likelihood", "latent", "reconstruction"]
    found = evaluate.evaluate(run.model, images(), only=only, budget=Budget(n_images=8, iw_samples=2))
    assert {"elbo", "psnr"} <= {m.name for m in found if isinstance(m, Metric)}
    options = view.Options(n_samples=2, n_interpolate=2, n_traverse=2, codes=torch.zeros(1, 48))
    for mode in view.MODES:
        assert len(view.make(mode, run.model, options, images().test).singles)


def test_the_code_of_an_image_is_that_of_its_place() -> None:
    """Fully convolutional without attention: far from its border a larger image has the code of its crop."""
    model = experiment(network={**NETWORK, "attention": False}).build_model((1, 8, 8))
    other = experiment(network={**NETWORK, "attention": False}).build_model((1, 64, 64))
    other.load_state_dict(model.state_dict())
    assert other.z_shape == (3, 32, 32)
    for norm in (m for m in other.modules() if isinstance(m, nn.GroupNorm)):
        norm.forward = lambda x: x  # type: ignore[method-assign]  # whose statistics are the whole image's
    x = torch.randn(1, 1, 64, 64)
    y = torch.nn.functional.pad(x[..., 2:, 2:], (0, 2, 0, 2))
    with torch.no_grad():
        a, b = other.encode(x).z[0], other.encode(y).z[0]
    torch.testing.assert_close(a[..., 13:20, 13:20], b[..., 12:19, 12:19])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"network": "autoencoder_kl", "z_dim": 3},
            "model.z_dim: the network autoencoder_kl makes codes that are grids",
        ),
        ({"network": "conv", "z_channels": 3}, "model.z_channels: the network conv makes codes that are flat"),
        ({"network": "autoencoder_kl", "z_channels": 0}, "model.z_channels: 0 is not right"),
        ({"network": "autoencoder_kl", "posterior": "iaf"}, "model.posterior: a flow is of flat codes"),
        ({"network": "autoencoder_kl", "prior": "realnvp"}, "model.z_channels: a flow is of flat codes"),
        ({"network": {"kind": "autoencoder_kl", "ch": 12}}, "model.network: groups: 8 does not divide 12"),
        ({"network": {"kind": "autoencoder_kl", "ch_mult": [1] * 5}}, "divides the sides by 16, and images are 8 x 8"),
    ],
)
def test_what_does_not_go_together_is_refused(model: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(model=model).build_model((1, 8, 8))


def test_a_network_of_ones_own_says_that_its_codes_are_grids() -> None:
    @config.register_network("patches")
    class Patches:
        def grid(self, image_shape: tuple[int, ...], z_channels: int, *, side: int = 4) -> tuple[int, ...]:
            return z_channels, image_shape[1] // side, image_shape[2] // side

        def encoder(self, image_shape: tuple[int, ...], outputs: int, *, side: int = 4) -> nn.Module:
            planes = outputs * side**2 // (image_shape[1] * image_shape[2])
            return nn.Sequential(nn.Conv2d(image_shape[0], planes, side, side), nn.Flatten())

        def decoder(self, z_shape: tuple[int, ...], output_shape: tuple[int, ...], *, side: int = 4) -> nn.Module:
            return nn.ConvTranspose2d(z_shape[0], output_shape[0], side, side)

    try:
        model = Experiment(model={"network": {"kind": "patches", "side": 2}, "z_channels": 5}).build_model((1, 8, 8))
        assert model.z_shape == (5, 4, 4)
        assert model.reconstruct(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    finally:
        del NETWORKS["patches"]
        config.OWN.remove("patches")
