"""The tables of ``docs/results.md`` that ``study.py`` writes from its JSON."""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vaes import UserError, files

__all__ = ["lines", "write_tables"]

BEGIN, END = "<!-- study.py: begin -->", "<!-- study.py: end -->"

SCORE = "mig_chen"
"""Shown for each configuration."""


def write_tables(document: Mapping[str, Any], path: Path) -> None:
    """Put them between the two marks of a page, where there is such a page.

    Raises:
        UserError: a page without the marks.
    """
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{path}: has no lines {BEGIN} and {END} for the tables to go between")
    files.write_text(path, f"{before}{BEGIN}\n\n" + "\n".join(lines(document)) + f"\n\n{END}{after}")


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Shares of variance by score, and a score and the UDR by configuration."""
    rows = document["runs"]
    yield f"Shares of a score's variance over the {len(rows)} runs (Locatello et al., 2019, ask this of 12,600):"
    yield from ["", "| score | method | coefficient | seed |", "|---|---|---|---|"]
    for name, part in document["variance"].items():
        yield f"| `{name}` | {part['method']:.0%} | {part['coefficient']:.0%} | {part['seed']:.0%} |"
    if SCORE not in document["scores"]:
        return
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((row["method"], row["coefficient"]), []).append(row[SCORE])
    yield from ["", f"| configuration | seeds | `{SCORE}`, mean | smallest-largest | UDR |", "|---|---|---|---|---|"]
    for cell, values in cells.items():
        udr = document["udr"].get(" ".join(cell))
        ends = f"{min(values):.3f}-{max(values):.3f}"
        ranking = "" if udr is None else f"{udr:.2f}"
        yield f"| {' '.join(cell)} | {len(values)} | {statistics.fmean(values):.3f} | {ends} | {ranking} |"
