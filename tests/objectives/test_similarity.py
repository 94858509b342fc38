"""Terms of how alike images look."""

import math

import pytest
import torch
from parts import randn, small_vae
from torch import Tensor, nn

from vaes import functional as F
from vaes.config import build_model, build_objective, load
from vaes.errors import UserError
from vaes.likelihoods import Gaussian
from vaes.methods import METHODS
from vaes.model import Trace
from vaes.objectives import ELBO, Context, Drawn, Noise, Objective
from vaes.objectives.terms import MSSSIM, Perceptual

NONE, CONTEXT = Drawn(torch.zeros(0)), Context({"rate": 1.0})
RANGE = (-1.0, 1.0)


def pair(n: int, c: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and noisy ones."""
    x = randn(n, c, h, w).sigmoid()
    return x, (0.8 * x + 0.2 * randn(n, c, h, w, seed=1).sigmoid())


def by_windows(x: Tensor, y: Tensor, scales: int, window: int) -> Tensor:
    """The paper's product for one plane each, window by window."""
    half, sigma = window // 2, 1.5 * window / 11
    offset = range(-half, half + 1)
    rows = [[math.exp(-(i * i + j * j) / (2 * sigma**2)) for j in offset] for i in offset]
    weight = torch.tensor(rows, dtype=torch.float64)
    weight /= weight.sum()
    powers = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)[:scales]
    total = sum(powers) if scales < 5 else 1.0
    found = torch.ones((), dtype=torch.float64)
    for scale, power in enumerate(powers):
        if scale:
            x, y = (a[: len(a) // 2 * 2, : a.shape[1] // 2 * 2] for a in (x, y))
            x, y = ((a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / 4 for a in (x, y))
        a, b = (p.unfold(0, window, 1).unfold(1, window, 1) for p in (x, y))
        ma, mb = ((weight * p).sum((2, 3), keepdim=True) for p in (a, b))
        va, vb = (weight * (a - ma) ** 2).sum((2, 3)), (weight * (b - mb) ** 2).sum((2, 3))
        each = (2 * (weight * (a - ma) * (b - mb)).sum((2, 3)) + 9e-4) / (va + vb + 9e-4)
        if scale == scales - 1:
            ma, mb = ma[..., 0, 0], mb[..., 0, 0]
            each = each * (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
        found = found * each.mean() ** (power / total)
    return found


@pytest.mark.parametrize(
    ("h", "w", "scales", "window"),
    [(177, 190, 5, 11), (90, 97, 4, 11), (44, 60, 3, 11), (28, 28, 2, 11), (11, 30, 1, 11), (8, 9, 1, 7), (5, 5, 1, 5)],
)
def test_ms_ssim_is_the_papers_product(h: int, w: int, scales: int, window: int) -> None:
    assert F.ms_ssim_scales(min(h, w)) == (scales, window)
    x, y = pair(2, 2, h, w)
    wanted = [sum(by_windows(x[i, c], y[i, c], scales, window) for c in range(2)) / 2 for i in range(2)]
    torch.testing.assert_close(F.ms_ssim(x, y), torch.stack(wanted), rtol=1e-12, atol=0)  # type: ignore[arg-type]
    torch.testing.assert_close(F.ms_ssim(255 * x, 255 * y, 255.0), F.ms_ssim(x, y))


@pytest.mark.parametrize(("h", "w", "theirs"), [(176, 192, 0.95147943091419), (192, 208, 0.9509617192139471)])
def test_ms_ssim_is_that_of_pytorch_msssim_1_0_0(h: int, w: int, theirs: float) -> None:
    """Whose window is in single precision. torchmetrics 1.9.0 has the same contrast-structures, and at the last scale
    takes a luminance of mirrored borders."""
    i, j = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    x = (0.5 + 0.3 * torch.sin(i / 3) * torch.cos(j / 7) + 0.2 * torch.sin(i * j / 400))[None, None]
    y = 0.9 * x + 0.05 * torch.cos(1.7 * i + 0.9 * j)
    found = F.ms_ssim(torch.cat([x, 1 - x, x * x], 1), torch.cat([y, 1 - y * y, y], 1))
    assert float(found) == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize("size", [8, 28])
def test_ms_ssim_is_one_on_equal_images_and_has_a_gradient_everywhere(size: int) -> None:
    x, y = pair(2, 1, size, size)
    assert torch.equal(F.ms_ssim(x, x), torch.ones(2, dtype=torch.float64))
    assert (F.ms_ssim(x, y) < 1).all()
    torch.autograd.gradcheck(lambda image: F.ms_ssim(x, image), y.requires_grad_())
    for image in (1 - x, torch.zeros_like(x)):  # negatives, whose powers are no numbers; flat
        (gradient,) = torch.autograd.grad(F.ms_ssim(x, image.requires_grad_()).sum(), image)
        assert gradient.isfinite().all()


def trace(k: int = 2) -> Trace:
    """Two samples each of three images in [-1, 1]."""
    model = small_vae((1, 12, 12), likelihood=Gaussian()).double()
    x = 2 * pair(3, 1, 12, 12)[0] - 1
    found: Trace = model(x, randn(k, 3, 3, seed=2), frozenset({"x_mean"}))
    assert found.x_mean is not None
    assert torch.equal(found.x_mean, model.decode(found.z))
    assert model(x, randn(k, 3, 3, seed=2)).x_mean is None
    return found


class Twice(nn.Module):
    """A small network with all that a larger one might hold: statistics, dropout, two layers of weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.double()

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.drop(self.norm(self.a(x))).tanh()
        return [fine, self.b(fine).relu()]


def perceptual(network: nn.Module | None = None) -> Perceptual:
    return Perceptual(RANGE, lambda name: (name, network or Twice()), features="twice")


def test_the_perceptual_distance_is_the_papers_sum() -> None:
    t, network = trace(), Twice().eval()
    assert t.x_mean is not None
    values = []
    for means in t.x_mean:
        for x, y in zip(t.x, means, strict=True):
            value = torch.zeros((), dtype=torch.float64)
            for a, b in zip(network((x[None] + 1) / 2), network((y[None] + 1) / 2), strict=True):
                _, _, h, w = a.shape
                for i in range(h):
                    for j in range(w):
                        u, v = a[0, :, i, j], b[0, :, i, j]
                        u, v = (f / (f.square().sum() + 1e-6).sqrt() for f in (u, v))
                        value = value + (u - v).square().sum() / (h * w)
            values.append(value)
    torch.testing.assert_close(perceptual()(t, NONE, CONTEXT), torch.stack(values).mean())


@pytest.mark.parametrize("term", [MSSSIM((1, 12, 12), RANGE), perceptual()], ids=["ms_ssim", "perceptual"])
def test_terms_of_images(term: MSSSIM | Perceptual) -> None:
    t = trace()
    assert t.x_mean is not None
    mean = t.x_mean.detach().requires_grad_()
    term.train()
    assert float(term(t._replace(x_mean=t.x[None].expand_as(mean)), NONE, CONTEXT)) == 0
    assert term(t, NONE, CONTEXT).detach() > 0.01
    torch.autograd.gradcheck(lambda y: term(t._replace(x_mean=y), NONE, CONTEXT), mean)
    for each in (t.x_mean[:1], t.x_mean[1:]):
        assert term(t._replace(x_mean=each), NONE, CONTEXT) != term(t, NONE, CONTEXT)
    halves = [term(t._replace(x_mean=each), NONE, CONTEXT) for each in (t.x_mean[:1], t.x_mean[1:])]
    torch.testing.assert_close(torch.stack(halves).mean(), term(t, NONE, CONTEXT))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(term(t, NONE, CONTEXT), term(t, NONE, CONTEXT), rtol=0, atol=0)
        low = t._replace(x=t.x.float(), x_mean=t.x_mean.bfloat16())
        assert term.float()(low, NONE, CONTEXT).dtype == torch.float32
    term.double()


def test_the_network_is_a_constant() -> None:
    given = Twice()
    term = perceptual(given)
    objective = Objective(small_vae((1, 12, 12)).double(), ELBO(), {"perceptual": term}).train()
    assert not list(term.parameters())
    assert list(term.state_dict()) == ["_extra_state"]
    before = {name: tensor.clone() for name, tensor in term.named_buffers()}
    assert before.keys() == {f"network.{name}" for name in given.state_dict()}
    noise = Noise(randn(1, 3, 3), randn(3, 3))
    loss = objective(trace().x, noise, Context({"rate": 1.0, "perceptual": 5.0}))["loss"]
    loss.backward()
    assert all(p.grad is None for p in given.parameters())
    assert all(p.grad is not None for p in objective.model.decoder.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in term.named_buffers())  # the statistics too
    assert all(p.requires_grad for p in given.parameters())  # what was given is as it was


def test_a_checkpoint_of_other_features_is_refused() -> None:
    other = Twice()
    with torch.no_grad():
        other.b.bias[0] += 1e-9
    state = perceptual().state_dict()
    perceptual().load_state_dict(state)
    with pytest.raises(UserError, match=r"in the features of twice .* the checkpoint was trained with others"):
        perceptual(other).load_state_dict(state)


@pytest.mark.parametrize(
    ("term", "options", "shape", "message"),
    [
        ("ms_ssim", {}, (1, 4, 30), "objective.terms.ms_ssim: a side of 4 pixels is too small"),
        ("perceptual", {"features": "classifier"}, (1, 8, 8),
         "objective.terms.perceptual: features: classifier needs images, which are not at hand here"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_built(
    term: str, options: dict[str, str], shape: tuple[int, int, int], message: str
) -> None:
    config = load({"model": {"network": "mlp"}, "objective": {"terms": {term: {"weight": 1.0, **options}}}})
    with pytest.raises(UserError) as caught:
        build_objective(config, build_model(config, shape), shape)
    assert message in str(caught.value)


@pytest.mark.parametrize("row", ["ms_ssim", "perceptual"])
def test_a_unit_counts_as_one_of_squared_error_and_none_is_the_vae(row: str) -> None:
    weights = METHODS[f"{row}_vae"].weights
    assert weights(784) == {"rate": 1.0, row: 392.0}
    assert weights(784, beta=0.5, gamma=0.0) == {"rate": 0.5, row: 0.0}
    with pytest.raises(ValueError, match="gamma: -1 is not right"):
        weights(784, gamma=-1)


def test_how_many_scales_there_is_room_for_is_said() -> None:
    assert MSSSIM((3, 176, 200), RANGE).note == ""
    assert MSSSIM((1, 28, 28), RANGE).note == "images of 28x28 have room for 2 of 5 scales, windows of 11x11"
