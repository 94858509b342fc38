"""What holds for every likelihood: it is normalised, its draws and its mean are its own, and nothing overflows."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from parts import randn, small_vae
from scipy import stats
from torch import Tensor

from vaes.evaluate.likelihood import NotApplicable, dequantise
from vaes.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
    LogisticMixture,
    StudentT,
)

DENSITIES: dict[str, Callable[[], Likelihood]] = {
    "gaussian per pixel": lambda: Gaussian(scale="per_pixel"),
    "laplace": lambda: Laplace(scale=0.3, link="identity"),
    "laplace learned": lambda: Laplace(scale="learned"),
    "laplace per pixel": lambda: Laplace(scale="per_pixel", link="sigmoid"),
    "student": lambda: StudentT(dof=6.0, scale=0.5, link="identity"),
    "student learned": lambda: StudentT(dof="learned", scale="learned"),
    "student per pixel": lambda: StudentT(dof=9.0, scale="per_pixel"),
    "student of many": lambda: StudentT(dof=50.0),
}
MASSES: dict[str, Callable[[], Likelihood]] = {
    "logistic": lambda: DiscretisedLogistic(),
    "logistic per pixel": lambda: DiscretisedLogistic(scale="per_pixel"),
    "mixture": lambda: LogisticMixture(components=3),
}
ALL: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous bernoulli": ContinuousBernoulli,
    "gaussian": lambda: Gaussian(scale=0.4, link="sigmoid"),
    "gaussian optimal": lambda: Gaussian(scale="optimal"),
    **DENSITIES,
    **MASSES,
}
VALUES = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def log_probs(likelihood: Likelihood, y: Tensor, values: Tensor) -> Tensor:
    """Of one grey pixel, (C', 1, 1) and (N,) -> (N,)."""
    found = likelihood.log_prob(y.expand(1, len(values), *y.shape), values[:, None, None, None])
    return found[0].detach()


def one_pixel(likelihood: Likelihood, seed: int = 3) -> Tensor:
    return 0.7 * randn(likelihood.channels(1), 1, 1, seed=seed)


@pytest.mark.parametrize("make", DENSITIES.values(), ids=DENSITIES)
def test_a_density_integrates_to_one_and_to_its_mean(make: Callable[[], Likelihood]) -> None:
    likelihood = make().double()
    y = one_pixel(likelihood)
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 400_003, dtype=torch.float64)[1:-1]
    grid = torch.tan(angle)  # the whole line: tails of a t count
    density = log_probs(likelihood, y, grid).exp() * (1 + grid.square())
    assert torch.trapezoid(density, angle).item() == pytest.approx(1, abs=1e-6)
    assert torch.trapezoid(density * grid, angle).item() == pytest.approx(likelihood.mean(y).item(), abs=1e-5)


@pytest.mark.parametrize("logit", [-800.0, -30.0, -0.51, -0.49, -1e-3, 0.0, 1e-9, 0.3, 0.5, 4.0, 200.0])
def test_the_continuous_bernoulli_integrates_to_one_and_to_its_mean(logit: float) -> None:
    likelihood, y = ContinuousBernoulli(), torch.full((1, 1, 1), logit, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(2000))
    x = (nodes + 1) / 2
    density = log_probs(likelihood, y, x).exp() * weights / 2
    assert density.sum().item() == pytest.approx(1, abs=1e-10)
    assert (density * x).sum().item() == pytest.approx(likelihood.mean(y).item(), abs=1e-10)


def test_the_continuous_bernoulli_is_the_paper_s() -> None:
    y = torch.tensor([-3.0, -0.6, -0.2, 0.1, 2.0], dtype=torch.float64)
    rate = y.sigmoid()
    artanh = torch.atanh(1 - 2 * rate)
    x = torch.tensor(0.3, dtype=torch.float64)
    density = 2 * artanh / (1 - 2 * rate) * rate**x * (1 - rate) ** (1 - x)
    ours = ContinuousBernoulli().log_prob(y.reshape(1, 5, 1, 1, 1), x.expand(5, 1, 1, 1))[0]
    torch.testing.assert_close(ours.exp(), density)
    torch.testing.assert_close(ContinuousBernoulli().mean(y), rate / (2 * rate - 1) + 1 / (2 * artanh))


@pytest.mark.parametrize("make", MASSES.values(), ids=MASSES)
@pytest.mark.parametrize("width", [0.01, 1.0, 30.0])
def test_the_masses_of_256_values_sum_to_one_and_to_their_mean(make: Callable[[], Likelihood], width: float) -> None:
    likelihood = make().double()
    for seed in range(5):
        y = one_pixel(likelihood, seed) * 3
        y[-1] = math.log(width)
        mass = log_probs(likelihood, y, VALUES).exp()
        assert mass.sum().item() == pytest.approx(1, abs=1e-10)
        assert (mass * VALUES).sum().item() == pytest.approx(likelihood.mean(y).item(), abs=1 / 255)


def test_a_mass_is_the_difference_of_the_distribution_function_in_its_bin() -> None:
    y = torch.tensor([0.2, -1.6], dtype=torch.float64).reshape(2, 1, 1)
    scale = math.exp(-7) + math.exp(-1.6)  # log(e^-7 + e^y) is y bent at -7
    cdf = stats.logistic(0.2, scale).cdf
    expected = [cdf(x + 1 / 255) * (v < 255) + (v == 255) - cdf(x - 1 / 255) * (v > 0) for v, x in enumerate(VALUES)]
    ours = log_probs(DiscretisedLogistic(scale="per_pixel").double(), y, VALUES).exp()
    torch.testing.assert_close(ours, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-14)


def test_the_channels_of_a_pixel_share_their_component() -> None:
    mixture, y = LogisticMixture(components=2).double(), randn(10, 1, 1)
    x = VALUES[torch.tensor([20, 200])].reshape(1, 2, 1, 1)
    single = DiscretisedLogistic(scale="per_pixel").double()
    both = [
        torch.cat([y[2 + 2 * k : 4 + 2 * k] + (-0.5, 0.5)[k], y[6 + 2 * k : 8 + 2 * k]])[None, None] for k in range(2)
    ]
    weight = y[:2].flatten().softmax(0)
    brute = sum(weight[k] * single.log_prob(both[k], x).exp() for k in range(2))
    torch.testing.assert_close(mixture.log_prob(y[None, None], x).exp(), brute)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_draws_are_of_the_density(make: Callable[[], Likelihood]) -> None:
    likelihood = make().double().eval()
    y = one_pixel(likelihood)
    n = 20_000
    uniform = torch.rand(n, *likelihood.noise_shape((1, 1, 1)), generator=torch.Generator().manual_seed(5)).double()
    drawn = likelihood.draw(y.expand(n, *y.shape), uniform).detach()
    assert drawn.shape == (n, 1, 1, 1)
    drawn = drawn.flatten()
    if make in MASSES.values() or make is Bernoulli:
        values = VALUES if make is not Bernoulli else torch.tensor([0.0, 1.0], dtype=torch.float64)
        mass = log_probs(likelihood, y, values).exp()
        found = torch.stack([(drawn - value).abs() < 1e-9 for value in values]).sum(1)
        assert found.sum() == n, "a draw that is no value of a pixel"
        often = mass * n >= 5
        rest = [max(float(part[~often].sum()), 1e-9) for part in (found, mass * n)]
        counts = [[*part[often].tolist(), last] for part, last in zip((found, mass * n), rest, strict=True)]
        scaled = [value * sum(counts[0]) / sum(counts[1]) for value in counts[1]]
        assert stats.chisquare(counts[0], scaled).pvalue > 1e-3
        return
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    grid = grid if make is ContinuousBernoulli else 300 * (2 * grid - 1) ** 5
    density = log_probs(likelihood, y, grid).exp()
    cdf = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(density, grid)])
    assert stats.kstest(drawn.numpy(), lambda x: np.interp(x, grid.numpy(), cdf.numpy())).pvalue > 1e-3


@pytest.mark.parametrize("scale", [0.5, "learned", "per_pixel"])
def test_a_t_of_many_degrees_of_freedom_is_the_gaussian(scale: float | str) -> None:
    student, gaussian = StudentT(dof=1e9, scale=scale), Gaussian(scale=scale)  # type: ignore[arg-type]
    y, x = randn(2, 3, gaussian.channels(1), 2, 2), randn(3, 1, 2, 2, seed=4)
    torch.testing.assert_close(student.double().log_prob(y, x), gaussian.double().log_prob(y, x))
    single = StudentT(dof=1e6).log_prob(y[:, :, :1].float(), x.float())
    torch.testing.assert_close(single, Gaussian().log_prob(y[:, :, :1].float(), x.float()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dof", [1.5, 4.0, 39.0, 41.0, 1e4])
def test_the_t_is_scipy_s(dof: float) -> None:
    learned = StudentT(dof="learned", scale=0.3, link="identity").double()
    learned.log_dof.data.fill_(math.log(dof - 1))
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)
    expected = torch.from_numpy(stats.t(dof, 0.5, 0.3).logpdf(x.numpy()))
    y = torch.full((1, 1, 1), 0.5, dtype=torch.float64)
    for likelihood in (learned, StudentT(dof=dof, scale=0.3, link="identity")):
        torch.testing.assert_close(log_probs(likelihood, y, x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
@pytest.mark.parametrize("extreme", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_extreme_outputs_are_finite_in_single_precision(make: Callable[[], Likelihood], extreme: float) -> None:
    likelihood = make().eval()
    low, high = likelihood.default_range
    x = torch.tensor([low, (low + high) / 2, high]).reshape(3, 1, 1, 1)
    y = torch.full((2, 3, likelihood.channels(1), 1, 1), extreme).requires_grad_()
    found = likelihood.log_prob(y, x)
    noise = torch.tensor([0.0, 0.5, 1 - 2**-24])
    wanted = likelihood.noise_shape((1, 1, 1))
    noise = noise.reshape(3, *[1] * len(wanted)).expand(3, *wanted)
    drawn, mean = likelihood.draw(y[0], noise), likelihood.mean(y)
    for value in (found, drawn, mean):
        assert torch.isfinite(value).all()
    (gradient,) = torch.autograd.grad(found.sum() + mean.sum(), y)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_images_of_colour_and_samples_are_kept_apart(make: Callable[[], Likelihood]) -> None:
    likelihood = make().double().eval()
    y, x = randn(3, 2, likelihood.channels(3), 4, 5), VALUES[torch.randint(256, (2, 3, 4, 5))]
    whole = likelihood.log_prob(y, x)
    assert whole.shape == (3, 2)
    torch.testing.assert_close(whole[2, 1], likelihood.log_prob(y[2:, 1:], x[1:])[0, 0])
    noise = torch.rand(3, 2, *likelihood.noise_shape((3, 4, 5)), dtype=torch.float64)
    drawn = likelihood.draw(y, noise)
    assert drawn.shape == likelihood.mean(y).shape == (3, 2, 3, 4, 5)
    torch.testing.assert_close(drawn[1, 0], likelihood.draw(y[1, 0], noise[1, 0]))


def test_what_a_likelihood_cannot_model_is_said() -> None:
    free, tanh = (-math.inf, math.inf), (-1.0, 1.0)
    for likelihood, decoder, pixels, reason in (
        (Gaussian(scale="per_pixel"), tanh, tanh, "makes log-scales too"),
        (StudentT(link="sigmoid"), free, tanh, "use link 'tanh'"),
        (ContinuousBernoulli(), free, tanh, r"use value_range \(0, 1\)"),
        (DiscretisedLogistic(), free, (0.0, 1.0), r"use value_range \(-1, 1\)"),
        (LogisticMixture(), tanh, tanh, "drop that layer"),
    ):
        assert likelihood.misfit(free, likelihood.default_range) is None or likelihood.link == "sigmoid"
        with pytest.raises(ValueError, match=reason):
            raise ValueError(likelihood.misfit(decoder, pixels))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Laplace(scale=0.0), "scale must be a positive number, 'learned' or 'per_pixel'"),
        (lambda: Laplace(scale="optimal"), "scale must be a positive number, 'learned' or 'per_pixel'"),
        (lambda: StudentT(dof=1.0), "dof must be a number above 1 or 'learned'"),
        (lambda: StudentT(link="relu"), "link must be one of identity, tanh, sigmoid"),
        (lambda: DiscretisedLogistic(scale=0.1), "scale must be 'learned' or 'per_pixel'"),
        (lambda: LogisticMixture(components=0), "components must be at least 1"),
    ],
)
def test_senseless_options_are_refused(build: Callable[[], Likelihood], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        build()


def test_what_the_numbers_are() -> None:
    x = VALUES.reshape(1, 1, 16, 16)
    assert {make().measure(x) for make in DENSITIES.values()} == {"density"}
    assert {make().measure(x) for make in MASSES.values()} == {"mass of 8-bit values"}
    assert DiscretisedLogistic().measure(x.float() + 0.5 / 255) == "unknown"
    model = small_vae(likelihood=ContinuousBernoulli())
    with pytest.raises(NotApplicable, match=r"density on \[0, 1\], no density of 8-bit pixels"):
        dequantise(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), model, torch.rand(1, 1, 8, 8))
