"""Searching instead of trying all: Optuna proposes values, each trial is a run, and the study lies beside the runs."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vaes import config as configuration
from vaes import files
from vaes.data import Splits
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.sweep.check import check, images_of, validation_names
from vaes.sweep.engines import Options, engine_for, refuse_options
from vaes.sweep.folder import SweepFolder, finished, numbers
from vaes.sweep.grid import Member, changed, checked_grid, split_values
from vaes.sweep.member import Ended, Watcher, import_once
from vaes.sweep.plan import Book, Outcome, data_checked, outcome_of, task_of
from vaes.terminal import brief, escape, line

if TYPE_CHECKING:
    import optuna

__all__ = ["BEST", "Found", "Range", "parse_ranges", "search"]

STUDY, BEST = "study.db", "best.yaml"


class Range(NamedTuple):
    """What a key may be: whole or other numbers between two, even in the logarithm or not, or one of some values."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> list[Any]:
        """Values that are tried before anything is trained."""
        return list(self.choices) if self.choices else [self.low, self.high]

    def suggested(self, trial: "optuna.Trial", key: str) -> Any:
        """A value of it."""
        if self.choices:  # by their places: a value may be a list
            return self.choices[trial.suggest_categorical(key, list(range(len(self.choices))))]
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)


class Found(NamedTuple):
    """What a search has left."""

    folder: Path
    members: list[Outcome]
    best: Outcome | None
    """By the validation images; its numbers are of the test images."""
    value: float | None
    """Of the best, on the validation images."""
    values: dict[str, Any]
    """Of the keys, in the best."""
    importances: dict[str, float]
    """Of the keys for the value, by fANOVA, which sum to 1; empty where there are too few trials."""


def parse_ranges(given: Mapping[str, Any]) -> dict[str, Range]:
    """Ranges from texts, ``1e-4..1e-2:log`` or ``a,b,c``, and lists of values.

    Raises:
        UserError: naming the key, and what is wrong.
    """
    if not isinstance(given, Mapping) or not given:
        raise UserError("--range: none is given; a search needs one or more, such as train.lr=1e-4..1e-2:log")
    found: dict[str, Range] = {}
    for key, value in given.items():
        name = configuration.canonical(str(key), value)[0]
        if name in found:
            raise UserError(f"--range: two ranges over {name}; drop one")
        found[name] = value if isinstance(value, Range) else _range(str(key), value)
    return found


def _range(key: str, value: Any) -> Range:
    where = f"--range {escape(key[:80])}"
    if isinstance(value, list | tuple):
        return Range(choices=tuple(checked_grid({key: value}).popitem()[1]))
    if not isinstance(value, str):
        raise UserError(f"{where}: {brief(value)} is neither LOW..HIGH, LOW..HIGH:log nor values A,B,C")
    match = re.fullmatch(r"\s*([^.].*?|\.[0-9].*?)\s*\.\.\s*(.+?)\s*(:log)?\s*", value)
    if match is None:
        choices = [configuration.overrides([f"--{key}={part}"])[0][1] for part in split_values(value)]
        if len(choices) < 2:
            raise UserError(f"{where}: {brief(value)} is neither LOW..HIGH, LOW..HIGH:log nor values A,B,C")
        return Range(choices=tuple(checked_grid({key: choices}).popitem()[1]))
    low, high = (configuration.overrides([f"--x={part}"])[0][1] for part in match.groups()[:2])
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise UserError(f"{where}: {brief(value)}: its ends are not numbers; write LOW..HIGH, such as 1e-4..1e-2")
    if not low < high or (match[3] and low <= 0):
        why = "a logarithm needs a LOW above 0" if low < high else "LOW must be below HIGH"
        raise UserError(f"{where}: {brief(value)}: {why}")
    return Range(low, high, bool(match[3]))


def search(
    experiment: Experiment,
    ranges: Mapping[str, Any],
    *,
    folder: str | Path,
    trials: int = 20,
    metric: str = "elbo",
    maximise: bool = True,
    prune: bool = False,
    jobs: int | None = None,
    data: Splits | None = None,
    device: str = "auto",
    engine: str = "local",
    options: Options = Options(),  # noqa: B008 (never changed)
    imports: Sequence[Path] = (),
    watcher: Watcher | None = None,
) -> Found:
    """Look for the values with the best validation number, by Optuna's TPE; each trial is a run in ``FOLDER/runs``.

    The proposals are a function of the seed and of the trials before. A second call goes on: trials that were cut off
    are resumed, and only those lacking in number are new.

    Args:
        experiment: what all trials are but for the keys of the ranges.
        ranges: dotted keys with a :class:`Range`, a text (``1e-4..1e-2:log``) or a list of values.
        folder: of the search; made if it is not there.
        trials: how many, those that are there included.
        metric: a number of the validation images: elbo, loss, rate, distortion, mse or a term of the objective.
        maximise: whether more of it is better.
        prune: end trials whose validations are worse than the median of those before at the same step.
        jobs, data, device, engine, options, imports, watcher: see :func:`vaes.sweep.sweep`.

    Raises:
        UserError: a key, range, metric or folder that is not right; nothing was trained then.
        Stopped: a signal came; the trials under way saved first.
    """
    _optuna()
    refuse_options(engine, jobs, options, data is not None)
    import_once(imports)
    base = experiment if data is None else experiment.of_python()
    space = parse_ranges(ranges)
    if isinstance(trials, bool) or not isinstance(trials, int) or not 1 <= trials <= 100_000:
        raise UserError(f"--trials: {brief(trials)} is not right; it must be a whole number from 1 to 100,000")
    if prune and engine != "local":
        raise UserError(f"--prune goes with --engine local, which hears of validations, not {engine}")
    home = SweepFolder(Path(folder))
    more: dict[str, Any] = {"metric": metric, "maximise": maximise}
    more |= {f"range of {key}": [*one] for key, one in space.items()}
    home.refuse_other(base, more)
    corners = _corners(base, space)
    sets = data_checked(home, corners, data, device)
    check(corners, sets)
    known = validation_names(base, sets[images_of(base)] if images_of(base) in sets else next(iter(sets.values())))
    if metric not in known:
        raise UserError(f"--{'max' if maximise else 'min'}imise {brief(metric)}: must be one of {', '.join(known)}")
    work = engine_for(engine, jobs, sets, device, home.path, options)
    with home.held(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of experimental features and of steps that are reported twice
        home.plan(base, [], more)
        study = _study(home.path, maximise)
        judge = _Judge(study, home, metric, prune, watcher or Watcher())
        asked = _Asked(study, home, base, space, trials, judge)
        judge.said(f"{trials} trials, {len(study.trials)} of them begun before; {work.about}")
        work.run((task_of(one.name, one.experiment, home, device, imports) for one in asked.members()), judge)
        return _found(study, home, base, space)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("--search optuna: Optuna is not installed; pip install 'vaes[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _study(folder: Path, maximise: bool) -> "optuna.Study":
    optuna = _optuna()
    try:
        return optuna.create_study(
            storage=f"sqlite:///{(folder / STUDY).absolute()}",
            study_name="vaes",
            direction="maximize" if maximise else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
            load_if_exists=True,
        )
    except Exception as error:  # of SQLAlchemy, SQLite or Optuna: the file is damaged or another program's
        raise UserError(f"{folder / STUDY}: not a study of Optuna's that can be read ({line(error)[:200]})") from None


def _corners(base: Experiment, space: Mapping[str, Range]) -> list[Member]:
    """The experiment at the ends of each range, the other keys at the first of theirs: what can be checked before."""
    first = {key: one.ends[0] for key, one in space.items()}
    found = []
    for key, one in space.items():
        for value in one.ends:
            changes = {**first, key: value}
            found.append(Member(f"with {key} {escape(value)}", _at(base, space, changes), changes))
    return found


def _at(base: Experiment, space: Mapping[str, Range], changes: dict[str, Any]) -> Experiment:
    chooses = any(key == "method" or key.endswith(".kind") for key in space)
    return changed(base, changes, {} if chooses else None)


class _Asked:
    """The trials that are still to be done."""

    def __init__(
        self, study: "optuna.Study", home: SweepFolder, base: Experiment, space: Mapping[str, Range], n: int,
        judge: "_Judge",
    ) -> None:  # fmt: skip
        self._study, self._home, self._base, self._space, self._n, self._judge = study, home, base, space, n, judge

    def members(self) -> Iterator[Member]:
        """Those cut off first, then new ones, each proposed when there is room for it."""
        optuna = _optuna()
        for frozen in self._study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            yield from self._member(optuna.trial.Trial(self._study, frozen._trial_id))
        while len(self._study.trials) < self._n:
            seed = self._base.seed % 2**20 * 2**11 + len(self._study.trials)
            self._study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
            yield from self._member(self._study.ask())

    def _member(self, trial: "optuna.Trial") -> Iterator[Member]:
        name = f"trial-{trial.number:04d}"
        changes = {key: one.suggested(trial, key) for key, one in self._space.items()}
        self._judge.trials[name] = trial
        try:
            member = Member(name, _at(self._base, self._space, changes), changes)
        except UserError as error:  # keys that do not go together
            self._judge.ended(Ended(name, "failed", line(error)))
            return
        self._home.known[name] = changes
        self._judge.planned({name: member.experiment.train["n_steps"]})
        if finished(self._home.run(name)):  # killed before it was told
            self._judge.ended(Ended(name, "done"))
        else:
            yield member


class _Judge(Book):
    """Tells the study what came of each trial, and ends those that are not worth going on with."""

    def __init__(self, study: "optuna.Study", home: SweepFolder, metric: str, prune: bool, screen: Watcher) -> None:
        super().__init__(home, screen)
        self.trials: dict[str, optuna.Trial] = {}
        self._study, self._metric, self._prune = study, metric, prune
        self._pruned: set[str] = set()

    def validated(self, name: str, step: int, values: Mapping[str, float]) -> str | None:
        """Report it; the study knows that a trial is pruned before the training does."""
        trial, value = self.trials[name], values.get(self._metric)
        if value is None or name in self._pruned:
            return None
        trial.report(value, step)
        if not (self._prune and trial.should_prune()):
            return super().validated(name, step, values)
        self._pruned.add(name)
        self._study.tell(trial, state=_optuna().trial.TrialState.PRUNED)
        return f"pruned: its {self._metric} of {value:.5g} is worse than the median at this step"

    def ended(self, ended: Ended) -> None:
        """Tell the study, then as for any member."""
        states, trial = _optuna().trial.TrialState, self.trials[ended.name]
        if ended.name in self._pruned:
            ended = ended._replace(status="pruned", why=f"worse than the median by {self._metric}")
        elif ended.status == "done":
            value = numbers(self.home.run(ended.name), "valid").get(self._metric)
            if value is None:
                ended = ended._replace(status="failed", why=f"its {self._metric} is no finite number")
                self._study.tell(trial, state=states.FAIL)
            else:
                self._study.tell(trial, value)
        elif ended.status == "failed":
            self._study.tell(trial, state=states.FAIL)
        super().ended(ended)


def _found(study: "optuna.Study", home: SweepFolder, base: Experiment, space: Mapping[str, Range]) -> Found:
    optuna = _optuna()
    states = optuna.trial.TrialState
    outcomes: list[Outcome] = []
    best: Outcome | None = None
    values: dict[str, Any] = {}
    done = [trial for trial in study.trials if trial.state == states.COMPLETE]
    top = study.best_trial.number if done else None
    for trial in study.trials:
        given = {key: one.choices[trial.params[key]] if one.choices else trial.params[key]
                 for key, one in space.items() if key in trial.params}  # fmt: skip
        name = f"trial-{trial.number:04d}"
        try:
            experiment = _at(base, space, given)
        except UserError:
            experiment = base
        one = outcome_of(home, Member(name, experiment, given))
        if trial.state == states.PRUNED:
            one = one._replace(status="pruned")
        elif trial.state == states.FAIL:
            one = one._replace(status="failed")
        outcomes.append(one)
        if trial.number == top:
            best, values = one, given
    home.plan(base, [], home.more)
    if best is not None:
        files.write_text(home.path / BEST, best.experiment.to_yaml())
    importances: dict[str, float] = {}
    if len({trial.value for trial in done}) > 1:
        try:
            importances = dict(optuna.importance.get_param_importances(study))
        except (ValueError, RuntimeError):  # trials whose keys differ, or that are all alike in them
            importances = {}
    value = None if top is None else study.best_value
    return Found(home.path, outcomes, best, value, values, importances)
