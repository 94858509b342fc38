"""Published feature networks. Stand-ins of the packages' shape, with random weights: both packages want torchvision."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaes.errors import UserError
from vaes.evaluate.features import pixel_features
from vaes.evaluate.likeness import find_distance
from vaes.evaluate.published_features import published
from vaes.objectives import Context, Drawn
from vaes.objectives.terms import Perceptual


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(x).relu()
        return a, self.b(a).relu()


class LPIPS(nn.Module):
    """As lpips.LPIPS is built; ``distance`` is what its forward pass computes."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert (net, verbose) == ("vgg", False)
        self.scaling_layer, self.net = nn.Module(), Trunk()
        self.scaling_layer.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.scaling_layer.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])
        lins = [nn.Conv2d(c, 1, 1, bias=False) for c in (4, 6)]
        self.lins = nn.ModuleList(nn.ModuleDict({"model": nn.Sequential(nn.Dropout(), lin)}) for lin in lins)
        for lin in self.lins:
            lin.model = lin["model"]  # type: ignore[index]

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=x.dtype)
        maps = [self.net(((2 * each - 1) - self.scaling_layer.shift) / self.scaling_layer.scale) for each in (x, y)]
        for a, b, lin in zip(*maps, self.lins, strict=True):
            a, b = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (a, b))
            total = total + lin.model[-1]((a - b).square()).mean((1, 2, 3))
        return total


@pytest.fixture
def lpips(monkeypatch: pytest.MonkeyPatch) -> list[LPIPS]:
    made: list[LPIPS] = []

    def make(**options: Any) -> LPIPS:
        torch.manual_seed(0)
        made.append(LPIPS(**options))
        return made[-1]

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=make))
    return made


@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_the_distance_of_its_own_package_and_has_a_gradient(lpips: list[LPIPS], channels: int) -> None:
    term = Perceptual((0.0, 1.0), lambda name: published(name, (channels, 12, 12)), features="lpips").double()
    numbers = torch.Generator().manual_seed(1)
    x, y = torch.rand(2, 2, channels, 12, 12, dtype=torch.float64, generator=numbers)
    theirs = lpips[0].double().distance(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1))
    torch.testing.assert_close(term.distance(x, y), theirs, rtol=1e-3, atol=1e-6)  # lengths have another floor
    splits: Any = SimpleNamespace(train=SimpleNamespace(shape=(channels, 12, 12)))
    measured = find_distance("lpips", pixel_features, splits, None)
    assert (measured.name, measured.features) == ("lpips", "vgg")
    torch.testing.assert_close(measured._replace(maps=measured.maps.double()).of(x, y), term.distance(x, y))
    assert not list(term.parameters())
    trace: Any = SimpleNamespace(x=x, x_mean=None)

    def loss(y: Tensor) -> Tensor:
        trace.x_mean = y[None]
        return term(trace, Drawn(x), Context({}))

    assert torch.autograd.gradcheck(loss, y.requires_grad_())


def test_timm_gives_the_maps_of_its_stages_standardised(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    trunk, asked = Trunk(), []

    def create_model(name: str, **options: Any) -> Trunk:
        asked.append((name, options))
        if name not in found:
            raise RuntimeError(f"Unknown model ({name})")
        return trunk

    data = SimpleNamespace(resolve_model_data_config=lambda made: {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)})
    found = {"tiny": SimpleNamespace(fixed_input_size=False), "fixed": SimpleNamespace(fixed_input_size=True)}
    timm = SimpleNamespace(create_model=create_model, data=data, get_pretrained_cfg=found.get)
    monkeypatch.setitem(sys.modules, "timm", timm)
    _, maps = published("timm:tiny", (3, 8, 8))
    assert asked == [("tiny", {"pretrained": True, "features_only": True})]
    x = torch.rand(2, 3, 8, 8)
    by_hand = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate([(0.5, 0.2), (0.4, 0.3), (0.3, 0.4)])], 1)
    for ours, theirs in zip(maps(x), trunk(by_hand), strict=True):
        torch.testing.assert_close(ours, theirs)
    trunk.output_fmt = "NHWC"  # type: ignore[assignment]
    for ours, as_it_is in zip(published("timm:tiny", (3, 8, 8)).maps(x), trunk(by_hand), strict=True):
        torch.testing.assert_close(ours, as_it_is.permute(0, 3, 1, 2))
    published("timm:fixed", (3, 8, 16))
    assert asked[-1] == ("fixed", {"pretrained": True, "features_only": True, "img_size": (8, 16)})
    with pytest.raises(UserError, match=r"timm:other: no such network, or its weights cannot be had \(Unknown model"):
        published("timm:other", (3, 8, 8))
    with pytest.raises(UserError, match="sees images of 1 or 3 channels, and these have 4"):
        published("timm:tiny", (4, 8, 8))
    with pytest.raises(UserError, match="timm:tiny does not take images of 0x0"):
        published("timm:tiny", (3, 0, 0))


@pytest.mark.parametrize("kind", ["lpips", "timm:resnet18"])
def test_an_extra_that_is_missing_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind.partition(":")[0], None)
    with pytest.raises(UserError, match=rf"pip install 'vaes\[{kind.partition(':')[0]}\]'"):
        published(kind, (3, 32, 32))
