"""Where raw keys come from: a YAML file and dotted overrides."""

import copy
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vaes.config.registry import NETWORKS, SOURCES
from vaes.config.resolve import ALIASES, DEFAULT_KINDS, PARTS, Config, default_part, resolve
from vaes.config.schema import keys as keys_of
from vaes.errors import UserError
from vaes.methods import METHODS
from vaes.shipped import find
from vaes.terminal import brief, escape

__all__ = [
    "DEFAULTS",
    "canonical",
    "changed",
    "load",
    "of_method",
    "of_first_format",
    "of_weights",
    "overrides",
    "parse",
    "read_file",
    "to_arguments",
    "to_yaml",
]

MAX_BYTES = 100_000
MAX_DEPTH = 20

TEXTS = {
    f"data.{name}"
    for part in SOURCES.values()
    for name, parameter in keys_of(part).items()
    if parameter.annotation in (str, str | None)
}
"""Keys whose value is a text even where it looks like a number: a folder may be called 2024."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its traps: 1e-3 is a number, duplicate keys and aliases are errors, and only true and false are
    booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if tag
        not in (
            "tag:yaml.org,2002:float",
            "tag:yaml.org,2002:bool",
            "tag:yaml.org,2002:timestamp",
            "tag:yaml.org,2002:int",
        )
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$|^\.(?:nan|NaN)$"
    ),
    list("-+.0123456789"),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))  # decimal always: YAML 1.1 reads 010 as eight


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    found = {}
    for key_node, value_node in node.value:
        key, value = loader.construct_object(key_node, deep=True), loader.construct_object(value_node, deep=True)
        if not isinstance(key, str):
            raise UserError(f"line {node.start_mark.line + 1}: the key {brief(key)} is not text")
        if key in found:
            raise UserError(f"line {node.start_mark.line + 1}: the key {brief(key)} is there twice")
        found[key] = value
    return found


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _value(text: str, where: str) -> Any:
    if len(text) > MAX_BYTES:
        raise UserError(f"{where}: {len(text):,} characters; a configuration has at most {MAX_BYTES:,}")
    try:
        _refuse_tricks(text)
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: plain values alone
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}:{at} not valid YAML: {problem}") from None


def _refuse_tricks(text: str) -> None:
    """Aliases, of which a few bytes can stand for gigabytes, and nesting, which costs PyYAML its depth squared."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("YAML aliases (*name) are not read here; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"line {event.start_mark.line + 1}: not valid YAML here: nested more than {MAX_DEPTH} deep")


def read_file(path: str | Path) -> dict[str, Any]:
    """The raw keys of a YAML file."""
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would wait for ever
        raise UserError(f"{path}: cannot be read as a configuration: not a file")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes; a configuration has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such configuration file") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: cannot be read as a configuration: byte {error.start} is no UTF-8; save it as text in UTF-8"
        ) from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as a configuration: {why}") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> dict[str, Any]:
    """The raw keys of a YAML text; ``where`` names it in errors."""
    raw = _value(text, where)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise UserError(f"{where}: not a configuration: its top level must be keys such as method: vae")
    return raw


def overrides(arguments: Sequence[str]) -> list[tuple[str, Any]]:
    """``--a.b 1`` and ``--a.b=1`` -> pairs of dotted key and value, the value read as YAML.

    Raises:
        UserError: an argument that is no such option, or an option without its value.
    """
    pairs, rest = [], deque(arguments)
    while rest:
        word = rest.popleft()
        if not word.startswith("--") or word == "--":
            raise UserError(f"{word}: a leftover argument; options are --key value or --key=value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or re.match(r"--[A-Za-z]", rest[0]):
                raise UserError(f"--{key}: its value is missing; write --{key} VALUE or --{key}=VALUE")
            text = rest.popleft()
        if not all(parts := key.split(".")) or len(parts) > MAX_DEPTH:
            raise UserError(f"--{escape(key[:80])}: not a dotted key such as train.lr")
        pairs.append((key, _override(key, text)))
    return pairs


def _override(key: str, text: str) -> Any:
    # A text is taken as it stands: YAML would cut a path at " #", drop its spaces and read [a] as a list.
    quoted = text[:1] in ("'", '"')
    if key in TEXTS and not quoted:
        return None if text in ("", "null", "~") else text
    value = _value(text, f"--{escape(key[:80])}")
    return text if isinstance(value, str) and not quoted else value


def canonical(key: str, value: Any) -> tuple[str, Any]:
    """An override by its one name: an alias by its key, a part said by its kind alone by its kind."""
    group, _, name = key.rpartition(".")
    if group == "train" and name in ALIASES:
        return f"objective.{ALIASES[name]}", value
    return (f"{key}.kind", value) if key in DEFAULT_KINDS and isinstance(value, str) else (key, value)


def _set(raw: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    path = ".".join(groups)
    for group in groups:
        below = raw.get(group)
        # A part that was named by its kind alone, or a number that becomes a schedule, gives way to keys of its own.
        if not isinstance(below, dict):
            raw[group] = below = {"kind": below} if isinstance(below, str) else {}
        raw = below
    if last == "kind" and raw.get("kind", DEFAULT_KINDS.get(path, value)) != value:
        raw.clear()  # the options of one kind mean nothing to another
    raw[last] = value


NETWORK_KEYS = ("model.network", "model.network.kind")


def load(raw: Mapping[str, Any], arguments: Sequence[str] = ()) -> Config:
    """The complete configuration of raw keys, as :func:`read_file` gives them, with overrides from the command line."""
    pairs = overrides(arguments)
    method = dict(pairs).get("method", raw.get("method"))
    plain, built_in = ({k: v for k, v in one.items() if k != "method"} for one in (raw, DEFAULTS))
    if (
        isinstance(method, str) and method in METHODS and plain == built_in
    ):  # what nobody chose yields to what the method's row says
        own = {*METHODS[method].defaults.get("model", {})}
        said = default_part(method, "network") or raw["model"]["network"]
        network = next((value for key, value in pairs if key in NETWORK_KEYS), said["kind"])
        if network in NETWORKS and NETWORKS[network].grid is not None:
            own |= {"network", "z_dim"}
        raw = {**raw, "model": {name: value for name, value in raw["model"].items() if name not in own}}
    return resolve(_changed(raw, pairs))


def of_method(raw: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Complete keys for another method: what its old method decided is left to the new one's row."""
    keys = copy.deepcopy(dict(raw))
    before = resolve({"method": keys["method"]}).to_dict()
    for name, value in METHODS[keys["method"]].defaults.get("train", {}).items():
        if keys["train"].get(name) == value:
            del keys["train"][name]
    for name in PARTS:
        if keys["model"].get(name) == before["model"][name]:
            del keys["model"][name]
    own = default_part(keys["method"], "network"), default_part(method, "network")
    if own[0] != own[1] and keys["model"].get("network") == before["model"]["network"]:
        for name in ("network", "z_dim", "z_channels"):  # a network and the kind of its codes go together
            if keys["model"].get(name) == before["model"][name]:
                del keys["model"][name]
    return keys | {"method": method, "objective": {}}


def changed(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Raw keys with other values of dotted keys."""
    return _changed(raw, list(changes.items()))


def _changed(raw: Mapping[str, Any], pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    try:
        keys = copy.deepcopy(dict(raw))
    except RecursionError:
        raise UserError(f"configuration: nested more than {MAX_DEPTH} deep") from None
    given = [canonical(key, value) for key, value in pairs]
    # Kinds first: an option of the new kind may stand before it on the command line.
    for key, value in sorted(given, key=lambda pair: not pair[0].endswith(".kind")):
        _set(keys, key, value)
    return keys


def to_yaml(config: Config | Mapping[str, Any]) -> str:
    """A complete configuration as a text that :func:`parse` reads back to the same."""
    plain = config.to_dict() if isinstance(config, Config) else dict(config)
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=120)


def to_arguments(config: Mapping[str, Any]) -> list[str]:
    """A complete configuration as arguments that :func:`load` reads back to the same."""

    def flat(value: Any, path: str) -> list[str]:
        if isinstance(value, Mapping) and value:
            return [word for key, item in value.items() for word in flat(item, f"{path}.{key}" if path else key)]
        text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**9).removesuffix("...\n").strip()
        return [f"--{path}={text}"]

    return flat(dict(config), "")


def of_weights(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The raw keys that weights carry."""
    raw = parse(str(metadata.get("config", "")), f"{where}: its configuration")
    return of_first_format(raw) if metadata.get("format") == "vaes-1" else raw


def of_first_format(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The raw keys of a run of the first format, whose images were held out by their order and cut to one shape."""
    keys = copy.deepcopy(dict(raw))
    data = keys.get("data")
    if isinstance(data, dict):
        known = keys_of(SOURCES.get(str(data.get("kind")), resolve))
        for key, value in (("held_out", "order"), ("fit", "crop")):
            if key in known:
                data.setdefault(key, value)
    return keys


class _Dumper(yaml.SafeDumper):
    """Lists in one line."""


_Dumper.add_representer(list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True))


DEFAULTS: Mapping[str, Any] = read_file(find("vae-digits"))
"""What is trained where no file is given."""
