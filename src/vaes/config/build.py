"""A complete configuration -> the parts that it names."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from vaes import memory
from vaes.config.registry import LIKELIHOODS, NETWORKS, SCHEDULES, SOURCES
from vaes.config.resolve import Config, data_options
from vaes.config.schema import keys
from vaes.data import Splits, binarize
from vaes.errors import UserError
from vaes.methods import METHODS
from vaes.model import VAE
from vaes.objectives import Objective
from vaes.schedules import Schedule
from vaes.train.settings import Settings
from vaes.train.weighting import Weighting

__all__ = ["build_data", "build_model", "build_objective", "build_settings"]


def build_data(config: Config) -> Splits:
    """Read the images; every process reads the same."""
    options = {key: value for key, value in config.data.items() if key not in {"kind", *keys(data_options)}}
    splits: Splits = _call("data", SOURCES[config.data["kind"]], **options)
    return binarize(splits, config.data["binarize"], seed=config.data["binarize_seed"])


def build_model(config: Config, image_shape: tuple[int, int, int]) -> VAE:
    """The model for images of this shape, its weights drawn from ``config.seed``."""
    method, section = METHODS[config.method], config.model
    posterior, prior = method.posterior(), _call("model.z_dim", method.prior, section["z_dim"])
    likelihood = _call(
        "model.likelihood", LIKELIHOODS[section["likelihood"]["kind"]], **_options(section["likelihood"])
    )
    network, options = NETWORKS[section["network"]["kind"]], _options(section["network"])
    output_shape = (likelihood.channels(image_shape[0]), *image_shape[1:])

    def pair() -> tuple[nn.Module, nn.Module]:
        encoder = _call("model.network", network.encoder, image_shape, section["z_dim"], posterior.heads, **options)
        return encoder, _call("model.network", network.decoder, section["z_dim"], output_shape, **options)

    _refuse_too_large(pair)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder, decoder = pair()
    return _call("model", VAE, encoder, decoder, posterior, prior, likelihood, value_range=section["value_range"])


def build_objective(config: Config, model: VAE) -> tuple[Objective, Weighting]:
    """The method's objective on this model, and its weights as a function of the step."""
    method, section = METHODS[config.method], config.objective
    terms = {name: _call(f"objective.{name}", part, **section[name]) for name, part in method.terms.items()}
    bound = _call("objective", method.bound, **{name: section[name] for name in keys(method.bound)})
    coefficients = {
        name: _schedule(f"objective.{name}", section[name], config.train["n_steps"]) for name in keys(method.weights)
    }
    weighting = Weighting(method.weights, coefficients)
    _try_out(weighting, config.train["n_steps"])
    return _call("method", Objective, model, bound, terms), weighting


def build_settings(config: Config) -> Settings:
    """The options of training."""
    options = dict(config.train)
    options["lr"] = _schedule("train.lr", options["lr"], options["n_steps"])
    return _call("train", Settings, **options)


def _refuse_too_large(pair: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
    """Count the parameters of a pair of networks before any memory is asked for them."""
    try:
        with torch.device("meta"):
            networks = pair()
    except UserError:
        raise
    except (
        Exception
    ):  # a network of one's own that cannot be built without memory: built as it is, it says what is wrong
        return
    size = sum(p.numel() * p.element_size() for network in networks for p in network.parameters())
    if size > (free := memory.available()):
        raise UserError(
            f"model: its weights take {size / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB of memory are free; choose a "
            "smaller model.z_dim or model.network"
        )


def _try_out(weighting: Weighting, n_steps: int) -> None:
    """Refuse a coefficient that makes no sense before it is met in the middle of the training."""
    try:
        for step in {*range(0, n_steps, -(-n_steps // 100)), n_steps - 1}:
            weighting(step, 1)
    except ValueError as error:
        raise UserError(f"objective.{error}") from None


def _schedule(path: str, value: Any, total_steps: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    schedule: Schedule = _call(path, SCHEDULES[value["kind"]], total_steps, **_options(value))
    return schedule


def _options(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "kind"}


def _call(path: str, part: Any, *wired: Any, **options: Any) -> Any:
    """Build a part; what its constructor refuses is the user's to mend, at this path."""
    try:
        return part(*wired, **options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    except (MemoryError, OverflowError) as error:
        raise UserError(f"{path}: too large to build ({error})") from error
    except RuntimeError as error:  # torch's way of saying that no memory is left, and that a size is absurd
        raise UserError(f"{path}: cannot be built: {str(error).splitlines()[0]}") from error
