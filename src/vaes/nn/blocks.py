"""What several networks need."""

import math

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "channels_last", "init_normal", "lay_out", "output_range"]

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


def channels_last(x: Tensor) -> Tensor:
    """(B, C, H, W) with its channels last in memory: the same numbers, and faster convolutions on CPUs and on GPUs.

    Said by permutations, because :func:`torch.func.vmap` knows no memory formats.
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def lay_out(network: nn.Module) -> None:
    """Put the weights of convolutions channels last, as :func:`channels_last` does their input."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for weight in network.parameters():
        # One channel or one pixel lies in memory alike in either layout; gradients then come in the plain one, and
        # several processes want the weight's strides to be the same.
        if weight.is_contiguous():
            weight.data = weight.data.clone(memory_format=torch.contiguous_format)
