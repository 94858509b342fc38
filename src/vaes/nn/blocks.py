"""What several networks need."""

import math

from torch import nn

__all__ = ["ACTIVATIONS", "init_normal", "output_range"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}

_RANGES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, math.inf),
    nn.Softplus: (0.0, math.inf),
}

_SHAPE_ONLY = (nn.Flatten, nn.Unflatten, nn.Identity, nn.PixelShuffle)


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw convolution and linear weights from N(0, std^2), batch-norm gains from N(1, std^2); biases are zero.

    Radford, Metz & Chintala, DCGAN, 2016, https://arxiv.org/abs/1511.06434, section 4.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, std)
            nn.init.zeros_(layer.bias)


def output_range(module: nn.Module) -> tuple[float, float]:
    """The range that the last layer of a network confines its output to; (-inf, inf) where it confines nothing.

    Known for single layers and ``nn.Sequential`` alone: of another module nobody knows what it runs last, and it counts
    as unconfined.

    >>> output_range(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    (-1.0, 1.0)
    """
    if isinstance(module, nn.Sequential):
        last = next((layer for layer in reversed(module) if not isinstance(layer, _SHAPE_ONLY)), None)
        return output_range(last) if last is not None else (-math.inf, math.inf)
    return _RANGES.get(type(module), (-math.inf, math.inf))
