"""A sweep from its plan to its table: what is new is trained, what is there is kept."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes.data import Splits
from vaes.data.identity import identify
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.start import data_notes
from vaes.sweep.check import check, images_of, read_images
from vaes.sweep.engines import Options, engine_for, refuse_options
from vaes.sweep.folder import SweepFolder, finished, numbers, started
from vaes.sweep.grid import Member, checked_grid, members
from vaes.sweep.local import Local
from vaes.sweep.member import Ended, Task, Watcher, import_once
from vaes.sweep.together import arranged, refuse_way
from vaes.terminal import line
from vaes.train.runtime import choose_device

__all__ = ["Book", "Outcome", "Sweep", "data_checked", "outcome_of", "sweep", "task_of"]


class Outcome(NamedTuple):
    """A member, and what became of it."""

    name: str
    experiment: Experiment
    folder: Path
    status: str
    """done, failed, pruned, stopped (the same command goes on), or waiting."""
    why: str
    numbers: dict[str, float | None]
    """Means over the test images, nats per image, of the best checkpoint where there was a validation."""


class Sweep(NamedTuple):
    """What a sweep has left."""

    folder: Path
    members: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """The members that did not come to their end."""
        return [one for one in self.members if one.status not in ("done", "pruned")]


def sweep(
    experiment: Experiment,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    *,
    folder: str | Path,
    jobs: int | None = None,
    data: Splits | None = None,
    device: str = "auto",
    engine: str = "local",
    options: Options = Options(),  # noqa: B008 (never changed)
    imports: Sequence[Path] = (),
    retry: bool = False,
    together: str = "off",
    watcher: Watcher | None = None,
) -> Sweep:
    """Train every combination of a grid, by every seed, each as an ordinary run in ``FOLDER/runs``.

    Everything is validated, and built against its images, before anything is trained. A second call goes on: what is
    finished stays, what was begun is resumed, and only what is new is begun. A script calls it under
    ``if __name__ == "__main__":``, because the processes that train import it.

    >>> sweep(Experiment(), {"objective.beta": [1, 4]}, seeds=5, folder="sweeps/beta")  # doctest: +SKIP

    Args:
        experiment: what all members are but for the grid's keys and the seed.
        grid: dotted keys and the values of each.
        seeds: how many, from the experiment's on, or which; one by default.
        folder: of the sweep; made if it is not there.
        jobs: members at a time; by default as many as this process has threads, or one on an accelerator.
        data: images to take instead of those that the experiment names.
        device: of each member, see :meth:`vaes.Experiment.fit`.
        engine: ``local``, ``slurm`` or ``ray``.
        options: of the engine.
        imports: Python files that register networks.
        retry: train those anew that failed before.
        together: ``on`` trains members that share their shapes (seeds, coefficients, learning rates) by one stacked
            step, each with the numbers that it has alone but for rounding; ``auto`` where a few measured steps say that
            it pays.
        watcher: told how it goes.

    Raises:
        UserError: a key, value, folder or set of images that is not right; nothing was trained then.
        Stopped: a signal came; the members under way saved first.
    """
    refuse_options(engine, jobs, options, data is not None)
    refuse_way(together, engine)
    import_once(imports)
    base = experiment if data is None else experiment.of_python()
    chosen, notes = members(base, checked_grid(grid or {}), seeds)
    home = SweepFolder(Path(folder))
    home.refuse_other(base, {})
    chosen = home.adopt(chosen)
    todo = [one for one in chosen if not finished(home.run(one)) and (retry or one.name not in home.failures)]
    sets = data_checked(home, todo, data, device)
    check(todo, sets)
    work = engine_for(engine, jobs, sets, device, home.path, options) if todo else None
    stacks = [[one] for one in todo]
    if isinstance(work, Local):
        new = len(todo) == len(chosen)
        stacks, said = arranged(together, todo, sets, work.jobs, work.threads, device, new=new)
        notes += said
    elif together == "auto" and work is not None:
        notes.append(f"together auto: --engine {engine} trains each member by itself")
    book = Book(home, watcher or Watcher())
    for text in notes:
        book.said(f"note: {text}")
    with home.held():
        home.plan(base, chosen, {})
        before = len(chosen) - len(todo)
        kept = f", {before} of them there already" if before else ""
        book.said(f"{len(chosen)} members{kept}; {work.about}" if work else f"all {len(chosen)} members are there")
        if work is not None:
            book.planned({one.name: one.experiment.train["n_steps"] for one in todo})
            work.run(_tasks(stacks, home, device, imports), book)
    return Sweep(home.path, [outcome_of(home, one) for one in chosen])


def _tasks(
    stacks: Sequence[Sequence[Member]], home: SweepFolder, device: str, imports: Sequence[Path]
) -> Iterator[Task]:
    for stack in stacks:
        first, *others = (task_of(one.name, one.experiment, home, device, imports) for one in stack)
        yield first._replace(beside=tuple(others))


def task_of(name: str, experiment: Experiment, home: SweepFolder, device: str, imports: Sequence[Path]) -> Task:
    """A member as a process takes it."""
    return Task(
        name,
        experiment.to_dict(),
        home.run(name).absolute(),
        experiment.train["n_steps"],
        device,
        tuple(path.absolute() for path in imports),
        images_of(experiment),
        (home.path / "logs" / f"{name}.txt").absolute(),
    )


def data_checked(home: SweepFolder, todo: Sequence[Member], data: Splits | None, device: str) -> dict[str, Splits]:
    """The images of the members, the same that those in the folder were trained on.

    Raises:
        UserError: they are not there or others, or there is no such device.
    """
    choose_device(device)
    sets = read_images((one.experiment for one in todo), data)
    for name, splits in sets.items():
        one = next(one for one in todo if images_of(one.experiment) == name)
        same = [run for run, changes in home.known.items() if _same_data(changes, one.changes)]
        if there := [home.run(run) for run in same if started(home.run(run))]:
            data_notes(there[0], identify(splits), accept=one.experiment.data["changed"] == "accept")
    return sets


def _same_data(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    ours, theirs = ({key: value for key, value in one.items() if key.startswith("data.")} for one in (a, b))
    return ours == theirs


def outcome_of(home: SweepFolder, member: Member) -> Outcome:
    """What the folder tells of a member."""
    run, why = home.run(member), home.failures.get(member.name, "")
    status = "done" if finished(run) else "failed" if why else "stopped" if started(run) else "waiting"
    found: dict[str, float | None] = {}
    if status == "done":
        try:
            found = numbers(run)
        except UserError as error:
            status, why = "failed", line(error)
    return Outcome(member.name, member.experiment, run, status, why, found)


class Book(Watcher):
    """Writes down what failed, and hands everything on."""

    def __init__(self, home: SweepFolder, screen: Watcher) -> None:
        self.home, self._screen = home, screen

    def planned(self, steps: Mapping[str, int]) -> None:
        """Hand it on."""
        self._screen.planned(steps)

    def began(self, name: str) -> None:
        """Hand it on."""
        self._screen.began(name)

    def stepped(self, name: str, step: int) -> None:
        """Hand it on."""
        self._screen.stepped(name, step)

    def validated(self, name: str, step: int, values: Mapping[str, float]) -> str | None:
        """Hand it on."""
        return self._screen.validated(name, step, values)

    def ended(self, ended: Ended) -> None:
        """Write it down, then hand it on."""
        if ended.status in ("done", "failed"):
            self.home.failed(ended.name, ended.why if ended.status == "failed" else None)
        self._screen.ended(ended)

    def said(self, text: str) -> None:
        """Hand it on."""
        self._screen.said(text)
