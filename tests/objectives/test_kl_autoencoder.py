"""The row of latent diffusion's autoencoder against the losses that others write, number by number, in float64."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vaes import Experiment
from vaes.config import build_objective
from vaes.objectives import Context, Noise

SHAPE = (3, 8, 8)


def made(likelihood: str = "laplace", **objective: object) -> tuple[object, object]:
    network = {"kind": "autoencoder_kl", "ch": 8, "ch_mult": [1, 2]}
    e = Experiment(
        method="kl_vae",
        model={"network": network, "likelihood": {"kind": likelihood, "link": "identity"}},
        objective=objective,
        train={"n_steps": 4},
    )
    model = e.build_model(SHAPE)
    found, weighting = build_objective(e, model, SHAPE)
    return found.double(), weighting


def batch() -> tuple[Tensor, Noise]:
    numbers = torch.Generator().manual_seed(0)
    x, code = ((torch.rand if i else torch.randn)(*s, generator=numbers, dtype=torch.float64)
               for i, s in ((1, (5, *SHAPE)), (0, (1, 5, 4, 4, 4))))  # fmt: skip
    return 2 * x - 1, Noise(code, code[0])


def test_the_loss_is_that_of_latent_diffusion() -> None:
    """Sums over pixels and codes, both over the batch; the distance of features is added to each pixel's error."""
    objective, weighting = made(gamma=0.7, adversary=0.2, beta=1e-6)
    x, noise = batch()
    out = objective(x, noise, Context(weighting(0, 192)))
    h = objective.model.features(x)
    mean, logvar = (part.view(5, 4, 4, 4) for part in h.chunk(2, 1))
    y = objective.model.decoder(mean + (0.5 * logvar).exp() * noise.posterior[0])
    distance = objective.terms["perceptual"].distance((x + 1) / 2, (y + 1) / 2)[:, None, None, None]
    reconstruction = ((x - y).abs() + 0.7 * distance).sum() / 5
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / 5
    verdict = -objective.terms["patch_critic"].critic(y).mean()
    constant = 192 * np.log(2)  # of the density, which has no gradient
    theirs = reconstruction + 1e-6 * kl + 0.2 * 192 * verdict
    torch.testing.assert_close(out["loss"] - constant, theirs)


@pytest.mark.parametrize(("likelihood", "nats", "constant"),
                         [("laplace", 1.0, np.log(2)), ("gaussian", 0.5, 0.5 * np.log(2 * np.pi))])  # fmt: skip
def test_a_weight_published_for_means_over_elements_maps_to_ours(likelihood: str, nats: float, constant: float) -> None:
    """mean of the error over pixels + w * mean of the KL over the code is ours, times pixels * nats, at
    beta = w * nats * pixels / numbers of the code."""
    w = 0.03
    objective, weighting = made(likelihood, gamma=0, adversary=0, beta=w * nats * 192 / 64)
    assert not objective.terms
    x, noise = batch()
    out = objective(x, noise, Context(weighting(0, 192)))
    mean, logvar = (part.view(5, 4, 4, 4) for part in objective.model.features(x).chunk(2, 1))
    y = objective.model.decoder(mean + (0.5 * logvar).exp() * noise.posterior[0])
    error = (x - y).abs() if likelihood == "laplace" else (x - y).square()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
    torch.testing.assert_close(out["loss"] - 192 * constant, 192 * nats * (error.mean() + w * kl.mean()))


def test_every_term_reaches_encoder_and_decoder() -> None:
    objective, weighting = made()
    x, noise = batch()
    for name in ("perceptual", "patch_critic"):
        weights = {**dict.fromkeys(objective.weights, 0.0), "distortion": 0.0, name: 1.0}
        objective.zero_grad()
        objective(x, noise, Context(weights))["loss"].backward()
        for part in (objective.model.encoder, objective.model.decoder):
            assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.conv_in.parameters())
    assert weighting(0, 192)["rate"] == 1e-6
