"""A comparison as a table for people and as a document for programs."""

from collections.abc import Sequence
from typing import Any

from vaes.compare.pool import Cell, Column, Key, difference
from vaes.evaluate.report import number

__all__ = ["document", "keys", "table"]

FORMAT = "vaes-comparison-1"
SAME, UNKNOWN = "~", "?"


def keys(columns: Sequence[Column]) -> list[Key]:
    """Every number there is, in the order of the first columns; those of one name next to each other."""
    found = list(dict.fromkeys(key for column in columns for key in column.cells))
    place = {(key.group, key.name): i for i, key in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda key: place[key.group, key.name])


def table(columns: Sequence[Column]) -> str:
    """A row for each number, a column for each configuration; single dimensions of the latent space are left out."""
    shown = [key for key in keys(columns) if not key.name.startswith("kl_dim_")]
    rows: list[list[str]] = []
    group = ""
    for key in shown:
        if key.group != group:
            group = key.group
            rows.append([group])
        rows.append([f"  {key.name}{_aside(key, shown)}", *(_text(columns, key, i) for i in range(len(columns)))])
    widths = [max(len(row[i]) for row in [*rows, ["", *(c.label for c in columns)]] if len(row) > i)
              for i in range(len(columns) + 1)]  # fmt: skip
    head = ["", *(column.label for column in columns)]
    lines = ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)).rstrip()
             for row in [head, *rows]]  # fmt: skip
    return "\n".join([*lines, "", *_legend(columns), *_notes(columns, shown)])


def _aside(key: Key, shown: Sequence[Key]) -> str:
    """A number that tells apart rows of one name, whose values must not be compared."""
    alike = [other for other in shown if (other.group, other.name) == (key.group, key.name)]
    return f" ({alike.index(key) + 1})" if len(alike) > 1 else ""


def _text(columns: Sequence[Column], key: Key, i: int) -> str:
    cell = columns[i].cells.get(key)
    if cell is None:
        return "-"
    first = columns[0].cells.get(key)
    if i == 0 or first is None:
        return _value(cell)
    within = difference(first, cell).within_noise
    return f"{_value(cell)} {UNKNOWN if within is None else SAME if within else ''}".rstrip()


def _value(cell: Cell) -> str:
    if cell.low is None or cell.high is None or cell.low == cell.high:
        return number(cell.value)
    return f"{number(cell.value)} ± {(cell.high - cell.low) / 2:.2g}"


def _legend(columns: Sequence[Column]) -> list[str]:
    lines = []
    for column in columns:
        seeds = f"{len(column.runs)} seeds" if len(column.runs) > 1 else f"seed {column.runs[0].config.seed}"
        options = ", ".join(f"{key} {value}" for key, value in column.differs.items())
        paths = " ".join(str(run.path) for run in column.runs)
        lines.append(f"{column.label}  {f'{options}; ' if options else ''}{seeds}: {paths}")
    return lines


def _notes(columns: Sequence[Column], shown: Sequence[Key]) -> list[str]:
    pooled = [column.label for column in columns if len(column.runs) > 1]
    single = [column.label for column in columns if len(column.runs) == 1]
    lines = []
    if pooled:
        lines.append(f"± of {', '.join(pooled)}: half a 95 % t interval of the mean over seeds")
    if single:
        lines.append(f"± of {', '.join(single)}: half a 95 % interval over images; another seed may differ by more")
    first = columns[0].label
    lines.append(f"{SAME} differs from {first} by less than the noise   {UNKNOWN} its noise is not known")
    if any(_aside(key, shown) for key in shown):
        lines.append(
            "(1) (2) one name with different definitions, features, splits, images or likelihoods: not comparable; "
            "comparison.json says which"
        )
    return lines


def document(columns: Sequence[Column]) -> dict[str, Any]:
    """Everything in the table and what it rests on, for JSON."""
    return {
        "format": FORMAT,
        "columns": {
            column.label: {
                "runs": [str(run.path) for run in column.runs],
                "seeds": [run.config.seed for run in column.runs],
                "step": column.runs[0].evaluation.step,
                "differs": column.differs,
            }
            for column in columns
        },
        "metrics": [key._asdict() | _numbers(columns, key) for key in keys(columns)],
    }


def _numbers(columns: Sequence[Column], key: Key) -> dict[str, Any]:
    there = {column.label: column.cells[key] for column in columns if key in column.cells}
    first = columns[0].cells.get(key)
    against = {
        label: (found := difference(first, cell))._asdict() | {"within_noise": found.within_noise}
        for label, cell in there.items()
        if first is not None and label != columns[0].label
    }
    return {
        "values": {label: cell._asdict() for label, cell in there.items()},
        f"less {columns[0].label}": against,
    }
