import math

import pytest
import torch

from vaes import likelihoods
from vaes.likelihoods import Bernoulli, Gaussian


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("link", ["identity", "tanh", "sigmoid"])
@pytest.mark.parametrize("scale", [0.3, 1.0, "learned"])
def test_the_gaussian_integrates_to_one(link: str, scale: float | str) -> None:
    likelihood = Gaussian(scale=scale, link=link).double()
    if scale == "learned":
        likelihood.log_scale.data.fill_(-0.7)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    y = torch.full((1, len(grid), 1, 1, 1), 0.8, dtype=torch.float64)
    density = likelihood.log_prob(y, grid[:, None, None, None]).exp()[0]
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)
    assert torch.trapezoid(density * grid, grid).item() == pytest.approx(likelihood.mean(y)[0, 0].item(), abs=1e-9)


def test_the_bernoulli_sums_to_one_and_is_the_product_of_its_pixels() -> None:
    likelihood, y = Bernoulli(), randn(1, 1, 1, 2, 2).expand(1, 16, 1, 2, 2)
    images = torch.tensor([[i >> b & 1 for b in range(4)] for i in range(16)], dtype=torch.float64).reshape(16, 1, 2, 2)
    log_prob = likelihood.log_prob(y, images)
    assert log_prob.exp().sum().item() == pytest.approx(1)
    p = likelihood.mean(y[0])
    torch.testing.assert_close(log_prob[0].exp(), torch.where(images == 1, p, 1 - p).flatten(1).prod(1))


def test_the_bernoulli_survives_extreme_logits() -> None:
    y = torch.tensor([[[[[1e4]]], [[[-1e4]]]]])
    torch.testing.assert_close(
        Bernoulli().log_prob(y, torch.tensor([1.0, 1.0]).reshape(2, 1, 1, 1)), torch.tensor([[0.0, -1e4]])
    )


def test_log_prob_sums_over_pixels_and_keeps_samples_and_images_apart() -> None:
    y, x = randn(3, 2, 1, 4, 5), randn(2, 1, 4, 5, seed=1)
    whole = Gaussian(scale=0.5).log_prob(y, x)
    assert whole.shape == (3, 2)
    torch.testing.assert_close(whole[2, 1], Gaussian(scale=0.5).log_prob(y[2:, 1:], x[1:])[0, 0])
    torch.testing.assert_close(torch.distributions.Normal(y[2, 1].tanh(), 0.5).log_prob(x[1]).sum(), whole[2, 1])


def test_the_optimal_scale_is_the_maximum_of_the_likelihood_and_costs_no_gradient() -> None:
    y, x = randn(1, 6, 1, 3, 3).requires_grad_(), randn(6, 1, 3, 3, seed=1)
    optimal = Gaussian(scale="optimal", link="identity").double().train()
    at_optimum = optimal.log_prob(y, x).sum()
    sigma = (x - y[0]).square().mean().sqrt().item()
    for factor in (0.9, 1.1):
        assert Gaussian(scale=sigma * factor, link="identity").log_prob(y, x).sum() < at_optimum
    fixed = Gaussian(scale=sigma, link="identity").log_prob(y, x).sum()
    torch.testing.assert_close(fixed, at_optimum)
    # The envelope theorem: differentiating through sigma(y) changes nothing.
    through = -0.5 * x.numel() * (x - y[0]).square().mean().log()
    torch.testing.assert_close(torch.autograd.grad(at_optimum, y)[0], torch.autograd.grad(through, y)[0])


def test_the_optimal_scale_of_evaluation_is_the_running_one_whatever_the_batch() -> None:
    likelihood = Gaussian(scale="optimal", link="identity").double().train()
    y, x = torch.zeros(1, 4, 1, 2, 2, dtype=torch.float64), 3 * torch.ones(4, 1, 2, 2, dtype=torch.float64)
    likelihood.log_prob(y, x)
    likelihood.eval()
    expected = torch.distributions.Normal(0.0, 3.0).log_prob(torch.tensor(1.0, dtype=torch.float64)) * 4
    torch.testing.assert_close(likelihood.log_prob(y, torch.ones_like(x))[0], expected.expand(4))


def test_the_running_scale_is_a_mean_at_first_and_then_moves_by_a_hundredth() -> None:
    likelihood = Gaussian(scale="optimal", link="identity").double().train()
    y = torch.zeros(1, 4, 1, 2, 2, dtype=torch.float64)
    for variance in (4.0, 1.0, 1.0):
        likelihood.log_prob(y, torch.full((4, 1, 2, 2), variance**0.5, dtype=torch.float64))
    assert likelihood.variance.item() == pytest.approx(2.0)
    likelihood.batches.fill_(100_000)
    likelihood.log_prob(y, torch.full((4, 1, 2, 2), 12.0**0.5, dtype=torch.float64))
    assert likelihood.variance.item() == pytest.approx(2.0 + 0.01 * (12.0 - 2.0))


def test_the_optimal_scale_of_a_perfect_reconstruction_is_finite() -> None:
    x = torch.zeros(2, 1, 2, 2)
    assert torch.isfinite(Gaussian(scale="optimal", link="identity").train().log_prob(x[None], x)).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, "best"])
def test_a_senseless_scale_is_refused(scale: float | str) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        Gaussian(scale=scale)  # type: ignore[arg-type]


FREE, TANH, SIGMOID = (-math.inf, math.inf), (-1.0, 1.0), (0.0, 1.0)


@pytest.mark.parametrize(
    ("likelihood", "decoder", "pixels", "fits"),
    [
        (Gaussian(), FREE, TANH, True),
        (Gaussian(), FREE, SIGMOID, False),
        (Gaussian(), TANH, TANH, False),
        (Gaussian(link="sigmoid"), FREE, SIGMOID, True),
        (Gaussian(link="sigmoid"), FREE, TANH, False),
        (Gaussian(link="identity"), FREE, TANH, True),
        (Gaussian(link="identity"), TANH, TANH, True),
        (Gaussian(link="identity"), TANH, SIGMOID, False),
        (Gaussian(link="identity"), (0.0, math.inf), SIGMOID, False),
        (Bernoulli(), FREE, SIGMOID, True),
        (Bernoulli(), FREE, TANH, False),
        (Bernoulli(), SIGMOID, SIGMOID, False),
    ],
)
def test_a_range_that_does_not_fit_is_named(likelihood, decoder, pixels, fits) -> None:
    misfit = likelihood.misfit(decoder, pixels)
    assert (misfit is None) == fits
    if misfit:
        assert "\n" not in misfit
        assert str(pixels) in misfit or str(decoder) in misfit


def test_a_likelihood_says_what_its_number_is() -> None:
    binary = torch.tensor([0.0, 1.0, 1.0]).reshape(1, 1, 1, 3)
    assert Bernoulli().measure(binary) == "mass of binary values"
    assert Bernoulli().measure(binary / 2) == "cross-entropy"
    assert Gaussian().measure(binary) == Gaussian(scale="learned").measure(binary / 2) == "density"


def test_laplace_and_student_t_are_torch_s_and_far_out_the_tails_differ() -> None:
    y, x = randn(2, 3, 1, 4, 4), randn(3, 1, 4, 4, seed=1)
    mean = torch.tanh(y)
    pairs: list[tuple[likelihoods.Likelihood, torch.distributions.Distribution]] = [
        (likelihoods.Laplace(scale=0.3), torch.distributions.Laplace(mean, 0.3)),
        (likelihoods.StudentT(scale=0.3, df=2.5), torch.distributions.StudentT(2.5, mean, 0.3)),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.log_prob(y, x), theirs.log_prob(x).flatten(2).sum(-1))  # type: ignore[no-untyped-call]
        torch.testing.assert_close(ours.mean(y), mean)
        assert ours.measure(x) == "density"
        assert ours.misfit((-1.0, 1.0), (-1.0, 1.0)) is not None  # a tanh under a tanh
    gaussian = likelihoods.Gaussian(scale=0.3).log_prob(y, x)
    torch.testing.assert_close(likelihoods.StudentT(scale=0.3, df=1e9).log_prob(y, x), gaussian, rtol=1e-5, atol=1e-4)
    for wrong in ({"scale": 0.0}, {"df": 1.0}):
        with pytest.raises(ValueError, match="must be"):
            likelihoods.StudentT(**wrong)
