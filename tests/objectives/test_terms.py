import itertools
import math

import pytest
import torch
from parts import randn, small_vae
from torch import Tensor
from torch.distributions import Normal

from vaes import posteriors
from vaes.estimators import stratified_log_weights, weighted_log_weights
from vaes.model import Trace
from vaes.objectives import Context, Drawn
from vaes.objectives.terms import (
    DIP,
    Capacity,
    FreeBits,
    GradientPenalty,
    LatentNorm,
    MutualInformation,
    SlicedWasserstein,
    TotalCorrelation,
)

NONE = Drawn(torch.zeros(0))


def trace(b: int = 6, k: int = 2) -> Trace:
    model = small_vae().double()
    found: Trace = model(3 * randn(b, 1, 8, 8), randn(k, b, 3, seed=2))
    return found._replace(mean=randn(b, 3, seed=3), logvar=randn(b, 3, seed=4))


def brute(t: Trace, weights: list[list[float]]) -> tuple[Tensor, Tensor]:
    """E log q(z) and E sum_d log q(z_d), term by term."""
    joint, apart = [], []
    assert t.mean is not None
    assert t.logvar is not None
    for z in t.z:
        for i, code in enumerate(z):
            each = [Normal(m, (0.5 * v).exp()).log_prob(code) for m, v in zip(t.mean, t.logvar, strict=True)]
            joint.append(sum(w * e.sum().exp() for w, e in zip(weights[i], each, strict=True)).log())  # type: ignore[union-attr]
            apart.append(sum(w * e.exp() for w, e in zip(weights[i], each, strict=True)).log().sum())  # type: ignore[union-attr]
    return torch.stack(joint).mean(), torch.stack(apart).mean()


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_total_correlation_and_mutual_information_are_the_papers_sums(estimator: str) -> None:
    t, n, b = trace(), 50, 6
    assert t.log_q is not None
    weights = [[1 / (n * b)] * b for _ in range(b)]
    if estimator == "stratified":  # the mean over which of the 5 others has (N - M) / (N M) and which 1 / M
        others = ((n - (b - 1)) / (n * (b - 1)) + (b - 2) / (b - 1)) / (b - 1)
        weights = [[1 / n if i == j else others for j in range(b)] for i in range(b)]
    joint, apart = brute(t, weights)
    context = Context({}, n=n)
    torch.testing.assert_close(TotalCorrelation(estimator=estimator)(t, NONE, context), joint - apart)  # type: ignore[arg-type]
    information = MutualInformation(estimator=estimator)(t, NONE, context)  # type: ignore[arg-type]
    torch.testing.assert_close(information, t.log_q.mean() - joint)


def test_the_stratified_shares_are_unbiased_over_all_batches() -> None:
    # Of 5 images, every ordered batch of 3 that begins with image 0: the mean estimate of q(z) is q(z), and varies less
    # than the paper's, whose shares depend on the order.
    n, values = 5, randn(5).exp()
    found, papers = [], []
    for others in itertools.permutations(range(1, n), 2):
        shares = stratified_log_weights(3, n).to(values).exp()[0]
        found.append((shares * values[[0, *others]]).sum())
        papers.append((torch.tensor([1 / 5, 3 / 10, 1 / 2]).to(values) * values[[0, *others]]).sum())
    torch.testing.assert_close(torch.stack(found).mean(), values.mean())
    torch.testing.assert_close(torch.stack(papers).mean(), values.mean())
    assert torch.stack(found).var() < 0.9 * torch.stack(papers).var()
    assert weighted_log_weights(3, n).exp().sum(1) == pytest.approx([1 / n] * 3)


def test_the_number_of_images_is_wanted() -> None:
    with pytest.raises(ValueError, match="number of training images"):
        TotalCorrelation()(trace(), NONE, Context({}))


@pytest.mark.parametrize("covariance", ["mean", "samples"])
def test_dip_is_its_definition(covariance: str) -> None:
    t = trace()
    assert t.mean is not None
    assert t.logvar is not None
    c = torch.cov(t.mean.T)
    if covariance == "samples":
        c = c + torch.diag(t.logvar.exp().mean(0))
    expected = sum((2.5 * (c[i, i] - 1) ** 2 if i == j else c[i, j] ** 2) for i in range(3) for j in range(3))
    torch.testing.assert_close(DIP(covariance=covariance, diagonal=2.5)(t, NONE, Context({})), expected)  # type: ignore[arg-type]


def test_the_capacity_follows_its_schedule() -> None:
    t = trace()._replace(rate=torch.tensor([1.0, 5.0]))
    assert Capacity(target=25.0)(t, NONE, Context({})) == 22
    assert Capacity(target=25.0)(t, NONE, Context({}, options={"capacity": {"target": 2.0}}).of("capacity")) == 1


def test_free_bits_and_the_rate_are_the_larger_of_floor_and_rate() -> None:
    kl = torch.tensor([[0.1, 2.0], [0.2, 1.0]], dtype=torch.float64)
    t = trace()._replace(kl=kl)
    both = kl.sum(1).mean() + FreeBits(floor=0.5)(t, NONE, Context({}))
    torch.testing.assert_close(both, kl.mean(0).clamp_min(0.5).sum())


def test_free_bits_of_groups_leave_each_group_its_floor() -> None:
    kl = randn(4, 5).square()
    for floor in (0.5, 3.0, 9.0):
        t = trace()._replace(kl=kl)
        both = kl.sum(1).mean() + FreeBits((5,), floor=floor, groups=(2, 3))(t, NONE, Context({}))
        of_groups = torch.stack([kl[:, :2].sum(1).mean(), kl[:, 2:].sum(1).mean()])
        torch.testing.assert_close(both, of_groups.clamp_min(floor).sum())
        whole = FreeBits((1, 5), floor=floor, groups=(5,))(t._replace(kl=kl[:, None]), NONE, Context({}))
        torch.testing.assert_close(whole, (floor - kl.sum(1).mean()).clamp_min(0))
    for groups in ((2, 2), (5, 0), ()):
        with pytest.raises(ValueError, match="groups must be sizes that add up to the 5 dimensions of a code"):
            FreeBits((5,), groups=groups)


def test_sliced_wasserstein_of_a_shift_is_its_square_along_the_lines() -> None:
    prior_z, shift, lines = randn(50, 3), randn(3, seed=7), randn(2000, 3, seed=8)
    t = trace()._replace(z=(prior_z + shift).flip(0)[None])
    found = SlicedWasserstein((3,))(t, Drawn(prior_z, lines), Context({}))
    unit = lines / lines.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, (unit @ shift).square().mean())
    assert found == pytest.approx((shift.square().sum() / 3).item(), rel=0.1)  # its mean over all lines
    assert SlicedWasserstein((3,))(t._replace(z=prior_z.flip(0)[None]), Drawn(prior_z, lines), Context({})) < 1e-20


def test_the_latent_norm_is_minus_the_log_density_of_a_standard_normal_but_for_its_constant() -> None:
    t = trace()
    expected = -Normal(0.0, 1.0).log_prob(t.z).sum(-1).mean() - 1.5 * math.log(2 * math.pi)
    torch.testing.assert_close(LatentNorm()(t, NONE, Context({})), expected)


def test_the_gradient_penalty_estimates_the_decoder_s_jacobian_without_bias() -> None:
    model = small_vae(shape=(1, 2, 2), posterior=posteriors.Point()).double()
    x = randn(3, 1, 2, 2)
    t = model(x, randn(1, 3, 3), frozenset({"x_mean"}))
    jacobians = [torch.autograd.functional.jacobian(lambda z: model.decode(z[None])[0], z) for z in t.z[0].detach()]
    exact = 0.5 * torch.stack([j.square().sum() for j in jacobians]).mean()  # type: ignore[union-attr]
    # Directions along the four axes and against them have the mean square of a normal one in each.
    axes = 2 * torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 2, 2).expand(4, 3, 1, 2, 2)
    term = GradientPenalty((1, 2, 2))
    found = torch.stack([term(t, Drawn(t.z[0], v), Context({})) for v in axes]).mean()
    torch.testing.assert_close(found, exact)
    term(model(x, randn(1, 3, 3), frozenset({"x_mean"})), Drawn(t.z[0], axes[0]), Context({})).backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
