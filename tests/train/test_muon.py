import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from trainings import objective, settings, splits, weighting

from vaes.errors import UserError
from vaes.train import checkpoint
from vaes.train.loop import fit
from vaes.train.muon import ITERATIONS, QUINTIC, Muon, orthogonalize

torch.manual_seed(0)


def polar(matrix: Tensor, singular: Tensor | None = None) -> Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ torch.diag(torch.ones_like(s) if singular is None else singular) @ v


@pytest.mark.parametrize("shape", [(5, 5), (3, 40), (40, 3), (1, 7), (7, 1)])
def test_orthogonalizing_is_the_quintic_applied_five_times_to_the_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    a, b, c = QUINTIC
    s = torch.linalg.svdvals(matrix) / matrix.norm()
    for _ in range(ITERATIONS):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalize(matrix), polar(matrix, s))


def test_singular_values_come_out_near_one_in_single_precision() -> None:
    scales = torch.logspace(0, -2, 64)
    u, _, v = torch.linalg.svd(torch.randn(64, 200), full_matrices=False)
    for size in (1e-12, 1.0, 1e12):
        found = torch.linalg.svdvals(orthogonalize(u @ torch.diag(scales * size) @ v))
        assert found.min() > 0.67
        assert found.max() < 1.22


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_a_step_on_a_convolution_is_the_orthogonalized_nesterov_momentum_at_the_size_of_adams() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(torch.randn(6, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=layout))
        gradients = [torch.randn(6, 3, 4, 4, dtype=torch.float64) for _ in range(3)]
        optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
        expected, momentum = weight.detach().clone(), torch.zeros(6, 48, dtype=torch.float64)
        for gradient in gradients:
            weight.grad = gradient.contiguous(memory_format=layout)
            optimizer.step()
            momentum = 0.9 * momentum + 0.1 * gradient.flatten(1)
            step = orthogonalize(0.1 * gradient.flatten(1) + 0.9 * momentum)
            expected = expected * (1 - 0.1 * 0.01) - 0.1 * 0.2 * math.sqrt(48) * step.view_as(expected)
            torch.testing.assert_close(weight.detach(), expected)


def test_a_step_of_a_large_weight_is_as_long_as_adams_usual_one() -> None:
    weight = nn.Parameter(torch.zeros(128, 64, 4, 4))
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=1.0).step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_biases_and_gains_get_adams_steps() -> None:
    ours, theirs = (nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2))
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}
    optimizers = Muon([ours], **options), torch.optim.AdamW([theirs], **options, fused=True)
    for _ in range(3):
        gradient = torch.randn(5)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lr", [0.01, (0.01, 0.02, 0.04)])
@pytest.mark.parametrize("matrix", [True, False])
def test_a_stacked_step_is_that_of_each_member_alone(lr: float | tuple[float, ...], matrix: bool) -> None:
    shapes = [(2, 2), (5, 3), (3, 5), (6, 3, 4, 4), (4,), ()]
    stacks = [nn.Parameter(torch.randn(3, *shape, dtype=torch.float64)) for shape in shapes]
    members = [[nn.Parameter(stack[i].detach().clone()) for stack in stacks] for i in range(3)]
    options = {"betas": (0.8, 0.95), "weight_decay": 0.1}
    each = lr if isinstance(lr, tuple) else (lr,) * 3
    own = torch.tensor(lr, dtype=torch.float64) if isinstance(lr, tuple) else lr
    together = Muon([{"params": stacks, "matrix": matrix, "stacked": True, "lr": own}], lr=0.0, **options)
    alone = [Muon([{"params": m, "matrix": matrix}], lr=one, **options) for m, one in zip(members, each, strict=True)]
    for found in (0.0, 1.0, 0.0):  # the second finds an infinity
        for optimizer in (together, *alone):
            optimizer.found_inf = torch.tensor(found)
        for k, stack in enumerate(stacks):
            stack.grad = torch.randn_like(stack)
            for i, member in enumerate(members):
                member[k].grad = stack.grad[i].clone()
        for optimizer in (together, *alone):
            optimizer.step()
    for k, stack in enumerate(stacks):
        torch.testing.assert_close(stack.detach(), torch.stack([member[k].detach() for member in members]))


def test_a_parameter_without_a_gradient_stays() -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    optimizer = Muon([weight, bias], lr=1.0)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2))
    assert torch.equal(bias, torch.ones(2))
    assert not optimizer.state


def test_a_step_that_found_an_infinity_changes_nothing() -> None:
    weight, bias = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(2))
    optimizer = Muon([weight, bias], lr=0.1, weight_decay=0.1)

    def step(gradient: float, found: float) -> list[Tensor]:
        weight.grad, bias.grad = torch.full((3, 2), gradient), torch.full((2,), gradient)
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        states = [value.clone() for state in optimizer.state.values() for value in state.values()]
        return [weight.detach().clone(), bias.detach().clone(), *states]

    first = step(1.0, 0.0)
    for before, after in zip(first, step(float("inf"), 1.0), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(step(1.0, 0.0)[0], first[0])


def test_a_training_goes_on_with_the_optimiser_that_it_had(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(objective(), weighting(), splits(), settings(n_steps=2), run)
    resume = checkpoint.read(checkpoint.newest_folder(run))
    with pytest.raises(UserError, match=r"train\.optimizer: adam where the checkpoint of step 2 was trained with muon"):
        fit(objective(), weighting(), splits(), settings(optimizer="adam"), run, resume=resume, within=True)
