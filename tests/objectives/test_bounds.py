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
from vaes.objectives import ELBO, IWAE, Bound, Context, Objective, Reconstruction
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
    "elbo": ELBO(), "beta, 3 samples": ELBO(samples=3), "iwae": IWAE(samples=4), "reconstruction": Reconstruction()
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
