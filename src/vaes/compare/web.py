"""Runs as one page of HTML: parallel coordinates whose axes choose runs, slices, and a table of those chosen."""

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from vaes import files
from vaes.compare.rows import better
from vaes.compare.runs import NOT_A_DIFFERENCE, Result, flat
from vaes.evaluate.report import shown

__all__ = ["document_of", "write_page"]

POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
MOST_SETTINGS, MOST_NUMBERS = 6, 3
"""Axes that are shown at first."""
FIRST = ("elbo", "fid", "mig_chen", "rate", "distortion", "loss")
"""Numbers that come first where they are there."""


def write_page(results: Sequence[Result], title: str, path: Path) -> None:
    """Write the page, whole or not at all; it needs no network, and none of its text is read as HTML.

    Raises:
        UserError: the file cannot be written.
    """
    folder = resources.files("vaes.compare") / "page"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("sweep.css", "sweep.js"))
    said = json.dumps(files.finite(document_of(results, title)), allow_nan=False)
    for sign in "<>&":  # it ends no element and opens none, whatever files say
        said = said.replace(sign, f"\\u{ord(sign):04x}")
    policy = POLICY.format(script=_digest(script), style=_digest(style))
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}: vaes sweep</title>\n<style>{style}</style>\n"
        f'<script type="application/json" id="vaes-data">{said}</script>\n</head>\n'
        f'<body><noscript>This page needs JavaScript.</noscript><script type="module">{script}</script></body>\n'
        "</html>\n"
    )
    files.write_text(path, text)


def document_of(results: Sequence[Result], title: str) -> dict[str, Any]:
    """What the page shows: the axes, which are the keys that differ and the numbers that any run has, and the runs."""
    configs = [flat(result.config.to_dict()) for result in results]
    keys = [
        key
        for key in dict.fromkeys(key for config in configs for key in config)
        if key not in NOT_A_DIFFERENCE - {"seed"} and len({_said(config.get(key, "–")) for config in configs}) > 1
    ]
    keys.sort(key=lambda key: key == "seed")  # last
    numbers = [_numbers(result) for result in results]
    names = list(dict.fromkeys(name for own in numbers for name in own))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    axes = [
        _axis(key, [_plain(config.get(key, "–")) for config in configs], i < MOST_SETTINGS)
        for i, key in enumerate(keys)
    ]
    for i, name in enumerate(names):
        there = [own[name] for own in numbers if name in own]
        ends = {"low": min(there), "high": max(there), "log": False}
        axes.append({"name": name, "number": True, "shown": i < MOST_NUMBERS, "better": better(name), **ends})
    runs = [
        {"name": result.name, "values": [*(_plain(c.get(key, "–")) for key in keys), *(own.get(n) for n in names)]}
        for result, c, own in zip(results, configs, numbers, strict=True)
    ]
    return {"title": title, "axes": axes, "runs": runs}


def _axis(key: str, values: Sequence[Any], visible: bool) -> dict[str, Any]:
    """Of a setting: a scale of numbers, logarithmic where they span much, or levels in their order."""
    axis = {"name": key, "number": False, "shown": visible, "better": ""}
    if all(isinstance(value, int | float) for value in values):
        low, high = min(values), max(values)
        return {**axis, "low": low, "high": high, "log": low > 0 and high / low >= 10}
    found = set(values)
    return {**axis, "levels": sorted(found, key=lambda v: (isinstance(v, str), v if isinstance(v, str) else 0.0 + v))}


def _plain(value: Any) -> Any:
    """As a number or a text; None and flags are words, other kinds are written out."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return shown(value if isinstance(value, str) else _said(value))


def _said(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _numbers(result: Result) -> Mapping[str, float]:
    """The finite numbers of a run by name; of a name in several groups, the first."""
    found: dict[str, float] = {}
    for group in result.evaluation.groups.values():
        for metric in group.metrics:
            if math.isfinite(metric.value):
                found.setdefault(shown(metric.name), metric.value)
    return found


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
