"""A training on the terminal, or in a file that takes the place of one."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

from vaes.data import on_progress
from vaes.terminal import Unbreakable, note
from vaes.train.listeners import Listener

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Screen", "decoding"]


class Screen(Listener):
    """Lines of numbers, folded between terms at the width of the terminal, and a bar below them where there is one.

    A line that cannot be written (the terminal is gone, the disk is full) is dropped: it never ends a training.
    """

    _bar: "tqdm[None] | None" = None

    def start(self, training: "Training") -> None:
        """Begin the bar."""
        total, done = training.settings.n_steps, training.state.step
        self._bar = tqdm(
            total=total, initial=done, unit="step", dynamic_ncols=True, mininterval=0.5,
            file=Unbreakable(sys.stderr), disable=not _is_terminal(),
        )  # fmt: skip

    def stepped(self, training: "Training", step: int) -> None:
        """Move the bar."""
        assert self._bar is not None
        self._bar.update(1)

    def metrics(self, training: "Training", step: int, split: str, values: Mapping[str, float]) -> None:
        """A line of numbers."""
        terms = [f"{name} {value:.4g}" for name, value in values.items()]
        if training.speed is not None:
            terms.append(f"{training.speed:,.0f} images/s")
        self._write(f"step {step} {split:<5}", terms)

    def said(self, training: "Training", text: str) -> None:
        """A sentence."""
        self._write("", [text])

    def end(self, training: "Training") -> None:
        """Finish the bar."""
        if self._bar is not None:
            self._bar.close()

    def _write(self, head: str, terms: list[str]) -> None:
        text = "  ".join([*([head] if head else []), *terms])
        if _is_terminal():
            # A term and its number stay together.
            kept = [term.replace(" ", "\u00a0") if head else term for term in terms]
            width = max(40, shutil.get_terminal_size().columns - 1)
            folded = textwrap.wrap("  ".join([*([head] if head else []), *kept]), width, subsequent_indent="    ",
                                   break_long_words=False, break_on_hyphens=False)  # fmt: skip
            text = "\n".join(folded).replace("\u00a0", " ")
        with tqdm.external_write_mode(file=Unbreakable(sys.stderr)):
            note(text)


def _is_terminal() -> bool:
    try:
        return Unbreakable(sys.stderr).isatty()
    except ValueError:  # it was closed
        return False


@contextmanager
def decoding() -> Iterator[None]:
    """Inside, decoding that lasts shows a bar on a terminal."""
    bars: list[tqdm[None]] = []

    def told(done: int, total: int) -> None:
        if not bars or bars[-1].total != total or done < bars[-1].n:
            bars.append(tqdm(total=total, desc="decoding", unit=" images", delay=1.0, leave=False, disable=None))
        bars[-1].update(done - bars[-1].n)

    with on_progress(told):
        yield
    for bar in bars:
        bar.close()
