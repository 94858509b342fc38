import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vaes.flows import (
    Coupling,
    Flow,
    FlowDensity,
    Householder,
    InverseAutoregressive,
    InvertibleFlow,
    MaskedAutoregressive,
    MaskedNetwork,
    Planar,
    Sylvester,
)

F64 = torch.float64

FLOWS: dict[str, Callable[[int], Flow]] = {
    "planar": lambda d: Planar(d, n_steps=3),
    "householder": lambda d: Householder(d, n_steps=3),
    "sylvester": lambda d: Sylvester(d, n_steps=3, reflections=3),
    "sylvester, some columns": lambda d: Sylvester(d, n_steps=2, columns=max(1, d // 2), reflections=2),
    "sylvester, triangular": lambda d: Sylvester(d, n_steps=3, reflections=0),
    "inverse autoregressive": lambda d: InverseAutoregressive(d, 5, n_steps=3, width=16),
    "masked autoregressive": lambda d: MaskedAutoregressive(d, n_steps=2, width=16),
    "coupling": lambda d: Coupling(d, n_steps=3, width=16),
    "coupling with a context": lambda d: Coupling(d, 4, n_steps=3, width=16),
}
INVERTIBLE = ["householder", "inverse autoregressive", "masked autoregressive", "coupling", "coupling with a context"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def made(name: str, d: int) -> Flow:
    """A flow in float64 whose every weight matters: the layers that start at 0 do not."""
    flow = FLOWS[name](d).double()
    for i, p in enumerate(flow.parameters()):
        p.data = randn(*p.shape, seed=100 + i) / p.shape[-1] ** 0.5
    return flow


def context_of(flow: Flow, batch: int, seed: int = 9) -> Tensor | None:
    return randn(batch, flow.context_size, seed=seed) if flow.context_size else None


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("name", FLOWS)
def test_log_determinant_is_that_of_the_jacobian(name: str, d: int) -> None:
    flow = made(name, d)
    z, context = 1.5 * randn(4, 3, d), context_of(flow, 3)
    moved, log_det = flow(z, context)
    assert moved.shape == (4, 3, d)
    assert log_det.shape == (4, 3)
    for k, b in ((0, 0), (3, 2), (1, 1)):
        own = None if context is None else context[b : b + 1]
        jacobian = torch.func.jacrev(lambda x, own=own: flow(x[None], own)[0][0])(z[k, b])
        sign, expected = torch.linalg.slogdet(jacobian)
        torch.testing.assert_close(log_det[k, b], expected, rtol=1e-9, atol=1e-10)
        assert sign > 0 or name in INVERTIBLE  # only reflections and reversals turn space round
        torch.testing.assert_close(flow(z[k, b : b + 1], own)[0][0], moved[k, b])  # each image has its own context


@pytest.mark.parametrize("name", INVERTIBLE)
def test_inverse_undoes_the_flow(name: str) -> None:
    flow = made(name, 5)
    assert isinstance(flow, InvertibleFlow)
    z, context = randn(4, 3, 5), context_of(flow, 3)
    moved, log_det = flow(z, context)
    back, log_det_back = flow.inverse(moved, context)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", FLOWS)
def test_a_normal_pushed_forward_has_a_density_of_mass_one(name: str) -> None:
    """With z on a grid, the images tile the plane: the density at each, times the area of its cell, sums to 1.

    The cells' areas come from the images of their corners, not from the log-determinant.
    """
    flow = made(name, 2)
    context = context_of(flow, 1, seed=3)
    n, reach = 301, 6.0
    axis = torch.linspace(-reach, reach, n, dtype=F64)
    corners = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)
    centre = torch.stack(torch.meshgrid(*2 * [(axis[1:] + axis[:-1]) / 2], indexing="ij"), -1).reshape(-1, 1, 2)
    with torch.no_grad():
        images = flow(corners, context)[0].reshape(n, n, 2)
        log_det = flow(centre, context)[1].reshape(n - 1, n - 1)
    one, two = images[1:, 1:] - images[:-1, :-1], images[:-1, 1:] - images[1:, :-1]
    area = 0.5 * (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0])
    assert (area > 0).all() or (area < 0).all()  # one to one: no cell is folded over
    log_density = -0.5 * centre.square().sum(-1).reshape(n - 1, n - 1) - math.log(2 * math.pi) - log_det
    assert (log_density.exp() * area.abs()).sum().item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", ["planar", "sylvester", "sylvester, triangular", "sylvester, some columns"])
def test_a_context_of_zeros_is_the_identity_and_still_learns(name: str) -> None:
    flow = FLOWS[name](4).double()
    context = torch.zeros(3, flow.context_size, dtype=F64, requires_grad=True)
    z = randn(2, 3, 4)
    moved, log_det = flow(z, context)
    torch.testing.assert_close(moved, z)
    torch.testing.assert_close(log_det, torch.zeros(2, 3, dtype=F64))
    near = 1e-9 * randn(3, flow.context_size)
    torch.testing.assert_close(flow(z, near)[0], z, rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad(moved.sum() + log_det.sum(), context)
    assert gradient.isfinite().all()


def test_networks_start_where_they_are_said_to() -> None:
    z = randn(2, 3, 4)
    turned = z.flip(-1)
    for flow in (Coupling(4, n_steps=3, width=8).double(), MaskedAutoregressive(4, n_steps=2, width=8).double()):
        moved, log_det = flow(z)
        torch.testing.assert_close(moved, turned)
        torch.testing.assert_close(log_det, torch.zeros(2, 3, dtype=F64))
    moved, log_det = InverseAutoregressive(4, n_steps=2, width=8).double()(z)
    open_ = 1 / (1 + math.exp(-2))
    half = InverseAutoregressive(1, n_steps=1, width=8).double()
    half.steps[0].last.bias.data = torch.tensor([-2.0, 3.0], dtype=F64)  # the gate half open, towards 3
    torch.testing.assert_close(half(torch.full((1, 1), 5.0, dtype=F64))[0].item(), 4.0)
    torch.testing.assert_close(moved, open_**2 * turned)
    torch.testing.assert_close(log_det, torch.full((2, 3), 8 * math.log(open_), dtype=F64))


@pytest.mark.parametrize("d", [1, 2, 7])
def test_masks_let_every_output_see_all_inputs_before_it_and_no_other(d: int) -> None:
    network = MaskedNetwork(d, 3, 2, width=13).double()
    for i, p in enumerate(network.parameters()):
        p.data = randn(*p.shape, seed=i)
    context = randn(1, 3)
    jacobian = torch.func.jacrev(lambda z: network(z[None], context)[0])(randn(d))  # (2, D, D)
    before = torch.ones(d, d).tril(-1).bool()
    for output in jacobian:
        assert (output[before] != 0).all()
        assert (output[~before] == 0).all()
    of_context = torch.func.jacrev(lambda c: network(randn(1, d), c)[0])(context)
    assert (of_context != 0).all()  # the first output too, which sees no input
    with pytest.raises(ValueError, match="at least z_dim = 14, got 13"):
        MaskedNetwork(14, 0, 2, width=13)


def test_reflections_keep_lengths_and_as_many_as_dimensions_make_any_rotation() -> None:
    flow = Householder(4, n_steps=4).double()
    z, context = randn(5, 2, 4), randn(2, flow.context_size, seed=1)
    torch.testing.assert_close(flow(z, context)[0].norm(dim=-1), z.norm(dim=-1))
    rotation = torch.linalg.qr(randn(4, 4, seed=2)).Q
    vectors, rest = [], rotation
    for _ in range(4):  # peel reflections off: each carries one more basis vector to itself
        column = len(vectors)
        v = rest[:, column] - torch.eye(4, dtype=F64)[column]
        v = v if v.norm() > 1e-9 else torch.zeros_like(v)
        vectors.append(v)
        rest = rest - 2 * torch.outer(v, v @ rest) / (v @ v).clamp_min(1e-300)
    torch.testing.assert_close(rest, torch.eye(4, dtype=F64))
    moved = flow(z, torch.cat(list(reversed(vectors))).expand(2, -1))[0]
    torch.testing.assert_close(moved, z @ rotation.T)


def test_saturated_steps_stay_finite_in_float32() -> None:
    for flow in (Planar(3, n_steps=2), Sylvester(3, n_steps=2)):
        context = 50 * randn(64, flow.context_size).float().requires_grad_()
        moved, log_det = flow(randn(2, 64, 3).float(), context)
        assert moved.isfinite().all()
        assert log_det.isfinite().all()
        assert torch.autograd.grad(moved.sum() + log_det.sum(), context)[0].isfinite().all()


def test_steps_at_the_edge_of_folding_stay_finite_in_float32() -> None:
    z = torch.zeros(1, 1, 2)  # where tanh is steepest
    planar = torch.tensor([[-100.0, 0.0, 2.0, 0.0, 0.0]], requires_grad=True)
    sylvester = torch.tensor([[50.0, 50.0, -50.0, -50.0, *[0.0] * 4]], requires_grad=True)
    for flow, context in ((Planar(2, n_steps=1), planar), (Sylvester(2, n_steps=1, reflections=0), sylvester)):
        moved, log_det = flow(z, context)
        assert log_det.isfinite().all()
        assert log_det.item() < -5
        assert torch.autograd.grad(moved.sum() + log_det.sum(), context)[0].isfinite().all()


@pytest.mark.parametrize("name", FLOWS)
def test_many_flows_at_once_move_what_each_moves(name: str) -> None:
    flows = [FLOWS[name](4).double() for _ in range(2)]
    for flow in flows:
        for i, p in enumerate(flow.parameters()):
            p.data = p.data + 0.1 * randn(*p.shape, seed=i)
    context = context_of(flows[0], 3)
    z = randn(2, 5, 3, 4)
    parameters, buffers = torch.func.stack_module_state(flows)

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.func.functional_call(flows[0], (parameters, buffers), (z, context))

    moved, log_det = torch.func.vmap(one)(parameters, buffers, z)
    for i in range(2):
        torch.testing.assert_close((moved[i], log_det[i]), flows[i](z[i], context))


@pytest.mark.parametrize("name", ["masked autoregressive", "coupling"])
def test_prior_by_a_flow_integrates_to_one_and_its_samples_have_its_density(name: str) -> None:
    flow = made(name, 2)
    assert isinstance(flow, InvertibleFlow)
    prior = FlowDensity(flow)
    axis = torch.linspace(-25, 25, 701, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = prior.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        assert density.sum().item() == pytest.approx(1, abs=3e-3)
        mean = (density[:, None] * grid).sum(0)
        spread = (density[:, None] * (grid - mean).square()).sum(0).sqrt()
        draws = prior.sample(randn(4000, 2, seed=4))
        assert ((draws.mean(0) - mean).abs() < 4 * spread / 4000**0.5).all()
        log_p = prior.log_prob(grid)
        entropy = -(density * log_p).sum()
        own = -prior.log_prob(draws)
        assert abs(own.mean() - entropy) < 4 * own.std() / 4000**0.5


@pytest.mark.parametrize("flow", [Coupling, MaskedAutoregressive])
def test_prior_by_a_flow_learns_two_narrow_modes(flow: type[InvertibleFlow]) -> None:
    torch.manual_seed(0)
    prior = FlowDensity(flow(2, n_steps=4, width=32))  # type: ignore[call-arg]
    optimiser = torch.optim.Adam(prior.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(1)
    side = torch.tensor([2.0, -1.0])

    def draw(n: int) -> Tensor:
        sign = torch.randint(0, 2, (n, 1), generator=generator) * 2 - 1
        return sign * side + 0.3 * torch.randn(n, 2, generator=generator)

    for _ in range(400):
        loss = -prior.log_prob(draw(128)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    entropy = math.log(2) + math.log(2 * math.pi * math.e * 0.09)
    with torch.no_grad():
        assert entropy - 0.1 < -prior.log_prob(draw(4000)).mean() < entropy + 0.3
        samples = prior.sample(torch.randn(2000, 2, generator=generator))
    assert 0.4 < (samples[:, 0] > 0).float().mean() < 0.6
    assert ((samples.sign()[:, :1] * side - samples).norm(dim=1) < 1.2).float().mean() > 0.9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planar(0), "at least 1, got 0 and 8"),
        (lambda: Householder(3, n_steps=0), "at least 1, got 3 and 0"),
        (lambda: Sylvester(3, columns=4), "columns from 1 to z_dim = 3"),
        (lambda: Coupling(1), "needs 2 dimensions, one to scale the other, got 1"),
        (lambda: InverseAutoregressive(3, -1), "got 3, 4 and -1"),
        (lambda: FlowDensity(Coupling(4, 3)), "wants 3 numbers of context"),
    ],
)
def test_flows_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
