"""Terms for codes that are grids, and the wavelet's."""

from typing import Any

import pytest
import torch
from parts import randn
from torch import Tensor, nn

from vaes import functional as F
from vaes.likelihoods import Gaussian
from vaes.model import VAE, Trace
from vaes.objectives import Context, Drawn, Objective, Reconstruction
from vaes.objectives.terms import Alignment, Equivariance, Wavelet
from vaes.objectives.terms.grids import turned
from vaes.posteriors import Point
from vaes.priors import StandardNormal

NONE, RANGE = Drawn(torch.zeros(0)), (-1.0, 1.0)


class Pixels(nn.Module):
    """Each place of an image by itself: what moves with whatever is turned or averaged."""

    def __init__(self, mix: Tensor, *, flat: bool, broken: bool = False) -> None:
        super().__init__()
        self.mix, self.flat, self.broken = nn.Parameter(mix), flat, broken

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("oc,nchw->nohw", self.mix, x)
        if self.broken:  # a number of its own for each row
            y = y + torch.arange(y.shape[2], dtype=y.dtype)[:, None]
        return y.flatten(1) if self.flat else y


def pair(*, broken: bool) -> tuple[Objective, Equivariance]:
    mix = torch.tensor([[2.0, 0.5], [0.0, 1.0]], dtype=torch.float64)
    encoder, decoder = Pixels(mix, flat=True), Pixels(mix.inverse(), flat=False, broken=broken)
    model = VAE(encoder, decoder, Point(), StandardNormal((2, 4, 6)), Gaussian(link="identity"))  # type: ignore[arg-type]
    term = Equivariance((2, 4, 6))
    return Objective(model, Reconstruction(), {"equivariance": term}), term


def test_a_code_that_moves_with_the_image_has_no_error_and_another_has() -> None:
    x = randn(3, 2, 4, 6)
    for broken in (False, True):
        made, term = pair(broken=broken)
        trace = made.model(x, torch.zeros(1, 3, 2, 4, 6, dtype=torch.float64), frozenset({"x_mean"}))
        found = [term(trace, NONE._replace(model=made.model), Context({}, step=step)).item() for step in range(16)]
        assert max(found) > 1 if broken else max(found) < 1e-20
        assert found[0] == found[15]  # the moves of 15 steps come again


def test_a_move_is_a_turn_and_means_of_areas() -> None:
    x = randn(1, 1, 4, 4)
    torch.testing.assert_close(turned(x, 1, 0.5), x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).rot90(1, (2, 3)))
    assert turned(x, 0, 0.25).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("sides", [(8, 16), (24, 40)])
def test_the_wavelet_is_orthonormal(sides: tuple[int, int]) -> None:
    x, y = randn(3, 2, *sides), randn(3, 2, *sides, seed=1)
    a, b = (torch.cat([band.flatten() for band in F.haar(each, 3)]) for each in (x, y))
    assert len(a) == x.numel()
    torch.testing.assert_close((a - b).square().sum(), (x - y).square().sum())
    torch.testing.assert_close(a @ b, (x * y).sum())
    *details, low = F.haar(torch.ones(1, 1, *sides, dtype=torch.float64), 3)
    assert all(not band.any() for band in details)
    assert (low == 8).all()


def traced(**fields: Any) -> Trace:
    x = fields.pop("x")
    return Trace(x, **{**dict.fromkeys(("z", "y", "log_px", "log_pz"), x), "log_q": None, "rate": None, "mean": None,
                       "logvar": None, **fields})  # fmt: skip


def test_the_wavelet_term_sees_edges_and_no_levels() -> None:
    x, term = randn(2, 1, 9, 12).tanh(), Wavelet((1, 9, 12), RANGE, levels=2)
    assert float(term(traced(x=x, x_mean=x[None]), NONE, Context({}))) == 0
    assert float(term(traced(x=x, x_mean=x[None] + 0.3), NONE, Context({}))) < 1e-9
    y = (x + 0.1 * randn(2, 1, 9, 12, seed=2))[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda y: term(traced(x=x, x_mean=y), NONE, Context({})), y)
    with pytest.raises(ValueError, match="levels must be 1 or more"):
        Wavelet((1, 9, 12), RANGE, levels=4)


class Maps(nn.Module):
    """Two maps, of which the last is the coarser."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, padding=1).double(), nn.Conv2d(3, 5, 3, 2, padding=1).double()

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.a(x.to(self.a.weight.dtype))
        return [a, self.b(a)]


def alignment(**options: float) -> Alignment:
    torch.manual_seed(0)
    maps = Maps()
    return Alignment((2, 4, 4), (1, 8, 8), RANGE, lambda name: ("maps", maps), **options).double()


def test_alignment_is_the_papers_sum_over_places_and_pairs() -> None:
    term = alignment(cosine_margin=0.1, distance_margin=0.05)
    x, z = randn(3, 1, 8, 8), randn(1, 3, 2, 4, 4, seed=1).requires_grad_()
    found = term(traced(x=x, z=z), NONE, Context({}))
    features, near, alike = term.network((x + 1) / 2)[-1].detach(), [], []
    cos = torch.nn.functional.cosine_similarity
    for n in range(3):
        f, code, projected = (m.flatten(1).T for m in (features[n], z[0, n], term.project(z[0])[n]))
        for i in range(16):
            near.append((1 - 0.1 - cos(projected[i], f[i], 0)).clamp_min(0))
            for j in range(16):
                alike.append(((cos(code[i], code[j], 0) - cos(f[i], f[j], 0)).abs() - 0.05).clamp_min(0))
    torch.testing.assert_close(found, torch.stack(near).mean() + torch.stack(alike).mean())
    found.backward()
    assert term.project.weight.grad is not None
    assert z.grad is not None
    assert [name for name, _ in term.named_parameters()] == ["project.weight"]
    assert {*term.state_dict()} == {"project.weight", "_extra_state"}
    assert float(alignment(cosine_margin=2.0, distance_margin=2.0)(traced(x=x, z=z), NONE, Context({}))) == 0


def test_codes_without_places_are_refused() -> None:
    with pytest.raises(ValueError, match="no places to turn or scale"):
        Equivariance((8,))
    with pytest.raises(ValueError, match="no places to align"):
        Alignment((8,), (1, 8, 8), RANGE, lambda name: ("maps", Maps()))
