"""The keys of a configuration, described: types and defaults from signatures, meanings from docstrings.

``python -m vaes.config.document`` writes the table that :mod:`vaes.keys` reads.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from vaes import shipped
from vaes.config.load import DEFAULTS, load, read_file
from vaes.config.own import OWN
from vaes.config.registry import BOUNDS, NETWORKS, SCHEDULES, SOURCES, TERMS
from vaes.config.resolve import (
    DEFAULT_KINDS,
    PARTS,
    Config,
    data_options,
    extra_term,
    model_options,
    objective_options,
    top_options,
)
from vaes.config.schema import describe, keys, unknown
from vaes.keys import FILE, Group, Key
from vaes.methods import METHODS
from vaes.train.settings import Settings

__all__ = ["as_json", "document", "listed_methods", "listing", "meanings", "method_page", "starting_point"]


def document() -> list[Group]:
    """The whole table, from the registries as they are now."""
    networks = {name: pair.encoder for name, pair in NETWORKS.items() if name not in OWN}
    seed, method = _rows("", top_options)
    return [
        Group("", "", "", (seed, method._replace(type=f"one of {', '.join(METHODS)}"))),
        *_kinds("data", SOURCES),
        _group("data", data_options, about="with every kind"),
        _group("model", model_options),
        *_kinds("model.network", networks, about=inspect.getmodule),
        *(group for name, parts in PARTS.items() for group in _kinds(f"model.{name}", parts)),
        *_objectives(),
        _group("train", Settings),
        *_kinds("schedule", SCHEDULES),
    ]


def _kinds(
    section: str, registry: Mapping[str, Callable[..., Any]], about: Callable[[Any], Any] = lambda part: part
) -> Iterator[Group]:
    default = DEFAULT_KINDS.get(section)
    kind = Key(
        f"{section}.kind", f"one of {', '.join(registry)}", default, "which of the kinds below; each has its keys"
    )
    yield Group(section, "", "", (kind,))
    for name, part in registry.items():
        yield _group(section, part, choice=f"{section}.kind {name}", about=_first_sentence(about(part)))


def _objectives() -> Iterator[Group]:
    bound, terms = _rows("objective", objective_options)
    bound = bound._replace(type=f"one of {', '.join(BOUNDS)}", default="the method's")
    yield Group("objective", "", "", (bound, terms._replace(type="a group of keys", default="{}")))
    for name, row in METHODS.items():
        said = row.defaults.get("objective", {})
        rows = _with(said, [*_rows("objective", row.weights), *_rows("objective", BOUNDS[row.bound])])
        for term in row.terms:
            rows += _with(said.get(term, {}), _rows(f"objective.{term}", TERMS[term]))
        yield Group("objective", f"method {name}", f"{row.title}: {row.loss}", tuple(rows))
    for name, part in BOUNDS.items():
        yield _group("objective", part, choice=f"objective.bound {name}", about=_first_sentence(part))
    for name, kind in TERMS.items():
        rows = [*_rows(f"objective.terms.{name}", extra_term), *_rows(f"objective.terms.{name}", kind)]
        yield Group("objective", f"objective.terms {name}", _first_sentence(kind), tuple(rows))


def _with(said: Mapping[str, Any], rows: list[Key]) -> list[Key]:
    """Rows with the defaults of a method's row in place of the parts' own."""
    short = ((key, key.name.rpartition(".")[2]) for key in rows)
    return [key._replace(default=_yaml(said[name])) if name in said else key for key, name in short]


def _group(section: str, part: Callable[..., Any], *, choice: str = "", about: str = "") -> Group:
    return Group(section, choice, about, tuple(_rows(section, part)))


def _rows(section: str, part: Callable[..., Any]) -> list[Key]:
    said = meanings(part)
    return [
        Key(
            f"{section}.{name}" if section else name,
            describe(parameter.annotation),
            None if parameter.default is inspect.Parameter.empty else _yaml(parameter.default),
            said.get(name, ""),
        )
        for name, parameter in keys(part).items()
    ]


def _yaml(value: object) -> str:
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def meanings(part: Callable[..., Any]) -> dict[str, str]:
    """Parameter -> its line in the ``Args:`` of a docstring, without markup."""
    names, name = set(inspect.signature(part).parameters), ""
    found: dict[str, str] = {}
    _, _, section = (inspect.getdoc(part) or "").partition("Args:\n")
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.match(r"    (\w+): +(.*)", line)
        if entry and entry[1] in names:
            name, line = entry[1], entry[2]
        if name:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return {name: _without_markup(text) for name, text in found.items()}


def _first_sentence(part: object) -> str:
    text = " ".join((inspect.getdoc(part) or "").partition("\n\n")[0].split())
    return _without_markup(re.split(r"(?<=\w)[.:] ", f"{text} ")[0].strip().removesuffix("."))


def _without_markup(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("`", "")


def listing() -> str:
    """What ``vaes config`` can print: methods and shipped configurations, a line each."""
    methods = {name: f"{row.title}: {row.loss}" for name, row in METHODS.items()}
    lines = ["methods (vaes config METHOD > my.yaml; vaes train -c my.yaml):", *_listed(methods), ""]
    return "\n".join([*lines, "shipped configurations (vaes train -c NAME):", *_listed(shipped.names())])


def _listed(said: Mapping[str, str]) -> Iterator[str]:
    for name, text in said.items():
        yield from textwrap.wrap(f"{name:<17} {text}", 79, initial_indent="  ", subsequent_indent=" " * 20)


def listed_methods() -> str:
    """The methods as ``vaes methods`` prints them, with where each comes from."""
    width = max(map(len, METHODS))
    lines = [f"{name:<{width}}  {row.title} ({row.source})" for name, row in METHODS.items()]
    return "\n".join([*lines, "", "vaes methods NAME tells more; vaes train --method NAME trains it"])


def method_page(name: str) -> str:
    """Parts, equation, reference and a configuration of a method, the former as comments: a file to train from.

    Raises:
        UserError: there is no such method.
    """
    if name not in METHODS:
        raise unknown(f"{name}: no method", name, METHODS)
    row = METHODS[name]
    given = {section: dict(values) for section, values in row.defaults.items() if values}
    short = {"method": name, **given, "data": {"kind": "digits", "image_size": 16}}
    parts = {part: load(short).model[part]["kind"] for part in ("posterior", "prior", "likelihood")}
    parts |= {"bound": row.bound, "terms": ", ".join(row.terms) or "none"}
    lines = [f"{row.title}: {row.source}, {row.url}", "", f"loss = {row.loss}", "(nats per image)", ""]
    lines += [f"{part:<11} {kind}" for part, kind in parts.items()]
    said = [f"# {line}".rstrip() for line in lines]
    note = "# To start from; every key: vaes config " + name
    return "\n".join([*said, "", note, yaml.safe_dump(short, sort_keys=False).rstrip()])


def starting_point(name: str) -> str:
    """A complete configuration as YAML with a comment a key: of a method, on the images that need no files, or a
    shipped one.

    Raises:
        UserError: there is neither.
    """
    if name not in METHODS and name not in shipped.names():
        raise unknown(f"{name}: neither a method nor a shipped configuration", name, [*METHODS, *shipped.names()])
    raw = {**DEFAULTS, "method": name} if name in METHODS else read_file(shipped.find(name))
    config = load(raw)
    row = METHODS[config.method]
    said = textwrap.wrap(f"{row.title} ({row.source}): {row.loss}", 96)
    head = "".join(f"# {line}\n" for line in [*said, "Every key is here; what is left out keeps its default."])
    values = config.to_dict()
    if "root" in raw["data"]:  # as it was said, not made absolute here
        values["data"]["root"] = raw["data"]["root"]
    return head + "".join(_commented(values, "", _comments(config)))


def _comments(config: Config) -> dict[str, str]:
    """Dotted key -> its comment, by what the configuration chose."""
    chosen = {
        "",
        f"method {config.method}",
        f"data.kind {config.data['kind']}",
        *(f"model.{part}.kind {config.model[part]['kind']}" for part in ("network", *PARTS)),
        f"objective.bound {config.objective['bound']}",
    }
    found = {}
    for group in document():
        for key in group.keys if group.choice in chosen else ():
            choice = key.type.startswith("one of ")
            found[key.name] = key.type if choice or not key.meaning else key.meaning.removesuffix(".")
    return found


def _commented(values: Mapping[str, Any], path: str, comments: Mapping[str, str]) -> Iterator[str]:
    indent = "  " * (path.count(".") + 1 if path else 0)
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:\n"
            yield from _commented(value, name, comments)
            continue
        line, comment = f"{indent}{key}: {_yaml(value)}", comments.get(name, "")
        if len(line) + len(comment) > 96:
            yield from (f"{indent}# {part}\n" for part in textwrap.wrap(comment, 96 - len(indent)))
            comment = ""
        yield f"{line}  # {comment}\n" if comment else f"{line}\n"


def as_json(table: list[Group]) -> str:
    """The table as a text with one key a line."""
    rows = []
    for group in table:
        keys = ",\n  ".join(json.dumps(key, ensure_ascii=False) for key in group.keys)
        rows.append(f"{json.dumps(group[:3], ensure_ascii=False)[:-1]}, [\n  {keys}\n]]")
    return "[" + ",\n".join(rows) + "]\n"


def main() -> None:
    """Write the table, and name the keys without a line of meaning."""
    table = document()
    silent = [key.name for group in table for key in group.keys if not key.meaning]
    FILE.write_text(as_json(table), encoding="utf-8")
    if silent:
        raise SystemExit(f"written, but these have no line in the Args: of a docstring: {', '.join(silent)}")


if __name__ == "__main__":
    main()
