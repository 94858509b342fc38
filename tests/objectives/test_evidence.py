"""Bounds that are exact for some posterior, and posteriors that hold it, reach the best evidence of a linear model."""

import math

import pytest
import torch
from parts import randn
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaes import likelihoods, posteriors
from vaes.model import VAE
from vaes.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Bound, Context, Noise, Objective
from vaes.priors import StandardNormal

D, PIXELS, N, STEPS = 2, 6, 200, 500


def images() -> Tensor:
    """N images of two factors and noise."""
    z, loadings = randn(N, D), randn(D, PIXELS, seed=1)
    return (z @ loadings + 0.5 * randn(N, PIXELS, seed=2)).reshape(N, 1, 2, 3)


def best_evidence(x: Tensor) -> float:
    """Of probabilistic PCA, in nats per image: Tipping & Bishop, 1999, equations 4, 7 and 8."""
    values = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T, correction=0)).flip(0)
    rest = values[D:].mean()
    log_det = values[:D].log().sum() + (PIXELS - D) * rest.log()
    return -0.5 * (PIXELS * math.log(2 * math.pi) + log_det + PIXELS).item()


def trained(posterior: posteriors.Posterior, bound: Bound, x: Tensor) -> VAE:
    torch.manual_seed(0)
    outputs = posterior.outputs((D,))
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, outputs))
    decoder = nn.Sequential(nn.Linear(D, PIXELS), nn.Unflatten(1, (1, 2, 3)))
    likelihood = likelihoods.Gaussian(scale="learned", link="identity")
    model = VAE(encoder, decoder, posterior, StandardNormal(D), likelihood).double()
    objective = Objective(model, bound)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        # Noise and its mirror image: half the variance, the same mean.
        half = randn(max(1, bound.samples // 2), N, D, seed=step)
        noise = torch.cat([half, -half])[: bound.samples]
        loss = objective(x, Noise(noise, randn(N, D)), Context({"rate": 1.0}))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@pytest.mark.parametrize(
    ("posterior", "bound"),
    [
        (posteriors.Gaussian(), ELBO(samples=2)),
        (posteriors.Gaussian(), IWAE(samples=4)),
        (posteriors.Gaussian(), IWAE(samples=4, gradient="stl")),
        (posteriors.Gaussian(), IWAE(samples=4, gradient="dreg")),
        (posteriors.Gaussian(), MIWAE(samples=2, groups=2)),
        (posteriors.Gaussian(), PIWAE(samples=2, groups=2)),
        (posteriors.Gaussian(), CIWAE(samples=4)),
        (posteriors.FullCovariance(), ELBO(samples=2)),
        (posteriors.Householder((D,), n_steps=2), ELBO(samples=2)),
        (posteriors.IAF((D,), n_steps=1, width=8, context=2), ELBO(samples=2)),
        (posteriors.Planar((D,), n_steps=1), ELBO(samples=2)),
        (posteriors.Sylvester((D,), n_steps=1, reflections=2), ELBO(samples=2)),
    ],
    ids=lambda part: type(part).__name__ + getattr(part, "gradient", ""),
)
def test_training_reaches_the_evidence_of_probabilistic_pca(posterior: posteriors.Posterior, bound: Bound) -> None:
    x = images()
    x = x - x.mean(0)
    best, model = best_evidence(x), trained(posterior, bound, x)
    with torch.no_grad():
        w, mean = model.decoder[0].weight, model.decoder[0].bias  # type: ignore[index,union-attr]
        variance = (2 * model.likelihood.log_scale).exp()  # type: ignore[union-attr,operator]
        evidence = MultivariateNormal(mean, w @ w.T + variance * torch.eye(PIXELS, dtype=torch.float64))  # type: ignore[arg-type,operator]
        of_model = evidence.log_prob(x.flatten(1)).mean()
        context, wants = Context({"rate": 1.0}), bound.needs
        reached = -torch.stack(
            [bound(model(x, randn(bound.samples, N, D, seed=10_000 + i), wants), context).mean() for i in range(100)]
        ).mean()
    assert best - 0.02 < of_model <= best + 1e-9
    assert of_model - 0.05 < reached < of_model + 0.01  # 0.01: of 100 draws an image, or more
