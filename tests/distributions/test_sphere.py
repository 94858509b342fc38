import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from scipy import integrate, stats

from vaes.distributions import (
    kl_von_mises_fisher,
    log_moment,
    log_uniform_sphere,
    log_von_mises_fisher,
    mean_resultant,
    sample_von_mises_fisher,
    to_sphere,
)

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimension", [2, 3, 10, 61, 62, 63, 64, 500])
@pytest.mark.parametrize("kappa", [1e-3, 0.3, 4.0, 70.0, 3e3, 1e6])
def test_bessel_functions_and_their_derivative_equal_those_in_fifty_digits(dimension: int, kappa: float) -> None:
    k = torch.tensor(kappa, dtype=F64, requires_grad=True)
    with mpmath.workdps(50):
        v = mpmath.mpf(dimension) / 2 - 1
        i, after = mpmath.besseli(v, kappa), mpmath.besseli(v + 1, kappa)
        moment = float(mpmath.log(mpmath.gamma(v + 1) * (2 / mpmath.mpf(kappa)) ** v * i))
        ratio = after / i
        slope = float(1 - ratio**2 - (2 * v + 1) * ratio / kappa)
        divergence = float(kappa * ratio) - moment
    assert log_moment(k, dimension).item() == pytest.approx(moment, rel=1e-13, abs=1e-15)
    assert mean_resultant(k, dimension).item() == pytest.approx(float(ratio), rel=1e-13)
    assert torch.autograd.grad(log_moment(k, dimension), k)[0].item() == pytest.approx(float(ratio), rel=1e-12)
    assert torch.autograd.grad(mean_resultant(k, dimension), k)[0].item() == pytest.approx(slope, rel=1e-7)
    # The two parts cancel, so the digits are those of kappa; at kappa = 1e6 nothing sees them in float32.
    assert kl_von_mises_fisher(k, dimension).item() == pytest.approx(divergence, rel=1e-9, abs=1e-15 + 1e-15 * kappa)


def test_no_concentration_is_the_uniform_and_has_a_gradient_of_zero() -> None:
    k = torch.zeros(3, requires_grad=True)
    kl = kl_von_mises_fisher(k, 7)
    assert kl.tolist() == [0.0, 0.0, 0.0]
    assert torch.autograd.grad(kl.sum(), k)[0].tolist() == [0.0, 0.0, 0.0]
    z = to_sphere(randn(5, 7))
    uniform = torch.full((5,), log_uniform_sphere(7), dtype=F64)
    torch.testing.assert_close(
        log_von_mises_fisher(z, to_sphere(randn(5, 7, seed=1)), torch.zeros(5, dtype=F64)), uniform
    )


@pytest.mark.parametrize("dimension", [2, 3, 8, 200])
@pytest.mark.parametrize("kappa", [0.2, 6.0, 900.0])
def test_density_integrates_to_one_and_kl_equals_its_integral(dimension: int, kappa: float) -> None:
    # Over angles: a ring at angle a has the area of the sphere one dimension below times sin(a)^(D - 2).
    ring = 2.0 if dimension == 2 else math.exp(-log_uniform_sphere(dimension - 1))

    def log_p(angle: float) -> float:
        z = torch.tensor([math.cos(angle), math.sin(angle), *[0.0] * (dimension - 2)], dtype=F64)
        mean = torch.eye(dimension, dtype=F64)[0]
        return log_von_mises_fisher(z, mean, torch.tensor(kappa, dtype=F64)).item()

    def over(f: Callable[[float], float]) -> float:
        mode = math.acos(2 * kappa / (dimension - 2 + math.hypot(dimension - 2, 2 * kappa)))
        kinks = [x for x in (mode - 0.1, mode, mode + 0.1) if 0 < x < math.pi]
        return (
            ring
            * integrate.quad(
                lambda a: f(log_p(a)) * math.sin(a) ** (dimension - 2),
                0,
                math.pi,
                points=kinks,
                epsabs=1e-13,
                limit=200,
            )[0]
        )

    assert over(math.exp) == pytest.approx(1, abs=1e-9)
    kl = over(lambda lp: math.exp(lp) * (lp - log_uniform_sphere(dimension)))
    assert kl_von_mises_fisher(torch.tensor(kappa, dtype=F64), dimension).item() == pytest.approx(kl, abs=1e-8)


@pytest.mark.parametrize("dimension", [2, 3, 10, 300])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 20.0, 5e3])
def test_draws_have_the_angles_that_the_density_gives_them(dimension: int, kappa: float) -> None:
    mean = to_sphere(randn(1, dimension, seed=1))
    k = torch.tensor([kappa], dtype=F64)
    noise = randn(4000, 1, dimension, seed=dimension)
    noise[0, 0] += 4.5 * mean[0]  # and both tails
    noise[1, 0] -= 4.5 * mean[0]
    z, log_q = sample_von_mises_fisher(mean, k, noise)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(4000, 1, dtype=F64))
    torch.testing.assert_close(log_q, log_von_mises_fisher(z, mean, k), rtol=1e-11, atol=1e-11)
    cosine = (z * mean).sum(-1)[:, 0]
    error = cosine.std() / math.sqrt(len(cosine))
    assert abs(cosine.mean() - mean_resultant(k, dimension)[0]) < 4 * error
    # The angle is the inverse of its distribution function at Phi(-along): checked by an integral of its own.
    mode = math.acos(2 * kappa / (dimension - 2 + math.hypot(dimension - 2, 2 * kappa))) if kappa else math.pi / 2
    peak = kappa * (math.cos(mode) - 1) + (dimension - 2) * math.log(math.sin(mode) or 1)

    def density(a: float) -> float:
        away = kappa * (math.cos(a) - 1) + ((dimension - 2) * math.log(math.sin(a)) if dimension > 2 else 0)
        return math.exp(away - peak)

    spread = 15 / math.sqrt(kappa + dimension)
    low, high = max(0.0, mode - spread), min(math.pi, mode + spread)
    total = integrate.quad(density, low, mode)[0] + integrate.quad(density, mode, high)[0]
    for i in range(12):
        angle = 2 * math.asin(min(1.0, (z[i, 0] - mean[0]).norm().item() / 2))
        below = integrate.quad(density, low, angle, epsabs=1e-13, points=[mode] if low < mode < angle else None)[0]
        assert below / total == pytest.approx(stats.norm.cdf(-(noise[i, 0] @ mean[0]).item()), abs=1e-9)


def test_draws_leave_the_mean_in_every_direction_alike() -> None:
    mean, k = torch.eye(3, dtype=F64)[:1], torch.tensor([3.0], dtype=F64)
    z, _ = sample_von_mises_fisher(mean, k, randn(5000, 1, 3))
    azimuth = torch.atan2(z[:, 0, 1], z[:, 0, 2]) / (2 * math.pi) + 0.5
    assert stats.kstest(azimuth.numpy(), "uniform").pvalue > 1e-3


def test_draws_turn_with_mean_and_noise() -> None:
    turn = torch.linalg.qr(randn(5, 5, seed=3)).Q
    mean, k, noise = to_sphere(randn(2, 5)), torch.tensor([2.0, 40.0], dtype=F64), randn(3, 2, 5, seed=1)
    z, _ = sample_von_mises_fisher(mean, k, noise)
    turned, _ = sample_von_mises_fisher(mean @ turn.T, k, noise @ turn.T)
    torch.testing.assert_close(turned, z @ turn.T)


@pytest.mark.parametrize("dimension", [2, 3, 20])
def test_gradients_of_draws_equal_finite_differences(dimension: int) -> None:
    raw, noise = randn(2, dimension, seed=4), randn(6, 2, dimension, seed=5)
    kappa = torch.tensor([0.7, 30.0], dtype=F64)

    def draw(raw: torch.Tensor, kappa: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sample_von_mises_fisher(to_sphere(raw), kappa, noise)

    # gradcheck compares with draws at neighbouring parameters: the surrogate's derivative must be the draws' own.
    assert torch.autograd.gradcheck(draw, (raw.requires_grad_(), kappa.requires_grad_()), atol=1e-6)


def test_many_models_at_once_draw_what_each_draws() -> None:
    mean, kappa, noise = to_sphere(randn(3, 2, 4)), randn(3, 2, seed=1).exp(), randn(3, 5, 2, 4, seed=2)
    z, log_q = torch.func.vmap(sample_von_mises_fisher)(mean, kappa, noise)
    for i in range(3):
        torch.testing.assert_close((z[i], log_q[i]), sample_von_mises_fisher(mean[i], kappa[i], noise[i]))


def test_float32_draws_stay_on_the_sphere_where_the_concentration_is_large() -> None:
    mean = to_sphere(randn(4, 30)).float().requires_grad_()
    kappa = torch.tensor([1e-3, 1.0, 1e3, 1e6], requires_grad=True)
    z, log_q = sample_von_mises_fisher(mean, kappa, 3 * randn(50, 4, 30).float())
    assert z.dtype == log_q.dtype == torch.float32
    assert (z.norm(dim=-1) - 1).abs().max() < 1e-6
    gradients = torch.autograd.grad(z.square().mean() + z.sum() + log_q.sum(), (mean, kappa))
    assert all(g.isfinite().all() for g in gradients)


def test_a_sphere_of_no_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 dimensions, got 1"):
        sample_von_mises_fisher(torch.ones(1, 1), torch.ones(1), torch.ones(1, 1, 1))
