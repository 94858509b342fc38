import copy

import pytest
import torch
from parts import randn
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.utils import parametrize

from vaes.config.own import OWN
from vaes.config.registry import NETWORKS
from vaes.nn import ConvDecoder, MLPDecoder, spectral_norm
from vaes.nn.spectral import SpectralNorm

AXES = {nn.Linear: 0, nn.Conv2d: 0, nn.ConvTranspose2d: 1}


def greatest(layer: nn.Module) -> float:
    """The largest singular value of a layer's weight, outputs as rows."""
    axis = next(axis for kind, axis in AXES.items() if isinstance(layer, kind))
    weight: torch.Tensor = layer.weight.detach().double()  # type: ignore[assignment, operator, union-attr]
    return torch.linalg.svdvals(weight.movedim(axis, 0).flatten(1))[0].item()


def weighted(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, tuple(AXES))]


@pytest.mark.parametrize("kind", [kind for kind in NETWORKS if kind not in OWN])
def test_every_weight_of_every_decoder_comes_to_norm_1(kind: str) -> None:
    torch.manual_seed(0)
    shape, options = ((1, 64, 64), {}) if kind == "locatello" else ((2, 12, 16), {})
    if kind == "mlp":
        options = {"hidden": (16,)}
    code = (3,)
    if (grid := NETWORKS[kind].grid) is not None:
        code, options = grid(shape, 3), {"ch": 8}
    decoder = NETWORKS[kind].decoder(code[0] if len(code) == 1 else code, shape, **options)
    before = decoder(torch.ones(2, *code))
    spectral_norm(decoder)
    for _ in range(100):
        for part in decoder.modules():
            if isinstance(part, parametrize.ParametrizationList):
                part[0].follow(part.original)  # type: ignore[operator]
    assert weighted(decoder)
    for layer in weighted(decoder):
        assert greatest(layer) in (0, pytest.approx(1, rel=0.02))
    assert decoder(torch.ones(2, *code)).shape == before.shape


def test_power_iteration_finds_the_greatest_singular_value_and_its_gradient() -> None:
    torch.manual_seed(0)
    weight = randn(4, 5, 2, 3).requires_grad_()
    for axis in (0, 1):
        norm = SpectralNorm(weight.detach(), axis)
        for _ in range(500):
            norm.follow(weight)
        exact = weight / torch.linalg.svdvals(weight.movedim(axis, 0).flatten(1))[0]
        torch.testing.assert_close(norm(weight), exact, rtol=1e-10, atol=1e-12)
        along = randn(4, 5, 2, 3, seed=3)
        ours, theirs = (torch.autograd.grad((w * along).sum(), weight)[0] for w in (norm(weight), exact))
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_estimate_is_from_below_and_a_running_average_of_u_does_no_harm() -> None:
    torch.manual_seed(0)
    weight = randn(6, 9)
    norm = SpectralNorm(weight, 0)
    scaled = norm(weight)
    assert torch.linalg.svdvals(scaled)[0] >= 1 - 1e-12
    norm.u.mul_(0.7)
    torch.testing.assert_close(norm(weight), scaled)


def test_only_a_pass_in_training_moves_the_state() -> None:
    torch.manual_seed(0)
    decoder = spectral_norm(ConvDecoder(3, (1, 8, 8), dim=4, dim_mults=(1, 2), norm="none"))
    z, before = torch.randn(2, 3), copy.deepcopy(decoder.state_dict())

    def moved() -> bool:
        return not all(torch.equal(a, b) for a, b in zip(before.values(), decoder.state_dict().values(), strict=True))

    for layer in weighted(decoder):
        assert layer.weight is not None  # looking at a weight changes nothing
    decoder.eval()
    assert torch.equal(decoder(z), decoder(z))
    assert not moved()
    decoder.train()
    first, second = decoder(z), decoder(z)
    assert moved()
    (first + second).sum().backward()  # the second pass does not spoil the first one's gradient
    other = copy.deepcopy(decoder).eval()
    assert torch.equal(other(z), decoder.eval()(z))


def test_it_stacks_under_vmap() -> None:
    decoders = []
    for seed in range(3):
        torch.manual_seed(seed)
        decoders.append(spectral_norm(MLPDecoder(2, (1, 4, 4), hidden=(5,))))
    z = torch.randn(7, 2)
    parameters, buffers = stack_module_state(decoders)  # type: ignore[arg-type]
    together = vmap(lambda p, b: functional_call(decoders[0], (p, b), (z,)))(parameters, buffers)
    for number, decoder in enumerate(decoders):
        torch.testing.assert_close(together[number], decoder(z))
