"""matplotlib, as pictures and plots here use it: whatever backend and style the environment asks for, they are drawn
by Agg in the default style, and the user's own state is as it was."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from vaes.errors import UserError

__all__ = ["plain_style"]


def _import() -> None:
    """Import matplotlib, which refuses to be imported where MPLBACKEND holds a name that it does not know."""
    if "matplotlib" in sys.modules:
        return
    wanted = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except (OSError, ValueError) as error:  # damage that it does not pass over
        raise UserError(f"matplotlibrc: matplotlib cannot read its settings ({error}); mend or remove it") from None
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    if wanted:
        # What matplotlib does itself, for the user's own figures in this process; ours never ask for a backend.
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = wanted


_import()


@contextmanager
def plain_style() -> Iterator[None]:
    """matplotlib's default style inside (a user's may ask for LaTeX, or for other fonts than a page was measured
    with); the user's is back afterwards."""
    import matplotlib

    defaults = matplotlib.rcParamsDefault
    with matplotlib.rc_context({key: defaults[key] for key in defaults if not key.startswith("backend")}):
        yield
