import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaes import functional as F

torch.set_default_dtype(torch.float32)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_log_normal_and_kl_equal_the_closed_forms() -> None:
    x, mean, logvar = randn(4, 3), randn(4, 3, seed=1), randn(4, 3, seed=2)
    q = Normal(mean, torch.exp(0.5 * logvar))
    torch.testing.assert_close(F.log_normal(x, mean, logvar), q.log_prob(x))
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(F.kl_normal(mean, logvar), kl_divergence(q, prior))


def test_kl_equals_its_monte_carlo_estimate_within_its_own_error() -> None:
    mean, logvar = randn(1, 3), randn(1, 3, seed=1)
    z = mean + torch.exp(0.5 * logvar) * randn(200_000, 3, seed=2)
    zero = torch.zeros((), dtype=torch.float64)
    draws = (F.log_normal(z, mean, logvar) - F.log_normal(z, zero, zero)).sum(-1)
    error = draws.std() / math.sqrt(len(draws))
    assert abs(draws.mean() - F.kl_normal(mean, logvar).sum()) < 4 * error


def test_kl_is_exact_beside_the_prior() -> None:
    tiny = torch.tensor(1e-6, dtype=torch.float32)
    assert F.kl_normal(torch.tensor(0.0), tiny).item() == pytest.approx(2.5e-13, rel=1e-1, abs=3e-14)
    assert F.kl_normal(torch.tensor(0.0), torch.tensor(0.0)).item() == 0.0


def test_log_mean_exp_equals_the_plain_sum_and_does_not_overflow() -> None:
    x = randn(5, 4)
    torch.testing.assert_close(F.log_mean_exp(x, 0), x.exp().mean(0).log())
    torch.testing.assert_close(F.log_mean_exp(x + 1e4, 0), x.exp().mean(0).log() + 1e4)


def brute_force_mmd(x: torch.Tensor, y: torch.Tensor, kernel: F.Kernel, biased: bool) -> float:
    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return kernel(a[None], b[None]).item()

    n, m = len(x), len(y)
    xx = [k(x[i], x[j]) for i in range(n) for j in range(n) if biased or i != j]
    yy = [k(y[i], y[j]) for i in range(m) for j in range(m) if biased or i != j]
    xy = [k(a, b) for a in x for b in y]
    return sum(xx) / len(xx) + sum(yy) / len(yy) - 2 * sum(xy) / len(xy)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("kernel", [F.gaussian_kernel(1.7), F.imq_kernel(6.0), F.mean_scaled_gaussian_kernel])
def test_mmd_equals_its_brute_force_sum(kernel: F.Kernel, biased: bool) -> None:
    x, y = randn(5, 3), randn(4, 3, seed=1) + 0.5
    assert F.mmd(x, y, kernel, biased=biased).item() == pytest.approx(brute_force_mmd(x, y, kernel, biased), abs=1e-12)


def test_mmd_of_gaussians_equals_its_closed_form() -> None:
    # E exp(-|x - y|^2 / b) for x - y ~ N(m, s I) in D dimensions is (1 + 2 s / b)^(-D / 2) exp(-|m|^2 / (b + 2 s)).
    b, d, shift = 3.0, 2, 1.0

    def expected(s: float, m: float) -> float:
        return (1 + 2 * s / b) ** (-d / 2) * math.exp(-m / (b + 2 * s))

    truth = 2 * expected(2.0, 0.0) - 2 * expected(2.0, d * shift**2)
    draws = torch.stack(
        [
            F.mmd(randn(200, d, seed=2 * i) + shift, randn(200, d, seed=2 * i + 1), F.gaussian_kernel(b))
            for i in range(40)
        ]
    )
    assert abs(draws.mean() - truth) < 4 * draws.std() / math.sqrt(len(draws))


def test_unbiased_mmd_of_one_distribution_is_zero_on_average_and_the_biased_one_is_not() -> None:
    pairs = [(randn(50, 2, seed=2 * i), randn(50, 2, seed=2 * i + 1)) for i in range(100)]
    u = torch.stack([F.mmd(x, y, F.gaussian_kernel(2.0)) for x, y in pairs])
    v = torch.stack([F.mmd(x, y, F.gaussian_kernel(2.0), biased=True) for x, y in pairs])
    assert abs(u.mean()) < 4 * u.std() / 10
    assert v.min() > 0


def test_mmd_refuses_a_single_sample() -> None:
    with pytest.raises(ValueError, match="two samples"):
        F.mmd(randn(1, 2), randn(4, 2), F.gaussian_kernel(1.0))


def test_the_mean_scaled_kernel_is_nearly_flat_in_high_dimension_and_the_others_are_not() -> None:
    x, y = randn(100, 128), randn(100, 128, seed=1)
    assert F.mean_scaled_gaussian_kernel(x, y).mean() > 0.98
    assert F.gaussian_kernel(F.median_squared_distance(x, y))(x, y).mean() == pytest.approx(math.exp(-1), abs=0.01)


def test_median_squared_distance_equals_the_sorted_middle() -> None:
    x, y = randn(3, 2), randn(4, 2, seed=1)
    pooled = torch.cat([x, y])
    distances = sorted((pooled[i] - pooled[j]).square().sum().item() for i in range(7) for j in range(i))
    assert F.median_squared_distance(x, y).item() == pytest.approx(distances[10])  # the middle of 21


def test_slerp_keeps_the_ends_the_radius_and_the_angle() -> None:
    a, b = randn(5, 8), randn(5, 8, seed=1)
    at = lambda t: F.slerp(a, b, torch.tensor([t], dtype=torch.float64))  # noqa: E731
    torch.testing.assert_close(at(0.0), a)
    torch.testing.assert_close(at(1.0), b)
    torch.testing.assert_close(at(0.25).norm(dim=-1), 0.75 * a.norm(dim=-1) + 0.25 * b.norm(dim=-1))
    angle = lambda u, v: torch.acos(torch.cosine_similarity(u, v))  # noqa: E731
    torch.testing.assert_close(angle(a, at(0.25)), 0.25 * angle(a, b))


def test_slerp_between_parallel_opposite_and_zero_codes_is_the_line() -> None:
    a, half = randn(1, 4), torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(F.slerp(a, 3 * a, half), 2 * a)
    torch.testing.assert_close(F.slerp(a, -a, half), 0 * a)
    torch.testing.assert_close(F.slerp(0 * a, a, half), a / 2)


def test_full_covariance_reference_of_the_summed_log_normal() -> None:
    x, mean, logvar = randn(3), randn(3, seed=1), randn(3, seed=2)
    joint = MultivariateNormal(mean, torch.diag(logvar.exp()))
    torch.testing.assert_close(F.log_normal(x, mean, logvar).sum(), joint.log_prob(x))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_squared_distances_and_their_gradients_are_right_at_zero_distance_and_far_away(
    offset: float,
) -> None:
    x, y = randn(5, 3) + offset, randn(4, 3, seed=1) + offset
    x[1], y[2] = x[0], x[0]
    torch.testing.assert_close(F.squared_distances(x, y), (x[:, None] - y[None]).square().sum(-1), rtol=1e-9, atol=0)
    assert F.squared_distances(x, x)[0, 1] == F.squared_distances(x, y)[0, 2] == 0

    def brute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(a[:, None] - b[None]).square().sum(-1) / 3)

    for biased in (False, True):
        for b in (y, None):
            a = x.clone().requires_grad_()
            ours = F.mmd(a, a if b is None else b, F.gaussian_kernel(3.0), biased=biased)
            theirs = F.mmd(a, a if b is None else b, brute, biased=biased)
            grads = [torch.autograd.grad(value, a, retain_graph=True)[0] for value in (ours, theirs)]
            torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-11)


def test_squared_distances_pass_finite_differences_twice_and_many_models_at_once() -> None:
    x, y = randn(4, 3).requires_grad_(), randn(3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(F.squared_distances, (x, y))
    assert torch.autograd.gradgradcheck(F.squared_distances, (x, y))
    many = torch.func.vmap(torch.func.grad(lambda a: F.mmd(a, y.detach(), F.gaussian_kernel(3.0))))(randn(2, 4, 3))
    one = torch.func.grad(lambda a: F.mmd(a, y.detach(), F.gaussian_kernel(3.0)))(randn(2, 4, 3)[1])
    torch.testing.assert_close(many[1], one)


def test_distances_of_float32_keep_their_digits() -> None:
    x = randn(50, 8).float() + 100
    y = x + 1e-3
    found = F.squared_distances(x, y).diagonal().double()
    exact = (x.double() - y.double()).square().sum(-1)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("short", [1e-1, 1e-3, 2e-4, 1e-5])
def test_slerp_keeps_its_radius_however_near_to_opposite(short: float, dtype: torch.dtype) -> None:
    for d in (2, 64):
        a = randn(20, d)
        u = a / a.norm(dim=-1, keepdim=True)
        across = randn(20, d, seed=1)
        across -= (across * u).sum(-1, keepdim=True) * u
        across /= across.norm(dim=-1, keepdim=True)
        angle = math.pi - short
        b = 2 * (math.cos(angle) * u + math.sin(angle) * across)
        for t in (0.0, 0.3, 0.5, 1.0):
            found = F.slerp(u.to(dtype), b.to(dtype), torch.tensor([t], dtype=dtype)).double()
            arc = (1 + t) * (math.cos(t * angle) * u + math.sin(t * angle) * across)
            assert (found.norm(dim=-1) - (1 + t)).abs().max() < 1e-5
            # The direction that b's own rounding leaves is known to about eps / short.
            torch.testing.assert_close(found, arc, rtol=0, atol=40 * torch.finfo(dtype).eps * (1 + 1 / short))
