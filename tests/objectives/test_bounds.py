import functools
import math
from collections.abc import Callable

import pytest
import torch
from parts import noise, randn, small_vae
from torch import Tensor, nn
from torch.func import functional_call

from vaes import likelihoods, posteriors
from vaes.model import VAE, Trace
from vaes.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Bound, Context, Objective, Reconstruction
from vaes.priors import StandardNormal

SHAPE = (1, 8, 8)


def trace(k: int, b: int = 4, seed: int = 1) -> Trace:
    model = small_vae(likelihood=likelihoods.Bernoulli()).double()
    found: Trace = model(randn(b, *SHAPE).sigmoid(), noise(k, b, 3, seed).posterior)
    return found


def log_weights(t: Trace) -> Tensor:
    assert t.log_q is not None
    return t.log_px + t.log_pz - t.log_q


def test_one_importance_sample_is_the_elbo_with_its_rate_by_monte_carlo() -> None:
    t = trace(1)
    assert t.log_q is not None
    monte_carlo = t._replace(rate=(t.log_q - t.log_pz).mean(0))
    torch.testing.assert_close(IWAE(samples=1)(t, Context({})), ELBO()(monte_carlo, Context({"rate": 1.0})))


def test_the_importance_weighted_bound_is_its_definition() -> None:
    t = trace(5)
    brute = [-math.log(sum(math.exp(w) for w in column) / 5) for column in (log_weights(t) + 40).T.tolist()]
    torch.testing.assert_close(IWAE()(t, Context({})) - 40, torch.tensor(brute, dtype=torch.float64))


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_the_importance_weighted_bound_rises_with_k(group: int) -> None:
    # Theorem 1 of the paper without its expectation: by Jensen the mean bound of equal groups of the samples is never
    # above the bound of all, whatever was drawn.
    t = trace(12)
    assert t.log_q is not None
    split = zip(t.log_px.split(group), t.log_pz.split(group), t.log_q.split(group), strict=True)
    parts = [t._replace(log_px=px, log_pz=pz, log_q=q) for px, pz, q in split]
    of_groups = torch.stack([-IWAE()(part, Context({})) for part in parts]).mean(0)
    assert (of_groups < -IWAE()(t, Context({}))).all()


def test_the_importance_weighted_gradient_weighs_samples_by_their_share() -> None:
    # Equation 13: the gradient is that of the log-weights, each counted by w_k / sum w.
    model = small_vae(likelihood=likelihoods.Bernoulli()).double()
    x, eps = randn(4, *SHAPE).sigmoid(), noise(5, 4, 3)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(Objective(model, IWAE())(x, eps, Context({}))["loss"], parameters)
    w = log_weights(model(x, eps.posterior))
    share = torch.exp(w).div(torch.exp(w).sum(0)).detach()
    theirs = torch.autograd.grad(-(share * w).sum(0).mean(), parameters)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_importance_weighted_gradient_is_that_of_finite_differences() -> None:
    t = trace(3, b=2)
    inputs = tuple(value.detach().requires_grad_() for value in (t.log_px, t.log_pz, t.log_q))  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(
        lambda px, pz, q: IWAE()(t._replace(log_px=px, log_pz=pz, log_q=q), Context({})), inputs
    )


def test_weights_too_large_for_exp_are_no_trouble() -> None:
    t = trace(2, b=1)
    huge = t._replace(log_px=t.log_px - 1e5)
    torch.testing.assert_close(IWAE()(huge, Context({})) - 1e5, IWAE()(t, Context({})))


def test_the_elbo_of_several_samples_is_their_mean() -> None:
    t = trace(4)
    each = [ELBO()(t._replace(log_px=px[None]), Context({"rate": 2.0})) for px in t.log_px]
    torch.testing.assert_close(ELBO(samples=4)(t, Context({"rate": 2.0})), torch.stack(each).mean(0))


def test_a_posterior_without_density_has_no_importance_weights() -> None:
    with pytest.raises(ValueError, match="IWAE needs log_q, which the posterior Point does not give"):
        Objective(small_vae(posterior=posteriors.Point()), IWAE())


@pytest.mark.parametrize("bound", [ELBO, IWAE])
def test_no_samples_are_refused(bound: type) -> None:
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        bound(samples=0)


def gradients(bound: Bound, k: int, model: VAE | None = None, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Of the encoder and of the decoder, flat."""
    model = model or small_vae(likelihood=likelihoods.Bernoulli()).double()
    loss = Objective(model, bound)(randn(4, *SHAPE).sigmoid(), noise(k, 4, 3, seed), Context({}))["loss"]
    parts = [list(part.parameters()) for part in (model.encoder, model.decoder)]
    found = torch.autograd.grad(loss, parts[0] + parts[1])
    n = len(parts[0])
    return torch.cat([g.flatten() for g in found[:n]]), torch.cat([g.flatten() for g in found[n:]])


def test_groups_of_samples_lie_between_the_elbo_and_the_bound_of_all() -> None:
    t = trace(6)
    assert t.log_q is not None
    t = t._replace(rate=(t.log_q - t.log_pz).mean(0))
    none = Context({})
    torch.testing.assert_close(MIWAE(samples=6, groups=1)(t, none), IWAE()(t, none))
    torch.testing.assert_close(MIWAE(samples=1, groups=6)(t, none), ELBO()(t, Context({"rate": 1.0})))
    assert (IWAE()(t, none) < MIWAE(samples=3, groups=2)(t, none)).all()
    torch.testing.assert_close(PIWAE(samples=3, groups=2)(t, none), IWAE()(t, none))
    half = 0.5 * (IWAE()(t, none) + ELBO()(t, Context({"rate": 1.0})))
    torch.testing.assert_close(CIWAE(mix=0.5)(t, none), half)
    torch.testing.assert_close(CIWAE(mix=0.5)(t, none._replace(own={"mix": 0.0})), IWAE()(t, none))


def test_piwae_trains_the_decoder_as_iwae_and_the_encoder_as_miwae() -> None:
    encoder, decoder = gradients(PIWAE(samples=3, groups=2), 6)
    torch.testing.assert_close(decoder, gradients(IWAE(samples=6), 6)[1])
    torch.testing.assert_close(encoder, gradients(MIWAE(samples=3, groups=2), 6)[0])


def test_doubly_reparameterised_gradients_have_the_same_mean_and_less_noise() -> None:
    model = small_vae(likelihood=likelihoods.Bernoulli()).double()
    plain, double = (
        torch.stack([gradients(IWAE(samples=4, gradient=kind), 4, model, seed)[0] for seed in range(600)])  # type: ignore[arg-type]
        for kind in ("plain", "dreg")
    )
    off = (plain.mean(0) - double.mean(0)) / ((plain.var(0) + double.var(0)) / 600).sqrt().clamp_min(1e-12)
    assert off.abs().max() < 5
    assert double.var(0).sum() < 0.9 * plain.var(0).sum()
    torch.testing.assert_close(gradients(IWAE(gradient="dreg"), 5)[1], gradients(IWAE(), 5)[1])


def test_gradients_without_the_score_vanish_at_the_exact_posterior() -> None:
    # There every weight is p(x), whatever was drawn: without the score the encoder's gradient is nothing, draw by draw.
    for kind in ("stl", "dreg"):
        encoder = nn.Linear(4, 4).double()
        decoder = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Unflatten(1, (1, 2, 2))).double()
        w = torch.linalg.qr(randn(4, 2))[0]
        with torch.no_grad():  # p(z|x) = N(w'x / 1.25, 0.2), the scale being 0.5
            decoder[0].weight.copy_(w)  # type: ignore[operator]
            encoder.weight.copy_(torch.cat([w.T / 1.25, torch.zeros(2, 4)]))
            encoder.bias.copy_(torch.tensor([0, 0, math.log(0.2), math.log(0.2)], dtype=torch.float64))
        likelihood = likelihoods.Gaussian(scale=0.5, link="identity")
        parts = (posteriors.Gaussian(), StandardNormal(2), likelihood)
        model = VAE(nn.Sequential(nn.Flatten(), encoder), decoder, *parts)
        loss = Objective(model, IWAE(samples=3, gradient=kind))(randn(5, 1, 2, 2), noise(3, 5, 2), Context({}))["loss"]  # type: ignore[arg-type]
        for gradient in torch.autograd.grad(loss, list(encoder.parameters())):
            assert gradient.abs().max() < 1e-12


LIKELIHOODS = {
    "bernoulli": likelihoods.Bernoulli,
    **{f"gaussian {scale} {link}": functools.partial(likelihoods.Gaussian, scale=scale, link=link)
       for scale, link in ((0.4, "identity"), (1.0, "tanh"), ("learned", "sigmoid"), ("optimal", "identity"),
                           ("optimal", "sigmoid"), ("per_pixel", "tanh"))},
    "continuous bernoulli": likelihoods.ContinuousBernoulli,
    "laplace learned sigmoid": functools.partial(likelihoods.Laplace, scale="learned", link="sigmoid"),
    "student learned tanh": functools.partial(likelihoods.StudentT, dof="learned", scale="learned"),
    "student per pixel tanh": functools.partial(likelihoods.StudentT, scale="per_pixel"),
    "logistic": likelihoods.DiscretisedLogistic,
    "logistic mixture": functools.partial(likelihoods.LogisticMixture, components=2),
}  # fmt: skip
BOUNDS: dict[str, Bound] = {
    "elbo": ELBO(), "beta, 3 samples": ELBO(samples=3), "iwae": IWAE(samples=4), "reconstruction": Reconstruction(),
    "miwae": MIWAE(samples=2, groups=2), "ciwae": CIWAE(samples=3, mix=0.3),
}  # fmt: skip


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_every_gradient_is_that_of_finite_differences(
    likelihood: Callable[[], likelihoods.Likelihood], bound: Bound
) -> None:
    part = likelihood()
    on_unit = part.default_range == (0.0, 1.0) or getattr(part, "link", None) in ("identity", "sigmoid")
    value_range = (0.0, 1.0) if on_unit else (-1.0, 1.0)
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    channels = part.channels(1)
    decoder = nn.Sequential(nn.Linear(2, 4 * channels), nn.Unflatten(1, (channels, 2, 2)))
    parts = (posteriors.Gaussian(), StandardNormal(2), part)
    objective = Objective(VAE(encoder, decoder, *parts, value_range=value_range).double().train(), bound)
    x, eps = torch.rand(3, 1, 2, 2, dtype=torch.float64), noise(bound.samples, 3, 2)
    names = [name for name, _ in objective.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        found: Tensor = functional_call(objective, parameters, (x, eps, Context({"rate": 0.7})))["loss"]
        return found

    values = [value.detach().clone().requires_grad_() for value in objective.parameters()]
    assert torch.autograd.gradcheck(loss, values, atol=1e-7)
