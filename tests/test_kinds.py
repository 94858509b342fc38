"""Posteriors and priors beyond the diagonal Gaussian: closed forms, integrals and what does not go together."""

import math
from typing import Any

import pytest
import torch
from parts import Affine, randn
from torch import Tensor

from vaes import likelihoods, posteriors, priors
from vaes.config import load
from vaes.config.build import build_model
from vaes.errors import UserError
from vaes.evaluate import NotApplicable
from vaes.evaluate.annealed import annealed
from vaes.model import VAE, evaluation
from vaes.objectives import ELBO, Context, Drawn, Objective
from vaes.objectives.terms import JointCapacity
from vaes.posteriors import Latent, Posterior
from vaes.priors import Prior

FLOWS = [posteriors.IAF, posteriors.Planar, posteriors.Householder, posteriors.Sylvester]


def within(draws: Tensor, wanted: Tensor | float) -> bool:
    """Whether means over the first dimension agree, to five standard errors."""
    return bool(((draws.mean(0) - wanted).abs() < 5 * draws.std(0) / math.sqrt(len(draws)) + 1e-12).all())


def vae(posterior: Posterior, prior: Prior) -> VAE:
    d, outputs = prior.z_dim, posterior.outputs(prior.z_shape)
    encoder = Affine(randn(outputs, 4), randn(outputs, seed=3), (outputs,))
    return VAE(
        encoder, Affine(randn(4, d, seed=5), randn(4), (1, 2, 2)), posterior, prior, likelihoods.Gaussian()
    ).double()


def drawn(posterior: Posterior, z_shape: tuple[int, ...], h: Tensor, k: int) -> Latent:
    wanted = posterior.noise(z_shape)
    uniform = torch.rand(k, len(h), *wanted.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    normal = torch.special.ndtri(uniform)
    return posterior(h, -(-uniform.log()).log() if wanted.law == "gumbel" else normal)


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_of_no_steps_is_the_gaussian(kind: type[Any]) -> None:
    flow, gaussian = kind((3,), n_steps=0), posteriors.Gaussian()
    assert flow.outputs((3,)) == gaussian.outputs((3,))
    h, eps = randn(5, 6), randn(2, 5, 3, seed=1)
    prior = priors.StandardNormal(3)
    for found, wanted in ((flow(h, eps), gaussian(h, eps)), (flow.centre(h, (3,)), gaussian.centre(h, (3,)))):
        torch.testing.assert_close(found[:4], wanted[:4], rtol=0, atol=0)
        torch.testing.assert_close(prior.kl(found), prior.kl(wanted))
    assert vae(flow, prior).gives == vae(gaussian, prior).gives - {"log_q_stopped"}


@pytest.mark.parametrize("kind", FLOWS)
def test_the_density_of_a_flows_codes_integrates_to_the_rate(kind: type[Any]) -> None:
    torch.manual_seed(0)
    posterior = kind((1,), n_steps=2).double()
    with torch.no_grad():
        for p in posterior.parameters():
            p.normal_(0, 0.05)
    h = randn(1, posterior.outputs((1,)), seed=2)
    grid = torch.linspace(-9, 9, 60001, dtype=torch.float64)[:, None, None]
    z, log_q = posterior(h, grid)[:2]
    z, log_q = z[:, 0, 0].detach(), log_q[:, 0].detach()
    order = z.argsort()
    z, log_q = z[order], log_q[order]  # a reflection turns the line round
    assert torch.trapezoid(log_q.exp(), z).item() == pytest.approx(1, abs=1e-5)
    log_p = priors.StandardNormal(1).log_prob(z[:, None])
    rate = torch.trapezoid(log_q.exp() * (log_q - log_p), z)
    model = vae(posterior, priors.StandardNormal(1))
    with evaluation(model):
        trace = model.trace(randn(1, 1, 2, 2), drawn(posterior, (1,), h, 200_000))
    assert "kl" not in model.gives
    assert within(trace.log_q - trace.log_pz, rate)


CLOSED = [
    (posteriors.VonMisesFisher(), priors.Sphere(2)),
    (posteriors.VonMisesFisher(), priors.Sphere(5)),
    (posteriors.RelaxedCategorical((6,)), priors.Categorical(6)),
    (posteriors.RelaxedCategorical((6,), classes=3), priors.Categorical(6, classes=3)),
    (posteriors.Joint((6,)), priors.Joint(6)),
    (posteriors.Joint((7,), classes=(2, 3)), priors.Joint(7, classes=(2, 3))),
]


@pytest.mark.parametrize(("posterior", "prior"), CLOSED)
def test_rates_in_closed_form_are_the_means_of_their_draws(posterior: Posterior, prior: Prior) -> None:
    model, shape = vae(posterior, prior), prior.z_shape
    h = 2 * randn(3, posterior.outputs(shape), seed=7)
    with evaluation(model):
        latent = drawn(posterior, shape, h, 100_000)
        trace = model.trace(randn(3, 1, 2, 2), latent)
    assert {"kl", "rate", "log_q"} <= model.gives
    assert trace.kl.shape == (3, prior.z_dim)
    assert within(trace.log_q - trace.log_pz, trace.rate)
    assert within(torch.exp(trace.log_pz - trace.log_q), 1.0)
    central = model.trace(randn(3, 1, 2, 2), posterior.centre(h, shape))
    assert torch.all(central.log_q >= trace.log_q.quantile(0.5, 0))
    torch.testing.assert_close(central.rate, trace.rate)


@pytest.mark.parametrize(("posterior", "prior"), CLOSED[2:])
def test_draws_are_corners_in_evaluation_and_relaxed_at_the_temperature_of_the_step_in_training(
    posterior: Posterior, prior: Prior
) -> None:
    model = vae(posterior, prior)
    variables, shape = prior.variables, prior.z_shape
    h = randn(4, posterior.outputs(shape)).requires_grad_()
    eps = randn(5, 4, *shape, seed=1)
    classes = model.train().posterior(h, eps, {"temperature": 0.3}).z[..., -sum(variables) :]
    cold = posterior(h, eps, {"temperature": 1e-5}).z.detach()
    for part in classes.split(variables, -1):
        torch.testing.assert_close(part.sum(-1), torch.ones(5, 4, dtype=torch.float64))
        assert (1 - part.amax(-1)).amax() > 0.01
    assert torch.autograd.grad(classes.square().sum(), h)[0].abs().sum() > 0
    corners = model.eval().posterior(h, eps).z.detach()
    torch.testing.assert_close(corners, cold, atol=1e-6, rtol=0)
    assert set(corners[..., -sum(variables) :].unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("prior", [priors.Categorical(6, classes=3), priors.Joint(7, classes=(2, 3)), priors.Sphere(4)])
def test_codes_from_the_prior_lie_on_its_support_evenly(prior: Prior) -> None:
    z = prior.sample(randn(50_000, prior.z_dim))
    if isinstance(prior, priors.Sphere):
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(50_000, dtype=torch.float64))
        assert within(z, 0.0)
        return
    for part in z[:, prior.numbers :].split(prior.variables, -1):
        assert (part.sum(-1) == 1).all()
        assert within(part, 1 / part.shape[-1])
    assert prior.log_prob(prior.centre()).isfinite()


@pytest.mark.parametrize("prior", [priors.RealNVP(2), priors.MAF(2)])
def test_a_prior_by_a_flow_starts_normal_and_gives_its_samples_their_density(prior: Prior) -> None:
    prior.double()
    z, normal = randn(7, 3, 2), priors.StandardNormal(2)
    torch.testing.assert_close(prior.log_prob(z), normal.log_prob(z))
    torch.manual_seed(0)
    with torch.no_grad():
        for p in prior.parameters():
            p.normal_(0, 0.3)
    codes = prior.sample(randn(20_000, 2)).detach()
    other = torch.distributions.MultivariateNormal(codes.mean(0), 2 * codes.T.cov())  # wider: the weights are bounded
    torch.manual_seed(0)
    at = other.sample((200_000,))
    assert within(torch.exp(prior.log_prob(at).detach() - other.log_prob(at)), 1.0)
    torch.testing.assert_close(prior.sample(torch.zeros(1, 2, dtype=torch.float64))[0], prior.centre())
    assert prior.kl(posteriors.Gaussian()(randn(3, 4), randn(1, 3, 2))) is None


@pytest.mark.parametrize(
    ("posterior", "prior", "named"),
    [
        ("gaussian", "sphere", ("unit vectors", "real vectors", "von_mises_fisher", "standard_normal")),
        ("point", "sphere", ("von_mises_fisher", "standard_normal")),
        ("von_mises_fisher", "standard_normal", ("posterior gaussian", "prior sphere")),
        ("von_mises_fisher", "vamp", ("posterior gaussian", "prior sphere")),
        ("relaxed_categorical", "realnvp", ("posterior gaussian", "prior categorical")),
        ("iaf", "categorical", ("posterior relaxed_categorical", "prior standard_normal")),
        ({"kind": "relaxed_categorical", "classes": 2}, "categorical", ("2, 2", "4 classes", "of the same classes")),
        ("joint", "categorical", ("prior joint of the same classes",)),
        ({"kind": "iaf", "width": 2}, "standard_normal", ("model.posterior: width must be at least z_dim = 4",)),
        ({"kind": "relaxed_categorical", "classes": 3}, "categorical", ("multiple of the 3 classes",)),
        ({"kind": "joint", "classes": [2, 2]}, "joint", ("5 for classes [2, 2]",)),
        ({"kind": "joint", "temperature": 0.0}, "joint", ("model.posterior: temperature must be above 0",)),
        ({"kind": "planar", "n_steps": -1}, "standard_normal", ("n_steps",)),
    ],
)
def test_parts_that_do_not_go_together_are_refused_in_a_line(
    posterior: Any, prior: str, named: tuple[str, ...]
) -> None:
    config = load({"model": {"z_dim": 4, "network": "mlp", "posterior": posterior, "prior": prior}})
    with pytest.raises(UserError) as caught:
        build_model(config, (1, 8, 8))
    line = str(caught.value)
    assert "\n" not in line
    assert all(name in line for name in named), line


def test_capacities_of_a_joint_code_are_of_its_halves() -> None:
    posterior, prior = posteriors.Joint((7,), classes=(2, 3)), priors.Joint(7, classes=(2, 3))
    model, h = vae(posterior, prior), randn(4, posterior.outputs((7,)))
    trace = model.trace(randn(4, 1, 2, 2), drawn(posterior, (7,), h, 2))
    gaussian, two, three = h.split((4, 2, 3), 1)
    numbers = priors.StandardNormal(2).kl(posteriors.Gaussian()(gaussian, randn(1, 4, 2))).sum(-1)
    each = [math.log(x.shape[1]) - torch.distributions.Categorical(logits=x).entropy() for x in (two, three)]
    classes = sum(each)
    torch.testing.assert_close(trace.kl[:, 2:], torch.stack([each[0] / 2] * 2 + [each[1] / 3] * 3, 1))
    found = JointCapacity(numbers=0.3, classes=9.0)(trace, Drawn(trace.z[0]), Context({}, own={"numbers": 1.5}))
    torch.testing.assert_close(found, (numbers.mean() - 1.5).abs() + (classes.mean() - 9).abs())
    with pytest.raises(ValueError, match="needs logits"):
        Objective(vae(posteriors.Gaussian(), priors.StandardNormal(2)), ELBO(), {"joint_capacity": JointCapacity()})


def test_a_row_may_say_how_large_a_code_is() -> None:
    assert load({"method": "joint_vae"}).model["z_dim"] == 20
    assert load({"method": "joint_vae", "model": {"z_dim": 5}}).model["z_dim"] == 5


def test_annealed_sampling_is_refused_where_codes_do_not_fill_the_space() -> None:
    with pytest.raises(NotApplicable, match="codes are unit vectors"):
        annealed(vae(posteriors.VonMisesFisher(), priors.Sphere(3)), randn(2, 1, 2, 2), steps=2, chains=2)
