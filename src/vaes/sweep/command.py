"""What ``vaes sweep`` does, once its arguments are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes import config as configuration
from vaes.commands import _decoding as decoding
from vaes.config.schema import check_keys
from vaes.errors import Stopped, UserError
from vaes.experiment import Experiment
from vaes.sweep.engines import Options
from vaes.sweep.folder import SweepFolder
from vaes.sweep.grid import checked_grid, parse_grid
from vaes.sweep.plan import sweep
from vaes.sweep.screen import Screen, table
from vaes.terminal import brief, escape, note, quote, say

__all__ = ["Asked", "run_sweep"]

SECTION = ("grid", "seeds", "jobs", "engine", "slurm")
"""Keys of the section ``sweep`` of a configuration."""


class Asked(NamedTuple):
    """The command line of ``vaes sweep``; what is None is left to the configuration's section ``sweep``."""

    config: str | None
    folder: Path | None
    grid: Sequence[str] = ()
    seeds: int | None = None
    jobs: int | None = None
    retry: bool = False
    engine: str | None = None
    address: str | None = None
    gpus: float | None = None
    slurm: Sequence[str] = ()
    device: str = "auto"
    imports: Sequence[Path] = ()
    keys: Sequence[str] = ()


def run_sweep(asked: Asked) -> None:
    """Train the members of a sweep, anew or going on, and print its table."""
    if asked.folder is None:
        raise UserError("-e: missing; say which folder the sweep is to be made in, or goes on in")
    for path in asked.imports:
        configuration.import_file(path)
    raw = dict(configuration.DEFAULTS) if asked.config is None else configuration.read_file(asked.config)
    section = check_keys("sweep", raw.pop("sweep", None) or {}, SECTION)
    grid = checked_grid(section.get("grid") or {}) | parse_grid(asked.grid)
    seeds = section.get("seeds") if asked.seeds is None else asked.seeds
    if seeds is None and not grid:
        raise UserError("--grid, --seeds: neither is given; one run is vaes train")
    for key, value in configuration.overrides(asked.keys):
        if (name := configuration.canonical(key, value)[0]) in grid:
            raise UserError(f"--{escape(key)}: a value and a grid over {name}; drop one of them")
    experiment = Experiment.of(raw, asked.keys)
    options = Options(asked.address, asked.gpus, _slurm(section.get("slurm"), asked.slurm))
    screen = Screen(SweepFolder(asked.folder))
    jobs = section.get("jobs") if asked.jobs is None else asked.jobs
    engine = asked.engine or section.get("engine", "local")
    with decoding():
        done = sweep(
            experiment, grid, seeds, folder=asked.folder, jobs=jobs, device=asked.device, engine=engine,
            options=options, imports=asked.imports, retry=asked.retry, watcher=screen,
        )  # fmt: skip
    say(table(done.members))
    say(f"runs: {escape(done.folder / 'runs')}")
    if done.failed:
        failed = sum(one.status == "failed" for one in done.members)
        hint = f"; the {failed} that failed are tried again with --retry" if failed else ""
        said = f"error: {len(done.failed)} of {len(done.members)} members did not come to their end{hint}"
        raise Stopped(said, 1)
    note(f"next: vaes compare {quote(done.folder)}")


def _slurm(section: Any, texts: Sequence[str]) -> dict[str, Any]:
    if section is not None and not isinstance(section, Mapping):
        raise UserError(f"sweep.slurm: {brief(section)} is not a group of keys such as {{partition: gpu}}")
    found = dict(section or {})
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"--slurm {escape(text[:80])}: not KEY=VALUE such as partition=gpu")
        found[key] = configuration.overrides([f"--{key}={value}"])[0][1]
    return found
