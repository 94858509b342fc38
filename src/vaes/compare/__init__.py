"""Runs side by side: pooled over seeds, with what the noise allows to say about their differences."""

from vaes.compare.plot import rate_distortion
from vaes.compare.pool import Cell, Column, Difference, Key, difference, interval, pool
from vaes.compare.report import document, table
from vaes.compare.runs import Result, read_runs

__all__ = [
    "Cell",
    "Column",
    "Difference",
    "Key",
    "Result",
    "difference",
    "document",
    "interval",
    "pool",
    "rate_distortion",
    "read_runs",
    "table",
]
