"""Weights stored in float16: half the bytes, and every number computed in float32 as before."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Halved", "halve"]

LEAST = 256
"""Numbers that an array must have to be worth it: scales and running statistics stay as they are."""


def halve(graph: Any) -> None:
    """Replace an ONNX graph's float32 weights by float16 ones that are cast when the model is loaded."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for weight in graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or np.prod(weight.dims) < LEAST:
            continue
        name = weight.name
        with np.errstate(over="ignore"):  # an infinity is found by the check
            half = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *rest])


class Halved(nn.Module):
    """A module whose large weights lie in float16 and are cast on every call."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for weight in _large(module).values():
            weight.data = weight.data.half()

    def forward(self, x: Tensor) -> Any:
        """What the module makes of x."""
        cast = {name: weight.float() for name, weight in _large(self.module).items()}
        return torch.func.functional_call(self.module, cast, (x,))


def _large(module: nn.Module) -> dict[str, Tensor]:
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: w for name, w in state.items() if w.is_floating_point() and w.numel() >= LEAST}
