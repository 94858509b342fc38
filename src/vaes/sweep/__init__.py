"""Many runs from one experiment: grids, seeds and searches.

``vaes.sweep`` is this package and, called, :func:`sweep`.
"""

import sys
import types
from typing import Any

from vaes.sweep.engines import ENGINES, Options
from vaes.sweep.member import Ended, Watcher
from vaes.sweep.plan import Outcome, Sweep, sweep
from vaes.sweep.searching import Found, Range, search

__all__ = ["ENGINES", "Ended", "Found", "Options", "Outcome", "Range", "Sweep", "Watcher", "search", "sweep"]


class _Callable(types.ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Sweep:
        return sweep(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
