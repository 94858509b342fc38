import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from vaes import distributions as D
from vaes.functional import kl_normal, log_normal

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def as_torch(q: D.Cholesky) -> MultivariateNormal:
    return MultivariateNormal(q.mean, scale_tril=q.factor)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_full_covariance_equals_the_closed_forms(size: int) -> None:
    q = D.split_cholesky(randn(3, size * (size + 3) // 2))
    noise = randn(4, 3, size, seed=1)
    z, log_q = D.sample_cholesky(q, noise)
    torch.testing.assert_close(log_q, as_torch(q).log_prob(z))
    torch.testing.assert_close(D.log_cholesky(z, q), log_q)
    prior = MultivariateNormal(torch.zeros(size, dtype=F64), torch.eye(size, dtype=F64))
    torch.testing.assert_close(D.kl_cholesky(q).sum(-1), kl_divergence(as_torch(q), prior))
    torch.testing.assert_close((z - q.mean)[:, :, 0], q.factor[:, 0, 0] * noise[:, :, 0])
    jacobian = torch.func.jacrev(lambda e: D.sample_cholesky(q, e)[0][0, 0])(noise[:1])[:, 0, 0]
    torch.testing.assert_close(jacobian, q.factor[0])


def test_full_covariance_without_off_diagonal_is_the_diagonal_gaussian_and_exact_at_the_prior() -> None:
    mean, logvar = randn(3, 4), randn(3, 4, seed=1)
    q = D.split_cholesky(torch.cat([mean, logvar, torch.zeros(3, 6, dtype=F64)], -1))
    torch.testing.assert_close(D.kl_cholesky(q), kl_normal(mean, logvar))
    assert D.kl_cholesky(D.split_cholesky(torch.zeros(1, 14))).eq(0).all()
    assert D.kl_cholesky(D.split_cholesky(torch.full((1, 2), 1e-6))).item() == pytest.approx(5e-13 + 2.5e-13, rel=0.2)
    # Every number has its own place in L.
    assert sorted(D.triangle(torch.arange(1.0, 7.0), 3).flatten().tolist()) == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_full_covariance_of_a_wrong_count_of_numbers_is_refused() -> None:
    counts = {d * (d + 3) // 2: d for d in range(1, 200)}
    for count, d in counts.items():
        assert D.split_cholesky(torch.zeros(1, count)).mean.shape == (1, d)
    with pytest.raises(ValueError, match="got 13"):
        D.split_cholesky(torch.zeros(1, 13))


def test_mixture_equals_its_brute_force_sum_and_integrates_to_one() -> None:
    mean, logvar, logits = randn(4, 2), randn(4, 2, seed=1), randn(4, seed=2)
    z = 2 * randn(3, 5, 2, seed=3)
    components = torch.stack([log_normal(z, m, v).sum(-1) for m, v in zip(mean, logvar, strict=True)], -1)
    torch.testing.assert_close(D.log_components(z, mean, logvar), components)
    torch.testing.assert_close(
        D.log_mixture(z, mean, logvar, logits), (components.exp() * logits.softmax(-1)).sum(-1).log()
    )
    torch.testing.assert_close(D.log_mixture(z, mean, logvar), components.exp().mean(-1).log())
    axis = torch.linspace(-14, 14, 401, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    mass = D.log_mixture(grid, mean, logvar, logits).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-6)


def test_one_component_is_the_gaussian_and_narrow_ones_far_away_keep_their_digits() -> None:
    z = randn(6, 3)
    torch.testing.assert_close(
        D.log_mixture(z, torch.zeros(1, 3, dtype=F64), torch.zeros(1, 3, dtype=F64)),
        MultivariateNormal(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64)).log_prob(z),
    )
    mean, logvar = torch.full((1, 3), 300.0), torch.full((1, 3), -12.0)
    near = mean + torch.exp(0.5 * logvar) * torch.tensor([[0.5, -1.0, 2.0]])
    exact = log_normal(near.double(), mean.double(), logvar.double()).sum(-1)
    torch.testing.assert_close(D.log_mixture(near, mean, logvar).double(), exact, rtol=1e-5, atol=1e-5)
    spread = torch.cat([mean, -mean])
    found = D.log_components(near, spread, logvar.expand(2, -1))[:, 0]
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_mixture_has_first_and_second_derivatives_and_runs_for_many_models_at_once() -> None:
    z, mean, logvar, logits = randn(2, 4, 3), randn(5, 3, seed=1), randn(5, 3, seed=2), randn(5, seed=3)
    arguments = tuple(t.requires_grad_() for t in (z, mean, logvar, logits))
    assert torch.autograd.gradcheck(D.log_mixture, arguments)
    assert torch.autograd.gradgradcheck(D.log_mixture, arguments)
    stacked = [torch.stack([t, t + 0.3]).detach() for t in arguments]
    together = torch.func.vmap(D.log_mixture)(*stacked)
    torch.testing.assert_close(together[1], D.log_mixture(*(t[1] for t in stacked)))


def test_mixtures_neither_pass_holds_a_tensor_over_points_components_and_dimensions() -> None:
    z, mean, logvar = randn(7, 11).requires_grad_(), randn(5, 11, seed=1).requires_grad_(), randn(5, 11, seed=2)
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        D.log_mixture(z, mean, logvar).sum().backward()
    assert max(sizes) == 7 * 11


def test_draws_of_the_mixture_have_its_moments_and_choose_by_weight() -> None:
    mean, logvar = (
        torch.tensor([[-3.0, 0.0], [3.0, 1.0]], dtype=F64),
        torch.tensor([[-2.0, 0.0], [0.0, -1.0]], dtype=F64),
    )
    logits = torch.tensor([0.0, 1.0], dtype=F64)
    n = 20_000
    uniform = torch.rand(n, dtype=F64, generator=torch.Generator().manual_seed(1))
    z = D.sample_mixture(mean, logvar, randn(n, 2), uniform, logits)
    weights = logits.softmax(-1)
    expected = weights @ mean
    variance = weights @ (logvar.exp() + mean.square()) - expected.square()
    assert ((z.mean(0) - expected).abs() < 4 * (variance / n).sqrt()).all()
    fourth = (z - expected).pow(4).mean(0)
    assert ((z.var(0) - variance).abs() < 4 * ((fourth - variance.square()) / n).sqrt()).all()
    # The mean log-density of draws is less the entropy: against an importance estimate from a wide Gaussian.
    wide = 6 * randn(200_000, 2, seed=5)
    log_p = D.log_mixture(wide, mean, logvar, logits)
    flat = torch.zeros((), dtype=F64)
    weight = (log_p - log_normal(wide, flat, flat + 2 * math.log(6)).sum(-1)).exp()
    own = D.log_mixture(z, mean, logvar, logits)
    error = math.hypot((weight * log_p).std() / 200_000**0.5, own.std() / n**0.5)
    assert abs((weight * log_p).mean() - own.mean()) < 4 * error
