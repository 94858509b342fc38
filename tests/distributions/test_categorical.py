import itertools
import math

import pytest
import torch
from scipy import integrate, stats

from vaes import distributions as D

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_gumbel_noise_has_its_distribution_and_is_finite_at_both_ends() -> None:
    assert stats.kstest(D.gumbel(uniform(5000)).numpy(), "gumbel_r").pvalue > 1e-3
    for dtype in (torch.float32, F64):
        assert D.gumbel(torch.tensor([0.0, 1.0], dtype=dtype)).isfinite().all()


def test_the_largest_relaxed_weight_falls_on_each_class_as_often_as_its_probability_says() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=F64)
    log_y = D.relaxed(logits, D.gumbel(uniform(20_000, 4)), 0.7)
    torch.testing.assert_close(log_y.exp().sum(-1), torch.ones(20_000, dtype=F64))
    counts = torch.bincount(log_y.argmax(-1), minlength=4)
    assert stats.chisquare(counts.numpy(), (20_000 * logits.softmax(-1)).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_relaxed_density_integrates_to_one_and_is_that_of_its_draws(temperature: float) -> None:
    logits = torch.tensor([0.4, -0.8], dtype=F64)

    def density(x: float) -> float:  # of log y_1 - log y_2
        return math.exp(
            D.log_relaxed(torch.nn.functional.logsigmoid(torch.tensor([x, -x], dtype=F64)), logits, temperature)
        )

    end = 30 / temperature
    mass_below, mass_above = integrate.quad(density, -end, 0)[0], integrate.quad(density, 0, end)[0]
    assert mass_below + mass_above == pytest.approx(1, abs=1e-9)
    y = D.relaxed(logits, D.gumbel(uniform(2000, 2)), temperature).exp()[:, 0]
    assert abs((y < 0.5).double().mean() - mass_below) < 4 * math.sqrt(0.25 / 2000)


def test_relaxed_density_of_three_classes_integrates_to_one() -> None:
    logits = torch.tensor([0.4, -0.8, 0.1], dtype=F64)
    ends = torch.linspace(-14, 14, 561, dtype=F64)
    a, b = torch.meshgrid(ends, ends, indexing="ij")  # y = softmax(a, b, 0), whose volume element is prod y
    log_y = torch.log_softmax(torch.stack([a, b, torch.zeros_like(a)], -1), -1)
    mass = D.log_relaxed(log_y, logits, 1.3).exp().sum() * (ends[1] - ends[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-4)


def test_straight_through_gives_corners_and_the_relaxations_gradient() -> None:
    logits = randn(3, 5).requires_grad_()
    weight = randn(3, 5, seed=1)
    y = torch.softmax(logits, -1)
    corner = D.straight_through(y)
    torch.testing.assert_close(corner.detach(), torch.eye(5, dtype=F64)[logits.argmax(-1)])
    (through,) = torch.autograd.grad((corner * weight).sum(), logits)
    (relaxed,) = torch.autograd.grad((torch.softmax(logits, -1) * weight).sum(), logits)
    torch.testing.assert_close(through, relaxed)


def test_kl_of_categoricals_equals_its_sum_and_bears_certainty() -> None:
    q, p = randn(4, 6), randn(4, 6, seed=1)
    a, b = q.softmax(-1), p.softmax(-1)
    torch.testing.assert_close(D.kl_categorical(q, p), (a * (a / b).log()).sum(-1))
    torch.testing.assert_close(D.kl_categorical(q), (a * (a * 6).log()).sum(-1))
    certain = torch.tensor([1e4, 0.0, 0.0], dtype=F64, requires_grad=True)
    assert D.kl_categorical(certain).item() == pytest.approx(math.log(3))
    assert torch.autograd.grad(D.kl_categorical(certain), certain)[0].isfinite().all()
    corners = torch.eye(6, dtype=F64)
    for i, c in itertools.product(range(4), range(6)):
        assert D.log_categorical(corners[c], q[i]).item() == pytest.approx(math.log(a[i, c]))


def test_choices_have_their_probabilities_and_stay_in_range() -> None:
    logits = torch.tensor([-0.5, -torch.inf, 1.0, 0.2], dtype=F64)
    u = (torch.arange(10_000, dtype=F64) + 0.5) / 10_000
    shares = torch.bincount(D.choose(logits, u), minlength=4) / 10_000
    torch.testing.assert_close(shares.double(), logits.softmax(-1), atol=2e-4, rtol=0)
    assert D.choose(torch.zeros(7), torch.tensor([0.0, 1.0])).tolist() == [0, 6]


def test_joint_rate_is_the_sum_of_its_parts() -> None:
    h = randn(5, 2 * 3 + 4 + 2)
    q = D.split_joint(h, 3, (4, 2))
    continuous, discrete = D.kl_joint(q)
    assert continuous.shape == (5, 3)
    assert discrete.shape == (5, 2)
    gaussian = torch.distributions.Normal(h[:, :3], (0.5 * h[:, 3:6]).exp())
    torch.testing.assert_close(
        continuous,
        torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(torch.zeros(3, dtype=F64), 1.0)),
    )
    torch.testing.assert_close(discrete, torch.stack([D.kl_categorical(h[:, 6:10]), D.kl_categorical(h[:, 10:])], -1))
