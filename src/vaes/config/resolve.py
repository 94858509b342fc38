"""Raw keys -> a complete, checked configuration."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vaes.config.registry import BOUNDS, LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS, SCHEDULES, SOURCES, TERMS
from vaes.config.schema import check_keys, dotted, keys, takes_schedule, unknown, validate
from vaes.data import Protocol
from vaes.errors import UserError
from vaes.methods import METHODS
from vaes.schedules import Scheduled
from vaes.terminal import brief
from vaes.train.settings import Settings

__all__ = ["PARTS", "Config", "default_part", "resolve"]

DEFAULT_KINDS = {
    "data": "digits",
    "model.network": "conv",
    "model.likelihood": "gaussian",
    "model.posterior": "gaussian",
    "model.prior": "standard_normal",
}
"""Where neither a configuration nor the method's row says which."""

PARTS: dict[str, Mapping[str, Any]] = {"likelihood": LIKELIHOODS, "posterior": POSTERIORS, "prior": PRIORS}
"""Sections of ``model`` but for the network."""

OWN_NETWORK = "a network of your own needs --import FILE (the file that registers it; in Python, import it first)"

Z_CHANNELS = 4
"""Of a grid, where nothing says how many: as the first released models have it."""

# The commands of the project that this one grew from say coefficients so.
ALIASES = {"coef_kl": "beta", "coef_alpha": "alpha", "coef_lambda": "lambda_"}


class Config(NamedTuple):
    """Keys and values, completely said: numbers, texts, lists and dicts, nothing left to a default."""

    seed: int
    method: str
    data: dict[str, Any]
    model: dict[str, Any]
    objective: dict[str, Any]
    train: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As nested dicts; ``resolve`` of it is the configuration again."""
        found: dict[str, Any] = _lists(self._asdict())
        return found


def resolve(raw: object) -> Config:
    """Check every key of a raw configuration and fill in what is not given.

    Raises:
        UserError: naming the dotted key, what is wrong with it and what would be right.
    """
    if isinstance(raw, Mapping) and "sweep" in raw:
        raise UserError("sweep: a section for vaes sweep, which trains many runs; one run has no such section")
    top = check_keys("", raw, Config._fields)
    plain = validate("", top_options, {name: top[name] for name in ("seed", "method") if name in top})
    method = plain["method"]
    if not 0 <= plain["seed"] < 2**63:
        raise UserError(f"seed: {plain['seed']} is not right; it must be 0 or more and below 2^63")
    if method not in METHODS:
        raise unknown(f"method: unknown method {brief(method)}", method, METHODS)
    train, objective = _move_aliases(top.get("train", {}), top.get("objective", {}))
    return Config(
        seed=plain["seed"],
        method=method,
        data=_data(top.get("data", {})),
        model=_model(method, top.get("model", {})),
        objective=_objective(method, objective),
        train=_train(method, train),
    )


def top_options(*, seed: int = 0, method: str = "vae") -> None:
    """The plain keys of the top level.

    Args:
        seed: decides the initial weights, the order of the images and all noise.
        method: what is trained, by its name in the table of methods.
    """


def model_options(
    *,
    z_dim: int | None = 2,
    z_channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    decoder_spectral_norm: bool = False,
) -> None:
    """The keys of ``model`` beside its parts.

    Args:
        z_dim: latent dimensions of a flat code; null where the network's codes are grids.
        z_channels: channels of a code where the network's codes are grids, 4 by default; null where they are flat.
        value_range: what the darkest and the brightest value of a pixel become; null is what the likelihood is meant
            for.
        decoder_spectral_norm: divides each weight of the decoder by its largest singular value.
    """


def data_options(
    *,
    flip: bool = False,
    binarize: Protocol = "none",
    binarize_seed: int = 0,
    changed: Literal["refuse", "accept"] = "refuse",
) -> None:
    """The keys of ``data`` beside its source's.

    Args:
        flip: mirrors each training image with probability 1/2.
        binarize: makes images black and white: drawn once (static), or anew at every step of training (dynamic).
        binarize_seed: chooses the draws that are made once.
        changed: what to do where the images are others than those that the run was trained on.
    """


def extra_term(*, weight: Scheduled = 1.0) -> None:
    """The key of a term that the method's row does not name, beside its own.

    Args:
        weight: of the term in the loss.
    """


def objective_options(*, bound: str | None = None, terms: dict[str, Any] | None = None) -> None:
    """The keys of ``objective`` beside the method's.

    Args:
        bound: the kind of bound in place of the method's; its keys stand beside this one.
        terms: terms beside the method's, by kind, each with its keys and its weight (objective.terms.mmd.weight 10).
    """


def _kind(
    path: str, values: object, registry: Mapping[str, Any], default: Mapping[str, Any] | None = None
) -> tuple[str, dict[str, Any]]:
    default = default or {"kind": DEFAULT_KINDS.get(path)}
    if isinstance(values, str):
        values = {"kind": values}
    if not isinstance(values, Mapping):
        raise UserError(
            f"{path}: {brief(values)} is not a group of keys with a kind; kinds: {', '.join(sorted(registry))}"
        )
    kind = values.get("kind", default["kind"])
    if not isinstance(kind, str) or kind not in registry:
        error = unknown(f"{path}.kind: unknown kind {brief(kind)}", kind, registry)
        raise UserError(f"{error}; {OWN_NETWORK}") if path == "model.network" else error
    both = {**default, **values} if kind == default["kind"] else values
    return kind, {key: value for key, value in both.items() if key != "kind"}


def _part(
    path: str, values: object, registry: Mapping[str, Any], default: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    kind, options = _kind(path, values, registry, default)
    return {"kind": kind, **_scheduled(path, registry[kind], options)}


def default_part(method: str, name: str) -> dict[str, Any] | None:
    """What a method's row says of a section of ``model``, with its kind; None where it says nothing."""
    said = METHODS[method].defaults.get("model", {}).get(name)
    if said is None:
        return None
    return {"kind": said} if isinstance(said, str) else {"kind": DEFAULT_KINDS[f"model.{name}"], **said}


def _data(values: object) -> dict[str, Any]:
    kind, options = _kind("data", values, SOURCES)
    common = {name: options.pop(name) for name in keys(data_options) if name in options}
    check_keys("data", options, {*keys(SOURCES[kind]), *keys(data_options), "kind"})
    source = validate("data", SOURCES[kind], options)
    for key in ("root", "valid_root", "test_root"):
        if source.get(key) is not None:
            source[key] = _located(kind, source[key])
    return {"kind": kind, **source, **validate("data", data_options, common)}


def _located(kind: str, root: Any) -> Any:
    """A path as it is found from anywhere; addresses and names on the Hub stay."""
    if isinstance(root, tuple):
        return tuple(_located(kind, each) for each in root)
    path = Path(root).expanduser()
    if "://" in root or (kind == "hub" and not path.exists() and root.count("/") < 2):
        return root
    return str(path.absolute())


def _model(method: str, values: object) -> dict[str, Any]:
    given = check_keys("model", values, {*keys(model_options), "network", *PARTS})
    networks = {name: pair.encoder for name, pair in NETWORKS.items()}
    default = default_part(method, "network")
    parts = {"network": _part("model.network", given.pop("network", {}), networks, default)}
    for name, registry in PARTS.items():
        parts[name] = _part(f"model.{name}", given.pop(name, {}), registry, default_part(method, name))
    said = METHODS[method].defaults.get("model", {})
    own = {name: said[name] for name in keys(model_options) if name in said}
    return {**parts, **_code_size(parts["network"]["kind"], own, validate("model", model_options, given), given)}


def _code_size(
    network: str, own: Mapping[str, Any], values: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The row's own defaults under the values given, and of ``z_dim`` and ``z_channels`` the one that the network's
    codes have."""
    values |= {name: value for name, value in own.items() if name not in given}
    has, other, default, what = ("z_dim", "z_channels", 2, "flat")
    if NETWORKS[network].grid is not None:
        has, other, default, what = ("z_channels", "z_dim", Z_CHANNELS, "grids")
    if given.get(other) is not None:
        raise UserError(f"model.{other}: the network {network} makes codes that are {what}; give model.{has} instead")
    size = values[has] if given.get(has) is not None or has in own else default
    if has == "z_channels" and size < 1:
        raise UserError(f"model.z_channels: {size} is not right; it must be 1 or more")
    return {**values, has: size, other: None}


def _objective(method: str, values: object) -> dict[str, Any]:
    row = METHODS[method]
    asked = values.get("bound", row.bound) if isinstance(values, Mapping) else row.bound
    if not isinstance(asked, str) or asked not in BOUNDS:
        raise unknown(f"objective.bound: unknown bound {brief(asked)}", asked, BOUNDS)
    bound = BOUNDS[asked]
    allowed = {*keys(objective_options), *keys(row.weights), *keys(bound), *row.terms}
    given = _over(row.defaults.get("objective", {}), check_keys("objective", values, allowed), allowed)
    given.pop("bound", None)
    extra = _extra_terms(row.terms, given.pop("terms", {}))
    of_bound = {name: given.pop(name) for name in keys(bound) if name in given}
    terms = {name: _scheduled(f"objective.{name}", TERMS[name], given.pop(name, {})) for name in row.terms}
    return {
        **_scheduled("objective", row.weights, given),
        "bound": asked,
        **_scheduled("objective", bound, of_bound),
        **terms,
        "terms": extra,
    }


def _extra_terms(named: Sequence[str], values: object) -> dict[str, Any]:
    found = {}
    for name, options in check_keys("objective.terms", values, TERMS).items():
        path = f"objective.terms.{name}"
        if name in named:
            raise UserError(f"{path}: the method has this term already; its keys are objective.{name}")
        own = check_keys(path, options, {"weight", *keys(TERMS[name])})
        weight = {"weight": own.pop("weight")} if "weight" in own else {}
        found[name] = {**_scheduled(path, extra_term, weight), **_scheduled(path, TERMS[name], own)}
    return found


def _over(default: Mapping[str, Any], given: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """The given keys over a row's own defaults, those of a term or schedule one by one."""
    found = {name: value for name, value in default.items() if name in allowed}
    for name, value in given.items():
        below = found.get(name)
        merge = isinstance(below, Mapping) and isinstance(value, Mapping) and below.get("kind") == value.get("kind")
        found[name] = {**below, **value} if merge else value  # type: ignore[dict-item]
    return found


def _train(method: str, values: object) -> dict[str, Any]:
    default = METHODS[method].defaults.get("train", {})
    resolved = _scheduled("train", Settings, {**default, **values} if isinstance(values, Mapping) else values)
    if resolved["n_steps"] < 1:  # before any schedule is laid over the steps
        raise UserError(f"train.n_steps: {resolved['n_steps']} is not right; it must be 1 or more")
    return resolved


def _scheduled(path: str, part: Any, values: object) -> dict[str, Any]:
    resolved = validate(path, part, values)
    for name, parameter in keys(part).items():
        if takes_schedule(parameter.annotation) and isinstance(resolved[name], Mapping):
            resolved[name] = _part(dotted(path, name), resolved[name], SCHEDULES)
    return resolved


def _move_aliases(train: object, objective: object) -> tuple[object, object]:
    if not isinstance(train, Mapping) or not isinstance(objective, Mapping):
        return train, objective
    train, objective = dict(train), dict(objective)
    for alias, key in ALIASES.items():
        if alias in train:
            if key in objective:
                raise UserError(f"train.{alias}: the same as objective.{key}, which is given too; drop one of them")
            objective[key] = train.pop(alias)
    return train, objective


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
