import pytest
import torch
from torch import nn

from vaes.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, output_range
from vaes.nn.conv import _FromPixel, _ToPixel, _ToPlane


def test_the_conv_encoder_is_the_published_stack() -> None:
    encoder = ConvEncoder((3, 64, 64), (128, 128), dim=64, dim_mults=(1, 2, 4, 8))
    convolutions = [layer for layer in encoder.trunk if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding) for c in convolutions] == [
        (3, 64, (4, 4), (2, 2), (1, 1)),
        (64, 128, (4, 4), (2, 2), (1, 1)),
        (128, 256, (4, 4), (2, 2), (1, 1)),
        (256, 512, (4, 4), (2, 2), (1, 1)),
        (512, 512, (4, 4), (1, 1), (0, 0)),
    ]
    kinds = [type(layer).__name__ for layer in encoder.trunk]
    assert kinds[:5] == ["Conv2d", "LeakyReLU", "Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert [type(layer).__name__ for layer in encoder.heads[1]] == ["Linear", "BatchNorm1d", "LeakyReLU", "Linear"]
    weights = torch.cat([c.weight.flatten() for c in convolutions])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_the_convolutions_to_and_from_one_pixel_are_convolutions() -> None:
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64)
    for bias in (True, False):
        down = _ToPixel(4, 6, (5, 2), bias=bias).double()
        torch.testing.assert_close(down(x), nn.Conv2d.forward(down, x))
        up = _FromPixel(6, 4, (5, 2), bias=bias).double()
        torch.testing.assert_close(up(down(x)), nn.ConvTranspose2d.forward(up, down(x)))


def test_the_last_transposed_convolution_is_one() -> None:
    x = torch.randn(3, 5, 4, 7, dtype=torch.float64)
    for bias in (True, False):
        up = _ToPlane(5, 2, 4, stride=2, padding=1, bias=bias).double()
        torch.testing.assert_close(up(x), nn.ConvTranspose2d.forward(up, x))
    grey = [layer for layer in ConvDecoder(2, (1, 32, 32)).net if isinstance(layer, nn.ConvTranspose2d)]
    assert type(grey[-1]) is _ToPlane


def test_the_conv_decoder_mirrors_the_encoder() -> None:
    decoder = ConvDecoder(128, (3, 64, 64), dim=64, dim_mults=(1, 2, 4, 8))
    transposed = [layer for layer in decoder.net if isinstance(layer, nn.ConvTranspose2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in transposed] == [
        (512, 512, (1, 1)),
        (512, 256, (2, 2)),
        (256, 128, (2, 2)),
        (128, 64, (2, 2)),
        (64, 3, (2, 2)),
    ]
    assert output_range(decoder) == (-torch.inf, torch.inf)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("height", [1, 2, 3, 7, 28, 33])
@pytest.mark.parametrize("width", [1, 5, 20, 32])
def test_any_size_goes_in_and_comes_out(height: int, width: int, norm: str) -> None:
    for mults in ((1,), (1, 2, 2)):
        encoder = ConvEncoder((2, height, width), (3, 3), dim=2, dim_mults=mults, norm=norm)  # type: ignore[arg-type]
        decoder = ConvDecoder(3, (2, height, width), dim=2, dim_mults=mults, norm=norm)  # type: ignore[arg-type]
        assert encoder(torch.randn(2, 2, height, width)).shape == (2, 6)
        assert decoder(torch.randn(2, 3)).shape == (2, 2, height, width)


def test_every_pixel_reaches_the_code_and_is_reached_by_it() -> None:
    x = torch.randn(1, 1, 29, 21, requires_grad=True)
    ConvEncoder((1, 29, 21), (3,), dim=4, dim_mults=(1, 2, 2), norm="none")(x).sum().backward()
    assert (x.grad != 0).all()
    decoder = ConvDecoder(3, (1, 29, 21), dim=4, dim_mults=(1, 2, 2), norm="none")
    assert (decoder(torch.randn(1, 3)) != decoder(torch.randn(1, 3))).all()


def test_without_normalisation_there_is_none_anywhere() -> None:
    network = nn.ModuleList(
        [ConvEncoder((1, 8, 8), (2, 2), dim=2, norm="none"), ConvDecoder(2, (1, 8, 8), dim=2, norm="none")]
    )
    assert not any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in network.modules())


def test_the_mlp_pair_mirrors() -> None:
    encoder, decoder = MLPEncoder((1, 4, 5), (3, 3), hidden=(7, 6)), MLPDecoder(3, (1, 4, 5), hidden=(7, 6))
    assert [layer.out_features for layer in encoder.net if isinstance(layer, nn.Linear)] == [7, 6, 6]
    assert [layer.out_features for layer in decoder.net if isinstance(layer, nn.Linear)] == [6, 7, 20]


@pytest.mark.parametrize("kwargs", [{"dim": 0}, {"dim_mults": ()}, {"dim_mults": (1, 0)}])
def test_senseless_widths_are_refused(kwargs: dict) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ConvEncoder((1, 8, 8), (2, 2), **kwargs)


def test_output_range_reads_the_last_layer() -> None:
    assert output_range(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Sigmoid()))) == (0.0, 1.0)
    assert output_range(nn.Sequential(nn.Tanh(), nn.Linear(2, 2)))[1] == torch.inf
    assert output_range(nn.Identity())[0] == -torch.inf
    assert output_range(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Unflatten(1, (2, 2)))) == (-1.0, 1.0)


def test_output_range_does_not_guess_what_a_module_of_one_s_own_runs_last() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.act = nn.Linear(2, 2), nn.ReLU()

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.linear(self.act(z))

    assert output_range(Own()) == (-torch.inf, torch.inf)
