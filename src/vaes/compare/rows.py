"""The rows of a comparison: one for each number that may be compared, with what is better and what is best."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from vaes.compare.pool import Cell, Column, Difference, Key, difference
from vaes.evaluate.report import shown

__all__ = ["Row", "better", "keys", "rows"]

HIGHER = re.compile(
    r"elbo|elbo_median|iw_bound_k[0-9]+|ais_log_evidence|psnr|ssim|precision|recall|density|coverage|linear_probe|knn_probe"
    r"|outlier_auroc|\w+_vae_score|mig_\w+|dci_\w+|sap|irs|modularity|explicitness|udr"
)
LOWER = re.compile(
    r"loss|distortion|mse|bits_per_dim_k[0-9]+|fid|kid|aggregate_mmd2|(intensities|channels)_(means|draws)"
)
KEPT_APART = ("definition", "version", "features", "split", "images", "chosen", "n", "seed")


class Row(NamedTuple):
    """One number of all columns."""

    key: Key
    name: str  # with a number where several rows have it
    better: str  # an arrow, or nothing where neither way is
    cells: list[Cell | None]
    differences: list[Difference | None]  # from the first column
    best: int | None  # the column that is better than all others by more than the noise

    @property
    def alone(self) -> bool:
        """Whether one column of several has it."""
        return len(self.cells) > 1 and sum(cell is not None for cell in self.cells) < 2


def keys(columns: Sequence[Column]) -> list[Key]:
    """Every number there is, in the order of the first columns; those of one name next to each other."""
    found = list(dict.fromkeys(key for column in columns for key in column.cells))
    place = {(key.group, key.name): i for i, key in reversed(list(enumerate(found)))}
    return sorted(found, key=lambda key: place[key.group, key.name])


def rows(columns: Sequence[Column]) -> list[Row]:
    """Every row, those that one column alone has after all others."""
    every = keys(columns)
    found = [_row(columns, key, every) for key in every]
    groups = list(dict.fromkeys(key.group for key in every))
    return sorted(found, key=lambda row: (row.alone, groups.index(row.key.group)))


def apart(key: Key, every: Sequence[Key]) -> list[str]:
    """In what the rows of a key's name differ; nothing where it is the only one."""
    alike = [other for other in every if (other.group, other.name) == (key.group, key.name)]
    return [name for name in KEPT_APART if len({getattr(other, name) for other in alike}) > 1]


def _row(columns: Sequence[Column], key: Key, every: Sequence[Key]) -> Row:
    alike = [other for other in every if (other.group, other.name) == (key.group, key.name)]
    name = shown(key.name) + (f" ({alike.index(key) + 1})" if len(alike) > 1 else "")
    cells = [column.cells.get(key) for column in columns]
    first = cells[0]
    differences = [None if first is None or cell is None else difference(first, cell) for cell in cells]
    way = better(key.name)
    return Row(key, name, way, cells, [None, *differences[1:]], _best(cells, way))


def better(name: str) -> str:
    """An arrow the way in which a number is better; nothing where neither is."""
    plain = name.partition("_fitted_")[0]
    return "↑" if HIGHER.fullmatch(plain) else "↓" if LOWER.fullmatch(plain) else ""


def _best(cells: Sequence[Cell | None], better: str) -> int | None:
    there = [(i, cell) for i, cell in enumerate(cells) if cell is not None]
    if not better or len(there) < 2:
        return None
    sign = 1 if better == "↑" else -1
    best, top = max(there, key=lambda one: sign * one[1].value)
    beyond = (difference(cell, top) for i, cell in there if i != best)
    return best if all(one.within_noise is False and sign * one.value > 0 for one in beyond) else None
