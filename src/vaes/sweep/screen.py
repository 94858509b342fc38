"""A sweep on the terminal: a bar for each member that trains, and a table that fills as they end."""

import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student
from tqdm import tqdm

from vaes.sweep.folder import SweepFolder, numbers
from vaes.sweep.member import Ended, Watcher
from vaes.sweep.plan import Outcome
from vaes.terminal import Unbreakable, escape, note

__all__ = ["Screen", "table"]

SHOWN = ("loss", "elbo", "rate", "distortion", "mse")


class Screen(Watcher):
    """Bars where there is a terminal, and a line as each member ends.

    Args:
        home: the sweep's folder.
        split: whose numbers the lines have.
    """

    def __init__(self, home: SweepFolder, split: str = "test") -> None:
        self._home, self._split = home, split
        self._bars: dict[str, tqdm[None]] = {}
        self._since: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._header = False

    def planned(self, steps: Mapping[str, int]) -> None:
        """How long members are."""
        self._steps |= steps

    def began(self, name: str) -> None:
        """A bar for it."""
        self._since[name] = time.monotonic()
        stream = Unbreakable(sys.stderr)
        self._bars[name] = tqdm(
            total=self._steps.get(name), desc=escape(name), unit="step", dynamic_ncols=True, leave=False, file=stream,
            disable=not stream.isatty(),
        )  # fmt: skip

    def stepped(self, name: str, step: int) -> None:
        """Move its bar."""
        bar = self._bars[name]
        bar.update(step - bar.n)

    def ended(self, ended: Ended) -> None:
        """A line of the table."""
        if (bar := self._bars.pop(ended.name, None)) is not None:
            bar.close()
        seconds = time.monotonic() - self._since.pop(ended.name, time.monotonic())
        width = max([len(escape(name)) for name in (*self._steps, "member")])
        if not self._header:
            self._header = True
            self.said(f"{'member':<{width}}  {'seconds':>8}" + "".join(f"{name:>12}" for name in SHOWN))
        head = f"{escape(ended.name):<{width}}  {seconds:>8.1f}"
        if ended.status == "done":
            found = numbers(self._home.run(ended.name), self._split)
            self.said(head + "".join(f"{_shown(found, name):>12}" for name in SHOWN))
        else:
            self.said(f"{head}  {ended.status}: {escape(ended.why)}")

    def said(self, text: str) -> None:
        """A line."""
        with tqdm.external_write_mode(file=Unbreakable(sys.stderr)):
            note(text)


def table(members: Sequence[Outcome]) -> str:
    """The members pooled over their seeds: means over the test images with half a 95 % t interval over seeds, nats per
    image."""
    pools: dict[str, list[Outcome]] = {}
    for one in members:
        name, _, last = one.name.rpartition(",")
        pools.setdefault(name if last.startswith("seed=") else one.name, []).append(one)
    rows: list[tuple[str, ...]] = [("member", "runs", *SHOWN)]
    for name, pool in pools.items():
        done = [one.numbers for one in pool if one.status == "done"]
        of = f"{len(done)} of {len(pool)}" if len(done) < len(pool) else str(len(done))
        rows.append((escape(name or "all"), of, *(_pooled([found.get(key) for found in done]) for key in SHOWN)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{text:<{w}}" if i == 0 else f"{text:>{w}}" for i, (text, w) in enumerate(zip(row, widths,
             strict=True))) for row in rows]  # fmt: skip
    head = "test numbers of each member's best checkpoint, mean over seeds ± half a 95 % interval (Student's t)"
    failed = [f"{one.status}: {escape(one.name)}{f': {escape(one.why)}' if one.why else ''}" for one in members
              if one.status not in ("done", "waiting")]  # fmt: skip
    return "\n".join([head, *lines, *failed])


def _pooled(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    if not there or len(there) < len(values):
        return "not finite" if there else "-"
    text = f"{np.mean(there):.5g}"
    if len(there) < 2:
        return text
    half = student.ppf(0.975, len(there) - 1) * np.std(there, ddof=1) / len(there) ** 0.5
    return f"{text} ± {half:.2g}"


def _shown(found: Mapping[str, float | None], name: str) -> str:
    value = found.get(name)
    return "-" if name not in found else "not finite" if value is None else f"{value:.5g}"
