import itertools
import math

import pytest
import torch

from vaes import estimators as E
from vaes.functional import log_normal

F64 = torch.float64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def parts(n: int, d: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mean, logvar = randn(n, d), 0.5 * randn(n, d, seed=1) - 1
    return mean + torch.exp(0.5 * logvar) * randn(n, d, seed=2), mean, logvar


def densities(z: torch.Tensor, mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    return log_normal(z[:, None], mean, logvar)  # (B, B, D)


def test_aggregate_equals_its_brute_force_sums_with_any_weights() -> None:
    z, mean, logvar = parts(5, 3)
    weights = randn(5, 5, seed=3)
    log_q, log_marginals = E.aggregate(z, mean, logvar, weights)
    each = densities(z, mean, logvar)
    torch.testing.assert_close(log_q, (each.sum(-1) + weights).exp().sum(1).log())
    torch.testing.assert_close(log_marginals, (each + weights[..., None]).exp().sum(1).log())


def test_stratified_estimate_is_unbiased_over_all_batches_and_exact_for_the_whole_set() -> None:
    n, b = 6, 3
    z, mean, logvar = parts(n, 2)
    truth = densities(z, mean, logvar).sum(-1).exp().mean(1)
    whole = E.aggregate(z, mean, logvar, E.stratified_log_weights(n, n)).log_q
    torch.testing.assert_close(whole.exp(), truth)
    total, count = torch.zeros(n, dtype=F64), 0
    for batch in itertools.permutations(range(n), b):  # the order counts: a weight in one column would be seen
        rows = list(batch)
        estimate = E.aggregate(z[rows], mean[rows], logvar[rows], E.stratified_log_weights(b, n)).log_q.exp()
        total[rows] += estimate
        count += 1
    torch.testing.assert_close(total / (count * b / n), truth)


def test_stratified_estimate_varies_less_than_the_papers_weights_of_equal_expectation() -> None:
    n, b = 7, 3
    z, mean, logvar = parts(n, 2)
    m = b - 1
    paper = torch.tensor([1 / n, *[1 / m] * (m - 1), (n - m) / (n * m)], dtype=F64)
    ours = E.stratified_log_weights(b, n)[0].exp()
    assert ours.sum().item() == pytest.approx(1)
    assert ours[0].item() == pytest.approx(1 / n)
    q = densities(z[:1], mean, logvar).sum(-1).exp()[0]
    draws = torch.tensor([[0, *others] for others in itertools.permutations(range(1, n), m)])
    estimates = q[draws] @ torch.stack([ours, paper], 1)
    torch.testing.assert_close(estimates[:, 0].mean(), estimates[:, 1].mean())
    torch.testing.assert_close(estimates[:, 0].mean(), q.mean())
    assert estimates[:, 0].var() < estimates[:, 1].var()


def test_weighted_estimate_is_the_papers_sum() -> None:
    z, mean, logvar = parts(4, 2)
    log_q = E.aggregate(z, mean, logvar, E.weighted_log_weights(4, 1000)).log_q
    each = densities(z, mean, logvar).sum(-1)
    torch.testing.assert_close(log_q, each.logsumexp(1) - math.log(4 * 1000))
    # Four images of a thousand that are all alike: the aggregate is any of them, and the estimate low by log 1000.
    same = E.aggregate(z, mean[:1].expand(4, 2), logvar[:1].expand(4, 2), E.weighted_log_weights(4, 1000)).log_q
    torch.testing.assert_close(same, densities(z, mean[:1], logvar[:1]).sum(-1)[:, 0] - math.log(1000))


def test_decomposition_sums_to_the_rate_and_finds_the_correlation_of_a_gaussian() -> None:
    z, mean, logvar = parts(6, 3)
    zero = torch.zeros((), dtype=F64)
    log_prior = log_normal(z, zero, zero).sum(-1)
    rate = log_normal(z, mean, logvar).sum(-1) - log_prior
    for weights in (E.weighted_log_weights(6, 50), E.stratified_log_weights(6, 50)):
        torch.testing.assert_close(sum(E.decompose(z, mean, logvar, log_prior, weights)), rate)
    # Means from N(0, C) and noise of variance 0.3: the aggregate is N(0, C + 0.3 I), whose total correlation is closed.
    n, covariance = 2000, torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=F64)
    mean = randn(n, 2, seed=7) @ torch.linalg.cholesky(covariance).T
    logvar = torch.full_like(mean, math.log(0.3))
    z = mean + 0.3**0.5 * randn(n, 2, seed=8)
    found = E.decompose(z, mean, logvar, torch.zeros(n, dtype=F64), E.stratified_log_weights(n, n))
    of_codes = covariance + 0.3 * torch.eye(2, dtype=F64)
    closed = 0.5 * (torch.diagonal(of_codes).log().sum() - torch.logdet(of_codes))
    error = found.correlation.std() / math.sqrt(n)
    assert abs(found.correlation.mean() - closed) < 4 * error
    information = 0.5 * torch.logdet(of_codes / 0.3)
    assert abs(found.information.mean() - information) < 4 * found.information.std() / math.sqrt(n)


def test_aggregate_has_first_and_second_derivatives_and_runs_for_many_models_at_once() -> None:
    arguments = tuple(t.requires_grad_() for t in parts(4, 2))
    weights = E.stratified_log_weights(4, 9)
    assert torch.autograd.gradcheck(lambda *a: tuple(E.aggregate(*a, weights)), arguments)
    assert torch.autograd.gradgradcheck(lambda *a: tuple(E.aggregate(*a, weights)), arguments)
    stacked = [torch.stack([t, t * 1.3]).detach() for t in arguments]
    together = torch.func.vmap(lambda *a: tuple(E.aggregate(*a, weights)))(*stacked)
    alone = E.aggregate(*(t[1] for t in stacked), weights)
    torch.testing.assert_close((together[0][1], together[1][1]), tuple(alone))


def test_aggregate_never_holds_a_tensor_over_pairs_and_dimensions() -> None:
    z, mean, logvar = (t.requires_grad_() for t in parts(6, 13))
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    with Sizes():
        log_q, marginals = E.aggregate(z, mean, logvar, E.weighted_log_weights(6, 60))
        (log_q.sum() + marginals.sum()).backward()
    assert max(sizes) == 6 * 13


@pytest.mark.parametrize("batch", [1, 11])
def test_stratified_batches_that_cannot_be_are_refused(batch: int) -> None:
    with pytest.raises(ValueError, match=f"2 to all 10 images, got {batch}"):
        E.stratified_log_weights(batch, 10)


def test_sliced_distance_in_one_dimension_is_the_cheapest_pairing() -> None:
    x, y = randn(6, 1), randn(6, 1, seed=1)
    cheapest = min(((x[:, 0] - y[list(order), 0]) ** 2).mean() for order in itertools.permutations(range(6)))
    torch.testing.assert_close(E.sliced_wasserstein(x, y, torch.tensor([[-3.0]], dtype=F64)), cheapest)


def test_sliced_distance_of_shifts_and_gaussians_has_its_closed_form() -> None:
    x, shift = randn(50, 4), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=F64)
    projections = randn(20_000, 4, seed=1)
    moved = E.sliced_wasserstein(x, x + shift, projections)
    assert moved.item() == pytest.approx(shift.square().sum().item() / 4, rel=0.03)
    assert E.sliced_wasserstein(x, x.flip(0), projections).item() == pytest.approx(0, abs=1e-24)
    # N(0, I) against N(0, 4 I): (2 - 1)^2 along every direction.
    a, b = randn(20_000, 3, seed=2), 2 * randn(20_000, 3, seed=3)
    assert E.sliced_wasserstein(a, b, randn(30, 3, seed=4)).item() == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="got 50 and 6"):
        E.sliced_wasserstein(x, x[:6], projections)


def test_covariances_and_dip_penalties_equal_their_definitions() -> None:
    mean, logvar = randn(40, 3), randn(40, 3, seed=1)
    torch.testing.assert_close(E.latent_covariance(mean), torch.cov(mean.T))
    codes = torch.cov(mean.T) + torch.diag(logvar.exp().mean(0))
    torch.testing.assert_close(E.latent_covariance(mean, logvar), codes)
    off, on = E.dip_penalties(codes)
    pairs = itertools.product(range(3), range(3))
    assert off.item() == pytest.approx(sum(codes[i, j].item() ** 2 for i, j in pairs if i != j))
    assert on.item() == pytest.approx(sum((codes[i, i].item() - 1) ** 2 for i in range(3)))
    assert E.dip_penalties(torch.eye(4)) == (0, 0)
    with pytest.raises(ValueError, match="two codes, got 1"):
        E.latent_covariance(mean[:1])


def test_capacity_is_of_the_mean_rate() -> None:
    assert E.capacity(torch.tensor([1.0, 5.0]), 2.0).item() == 1.0
    assert E.capacity(torch.tensor([[1.0, 4.0], [5.0, 4.0]]), torch.tensor([3.0, 5.0])).tolist() == [0.0, 1.0]
