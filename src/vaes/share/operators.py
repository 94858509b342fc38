"""Operations of torch that ONNX lacks, by ones that it has."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["DECOMPOSITIONS", "ndtri", "searchsorted"]

CENTRE = (
    (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
    (1.0, 17.895169469, 78.757757664, 67.187563600),
)
SHOULDER = ((1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103), (1.0, 0.73700164250, 0.12021132975))
TAIL = ((6.6579051150, 3.0812263860, 0.42868294337, 0.017337203997), (1.0, 0.24197894225, 0.012258202635))


def ndtri(p: Tensor) -> Tensor:
    """The standard normal quantile of p in (0, 1), to about 7 digits.

    Wichura, Algorithm AS 241: The Percentage Points of the Normal Distribution, Applied Statistics 37, 1988, PPND7.
    """
    q = p - 0.5
    tail = torch.sqrt(-torch.log(torch.minimum(p, 1 - p)))
    far = torch.where(tail <= 5, _ratio(SHOULDER, tail - 1.6), _ratio(TAIL, tail - 5))
    return torch.where(q.abs() <= 0.425, q * _ratio(CENTRE, 0.180625 - q * q), q.sign() * far)


def searchsorted(ends: Tensor, values: Tensor, **options: Any) -> Tensor:
    """How many of ends (C,), ascending, lie below each of the values (...).

    Raises:
        NotImplementedError: another of the function's uses.
    """
    if any(options.values()) or ends.dim() != 1:
        raise NotImplementedError("searchsorted with options, or of several rows")
    return (values[..., None] > ends).sum(-1)


DECOMPOSITIONS: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.special_ndtri.default: ndtri,
    torch.ops.aten.searchsorted.Tensor: searchsorted,
}


def _ratio(coefficients: tuple[Sequence[float], Sequence[float]], x: Tensor) -> Tensor:
    above, below = (_polynomial(c, x) for c in coefficients)
    return above / below


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total
