"""Modules without memory, to know what they would hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["weightless"]


class _Undrawn(TorchFunctionMode):
    """The functions of ``torch.nn.init`` return the tensor as it is."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def weightless() -> Iterator[None]:
    """Tensors that are made inside have a shape and no numbers (the meta device), and none are drawn for them.

    Drawing numbers for nothing would have torch import its compiler first, more than a second.

    >>> with weightless():
    ...     torch.nn.Linear(10**6, 10**6).weight.shape
    torch.Size([1000000, 1000000])
    """
    with torch.device("meta"), _Undrawn():
        yield
