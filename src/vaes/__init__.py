"""vaes: train, sample, evaluate and look inside variational autoencoders.

A VAE is a composition: network x posterior x prior x likelihood x objective. A method from a paper is a row of
:data:`vaes.methods.METHODS`.

The names below are imported when they are first used, so that ``vaes --help`` never starts torch.
"""

import importlib
import logging
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("vaes")  # the tag's, as it was when this was installed
except PackageNotFoundError:  # source that nobody installed
    __version__ = "0+unknown"

logging.getLogger("vaes").addHandler(logging.NullHandler())  # the library prints nothing; the commands show warnings

_HOMES = {
    "Experiment": "vaes.experiment",
    "Listener": "vaes.train.listeners",
    "METHODS": "vaes.methods",
    "Method": "vaes.methods",
    "Objective": "vaes.objectives",
    "Run": "vaes.run",
    "Settings": "vaes.train",
    "UserError": "vaes.errors",
    "VAE": "vaes.model",
    "Weighting": "vaes.train.weighting",
    "fit": "vaes.train.loop",
    "latents": "vaes.share.shards",
    "load": "vaes.share.hub",
    "load_weights": "vaes.weights",
    "register_network": "vaes.config.own",
}

__all__ = [
    "METHODS",
    "VAE",
    "Experiment",
    "Listener",
    "Method",
    "Objective",
    "Run",
    "Settings",
    "UserError",
    "Weighting",
    "fit",
    "latents",
    "load",
    "load_weights",
    "register_network",
]

if TYPE_CHECKING:
    from vaes.config.own import register_network
    from vaes.errors import UserError
    from vaes.experiment import Experiment
    from vaes.methods import METHODS, Method
    from vaes.model import VAE
    from vaes.objectives import Objective
    from vaes.run import Run
    from vaes.share.hub import load
    from vaes.share.shards import latents
    from vaes.train import Settings
    from vaes.train.listeners import Listener
    from vaes.train.loop import fit
    from vaes.train.weighting import Weighting
    from vaes.weights import load_weights


_MODULES = frozenset(
    {
        "config",
        "data",
        "encoding",
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
    | {"compare", "share", "sklearn", "sweep", "view"}
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"vaes.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vaes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
