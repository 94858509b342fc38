"""Runs side by side: pooled over seeds, with what the noise allows to say about their differences."""

from vaes.compare.plot import rate_distortion
from vaes.compare.pool import Cell, Column, Difference, Key, difference, interval, pool
from vaes.compare.render import FORMATS, document, render
from vaes.compare.rows import Row, rows
from vaes.compare.runs import Result, read_runs, warnings

__all__ = [
    "FORMATS",
    "Cell",
    "Column",
    "Difference",
    "Key",
    "Result",
    "Row",
    "difference",
    "document",
    "interval",
    "pool",
    "rate_distortion",
    "read_runs",
    "render",
    "rows",
    "warnings",
]
