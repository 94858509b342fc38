import math

import pytest
import torch
from parts import noise, randn, small_vae

from vaes import functional as F
from vaes import likelihoods, posteriors
from vaes.objectives import ELBO, MMD, Context, Drawn, Objective, Reconstruction

SHAPE, D = (1, 8, 8), 64


def test_beta_weighs_the_rate_and_the_reported_elbo_does_not_move() -> None:
    model, x, eps = small_vae().double(), randn(4, *SHAPE).tanh(), noise(2, 4, 3)
    one, four = (Objective(model, ELBO())(x, eps, Context({"rate": beta})) for beta in (1.0, 4.0))
    torch.testing.assert_close(one["loss"], -one["elbo"])
    torch.testing.assert_close(four["loss"], one["loss"] + 3 * one["rate"])
    torch.testing.assert_close(four["elbo"], one["elbo"])


def test_the_loss_is_in_nats_per_image_whatever_the_batch() -> None:
    model, x = small_vae().double(), randn(1, *SHAPE).tanh()
    once = Objective(model, ELBO())(x, noise(1, 1, 3), Context({"rate": 1.0}))["loss"]
    eps = noise(1, 1, 3)
    many = Objective(model, ELBO())(
        x.expand(7, *SHAPE), eps._replace(posterior=eps.posterior.expand(1, 7, 3)), Context({"rate": 1.0})
    )["loss"]
    torch.testing.assert_close(once, many)


def test_origin_parity_of_the_vae_loss() -> None:
    """The origin minimises mean((x - y)^2) + coef_kl * sum(mean^2 + var - 1 - logvar) / D, averaged over the batch."""
    model, x, eps = small_vae().double(), randn(4, *SHAPE).tanh(), noise(1, 4, 3)
    latent = model.encode(x, eps.posterior)
    y = model.decode(latent.z[0])
    sse = (x - y).square().sum((1, 2, 3))
    kl = 0.5 * (latent.mean**2 + latent.logvar.exp() - 1 - latent.logvar).sum(1)
    for coef_kl in (0.0, 1.0, 20.0):
        origin = (sse / D).mean() + coef_kl * (2 * kl / D).mean()
        ours = Objective(model, ELBO())(x, eps, Context({"rate": coef_kl}))["loss"]
        torch.testing.assert_close(origin, (2 / D) * (ours - D / 2 * math.log(2 * math.pi)))


def test_origin_parity_of_the_mmd_vae_loss() -> None:
    """The origin adds (alpha + lambda - 1) * V-statistic of exp(-|x - y|^2 / d^2); the KL has weight 1 - alpha."""
    model, x, eps = small_vae().double(), randn(4, *SHAPE).tanh(), noise(1, 4, 3)
    alpha, lambda_ = 0.3, 2.0
    latent = model.encode(x, eps.posterior)
    z, p, d = latent.z[0], eps.prior, 3

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.stack([torch.exp(-((u - v) ** 2).sum() / d**2) for v in b]) for u in a])

    mmd = kernel(z, z).mean() + kernel(p, p).mean() - 2 * kernel(z, p).mean()
    sse = (x - model.decode(z)).square().sum((1, 2, 3))
    kl = 0.5 * (latent.mean**2 + latent.logvar.exp() - 1 - latent.logvar).sum(1)
    origin = (2 / D) * (sse / 2 + (1 - alpha) * kl).mean() + (alpha + lambda_ - 1) * mmd
    objective = Objective(model, ELBO(), {"mmd": MMD(kernel="mean_scaled", biased=True)})
    ours = objective(x, eps, Context({"rate": 1 - alpha, "mmd": (alpha + lambda_ - 1) * D / 2}))
    torch.testing.assert_close(ours["mmd"], mmd)
    torch.testing.assert_close(origin, (2 / D) * (ours["loss"] - D / 2 * math.log(2 * math.pi)))


def test_a_term_of_weight_zero_changes_neither_loss_nor_gradient() -> None:
    model, x, eps = small_vae().double(), randn(4, *SHAPE).tanh(), noise(1, 4, 3)
    plain = Objective(model, ELBO())(x, eps, Context({"rate": 1.0}))["loss"]
    with_term = Objective(model, ELBO(), {"mmd": MMD()})(x, eps, Context({"rate": 1.0, "mmd": 0.0}))["loss"]
    torch.testing.assert_close(plain, with_term)
    parameters = list(model.parameters())
    for a, b in zip(torch.autograd.grad(plain, parameters), torch.autograd.grad(with_term, parameters), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kernel", ["median", "imq", "mean_scaled"])
def test_the_mmd_term_pulls_codes_towards_the_prior(kernel: str) -> None:
    model = small_vae(posterior=posteriors.Point()).double()
    term, prior_z = MMD(kernel=kernel), randn(64, 3, seed=9)  # type: ignore[arg-type]
    trace = model(randn(64, *SHAPE), randn(1, 64, 3))
    z = (3 * randn(1, 64, 3, seed=5) + 2).requires_grad_()
    before = term(trace._replace(z=z), Drawn(prior_z), Context({}))
    step = torch.autograd.grad(before, z)[0]
    after = term(trace._replace(z=z - 10 * step), Drawn(prior_z), Context({}))
    assert after < before
    assert term(trace._replace(z=prior_z[None].flip(1)), Drawn(prior_z), Context({})) < 0.01


def test_the_bandwidth_of_the_mmd_is_the_median_over_codes_and_prior_draws_together() -> None:
    model, prior_z = small_vae(posterior=posteriors.Point()).double(), randn(5, 3, seed=9)
    z = 5 * randn(1, 5, 3, seed=5)
    trace = model(randn(5, *SHAPE), randn(1, 5, 3))._replace(z=z)
    points = [*z[0], *prior_z]
    distances = sorted(((a - b) ** 2).sum().item() for i, a in enumerate(points) for b in points[:i])
    middle = torch.tensor(distances[22], dtype=torch.float64)  # of 45
    expected = F.mmd(z[0], prior_z, F.gaussian_kernel(middle))
    torch.testing.assert_close(MMD()(trace, Drawn(prior_z), Context({})), expected)


def test_the_mmd_over_several_samples_is_their_mean() -> None:
    model, prior_z = small_vae().double(), randn(5, 3, seed=9)
    trace = model(randn(5, *SHAPE), randn(2, 5, 3))
    each = [F.mmd(z, prior_z, F.imq_kernel(6.0)) for z in trace.z]
    torch.testing.assert_close(MMD(kernel="imq")(trace, Drawn(prior_z), Context({})), (each[0] + each[1]) / 2)


def test_an_autoencoder_minimises_its_distortion_alone() -> None:
    model = small_vae(posterior=posteriors.Point(), likelihood=likelihoods.Bernoulli()).double()
    objective = Objective(model, Reconstruction())
    out = objective(randn(4, *SHAPE).sigmoid(), noise(1, 4, 3), Context({}))
    assert set(out) == {"loss", "distortion"}
    assert objective.weights == frozenset()
    torch.testing.assert_close(out["loss"], out["distortion"])


def test_only_the_loss_carries_a_gradient() -> None:
    out = Objective(small_vae().double(), ELBO())(randn(2, *SHAPE), noise(1, 2, 3), Context({"rate": 1.0}))
    assert {name for name, value in out.items() if value.requires_grad} == {"loss"}
