"""A prior by flow matching: velocities in closed form, the solver's order, densities, what a fit learns and resumes."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import randn
from test_fitting import images, trained
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

import vaes
from vaes import Experiment
from vaes.code_statistics import Statistics
from vaes.errors import UserError
from vaes.fitting import Codes, Fitted, check, descent, fit_matching, matching
from vaes.priors import FlowMatching, StandardNormal
from vaes.randomness import Use, draw

LAW = MultivariateNormal(
    torch.tensor([1.5, -0.5, 0.2]).double(),
    scale_tril=torch.tensor([[0.6, 0.0, 0.0], [0.5, 0.9, 0.0], [-0.3, 0.2, 0.4]]).double(),
)


class Linear(nn.Module):
    """A velocity ``a(t) x + b(t)``."""

    def __init__(self, field: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.field = field

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, b = self.field(t)
        return (a @ x[..., None])[..., 0] + b


def exact(t: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices (N, D, D) and vectors (N, D): E[x_1 - x_0 | x_t = x] of codes by LAW, by conditioning a Gaussian."""
    t, eye = t[:, None, None], torch.eye(3).double()
    gain = (t * LAW.covariance_matrix - (1 - t) * eye) @ torch.linalg.inv(
        (1 - t).square() * eye + t.square() * LAW.covariance_matrix
    )
    return gain, LAW.mean - t[:, 0] * (gain @ LAW.mean)


def prior_of_law(steps: int, started: bool = False) -> FlowMatching:
    """Either all of it in the Gaussian that the network starts from, or all in the network, where that is N(0, I)."""
    prior = FlowMatching(3, width=8, solver_steps=steps).double().requires_grad_(False)
    prior.shift.copy_(torch.tensor([5.0, -2.0, 0.0]))
    prior.scale.copy_(torch.tensor([2.0, 0.5, 1.0]))
    if started:
        spectrum, basis = torch.linalg.eigh(LAW.covariance_matrix)
        prior.mean.copy_(LAW.mean)
        prior.spectrum.copy_(spectrum)
        prior.basis.copy_(basis)
    else:

        def rest(t: Tensor) -> tuple[Tensor, Tensor]:
            gain, b = exact(t)
            t = t[:, None, None]
            return gain - (2 * t - 1) / ((1 - t).square() + t.square()) * torch.eye(3).double(), b

        prior.network = Linear(rest)
    return prior


def map_of(prior: FlowMatching) -> tuple[Tensor, Tensor]:
    """A sampler that is affine -> its offset and matrix, of normalised codes."""
    noise = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    offset, *columns = prior.normalise(prior.sample(noise))
    return offset, torch.stack([column - offset for column in columns], 1)


def test_the_gaussian_s_velocity_is_the_conditional_mean_and_its_solution_exact_in_one_step() -> None:
    prior = prior_of_law(1, started=True)
    x, t = randn(7, 3), torch.linspace(0, 1, 7).double()
    gain, b = exact(t)
    torch.testing.assert_close(prior.of_gaussian(x, t), (gain @ x[..., None])[..., 0] + b)
    offset, matrix = map_of(prior)
    torch.testing.assert_close(offset, LAW.mean)
    torch.testing.assert_close(matrix @ matrix.T, LAW.covariance_matrix)
    z = randn(5, 3)
    torch.testing.assert_close(prior.log_prob(z), prior.log_gaussian(z))
    torch.testing.assert_close(prior.log_prob(z), LAW.log_prob(prior.normalise(z)) - math.log(2 * 0.5))
    torch.testing.assert_close(prior.centre(), prior.shift + prior.scale * LAW.mean)
    assert not FlowMatching((2, 2049, 1), width=8).basis.numel()  # of many numbers each by itself


def test_the_solver_is_of_second_order_in_samples_and_in_density() -> None:
    x, off, density = randn(6, 3), [], []
    for steps in (16, 32, 64):
        prior = prior_of_law(steps)
        offset, matrix = map_of(prior)
        off.append(max((offset - LAW.mean).abs().max(), (matrix @ matrix.T - LAW.covariance_matrix).abs().max()))
        z = prior.shift + prior.scale * x
        density.append((prior.log_prob(z) - LAW.log_prob(x)).abs().max())
    for errors, most in ((off, 1e-4), (density, 0.02)):
        assert errors[-1] < most
        for coarse, fine in itertools.pairwise(errors):
            assert 3.3 < coarse / fine < 4.8
    lead = randn(2, 3, 3)
    torch.testing.assert_close(prior.log_prob(lead)[1], prior.log_prob(lead[1]))


def test_a_trace_by_all_signs_is_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, z = prior_of_law(8), randn(4, 3)
    whole = prior.log_prob(z)
    prior.probes.resize_(8, 3).copy_(torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3))))
    monkeypatch.setattr("vaes.priors.flow_matching.EXACT_TRACE", 0)
    torch.testing.assert_close(prior.log_prob(z), whole)
    prior.probes.resize_(1, 3)
    assert (prior.log_prob(z) - whole).abs().max() > 1e-3


def test_what_the_loss_is_least_at_is_the_velocity_in_closed_form() -> None:
    nodes, mass = np.polynomial.hermite_e.hermegauss(3)  # exact for the squares that the loss is made of
    points = torch.tensor(list(itertools.product(nodes, repeat=6))).double()
    weight = torch.tensor([math.prod(row) for row in itertools.product(mass / mass.sum(), repeat=6)]).double()
    x_1, x_0 = LAW.mean + points[:, :3] @ LAW.scale_tril.T, points[:, 3:]
    prior = FlowMatching(3, width=8).double().requires_grad_(False)
    for time in (0.2, 0.7):
        t = torch.full((len(points),), time).double()

        def loss(flat: Tensor) -> Tensor:
            prior.network = Linear(lambda t: (flat[:9].reshape(3, 3), flat[9:]))
            return (weight * prior.loss(x_1, x_0, t)).sum()  # noqa: B023

        start = torch.zeros(12).double().requires_grad_()
        (slope,) = torch.autograd.grad(loss(start), start)
        hessian = torch.autograd.functional.hessian(loss, start.detach())
        least = -torch.linalg.solve(hessian, slope)
        gain, b = (one[0] for one in exact(t[:1]))
        own = (2 * time - 1) / ((1 - time) ** 2 + time**2) * torch.eye(3).double()
        torch.testing.assert_close(least[:9].reshape(3, 3), gain - own)
        torch.testing.assert_close(least[9:], b)


# Fits


def statistics(z: Tensor) -> Statistics:
    """Of codes (N, C, ...)."""
    channels = z.transpose(0, 1).flatten(1)
    mean, std = (tuple(found.tolist()) for found in (channels.mean(1), channels.std(1)))
    return Statistics(mean, std, 0.0, 1.0, len(z), "", 0)


def fitted(z: Tensor, shape: tuple[int, ...], folder: Path | None = None, **options: Any) -> Fitted:
    flat = z.flatten(1)
    tenth = len(z) // 10
    codes = Codes(flat[2 * tenth :, None], flat[tenth : 2 * tenth, None], flat[:tenth])
    own = StandardNormal(shape).log_prob
    return fit_matching(codes, shape, statistics(z.unflatten(1, shape)), own=own, options=options, folder=folder)


def ring(n: int) -> Tensor:
    """Two dimensions far from 0: three quarters of a circle, and a spot in its middle."""
    numbers = torch.Generator().manual_seed(0)
    turn, spot = torch.rand(n, generator=numbers) * 1.5 * math.pi, torch.rand(n, 1, generator=numbers) < 0.3
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    return 50 + 3 * (torch.where(spot, 0.0, circle) + 0.1 * torch.randn(n, 2, generator=numbers))


def test_a_fit_learns_a_law_that_no_gaussian_has() -> None:
    z = ring(6000)
    found = fitted(z, (2,), steps=500, width=64)
    assert found.numbers.nats > found.numbers.gaussian + 0.5
    drawn = found.prior.sample(draw(found.prior.noise, (4000,), 0, Use.PRIOR, 0))
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.15)
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), rtol=0, atol=0.4)
    radius = ((drawn - 50) / 3).norm(dim=1)
    assert (radius < 0.4).float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert ((radius - 1).abs() < 0.3).float().mean().item() == pytest.approx(0.7, abs=0.12)
    few = fitted(z[:50], (2,), steps=1, width=8)
    assert few.numbers.nats == pytest.approx(few.numbers.gaussian, abs=1e-2)  # never below what it starts as


def test_a_grid_is_fitted_by_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "STOP", 64)
    signs = torch.randint(2, (1500, 1, 1, 1), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    pattern = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    z = 3 + torch.cat([signs * pattern, 0.5 * signs * pattern], 1) + 0.2 * randn(1500, 2, 2, 3).float()
    found = fitted(z.flatten(1), (2, 2, 3), steps=400, width=16)
    drawn = found.prior.sample(draw(found.prior.noise, (1000,), 0, Use.PRIOR, 0))
    assert drawn.shape == (1000, 2, 2, 3)
    torch.testing.assert_close(drawn.mean(0), z.mean(0), rtol=0, atol=0.25)
    torch.testing.assert_close(drawn.var(0), z.var(0), rtol=0.3, atol=0.05)
    assert ((drawn - 3)[:, 0, 1, 1].abs() - 2).abs().lt(1).float().mean() > 0.9  # a Gaussian has 0.55
    odd = FlowMatching((3, 9, 17), width=4, solver_steps=1)
    assert odd.sample(draw(odd.noise, (2,), 0, Use.PRIOR, 0)).shape == (2, 3, 9, 17)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [3, 31])
def test_a_fit_that_was_killed_goes_on_and_ends_in_the_same_bits(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    z, options = ring(300), {"steps": 100, "width": 8}
    whole = fitted(z, (2,), **options)
    kill, times = nn.utils.clip_grad_norm_, itertools.count()

    def killed(*arguments: Any) -> Any:
        if next(times) == at:
            raise KilledError
        return kill(*arguments)

    monkeypatch.setattr(descent.nn.utils, "clip_grad_norm_", killed)
    with pytest.raises(KilledError):
        fitted(z, (2,), tmp_path, **options)
    other = fitted(z, (2,), tmp_path, steps=1, width=8)  # another fit does not take it up
    assert other.options["steps"] == 1
    assert "goes on" not in caplog.text
    times = itertools.count()
    with pytest.raises(KilledError):
        fitted(z, (2,), tmp_path, **options)
    times = itertools.count(at + 1)
    resumed = fitted(z, (2,), tmp_path, **options)
    assert f"goes on after step {at - at % 2}" in caplog.text
    assert resumed.numbers == whole.numbers
    for name, tensor in whole.prior.state_dict().items():
        assert torch.equal(tensor, resumed.prior.state_dict()[name]), name


def test_from_a_run_stored_sampled_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "STOP", 16)
    run = trained(tmp_path / "run")
    own = run.sample(4)
    made = run.fit_prior("flow_matching", steps=2, width=8, solver_steps=2)
    assert not list(run.folder.glob("*partial*"))
    loaded = vaes.load(tmp_path / "run").with_data(images())
    assert torch.equal(loaded.sample(4), run.sample(4, prior=made))
    assert torch.equal(loaded.sample(4, prior="own"), own)
    again = loaded.fit_prior("flow_matching", steps=2, width=8, solver_steps=2, write=False)
    assert torch.equal(loaded.sample(4, prior=again), loaded.sample(4))
    found = run.code_statistics()
    assert made.prior.shift.tolist() == pytest.approx(found.mean)
    assert made.prior.scale.tolist() == pytest.approx(found.std)
    found._replace(weights="0" * 64).write(run.folder)
    with pytest.raises(UserError, match="statistics of other weights"):
        run.fit_prior("flow_matching")
    raw = {"method": "vq_vae", "model": {"z_dim": 8, "network": {"kind": "mlp", "hidden": [16]}},
           "train": {"n_steps": 2, "batch_size": 16}}  # fmt: skip
    words = Experiment.of(raw).fit(tmp_path / "vq", data=images(), device="cpu")
    with pytest.raises(UserError, match="use --kind autoregressive"):
        check(words.model, "flow_matching", {})
    for options, message in (
        ({"solver_steps": 0}, "solver_steps: 0 is not right"),
        ({"components": 2}, "it is of gmm"),
    ):
        with pytest.raises(UserError, match=message):
            check(run.model, "flow_matching", options)
