"""Networks of a user's own, by name."""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vaes.config.registry import NETWORKS, Network
from vaes.errors import UserError

__all__ = ["OWN", "import_file", "register_network"]

T = TypeVar("T")

OWN: set[str] = set()
"""Names that were registered here."""


def register_network(name: str) -> Callable[[T], T]:
    """Make ``model.network.kind: NAME`` mean a class of one's own.

    The class has ``encoder(image_shape, outputs, *, ...)`` and ``decoder(z_shape, output_shape, *, ...)``: methods,
    static methods or classes, each returning a module. The encoder maps images (B, C, H, W) to (B, outputs), where
    ``outputs`` is how many numbers the posterior wants of each image; the decoder maps codes (B, D), where ``z_shape``
    is (D,), to (B, *output_shape), unbounded. Their keyword-only parameters are the keys of ``model.network``; both get
    those that they name. An annotation is checked as the package's own are; without one, the default's type is.

    Codes are grids where the class has ``grid(image_shape, z_channels, *, ...)`` too, which says ``z_shape``: it may be
    (z_channels, H / 8, W / 8). The decoder then maps (B, *z_shape).

    Raises:
        ValueError: the name is the package's own, or the class lacks one of the two.
    """

    def register(cls: T) -> T:
        if name in NETWORKS and name not in OWN:
            raise ValueError(f"register_network: {name!r} is the package's own; choose another name")
        parts = [_part(cls, name, part) for part in ("encoder", "decoder")]
        keys = _keys(*parts)
        encoder, decoder = (_Maker(part, keys) for part in parts)
        grid = _Maker(_part(cls, name, "grid"), keys) if hasattr(cls, "grid") else None
        NETWORKS[name] = Network(
            _wired(lambda shape, heads, **o: encoder(shape, sum(heads), **o), keys),
            _wired(lambda size, shape, **o: decoder((size,) if grid is None else size, shape, **o), keys),
            grid,
        )
        OWN.add(name)
        return cls

    return register


def import_file(path: Path) -> None:
    """Run a Python file that the user names, for what it registers.

    Raises:
        UserError: it is missing, or fails, with its line.
    """
    if not path.is_file():
        what = "is no regular file" if path.exists() else "there is no such file"
        raise UserError(f"--import {path}: {what}; give the Python file that registers your networks")
    name = f"vaes_import_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"--import {path}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)  # so that it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else None)
        at = f" line {line}:" if line else ""
        raise UserError(f"--import {path}:{at} {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(beside)


def _part(cls: Any, name: str, part: str) -> Callable[..., Any]:
    """A part of a class, whether it is written as a method, a static method, a class, or a function without self."""
    if not callable(getattr(cls, part, None)):
        raise ValueError(f"register_network: {name!r} has no {part}; a network has an encoder and a decoder")
    found: Callable[..., Any] = getattr(cls, part)
    if isinstance(cls, type) and inspect.isfunction(inspect.getattr_static(cls, part)):
        wired = [p for p in inspect.signature(found).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        if len(wired) > 2:  # self is the first
            found = getattr(cls(), part)
    return found


class _Maker:
    """Calls a part with those of the options that it names."""

    def __init__(self, part: Callable[..., Any], keys: dict[str, inspect.Parameter]) -> None:
        own = inspect.signature(part).parameters.values()
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own)
        self._part, self._names = part, set(keys) if takes_all else {p.name for p in own} & set(keys)

    def __call__(self, *wired: Any, **options: Any) -> Any:
        return self._part(*wired, **{name: value for name, value in options.items() if name in self._names})


def _wired(make: Callable[..., Any], keys: dict[str, inspect.Parameter]) -> Callable[..., Any]:
    """A function that shows the keys as its signature."""
    make.__signature__ = inspect.Signature(list(keys.values()))  # type: ignore[attr-defined]
    return make


def _keys(*parts: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for part in parts:
        for name, parameter in inspect.signature(part, eval_str=True).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                annotation = parameter.annotation
                if annotation is inspect.Parameter.empty:
                    annotation = Any if parameter.default in (None, parameter.empty) else type(parameter.default)
                found.setdefault(name, parameter.replace(annotation=annotation))
    return found
