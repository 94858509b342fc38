import math

import pytest
import torch
from parts import Affine, noise, randn, small_vae
from torch import nn
from torch.distributions import MultivariateNormal

from vaes import likelihoods, posteriors
from vaes.functional import log_mean_exp
from vaes.model import VAE
from vaes.objectives import ELBO, Context, Objective
from vaes.priors import StandardNormal

SIGMA = 0.7


def linear_gaussian(scale_up: float = 0.0) -> tuple[VAE, torch.Tensor, torch.Tensor]:
    """Probabilistic PCA with orthogonal loadings, so that the exact posterior is a diagonal Gaussian; its encoder is
    exact.

    x = W z + m + sigma e  =>  p(x) = N(m, W W' + sigma^2 I),  p(z|x) = N(M^-1 W'(x - m), sigma^2 M^-1),
    with M = W'W + sigma^2 I.
    """
    w = torch.linalg.qr(randn(6, 2))[0] * torch.tensor([2.0, 0.5], dtype=torch.float64)
    m = randn(6, seed=3)
    precision = (w.T @ w).diagonal() + SIGMA**2
    gain = w.T / precision[:, None]
    logvar = torch.log(SIGMA**2 / precision) + scale_up
    encoder = Affine(torch.cat([gain, torch.zeros(2, 6, dtype=torch.float64)]), torch.cat([-gain @ m, logvar]), (4,))
    decoder = Affine(w, m, (1, 2, 3))
    likelihood = likelihoods.Gaussian(scale=SIGMA, link="identity")
    model = VAE(encoder, decoder, posteriors.Gaussian(), StandardNormal(2), likelihood)
    evidence = MultivariateNormal(m, w @ w.T + SIGMA**2 * torch.eye(6, dtype=torch.float64))
    x = randn(5, 1, 2, 3, seed=4)
    return model, x, evidence.log_prob(x.flatten(1))


def test_at_the_exact_posterior_every_sample_gives_the_log_evidence() -> None:
    model, x, log_evidence = linear_gaussian()
    trace = model(x, randn(7, 5, 2, seed=5))
    torch.testing.assert_close(trace.log_px + trace.log_pz - trace.log_q, log_evidence.expand(7, 5))


def test_the_elbo_at_the_exact_posterior_is_the_log_evidence_in_expectation() -> None:
    model, x, log_evidence = linear_gaussian()
    trace = model(x, randn(100_000, 5, 2, seed=5))
    elbo = trace.log_px - trace.rate
    assert ((elbo.mean(0) - log_evidence).abs() < 4 * elbo.std(0) / math.sqrt(100_000)).all()


def test_a_wrong_posterior_loses_exactly_its_kl_to_the_right_one() -> None:
    model, x, log_evidence = linear_gaussian(scale_up=0.9)
    trace = model(x, randn(100_000, 5, 2, seed=5))
    elbo = trace.log_px - trace.rate
    gap = 2 * 0.5 * (math.exp(0.9) - 1 - 0.9)  # KL(N(0, e^.9 s) || N(0, s)) in two dimensions
    assert ((log_evidence - gap - elbo.mean(0)).abs() < 4 * elbo.std(0) / math.sqrt(100_000)).all()
    weights = (trace.log_px + trace.log_pz - trace.log_q).reshape(1000, 100, 5)
    draws = [log_mean_exp(weights[:, :k], 1) for k in (1, 10, 100)]
    assert (draws[0].mean(0) < draws[1].mean(0)).all()
    assert (draws[1].mean(0) < draws[2].mean(0)).all()
    assert (draws[2].mean(0) < log_evidence + 4 * draws[2].std(0) / math.sqrt(1000)).all()


def test_the_rate_equals_its_monte_carlo_estimate() -> None:
    model = small_vae().double()
    trace = model(randn(2, 1, 8, 8), randn(20_000, 2, 3, seed=1))
    draws = trace.log_q - trace.log_pz
    assert ((draws.mean(0) - trace.rate).abs() < 4 * draws.std(0) / math.sqrt(20_000)).all()


def test_an_image_does_not_see_its_neighbours() -> None:
    model, x = small_vae().double(), randn(6, 1, 8, 8)
    eps = randn(2, 6, 3, seed=1)
    whole, part = model(x, eps), model(x[2:4], eps[:, 2:4])
    torch.testing.assert_close(whole.log_px[:, 2:4], part.log_px)
    torch.testing.assert_close(whole.rate[2:4], part.rate)


def test_the_point_posterior_has_no_rate_and_an_elbo_over_it_is_refused() -> None:
    model = small_vae(posterior=posteriors.Point()).double()
    trace = model(randn(2, 1, 8, 8), randn(3, 2, 3))
    assert trace.rate is None
    assert trace.log_q is None
    assert trace.z.shape == (3, 2, 3)
    with pytest.raises(ValueError, match="ELBO needs rate, which the posterior Point does not give"):
        Objective(model, ELBO())


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("shape", [(1, 28, 20), (3, 32, 32), (2, 5, 1), (1, 33, 17)])
def test_thin_methods_have_the_shapes_they_promise(network: str, shape: tuple[int, int, int]) -> None:
    model = small_vae(shape, network=network).eval()
    x = torch.rand(4, *shape) * 2 - 1
    code = model.encode(x)
    assert code.z.shape == (1, 4, 3)
    torch.testing.assert_close(code.z[0], code.mean)
    assert model.reconstruct(x).shape == (4, *shape)
    assert model.sample(torch.randn(5, 3)).shape == (5, *shape)
    assert model.decode(torch.randn(2, 5, 3)).shape == (2, 5, *shape)
    path = model.interpolate(code.mean[:2], code.mean[2:], 7)
    assert path.shape == (2, 7, *shape)
    torch.testing.assert_close(path[:, 0], model.decode(code.mean[:2]))
    torch.testing.assert_close(path[:, -1], model.decode(code.mean[2:]))


def test_parts_of_the_wrong_kind_and_decoders_that_do_not_fit_are_refused() -> None:
    encoder, prior = nn.Linear(4, 4), StandardNormal(2)
    with pytest.raises(TypeError, match=r"vaes\.posteriors\.Posterior wanted, got vaes\.likelihoods\.Gaussian"):
        VAE(encoder, nn.Linear(2, 4), likelihoods.Gaussian(), prior, likelihoods.Gaussian())  # type: ignore[arg-type]
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid())
    with pytest.raises(ValueError, match="takes unbounded logits"):
        VAE(encoder, decoder, posteriors.Gaussian(), prior, likelihoods.Bernoulli())
    with pytest.raises(ValueError, match="use link 'tanh'"):
        VAE(encoder, nn.Linear(2, 4), posteriors.Gaussian(), prior, likelihoods.Gaussian(), value_range=(0, 1))


def test_under_autocast_densities_stay_in_float32() -> None:
    model = small_vae()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        trace = model(randn(2, 1, 8, 8).float(), randn(1, 2, 3).float())
    assert {trace.z.dtype, trace.log_px.dtype, trace.rate.dtype, trace.y.dtype} == {torch.float32}


def test_noise_decides_everything() -> None:
    model, x, eps = small_vae().double(), randn(2, 1, 8, 8), noise(1, 2, 3)
    objective = Objective(model, ELBO())
    a, b = (objective(x, eps, Context({"rate": 1.0}))["loss"] for _ in range(2))
    assert a.item() == b.item()


@pytest.mark.parametrize("logvar", [2.0, -8.0, -28.0, -80.0])
def test_the_density_of_a_code_keeps_its_digits_in_float32(logvar: float) -> None:
    h = torch.cat([randn(4, 3) * 3, torch.full((4, 3), logvar, dtype=torch.float64)], 1)
    eps = randn(2, 4, 3, seed=1)
    wanted = -0.5 * (eps.float().double().square() + logvar + math.log(2 * math.pi)).sum(-1)
    found = posteriors.Gaussian()(h.float(), eps.float()).log_q
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=0)


def test_log_variances_are_kept_where_half_precision_and_exponentials_are_safe() -> None:
    """Those of grids, as latent diffusion's autoencoder keeps them: [-30, 20]; in between nothing changes."""
    h = torch.tensor([[0.0, 0.0, 0.0, 0.0, -1e4, 1e4, -29.0, 19.0]])[..., None, None]
    q = posteriors.Gaussian()(h.requires_grad_(), torch.ones(1, 1, 4, 1, 1))
    assert q.logvar is not None
    assert q.logvar.flatten().tolist() == [-30.0, 20.0, -29.0, 19.0]
    rate = StandardNormal((4, 1, 1)).kl(q)
    assert rate is not None
    assert rate.isfinite().all()
    q.z.sum().backward()
    assert h.grad is not None
    assert h.grad.isfinite().all()
