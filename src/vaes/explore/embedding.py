"""UMAP of the codes, where it is installed, computed beside the page."""

import importlib.util
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaes.errors import UserError

__all__ = ["NEEDED", "Embedding", "installed", "umap"]

NEEDED = "UMAP needs umap-learn: pip install 'vaes[umap]'"
FEWEST = 4
"""Codes, at least: fewer have no neighbours to speak of."""


def installed() -> bool:
    """Whether UMAP can be computed."""
    return importlib.util.find_spec("umap") is not None


def umap(codes: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Codes (N, D) -> places (N, 2), by McInnes, Healy & Melville, UMAP, arXiv:1802.03426: 15 neighbours, min_dist 0.1;
    centred, with a standard deviation of 1 along the wider side. One thread, so that a seed makes one map.

    Raises:
        UserError: umap-learn is missing, or there are too few codes.
    """
    if not installed():
        raise UserError(NEEDED)
    if len(codes) < FEWEST:
        raise UserError(f"UMAP needs {FEWEST} codes, got {len(codes)}")
    from umap import UMAP  # takes seconds to import

    how = "spectral" if len(codes) > 2 * FEWEST else "random"
    placed = UMAP(
        n_neighbors=min(15, len(codes) - 1), min_dist=0.1, init=how, random_state=seed, n_jobs=1
    ).fit_transform(codes)
    placed = placed - placed.mean(0)
    return (placed / max(float(placed.std(0).max()), 1e-12)).astype(np.float32)


class Embedding:
    """The UMAP of one table of codes, asked for again and again until it is there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: object = None
        self._points: NDArray[np.float32] | None = None
        self._error: str | None = None
        self._begun = 0.0

    def look(self, codes: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The places as ``umap`` once they are there; until then how many ``seconds`` it has been at it. The first
        question starts it, those of other codes start it anew.

        Raises:
            UserError: as :func:`umap`.
        """
        if not installed():
            raise UserError(NEEDED)
        with self._lock:
            if self._of is not codes:
                self._of, self._points, self._error, self._begun = codes, None, None, time.monotonic()
                threading.Thread(target=self._make, args=(codes,), daemon=True).start()
            if self._error:
                raise UserError(self._error)
            if self._points is None:
                return {}, {"seconds": round(time.monotonic() - self._begun)}
            return {"umap": self._points}, {}

    def _make(self, codes: NDArray[np.float32]) -> None:
        points, error = None, None
        try:
            points = umap(codes)
        except Exception as fault:  # whatever a foreign package raises is told in the page
            error = f"UMAP: {' '.join(str(fault).split())[:300]}"
        with self._lock:
            if self._of is codes:
                self._points, self._error = points, error
