"""What ``vaes sweep`` does, once its arguments are read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes import config as configuration
from vaes.config.schema import check_keys
from vaes.errors import Stopped, UserError
from vaes.experiment import Experiment
from vaes.sweep.engines import Options
from vaes.sweep.folder import SweepFolder
from vaes.sweep.grid import checked_grid, parse_grid
from vaes.sweep.member import import_once
from vaes.sweep.plan import sweep
from vaes.sweep.screen import Screen, table
from vaes.sweep.searching import BEST, Found, parse_ranges, search
from vaes.terminal import brief, escape, note, quote, say
from vaes.train.screen import decoding

__all__ = ["Asked", "run_sweep"]

SECTION = ("grid", "seeds", "jobs", "engine", "slurm", "search", "together")
"""Keys of the section ``sweep`` of a configuration."""

SEARCH = ("trials", "maximise", "minimise", "prune", "ranges")
"""Keys of its section ``search``."""


class Asked(NamedTuple):
    """The command line of ``vaes sweep``; what is None is left to the configuration's section ``sweep``."""

    config: str | None
    folder: Path | None
    grid: Sequence[str] = ()
    seeds: int | None = None
    jobs: int | None = None
    retry: bool = False
    together: str | None = None
    engine: str | None = None
    address: str | None = None
    gpus: float | None = None
    slurm: Sequence[str] = ()
    search: str | None = None
    trials: int | None = None
    maximise: str | None = None
    minimise: str | None = None
    prune: bool = False
    ranges: Sequence[str] = ()
    device: str = "auto"
    imports: Sequence[Path] = ()
    keys: Sequence[str] = ()


def run_sweep(asked: Asked) -> None:
    """Train the members of a sweep, anew or going on, and print its table."""
    if asked.folder is None:
        raise UserError("-e: missing; say which folder the sweep is to be made in, or goes on in")
    import_once(asked.imports)
    raw = dict(configuration.DEFAULTS) if asked.config is None else configuration.read_file(asked.config)
    section = check_keys("sweep", raw.pop("sweep", None) or {}, SECTION)
    given = _Given(asked, section, raw)
    if asked.search is not None or (section.get("search") is not None and not asked.grid):
        _search(given)
    else:
        _grid(given)


class _Given(NamedTuple):
    asked: Asked
    section: dict[str, Any]
    raw: dict[str, Any]

    @property
    def folder(self) -> Path:
        assert self.asked.folder is not None
        return self.asked.folder

    @property
    def common(self) -> dict[str, Any]:
        """What grids and searches are told alike."""
        asked = self.asked
        return {
            "folder": asked.folder,
            "jobs": self.section.get("jobs") if asked.jobs is None else asked.jobs,
            "device": asked.device,
            "engine": asked.engine or self.section.get("engine", "local"),
            "options": Options(asked.address, asked.gpus, _slurm(self.section.get("slurm"), asked.slurm)),
            "imports": asked.imports,
        }

    @property
    def together(self) -> str:
        """Whether members share a step."""
        found: Any = self.section.get("together", "off") if self.asked.together is None else self.asked.together
        return {True: "on", False: "off"}[found] if isinstance(found, bool) else found  # YAML reads them so

    def experiment(self, varied: Mapping[str, Any], what: str) -> Experiment:
        """The base, with the keys of the command line, none of which may be varied too."""
        for key, value in configuration.overrides(self.asked.keys):
            if (name := configuration.canonical(key, value)[0]) in varied:
                raise UserError(f"--{escape(key)}: a value and a {what} over {name}; drop one of them")
        return Experiment.of(self.raw, self.asked.keys)


def _grid(given: _Given) -> None:
    asked, section = given.asked, given.section
    for option in ("trials", "maximise", "minimise", "prune", "ranges"):
        if getattr(asked, option):
            raise UserError(f"--{option.removesuffix('s') if option == 'ranges' else option} goes with --search optuna")
    grid = checked_grid(section.get("grid") or {}) | parse_grid(asked.grid)
    seeds = section.get("seeds") if asked.seeds is None else asked.seeds
    if seeds is None and not grid:
        raise UserError("--grid, --seeds: neither is given; one run is vaes train")
    experiment = given.experiment(grid, "grid")
    screen = Screen(SweepFolder(given.folder))
    with decoding():
        done = sweep(
            experiment, grid, seeds, retry=asked.retry, together=given.together, watcher=screen, **given.common
        )
    say(table(done.members))
    say(f"runs: {escape(done.folder / 'runs')}")
    if done.failed:
        failed = sum(one.status == "failed" for one in done.members)
        hint = f"; the {failed} that failed are tried again with --retry" if failed else ""
        said = f"error: {len(done.failed)} of {len(done.members)} members did not come to their end{hint}"
        raise Stopped(said, 1)
    note(f"next: vaes compare {quote(done.folder)}")


def _search(given: _Given) -> None:
    asked = given.asked
    section = check_keys("sweep.search", given.section.get("search") or {}, SEARCH)
    for option, there in (("grid", asked.grid or given.section.get("grid")), ("seeds", asked.seeds)):
        if there:
            raise UserError(f"--{option}: a search chooses the members itself; drop it, or put the values into --range")
    if given.together != "off":
        raise UserError("--together: a search proposes its members one after another; drop it")
    if asked.retry:
        raise UserError("--retry: a search tries other values in place of those that failed; more --trials gives more")
    ends = {name: getattr(asked, name) for name in ("maximise", "minimise") if getattr(asked, name)}
    ends = ends or {name: section[name] for name in ("maximise", "minimise") if name in section} or {"maximise": "elbo"}
    if len(ends) > 1:
        raise UserError("--maximise, --minimise: both are given; drop one")
    ((way, metric),) = ends.items()
    ranges = parse_ranges({**(section.get("ranges") or {}), **_pairs("--range", asked.ranges)})
    trials = section.get("trials", 20) if asked.trials is None else asked.trials
    screen = Screen(SweepFolder(given.folder), "valid")
    with decoding():
        found = search(
            given.experiment(ranges, "range"), ranges, trials=trials, metric=metric, maximise=way == "maximise",
            prune=asked.prune or bool(section.get("prune")), watcher=screen, **given.common,
        )  # fmt: skip
    say(_about(found, metric))
    if found.best is None:
        raise Stopped("error: no trial came to its end", 1)
    note(f"next: vaes train -c {quote(found.folder / BEST)} -e RUN, or vaes evaluate {quote(found.best.folder)}")


def _about(found: Found, metric: str) -> str:
    """The best trials, and what the keys matter."""
    count = {status: sum(one.status == status for one in found.members) for status in ("done", "pruned", "failed")}
    lines = [f"{len(found.members)} trials: " + ", ".join(f"{n} {status}" for status, n in count.items() if n)]
    lines += [f"failed: {escape(one.name)}: {escape(one.why)}" for one in found.members if one.status == "failed"]
    if found.importances:
        shares = ", ".join(f"{escape(key)} {share:.2f}" for key, share in found.importances.items())
        lines.append(f"what the keys matter for it (shares of its variance, fANOVA): {shares}")
    if found.best is not None and found.value is not None:
        test = found.best.numbers.get(metric)
        other = "" if test is None else f" (test images: {test:.5g}; the validation's is the best of many)"
        lines.append(f"best: {escape(found.best.name)}, validation {escape(metric)} {found.value:.5g}{other}")
        lines += [f"  --{escape(key)}={escape(value)}" for key, value in found.values.items()]
        lines.append(f"configuration: {escape(found.folder / BEST)}")
    return "\n".join(lines)


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise UserError(f"{option} {escape(text[:80])}: not KEY=VALUE")
        if key in found:
            raise UserError(f"{option} {escape(key[:80])}: given twice; drop one")
        found[key] = value
    return found


def _slurm(section: Any, texts: Sequence[str]) -> dict[str, Any]:
    if section is not None and not isinstance(section, Mapping):
        raise UserError(f"sweep.slurm: {brief(section)} is not a group of keys such as {{partition: gpu}}")
    found = dict(section or {})
    for key, value in _pairs("--slurm", texts).items():
        found[key] = configuration.overrides([f"--{key}={value}"])[0][1]
    return found
