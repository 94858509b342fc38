"""The reference pages, from what the program says of itself: parsers, the table of keys, methods, docstrings.

python docs/reference.py RUN ...    adds the metrics of evaluated runs to docs/metrics.json
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import vaes
from vaes import keys
from vaes.methods import METHODS

METRICS = Path(__file__).with_name("metrics.json")
MODULES = (
    "data", "posteriors", "priors", "likelihoods", "objectives", "schedules", "evaluate", "compare", "encoding", "view",
    "share", "sweep", "sklearn", "functional",
)  # fmt: skip
SECTIONS = {
    "": "At the top",
    "data": "data: which images",
    "model": "model: codes",
    "model.network": "model.network: encoder and decoder",
    "model.posterior": "model.posterior: q(z|x)",
    "model.prior": "model.prior: p(z)",
    "model.likelihood": "model.likelihood: p(x|z)",
    "objective": "objective: what is minimised",
    "train": "train: how",
    "schedule": "Schedules: a number that changes with the step",
}
UNITS = ("nats per image", "bits per pixel and channel", "nats", "bits", "dB")


def pages() -> dict[str, str]:
    """Page -> its Markdown."""
    made = {
        "commands": commands,
        "keys": key_page,
        "methods": method_page,
        "metrics": metric_page,
        "python": python_page,
    }
    return {f"reference/{name}.md": make() for name, make in made.items()}


def commands() -> str:
    """Every command with its options, as ``--help`` says them."""
    from vaes.cli.arguments import _parsers

    lines = ["# Commands", "", "Every key of a configuration is an option too: [keys](keys.md).", ""]
    for name, parser in _parsers().items():
        lines += [
            f"## {name}",
            "",
            cell(parser.description or ""),
            "",
            "```text",
            parser.format_usage().strip(),
            "```",
            "",
        ]
        rows = [(", ".join(a.option_strings) or str(a.metavar or a.dest), a) for a in parser._actions]
        lines += ["| | |", "|---|---|"]
        for words, action in rows:
            said = (action.help or "") % {**vars(action), "prog": parser.prog} if action.help else ""
            kinds = f" One of {', '.join(map(str, action.choices))}." if action.choices else ""
            lines.append(f"| `{words}` | {cell(said + kinds)} |")
        lines.append("")
    return "\n".join(lines)


def key_page() -> str:
    """The table of all keys."""
    lines = [
        "# Keys",
        "",
        "In YAML, on the command line as `--KEY VALUE`, and in Python. `vaes config METHOD` prints those",
        "of a method.",
        "",
    ]
    section = None
    for group in keys.groups():
        if group.section != section:
            section = group.section
            lines += [f"## {SECTIONS[section]}", ""]
        if group.choice:
            lines += [f"### {group.choice}", ""]
        if group.about:
            lines += [f"{cell(group.about)}.", ""]
        if group.keys:
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
            for key in group.keys:
                default = "*must be given*" if key.default is None else f"`{key.default.replace('|', chr(92) + '|')}`"
                lines.append(f"| `{key.name}` | {cell(short(key.type))} | {default} | {cell(key.meaning)} |")
            lines.append("")
    return "\n".join(lines)


def short(kind: str) -> str:
    """A type in words, without names that have headings of their own below."""
    many = kind.startswith("one of ") and kind.count(",") > 8
    return f"one of {kind.count(',') + 1} names" if many else kind


def method_page() -> str:
    """Every method with its equation and the configuration to start from."""
    from vaes.config.document import method_page as of

    lines = [
        "# Methods, one by one",
        "",
        "What the rows have in common, and where they differ from their papers: [methods](../methods.md).",
        "",
    ]
    for name, row in METHODS.items():
        text = "\n".join(line for line in of(name).splitlines() if not line.startswith("#")).strip()
        lines += [f"## {name}", "", f"{cell(row.title)}: [{cell(row.source)}]({row.url}).", ""]
        lines += ["``` { .text .wrap }", f"loss = {row.loss}", "```", ""]
        lines += [f"Bound: `{row.bound}`. Terms: {', '.join(f'`{term}`' for term in row.terms) or 'none'}.", ""]
        lines += ["```yaml", text, "```", ""]
    return "\n".join(lines)


def metric_page() -> str:
    """Every metric with its unit and definition, as evaluations of real runs gave them."""
    groups: dict[str, dict[str, str]] = json.loads(METRICS.read_text(encoding="utf-8"))
    lines = [
        "# Metrics",
        "",
        "What `vaes evaluate` computes. A definition is the one that stands beside the number in `evaluation.json`,",
        "here from runs on small sets, whose sizes it names. How to read them: [evaluation](../evaluation.md).",
        "",
    ]
    for group, metrics in groups.items():
        lines += [f"## {group}", "", "| metric | unit | definition |", "|---|---|---|"]
        lines += [f"| `{name}` | {unit(said)} | {cell(said)} |" for name, said in metrics.items()]
        lines.append("")
    return "\n".join(lines)


def unit(definition: str) -> str:
    """The unit that a definition names; none for shares, scores, p-values and counts."""
    return next((one for one in UNITS if re.search(rf"\b{one}\b", definition)), "")


def python_page() -> str:
    """What ``vaes`` and its modules export, with signatures and docstrings."""
    lines = [
        "# Python",
        "",
        "Everything that `__all__` of these modules names; the rest may change.",
        "",
        "## vaes",
        "",
    ]
    for name in vaes.__all__:
        lines += entry(name, getattr(vaes, name), "vaes")
    for module in MODULES:
        home = getattr(vaes, module)
        lines += [f"## vaes.{module}", "", *prose(inspect.getdoc(home) or ""), ""]
        for name in home.__all__:
            lines += entry(name, getattr(home, name), f"vaes.{module}")
    return "\n".join(lines)


def entry(name: str, part: Any, home: str) -> Iterator[str]:
    """A class, a function or a value."""
    yield f"### {home}.{name}"
    yield ""
    if not (inspect.isclass(part) or inspect.isroutine(part)):
        yield f"A value: `{type(part).__name__}`."
        yield ""
        return
    yield from ("```python", signature(name, part), "```", "")
    yield from prose(inspect.getdoc(part) or "")
    yield ""
    if inspect.isclass(part) and part.__module__.startswith("vaes"):
        for method, function in vars(part).items():
            if not method.startswith("_") and inspect.isroutine(getattr(part, method)) and inspect.getdoc(function):
                yield from ("```python", signature(method, getattr(part, method)), "```", "")
                yield from prose(inspect.getdoc(getattr(part, method)) or "")
                yield ""


def signature(name: str, part: Callable[..., Any]) -> str:
    """The signature on one line, or a parameter a line where it is long."""
    try:
        found = inspect.signature(part)
    except (TypeError, ValueError):  # an alias of a type
        return name
    text = plain(f"{name}{found}")
    if len(text) <= 100:
        return text
    return f"{name}(\n    " + ",\n    ".join(plain(str(p)) for p in found.parameters.values()) + ",\n)"


def plain(text: str) -> str:
    """A signature without the homes of its types and the places of its functions."""
    text = re.sub(r"\b(?:vaes|torch|numpy|pathlib|collections|typing)\.(?:\w+\.)*", "", text)
    text = re.sub(r"<function <lambda>[^>]*>", "...", text)
    return re.sub(r"<(?:class|function) '?([\w.]+)[^>]*>", r"\1", text).replace("'", '"')


def prose(doc: str) -> list[str]:
    """A docstring as Markdown: roles become code, the sections of arguments lists."""
    doc = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", doc).replace("``", "`")
    lines: list[str] = []
    inside = False
    for line in doc.splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Attributes|Yields):", line):
            lines += ["", f"**{line.removesuffix(':')}**", ""]
            inside = True
        elif inside and (found := re.match(r"    (\S[^:]*): (.*)", line)):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif inside and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return outside_code("\n".join(lines), lambda text: re.sub(r"([<|])", r"\\\1", text)).splitlines()


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """A text that is changed outside of blocks and words of code."""
    parts = re.split(r"(^```.*?^```$|^    .*?$|`[^`\n]*`)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if index % 2 else change(part) for index, part in enumerate(parts))


def cell(text: str) -> str:
    """A text in a cell of a table, whose signs are no Markdown."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def gather(runs: list[str]) -> None:
    """Add the definitions of every metric that the evaluations of some runs hold to those that are there."""
    found: dict[str, dict[str, str]] = json.loads(METRICS.read_text(encoding="utf-8"))
    for run in runs:
        for name, group in json.loads((Path(run) / "evaluation.json").read_text(encoding="utf-8"))["groups"].items():
            for metric in group["metrics"]:
                found.setdefault(name, {}).setdefault(general(metric["name"]), metric["definition"])
    METRICS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def general(name: str) -> str:
    """The name of a metric with letters in the place of the numbers in it."""
    return re.sub(r"^kl_dim_\d+$", "kl_dim_J", re.sub(r"_k\d+", "_kK", name))


if __name__ == "__main__":
    gather(sys.argv[1:])
