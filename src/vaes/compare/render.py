"""A comparison as a table for a terminal, Markdown, CSV and LaTeX, and as a document for programs."""

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from vaes.compare.pool import Cell, Column, Difference
from vaes.compare.rows import Row, apart, keys, rows
from vaes.errors import UserError
from vaes.evaluate.report import number, shown, with_error

__all__ = ["FORMATS", "document", "render"]

FORMAT = "vaes-comparison-2"
SAME, UNKNOWN, BEST, NONE, CARE = "~", "?", "*", "-", "!"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
FORMATS = ("table", "markdown", "csv", "latex")

_Line = tuple[str, list[str]]


def render(columns: Sequence[Column], format: str = "table", *, width: int = 120, bold: bool = False) -> str:
    """The comparison as text.

    A row for each number that compares, a column for each configuration and its difference from the first; below, what
    one column alone has. Single dimensions of the latent space are in CSV alone, and LaTeX has no differences.

    Args:
        columns: what :func:`vaes.compare.pool` gave.
        format: ``table``, ``markdown``, ``csv`` or ``latex``.
        width: characters in a line of the table, which goes on below where it is wider.
        bold: mark the best with a terminal's bold letters instead of a ``*``.

    Raises:
        UserError: an unknown format.
    """
    if format not in FORMATS:
        raise UserError(f"--format {shown(format)}: there is no such format; allowed: {', '.join(FORMATS)}")
    found = rows(columns)
    if format == "csv":
        return _csv(columns, found)
    found = [row for row in found if not row.key.name.startswith("kl_dim_")]
    if format == "table":
        return _table(columns, found, width, bold)
    return (_markdown if format == "markdown" else _latex)(columns, found)


def _table(columns: Sequence[Column], found: Sequence[Row], width: int, bold: bool) -> str:
    """Columns side by side while the width lasts, then the next ones below."""

    def mark(text: str) -> str:
        return f"{BOLD}{text}{PLAIN}" if bold else f"{text} {BEST}"

    lines = _lines(columns, found, str, mark)
    heads = [[column.label, ""] for column in columns]
    heads += [[column.label, f"less {columns[0].label}"] for column in columns[1:]]
    names = max(len(name) for name, _ in lines)
    widths = [max(map(_length, [*head, *(cells[i] for _, cells in lines if cells)])) for i, head in enumerate(heads)]
    blocks, at = [], 0
    while at < len(heads):
        upto = at + 1
        while upto < len(heads) and names + sum(w + 2 for w in widths[at : upto + 1]) <= width:
            upto += 1
        body = [("", [head[k] for head in heads[at:upto]]) for k in (0, 1)]
        body = [line for line in body if any(line[1])]
        body += _without_bare([(name, cells[at:upto]) for name, cells in lines])
        blocks.append("\n".join(_padded([name, *cells], [names, *widths[at:upto]]) for name, cells in body))
        at = upto
    said = [_errors(columns), *_legend(columns, found, "bold" if bold else BEST)]
    header, *legend = (textwrap.fill(line, max(width, 40), subsequent_indent="    ", break_on_hyphens=False,
                                     break_long_words=False) for line in said)  # fmt: skip
    return "\n\n".join([header, *blocks, "\n".join(legend)])


def _without_bare(lines: Sequence[_Line]) -> list[_Line]:
    """Without the rows that have no number in these columns, and the headings of none."""
    there = [line for line in lines if not line[1] or any(text != NONE for text in line[1])]
    return [line for line, after in zip(there, [*there[1:], ("", [])], strict=True) if line[1] or after[1]]


def _padded(line: Sequence[str], sizes: Sequence[int]) -> str:
    return "  ".join(text + " " * (size - _length(text)) for text, size in zip(line, sizes, strict=False)).rstrip()


def _length(text: str) -> int:
    return len(text.replace(BOLD, "").replace(PLAIN, ""))


def _lines(
    columns: Sequence[Column], found: Sequence[Row], escape: Callable[[str], str], mark: Callable[[str], str]
) -> list[_Line]:
    """Names and texts of rows, under headings without texts."""
    lines: list[_Line] = []
    heading = ""
    for row in found:
        title = _heading(row)
        if title != heading:
            heading = title
            lines.append((escape(title), []))
        cells = [escape(_value(columns[i], cell)) for i, cell in enumerate(row.cells)]
        if row.best is not None:
            cells[row.best] = mark(cells[row.best])
        cells += [escape(_less(one)) for one in row.differences[1:]]
        lines.append((f"  {escape(f'{row.name} {row.better}'.rstrip())}", cells))
    return lines


def _heading(row: Row) -> str:
    return f"{shown(row.key.group)}{', of one alone' if row.alone else ''}"


def _value(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return NONE
    some = f" ({cell.runs} of {len(column.runs)})" if cell.runs < len(column.runs) else ""
    return f"{_number(cell)}{some}{f' {CARE}' if cell.noted else ''}"


def _less(found: Difference | None) -> str:
    if found is None:
        return NONE
    mark = UNKNOWN if found.within_noise is None else SAME if found.within_noise else ""
    sign = "+" if found.value > 0 else ""
    return f"{sign}{_number(found)} {mark}".rstrip()


def _number(found: Cell | Difference) -> str:
    if found.low is None or found.high is None or found.low == found.high:
        return number(found.value)
    return with_error(found.value, (found.high - found.low) / 2)


def _errors(columns: Sequence[Column]) -> str:
    """What the sign means."""
    pooled = [column.label for column in columns if len(column.runs) > 1]
    single = [column.label for column in columns if len(column.runs) == 1]
    over = [f"over seeds (Student's t) for {', '.join(pooled)}"] if pooled else []
    over += [f"over images for {', '.join(single)}: another seed may differ by more"] if single else []
    return f"± is half a 95 % interval, {', '.join(over)}"


def _legend(columns: Sequence[Column], found: Sequence[Row], best: str) -> list[str]:
    """What the columns are and what the other signs mean."""
    lines = [f"{column.label}  {_about(column)}" for column in columns]
    if any(one is not None and one.paired for row in found for one in row.differences):
        lines.append(f"differences from {columns[0].label} of single runs are taken image by image where they can be")
    if len(columns) > 1:
        lines.append(f"{SAME} smaller than the noise   {UNKNOWN} its noise is not known")
    if any(cell is not None and cell.noted for row in found for cell in row.cells):
        lines.append(f"{CARE} to be read with care: vaes evaluate says why")
    lines.append(f"↑ higher is better   ↓ lower is better   {best} the best, beyond the noise")
    for row in found:
        if row.name.endswith(" (1)"):
            why = ", ".join(_WORDS[name] for name in apart(row.key, [other.key for other in found]))
            lines.append(f"{row.name.removesuffix(' (1)')} (1), (2): not comparable, for they differ in {why}")
    return lines


_WORDS = {
    "definition": "definition (likelihood, range or budget)",
    "version": "version",
    "features": "features",
    "split": "split",
    "images": "images of the split",
    "chosen": "images chosen",
    "n": "number of images",
    "seed": "evaluation's seed",
}


def _about(column: Column) -> str:
    seeds = ", ".join(str(run.config.seed) for run in column.runs)
    options = "".join(
        f"{shown(key)} {shown(str(value))}; " for key, value in column.differs.items() if key != "checkpoint"
    )
    steps = ", ".join(dict.fromkeys(str(run.evaluation.step) for run in column.runs))
    which = "best checkpoint, " if column.runs[0].checkpoint == "best" else ""
    paths = " ".join(shown(str(run.path)) for run in column.runs)
    return f"{options}seed{'s' if len(column.runs) > 1 else ''} {seeds}; {which}step {steps}: {paths}"


def _markdown(columns: Sequence[Column], found: Sequence[Row]) -> str:
    labels = [_in_markdown(column.label) for column in columns]
    head = ["", *labels, *(f"{label} less {labels[0]}" for label in labels[1:])]
    lines = [_in_markdown(_errors(columns)), "", _piped(head), _piped(["---", *["---:"] * (len(head) - 1)])]
    for name, cells in _lines(columns, found, _in_markdown, lambda text: f"**{text}**"):
        lines.append(_piped([name.strip(), *cells] if cells else [f"*{name}*", *[""] * (len(head) - 1)]))
    return "\n".join([*lines, "", *(f"- {_in_markdown(line)}" for line in _legend(columns, found, "bold"))])


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", text)


def _latex(columns: Sequence[Column], found: Sequence[Row]) -> str:
    """A ``tabular`` without packages; the legend is in comments."""
    lines = [f"% {line}" for line in (_errors(columns), *_legend(columns, found, "bold"))]
    lines.append(rf"\begin{{tabular}}{{l{'r' * len(columns)}}}")
    lines += [" & ".join(["", *(_in_latex(column.label) for column in columns)]) + r" \\", r"\hline"]
    for name, cells in _lines(columns, found, _in_latex, lambda text: rf"\textbf{{{text}}}"):
        if cells:
            lines.append(" & ".join([name.strip(), *cells[: len(columns)]]) + r" \\")
        else:
            lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\textit{{{name}}}}} \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↑": r"$\uparrow$",
    "↓": r"$\downarrow$", **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def _in_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(sign, sign) for sign in text)
    return re.sub(r"(?<![\w.])-(?=[0-9i])", "$-$", escaped)


def _csv(columns: Sequence[Column], found: Sequence[Row]) -> str:
    """Every row with all its digits: for each column its value and the ends of its 95 % interval, then the same of its
    difference from the first."""
    first, file = columns[0].label, io.StringIO()
    write = csv.writer(file, lineterminator="\n").writerow
    head = ["group", "metric", "better", "n", "best"]
    for name in (*(c.label for c in columns), *(f"{c.label} less {first}" for c in columns[1:])):
        head += [name, f"{name} low", f"{name} high"]
    write([_in_csv(text) for text in head])
    for row in found:
        best = "" if row.best is None else columns[row.best].label
        better = {"↑": "higher", "↓": "lower", "": ""}[row.better]
        line = [*map(_in_csv, (shown(row.key.group), row.name)), better, str(row.key.n), _in_csv(best)]
        for one in (*row.cells, *row.differences[1:]):
            line += [
                "" if x is None else repr(x) for x in ((None,) * 3 if one is None else (one.value, one.low, one.high))
            ]
        write(line)
    return file.getvalue().rstrip("\n")


def _in_csv(text: str) -> str:
    """A name that a spreadsheet would take for a formula is given a quotation mark."""
    return f"'{text}" if text[:1] in "=+-@" and text else text


def document(columns: Sequence[Column]) -> dict[str, Any]:
    """Everything in the table and what it rests on, for JSON; a number that is none is null."""
    found = {row.key: row for row in rows(columns)}
    return {
        "format": FORMAT,
        "columns": {
            column.label: {
                "runs": [str(run.path) for run in column.runs],
                "seeds": [run.config.seed for run in column.runs],
                "checkpoint": column.runs[0].checkpoint,
                "steps": [run.evaluation.step for run in column.runs],
                "differs": column.differs,
                "warnings": [line for run in column.runs for line in run.warnings],
            }
            for column in columns
        },
        "metrics": [key._asdict() | _numbers(columns, found[key]) for key in keys(columns)],
    }


def _numbers(columns: Sequence[Column], row: Row) -> dict[str, Any]:
    labels = [column.label for column in columns]
    values = {label: _finite(cell._asdict()) for label, cell in zip(labels, row.cells, strict=True) if cell is not None}
    for one in values.values():
        del one["images"]
    less = {
        label: _finite(one._asdict()) | {"within_noise": one.within_noise}
        for label, one in zip(labels, row.differences, strict=True)
        if one is not None
    }
    best = None if row.best is None else labels[row.best]
    return {"better": row.better, "best": best, "values": values, f"less {labels[0]}": less}


def _finite(numbers: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
