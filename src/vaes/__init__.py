"""vaes: train, sample, evaluate and look inside variational autoencoders.

A VAE is a composition: network x posterior x prior x likelihood x objective. A method from a paper is a row of
:data:`vaes.methods.METHODS`.

The names below are imported when they are first used, so that ``vaes --help`` never starts torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "VAE",
    "Method",
    "Objective",
    "Settings",
    "UserError",
    "Weighting",
    "fit",
    "load",
    "load_weights",
]

_HOMES = {
    "METHODS": "vaes.methods",
    "Method": "vaes.methods",
    "Objective": "vaes.objectives",
    "Settings": "vaes.train",
    "UserError": "vaes.errors",
    "VAE": "vaes.model",
    "Weighting": "vaes.train.weighting",
    "fit": "vaes.train.loop",
    "load": "vaes.runs",
    "load_weights": "vaes.runs",
}

if TYPE_CHECKING:
    from vaes.errors import UserError
    from vaes.methods import METHODS, Method
    from vaes.model import VAE
    from vaes.objectives import Objective
    from vaes.runs import load, load_weights
    from vaes.train import Settings
    from vaes.train.loop import fit
    from vaes.train.weighting import Weighting


_MODULES = frozenset(
    {
        "data",
        "evaluate",
        "functional",
        "likelihoods",
        "methods",
        "nn",
        "objectives",
        "posteriors",
        "priors",
        "schedules",
    }
    | {"compare", "view"}
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vaes.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vaes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
