"""What a training begins with, the run it goes on in, and what it writes down of itself: data, versions, machine."""

import contextlib
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from vaes import __version__, files
from vaes import config as configuration
from vaes.data import Splits
from vaes.data.identity import Identity, identify
from vaes.errors import PartnerGone, UserError
from vaes.remote import is_url
from vaes.terminal import escape
from vaes.train import checkpoint
from vaes.train.fetch import local, restore
from vaes.train.folder import add_segment, history, locked, refuse_existing
from vaes.train.listeners import Listener
from vaes.train.runtime import Runtime, together

if TYPE_CHECKING:
    from vaes.evaluate.feature_maps import Found
    from vaes.experiment import Experiment
    from vaes.initial import Initial
    from vaes.train.loop import Training

__all__ = ["FeatureNetworks", "Provenance", "Start", "data_notes", "remember", "reserved", "starting_point", "stored"]

logger = logging.getLogger(__name__)


FILE = "data.safetensors"
"""Which images a run was trained, validated and tested on, by their content."""


class Start(NamedTuple):
    """What a training begins with."""

    folder: Path | None = None
    saved: checkpoint.Checkpoint | None = None
    raw: dict[str, Any] | None = None
    """The configuration that it goes on with."""
    within: bool = False
    """It goes on in the run folder, which is there already."""
    home: Path | None = None
    """The run folder that it goes on from."""
    initial: "Initial | None" = None
    """Weights to begin with where nothing was saved."""


@contextlib.contextmanager
def starting_point(
    resume: str | Path | None, folder: Path | None, runtime: Runtime, init: str | Path | None = None
) -> Iterator[Start]:
    """What ``resume`` or ``init`` stands for; a run that is gone on in is kept from others inside. Both may be URLs.

    Raises:
        UserError: there is nothing to go on from or to begin with, or the run folder is taken.
    """
    from vaes.initial import read_initial

    if resume is None:
        if folder is not None:
            refuse_existing(folder)
        yield Start(folder, initial=None if init is None else read_initial(runtime.first(lambda: local(init))))
        return
    if init is not None:
        raise UserError(f"--init {init}: what --resume goes on with has its weights; drop one of them")
    source: Path | None = None
    if is_url(resume):
        if (made := folder) is None:
            raise UserError(f"--resume {escape(resume)}: give -e too, the run folder that it is fetched into")
        runtime.from_first(lambda: restore(str(resume), made))
        resume = "latest"
    if str(resume) == "latest":
        if folder is None:
            raise UserError("--resume latest: say which run with -e RUN")
        if not (folder / "config.yaml").is_file() and not checkpoint.checkpoints(folder):
            raise UserError(f"--resume latest: {folder} is no run folder; without --resume a new one is made")
        home = folder
    else:
        source = Path(resume)
        source = source.parent if source.is_file() else source
        if checkpoint.checkpoints(source):
            source = checkpoint.newest_folder(source)
        home = source.resolve().parent.parent
        if folder is None and source.resolve().parent.name != "ckpt":
            raise UserError(f"--resume {resume}: give -e too, the run folder to go on in")
        if folder is not None and folder.resolve() != home:
            refuse_existing(folder)
            found = checkpoint.read(source)
            yield Start(folder, found, _raw(found, str(resume)), home=home)
            return
    with locked(home) if runtime.is_main else contextlib.nullcontext():
        runtime.wait()  # the first holds the run before the others look
        if source is None and not checkpoint.checkpoints(home):  # stopped before its first checkpoint
            _refuse_lost_weights(home)
            yield Start(home, None, stored(home), True, home)
            return
        found = checkpoint.read(checkpoint.newest_folder(home) if source is None else source)
        yield Start(home, found, _raw(found, str(resume)), True, home)


def _refuse_lost_weights(run: Path) -> None:
    """Refuse to draw anew, without a checkpoint, what a run did not draw."""
    first = next(iter(history(run)), {})
    if first.get("init") or first.get("step"):
        whose = first["init"]["path"] if first.get("init") else f"a checkpoint of step {first['step']}"
        raise UserError(
            f"--resume: {run} began with weights of {whose} and has no checkpoint of its own; begin with them again, "
            "in a new run folder (-e)"
        )


def stored(run: Path) -> dict[str, Any]:
    """The configuration that a run folder was last trained with."""
    segments = [line for line in history(run) if isinstance(line.get("config"), dict)]
    if segments:
        return dict(segments[-1]["config"])
    return configuration.read_file(run / "config.yaml")


def _raw(found: checkpoint.Checkpoint, where: str) -> dict[str, Any]:
    return configuration.of_weights(found.metadata, where)


class Provenance(Listener):
    """Says how the data were read, refuses others than those that the run was trained on, and writes down what the
    run, from this step on, is."""

    def __init__(
        self, experiment: "Experiment", splits: Splits, start: Start, *, accept: bool, notes: Sequence[str] = ()
    ) -> None:
        self._experiment, self._report = experiment, splits.report
        self._identity, self._notes = identify(splits), [*notes]
        record = None if start.saved is None or not start.within else start.saved.metadata.get("init")
        record = record if start.initial is None else start.initial.record
        self._init = {} if record is None else {"init": record}
        if start.within and start.folder is not None:
            self._notes += data_notes(start.folder, self._identity, accept=accept)

    def start(self, training: "Training") -> None:
        """Before the first step."""
        for line in (self._report.sentence, *(f"warning: {text}" for text in self._report.warnings), *self._notes):
            training.say(line)
        if not training.runtime.is_main:
            return
        segment = {
            "step": training.state.step,
            "config": self._experiment.to_dict(),
            "data": self._identity.fingerprints,
            "reading": self._report.sentence,
            "white": self._report.white,
            "notes": self._notes,
            **self._init,
            "versions": _versions(),
            "machine": {
                "system": platform.platform(),
                "device": str(training.runtime.device),
                "processes": training.runtime.world,
                "threads": torch.get_num_threads(),
                "precision": training.runtime.precision,
            },
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        files.write_atomic(training.folder / FILE, self._identity.write)
        add_segment(training.folder, segment)


class FeatureNetworks(Listener):
    """Finds the networks in whose features terms compare images: in the run that is gone on from, or trained before the
    training begins, by the first process; and leaves them in the run folder."""

    def __init__(self, splits: Splits, start: Start, runtime: Runtime) -> None:
        self._splits, self._runtime, self._home = splits, runtime, start.home
        self._own: tuple[str, Found] | None = None

    def __call__(self, name: str) -> tuple[str, nn.Module]:
        """As :data:`vaes.objectives.terms.similarity.FindFeatures`.

        Raises:
            ValueError: there are none of this name, or they cannot be trained on these images.
        """
        from vaes.evaluate.feature_maps import find_feature_maps  # takes a second to import, which few rows need
        from vaes.evaluate.published_features import is_published, published

        if self._own is not None and not is_published(name) and name != self._own[0]:
            raise ValueError(f"features: {name} where another term has {self._own[0]}; a run holds one such network")
        try:
            with together():
                if is_published(name):
                    shape = self._splits.train.shape
                    return tuple(self._runtime.first(lambda: published(name, shape)))  # its cache is shared
                if self._own is None:
                    found = self._runtime.from_first(lambda: find_feature_maps(name, self._splits, self._home))
                    self._own = name, found
        except PartnerGone:
            raise
        except UserError as error:
            raise ValueError(f"features: {error}") from None
        return self._own[1].name, self._own[1].maps

    def start(self, training: "Training") -> None:
        """Before the first step."""
        if self._own is not None and training.runtime.is_main:
            self._own[1].write(training.folder)


def data_notes(run: Path, identity: Identity, *, accept: bool) -> list[str]:
    """What has changed in the data since a run was trained on them, for its history.

    Raises:
        UserError: something has, and ``accept`` does not say that it may.
    """
    if (run / FILE).exists():
        difference = identity.difference(Identity.read(run / FILE))
    else:  # deleted, or not copied with the run: its history still tells whether they are the same
        difference = _difference_from_history(run, identity)
    if difference is None:
        return []
    if not accept:
        raise UserError(
            f"data: not the images that {run} was trained on: {difference}; --data.changed accept goes on all the same "
            "and writes that into the run's history"
        )
    return [f"data changed: {difference}"]


def _difference_from_history(run: Path, identity: Identity) -> str | None:
    recorded = [line["data"] for line in history(run) if isinstance(line.get("data"), dict)]
    changed = [name for name, mark in identity.fingerprints.items() if recorded and recorded[-1].get(name) != mark]
    return f"{' and '.join(changed)}: other images ({FILE}, which tells how many, is missing)" if changed else None


def remember(run: Path, step: int, notes: list[str]) -> None:
    """Write into a run's history what was accepted when it was used, once."""
    if not notes or any(line.get("notes") == notes for line in history(run)):
        return
    try:
        add_segment(run, {"step": step, "notes": notes, "used": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    except (OSError, UserError) as error:
        logger.warning("%s: what was accepted could not be written into its history (%s)", run, error)


def _versions() -> dict[str, str]:
    named = {name: version(name) for name in ("torch", "numpy", "pillow", "accelerate", "safetensors")}
    return {"vaes": __version__, "python": sys.version.split()[0], **named}


@contextlib.contextmanager
def reserved(experiment: "Experiment", folder: Path | None, runtime: Runtime) -> Iterator[Path]:
    """The run folder, or one below ``runs`` whose name no other command takes, however many start at this moment."""
    if folder is not None:
        yield folder
        return
    stem = f"{experiment.method}-{experiment.data['kind']}-{time.strftime('%Y%m%d-%H%M%S')}"
    made: Path | None = None
    for name in (stem, *(f"{stem}-{i}" for i in range(2, 1000))) if runtime.is_main else ():
        with contextlib.suppress(FileExistsError):
            made = Path("runs") / name
            made.mkdir(parents=True)
            break
    folder = runtime.collected(made)[0]
    assert folder is not None
    try:
        yield folder
    except BaseException:
        if made is not None:
            with contextlib.suppress(OSError):
                made.rmdir()  # if nothing is in it
        raise
