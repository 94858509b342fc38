"""A complete configuration -> the parts that it names."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from vaes import memory
from vaes.config.own import OWN
from vaes.config.registry import BOUNDS, NETWORKS, SCHEDULES, SOURCES, TERMS
from vaes.config.resolve import PARTS, data_options
from vaes.config.schema import keys, takes_schedule
from vaes.data import Splits, binarize
from vaes.errors import UserError
from vaes.methods import METHODS
from vaes.model import VAE
from vaes.nn import spectral_norm
from vaes.nn.weightless import weightless
from vaes.objectives import Bound, Objective, Term
from vaes.objectives.terms.similarity import FindFeatures
from vaes.schedules import Schedule, sampled
from vaes.train.settings import Settings
from vaes.train.weighting import Weighting

__all__ = ["COMMON_DATA_KEYS", "build_data", "build_model", "build_objective", "build_settings", "drawn"]

COMMON_DATA_KEYS = tuple(keys(data_options))
"""Keys of ``data`` beside those of a source."""

PARTS_APART, TERMS_APART = 0x5EED_0001, 0x5EED_0100
"""What keeps the initial weights of parts and terms apart from those of the networks."""


class Complete(Protocol):
    """A complete configuration, or an experiment."""

    @property
    def seed(self) -> int:
        """Of weights and noise."""

    @property
    def method(self) -> str:
        """A row of ``METHODS``."""

    @property
    def data(self) -> Mapping[str, Any]:
        """Keys of the source."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Keys of the parts."""

    @property
    def objective(self) -> Mapping[str, Any]:
        """Keys of the method."""

    @property
    def train(self) -> Mapping[str, Any]:
        """Keys of the settings."""


def build_data(config: Complete) -> Splits:
    """Read the images; every process reads the same."""
    options = {key: value for key, value in config.data.items() if key not in {"kind", *COMMON_DATA_KEYS}}
    return drawn(config, _call("data", SOURCES[config.data["kind"]], **options))


def drawn(config: Complete, splits: Splits) -> Splits:
    """The images as they are trained on: black and white, where the configuration says so."""
    return binarize(splits, config.data["binarize"], seed=config.data["binarize_seed"])


def build_model(config: Complete, image_shape: tuple[int, int, int]) -> VAE:
    """The model for images of this shape, its weights drawn from ``config.seed``."""
    section, size = config.model, "z_channels" if config.model["z_dim"] is None else "z_dim"
    network, options = NETWORKS[section["network"]["kind"]], _plain_options(section["network"])
    z_shape = (section["z_dim"],)
    if network.grid is not None:
        z_shape = _call("model.network", network.grid, image_shape, section["z_channels"], **options)
    parts, value_range = {}, section["value_range"]
    for name, registry in PARTS.items():  # the likelihood first: it says which pixels it is meant for
        path, part = f"model.{name}", registry[section[name]["kind"]]
        its, own = _options(path, part, section[name], config.train["n_steps"])
        wired = {"z_shape": z_shape, "image_shape": image_shape, "value_range": value_range}
        _refuse_values(path, part, _wired(part, wired), its, own, config.train["n_steps"])
        with _seeded(config.seed ^ PARTS_APART):
            parts[name] = _call(f"model.{size}" if name == "prior" else path, part, *_wired(part, wired), **its)
        if name == "likelihood" and value_range is None:
            value_range = parts[name].default_range
    likelihood, posterior, prior = parts["likelihood"], parts["posterior"], parts["prior"]
    output_shape = (likelihood.channels(image_shape[0]), *image_shape[1:])
    heads = _call("model.posterior", posterior.heads, z_shape)

    def pair() -> tuple[nn.Module, nn.Module]:
        encoder = _call("model.network", network.encoder, image_shape, heads, **options)
        return encoder, _call("model.network", network.decoder, section["z_dim"] or z_shape, output_shape, **options)

    if section["network"]["kind"] not in OWN:  # whose constructors may do what needs memory, and were trusted to
        _refuse_too_large(pair)
    with _seeded(config.seed):
        encoder, decoder = pair()
        if section["decoder_spectral_norm"]:
            decoder = spectral_norm(decoder)
    return _call("model", VAE, encoder, decoder, posterior, prior, likelihood, value_range=section["value_range"])


def build_objective(
    config: Complete, model: VAE, image_shape: tuple[int, int, int], *, find_features: FindFeatures | None = None
) -> tuple[Objective, Weighting]:
    """The method's objective on this model, and its weights as a function of the step.

    ``find_features`` finds the networks that terms compare images in; without it there are no images to train one on,
    and ``auto`` is the untrained one.
    """
    row, section, n_steps = METHODS[config.method], config.objective, config.train["n_steps"]
    schedules = {"posterior": _posterior_schedules(config)}
    options, schedules["bound"] = _options("objective", BOUNDS[section["bound"]], section, n_steps)
    _refuse_values("objective", BOUNDS[section["bound"]], [], options, schedules["bound"], n_steps)
    bound = _call("objective", BOUNDS[section["bound"]], **options)
    terms: dict[str, Term] = {}
    extra = section["terms"]
    wired = {
        "z_shape": model.z_shape,
        "image_shape": image_shape,
        "value_range": model.value_range,
        "find_features": find_features or _without_images(image_shape),
    }
    for name in (*(term for term in row.terms if section.get(row.optional.get(term, "")) != 0), *extra):
        path = f"objective.terms.{name}" if name in extra else f"objective.{name}"
        given = extra[name] if name in extra else section[name]
        options, schedules[name] = _options(path, TERMS[name], given, n_steps)
        _refuse_values(path, TERMS[name], _wired(TERMS[name], wired), options, schedules[name], n_steps)
        with _seeded(config.seed ^ TERMS_APART ^ len(terms)):
            terms[name] = _call(path, TERMS[name], *_wired(TERMS[name], wired), **options)
    coefficients = {name: _schedule(f"objective.{name}", section[name], n_steps) for name in keys(row.weights)}
    coefficients |= {
        f"terms.{name}.weight": _schedule(f"objective.terms.{name}.weight", extra[name]["weight"], n_steps)
        for name in extra
    }
    weighting = Weighting(
        _weights(config, bound, terms), coefficients, {part: own for part, own in schedules.items() if own}
    )
    _try_out(weighting, n_steps)
    return _call("objective", Objective, model, bound, terms), weighting


def _without_images(image_shape: tuple[int, int, int]) -> FindFeatures:
    def find(name: str) -> tuple[str, nn.Module]:
        from vaes.evaluate.feature_maps import untrained  # takes a second to import, which few rows need
        from vaes.evaluate.published_features import is_published, published

        if is_published(name):
            return published(name, image_shape)
        return untrained(image_shape[0], name)

    return find


def _posterior_schedules(config: Complete) -> dict[str, Schedule]:
    section = config.model["posterior"]
    part = PARTS["posterior"][section["kind"]]
    return _options("model.posterior", part, section, config.train["n_steps"])[1]


def _weights(config: Complete, bound: Bound, terms: Mapping[str, Term]) -> Callable[..., dict[str, float]]:
    """The row's weights and those of terms beside it, as far as the bound takes them."""
    row = METHODS[config.method]

    def weights(pixels: int, **coefficients: Any) -> dict[str, float]:
        extra = {name: coefficients.pop(f"terms.{name}.weight") for name in config.objective["terms"]}
        for name, weight in extra.items():
            if weight < (lowest := terms[name].lowest_weight):
                raise ValueError(f"terms.{name}.weight: {weight:g} is not right; it must be {lowest:g} or more")
        found = {"rate": 1.0, "distortion": 1.0} | row.weights(pixels, **coefficients) | extra
        found = {name: weight for name, weight in found.items() if name in terms or name not in row.optional}
        for name, key in (("rate", "beta"), ("distortion", "pixel_weight")):
            if name in bound.weights:
                continue
            weight, kind = found.pop(name), config.objective["bound"]
            if weight != 1.0 and kind != row.bound:
                own = [f"objective.{key} 1"] if key in coefficients else [f"objective.{c}" for c in coefficients]
                set_to = f"set its coefficients so that this is 1 ({', '.join(own)}), or " if own else ""
                if kind == "reconstruction":
                    raise ValueError(f"bound: {kind} has no {name}, which the method weighs by {weight:g}; take elbo")
                raise ValueError(
                    f"bound: {kind} takes the {name} whole, and the method weighs it by {weight:g}; {set_to}take "
                    "objective.bound elbo"
                )
        return found

    return weights


def build_settings(config: Complete) -> Settings:
    """The options of training."""
    options = dict(config.train)
    options["lr"] = _schedule("train.lr", options["lr"], options["n_steps"])
    return _call("train", Settings, **options)


def _refuse_too_large(pair: Callable[[], tuple[nn.Module, nn.Module]]) -> None:
    """Count the parameters of a pair of networks before any memory is asked for them."""
    try:
        with weightless():
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
            "smaller model.z_dim, model.z_channels or model.network"
        )


def _try_out(weighting: Weighting, n_steps: int) -> None:
    """Refuse a coefficient that makes no sense before it is met in the middle of the training."""
    try:
        for step in sampled(n_steps):
            weighting(step, 1)
    except ValueError as error:
        raise UserError(f"objective.{error}") from None


def _schedule(path: str, value: Any, total_steps: int) -> Any:
    if not isinstance(value, Mapping):
        return value
    schedule: Schedule = _call(path, SCHEDULES[value["kind"]], total_steps, **_plain_options(value))
    return schedule


def _options(
    path: str, part: Any, section: Mapping[str, Any], n_steps: int
) -> tuple[dict[str, Any], dict[str, Schedule]]:
    """A part's options in a section, those that follow a schedule at the last step, and the schedules."""
    options, schedules = {}, {}
    for name, parameter in keys(part).items():
        options[name] = section[name]
        if takes_schedule(parameter.annotation) and isinstance(section[name], Mapping):
            schedules[name] = _schedule(f"{path}.{name}", section[name], n_steps)
            options[name] = schedules[name](n_steps - 1)
    return options, schedules


def _refuse_values(
    path: str,
    part: Any,
    wired: list[Any],
    options: Mapping[str, Any],
    schedules: Mapping[str, Schedule],
    n_steps: int,
) -> None:
    """Refuse a schedule that takes a value, wherever in the training, with which the part cannot be built: options are
    numbers between bounds, so that the least and the largest show it."""
    for name, schedule in schedules.items():
        values = {schedule(step): step for step in reversed(sampled(n_steps))}
        found: dict[float, ValueError] = {}
        for value in (min(values), max(values)):
            with _seeded(0):
                try:
                    part(*wired, **{**options, name: value})
                except ValueError as error:
                    found[value] = error
        if len(found) == 2 and len({str(error) for error in found.values()}) == 1:
            raise UserError(f"{path}: {found[min(values)]}")  # whatever the schedule gives
        for value, refusal in found.items():
            said = f"at step {values[value]} its schedule gives {value:g}, and {refusal}"
            raise UserError(f"{path}.{name}: {said}") from refusal


def _plain_options(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "kind"}


def _wired(part: Any, known: Mapping[str, Any]) -> list[Any]:
    """The positional arguments that a part's constructor names."""
    parameters = inspect.signature(part).parameters.values()
    return [known[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


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
