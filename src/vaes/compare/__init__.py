"""Runs side by side: pooled over seeds, with what the noise allows to say about their differences."""

from typing import Any

from vaes.compare.pool import Cell, Column, Difference, Key, difference, interval, pool
from vaes.compare.render import FORMATS, document, render
from vaes.compare.rows import Row, rows
from vaes.compare.runs import Result, read_runs, warnings
from vaes.compare.trained import trained
from vaes.compare.web import write_page

__all__ = [
    "FORMATS",
    "Cell",
    "Column",
    "Difference",
    "Key",
    "Result",
    "Row",
    "curves",
    "difference",
    "document",
    "interval",
    "pool",
    "rate_distortion",
    "read_runs",
    "render",
    "rows",
    "trained",
    "warnings",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name in ("curves", "rate_distortion"):  # matplotlib takes longer to start than a table to make
        import vaes.drawing  # noqa: F401 - before matplotlib is
        from vaes.compare import plot
        from vaes.compare.bands import curves

        return curves if name == "curves" else plot.rate_distortion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
