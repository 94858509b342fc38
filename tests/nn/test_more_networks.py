"""The residual, the published and the gated networks, and what holds for all."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from vaes.config.own import OWN
from vaes.config.registry import NETWORKS
from vaes.nn import GatedConvDecoder, GatedConvEncoder, LocatelloDecoder, LocatelloEncoder, ResNetDecoder, ResNetEncoder
from vaes.nn.gated_conv import GatedConv
from vaes.nn.gated_mlp import GatedLinear
from vaes.nn.resnet import Block

SMALL = {
    "autoencoder_kl": {"ch": 4, "ch_mult": (1, 2), "groups": 2, "attention": True},
    "conv": {"dim": 4, "dim_mults": (1, 2)},
    "gated_conv": {"dim": 4},
    "gated_mlp": {"hidden": (9, 8)},
    "mlp": {"hidden": (9, 8)},
    "resnet": {"dim": 4, "dim_mults": (1, 2), "blocks": 2},
    "locatello": {},
}
NEW = ("gated_conv", "gated_mlp", "resnet")


def pair(kind: str, shape: tuple[int, int, int], z_dim: int = 3, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    network = NETWORKS[kind]
    if network.grid is not None:
        code = network.grid(shape, 3, **SMALL[kind])
        n = math.prod(code)
        return network.encoder(shape, (n, n), **SMALL[kind]), network.decoder(code, shape, **SMALL[kind])
    return network.encoder(shape, (z_dim, z_dim), **SMALL[kind]), network.decoder(z_dim, shape, **SMALL[kind])


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 9), (28, 28), (33, 20)])
def test_any_size_goes_in_and_comes_out_with_a_gradient_everywhere(kind: str, size: tuple[int, int]) -> None:
    encoder, decoder = pair(kind, (2, *size))
    for name, parameter in encoder.named_parameters():
        parameter.data += 0.01 * torch.randn_like(parameter) * (parameter == 0)  # what begins at 0 stops gradients
        assert parameter.ndim, name
    for parameter in decoder.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter) * (parameter == 0)
    x = torch.randn(2, 2, *size, requires_grad=True)
    h = encoder(x)
    y = decoder(h[:, :3])
    assert h.shape == (2, 6)
    assert y.shape == x.shape
    assert y.is_contiguous()
    (h.square().sum() + y.square().sum()).backward()
    assert (x.grad != 0).all()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_residual_block_begins_as_the_identity_and_normalises_before_it_convolves(norm: str) -> None:
    block = Block(4, 4, norm).double()  # type: ignore[arg-type]
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(block(x), x)
    assert [type(layer).__name__ for layer in block.body] == [
        "Conv2d",
        {"group": "GroupNorm", "batch": "BatchNorm2d", "none": "Identity"}[norm],
        "ReLU",
        "Conv2d",
    ]
    wider = Block(4, 6, norm, stride=2).double()  # type: ignore[arg-type]
    assert wider.past is not None
    torch.testing.assert_close(wider(x), wider.past(wider.before(x)))


def test_images_do_not_see_each_other_under_group_norm() -> None:
    encoder = ResNetEncoder((1, 9, 9), (3, 3), dim=4).double()
    x = torch.randn(4, 1, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]))


@pytest.mark.parametrize("kwargs", [{"dim": 0}, {"dim_mults": ()}, {"dim_mults": (1, 0)}, {"blocks": 0}])
def test_senseless_sizes_are_refused(kwargs: dict) -> None:
    for build in (lambda: ResNetEncoder((1, 8, 8), (2, 2), **kwargs), lambda: ResNetDecoder(2, (1, 8, 8), **kwargs)):
        with pytest.raises(ValueError, match="must be positive"):
            build()
    with pytest.raises(ValueError, match="dim must be positive"):
        GatedConvEncoder((1, 8, 8), (2, 2), dim=0)


def test_the_disentanglement_library_s_networks_are_the_published_ones() -> None:
    encoder, decoder = LocatelloEncoder((3, 64, 64), (10, 10)), LocatelloDecoder(10, (3, 64, 64))
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    shapes = [tuple(layer.weight.shape) for layer in encoder.modules() if isinstance(layer, kinds)]
    convolutions = [(32, 3, 4, 4), (32, 32, 4, 4), (64, 32, 2, 2), (64, 64, 2, 2)]
    assert shapes == [*convolutions, (256, 1024), (10, 256), (10, 256)]
    shapes = [tuple(layer.weight.shape) for layer in decoder.modules() if isinstance(layer, kinds)]
    assert shapes == [(256, 10), (1024, 256), (64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, 3, 4, 4)]
    assert encoder(torch.zeros(2, 3, 64, 64)).abs().max() == 0  # no bias, whatever the weights
    assert decoder(torch.randn(2, 10)).shape == (2, 3, 64, 64)
    assert LocatelloDecoder(10, (1, 64, 64))(torch.randn(2, 10)).shape == (2, 1, 64, 64)
    for build in (lambda: LocatelloEncoder((1, 28, 28), (10, 10)), lambda: LocatelloDecoder(10, (1, 64, 32))):
        with pytest.raises(ValueError, match=r"published network for 64x64, got .*use kind conv"):
            build()


def test_a_gate_multiplies_each_output_by_a_sigmoid_of_its_own() -> None:
    linear, x = GatedLinear(3, 2).double(), torch.randn(5, 3, dtype=torch.float64)
    (w, v), (b, c) = linear.weight.chunk(2), linear.bias.chunk(2)
    torch.testing.assert_close(linear(x), (x @ w.T + b) * torch.sigmoid(x @ v.T + c))
    conv, image = GatedConv(2, 3, 5, stride=2).double(), torch.randn(4, 2, 7, 6, dtype=torch.float64)
    (w, v), (b, c) = conv.weight.chunk(2), conv.bias.chunk(2)
    value, gate = (nn.functional.conv2d(image, a, d, 2, 2) for a, d in ((w, b), (v, c)))
    torch.testing.assert_close(conv(image), value * torch.sigmoid(gate))


def test_the_gated_convolutions_are_the_published_ones() -> None:
    encoder, decoder = GatedConvEncoder((1, 28, 28), (40, 40)), GatedConvDecoder(40, (1, 28, 28))
    convolutions = [(c.out_channels // 2, c.kernel_size[0], c.stride[0]) for c in encoder.trunk[:-1]]
    assert convolutions == [(32, 7, 1), (32, 3, 2), (64, 5, 1), (64, 3, 2), (6, 3, 1)]
    assert encoder.head.in_features == 294
    assert [c.out_channels for c in decoder.net] == [128, 128, 128, 128, 1]
    assert decoder.planes[1].out_features == 2 * 784


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind not in OWN])
def test_seeds_stacked_are_the_seeds_one_by_one(kind: str) -> None:
    shape = (1, 64, 64) if kind == "locatello" else (1, 10, 12)
    x = torch.randn(4, *shape, dtype=torch.float64)
    models = [nn.Sequential(*(part.double() for part in pair(kind, shape, seed=seed))) for seed in range(3)]
    for model in models:
        code = (3,) if (grid := NETWORKS[kind].grid) is None else grid(shape, 3, **SMALL[kind])
        halves = nn.Sequential(nn.Unflatten(1, (2, math.prod(code))), nn.AvgPool2d((2, 1)), nn.Flatten())
        model.insert(1, nn.Sequential(*halves, nn.Unflatten(1, code)))
    bare = copy.deepcopy(models[0]).to("meta")

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return (functional_call(bare, (parameters, buffers), (x,)) - x).square().mean()

    stacked = vmap(grad(loss))(*stack_module_state(models))  # type: ignore[arg-type]
    for i, model in enumerate(models):
        (model(x) - x).square().mean().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(stacked[name][i], parameter.grad)
