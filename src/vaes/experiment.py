"""What is to be trained, completely said: made from YAML, from the command line or in Python, and printed back as any
of them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vaes import config as configuration
from vaes.data import Splits
from vaes.errors import UserError
from vaes.methods import FITTED, METHODS
from vaes.model import VAE
from vaes.posteriors import Quantizer
from vaes.shipped import find
from vaes.train import Settings

if TYPE_CHECKING:
    from vaes.run import Run
    from vaes.start import Start
    from vaes.train.listeners import Listener
    from vaes.train.loop import Training
    from vaes.train.runtime import Runtime

__all__ = ["Experiment", "Outcome", "Section", "refuse_difference"]

SECTIONS = ("data", "model", "objective", "train")

WHERE = ("root", "valid_root", "test_root", "timeout", "download", "mirrors", "skip_bad", "changed")
"""Keys of ``data`` that say where images come from and not which they are."""


class Section(Mapping[str, Any]):
    """Keys and values that cannot be changed; ``section.key`` is ``section["key"]``."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = {key: _frozen(value) for key, value in values.items()}

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_") or key not in self._values:
            raise AttributeError(f"no key {key!r}; there are {', '.join(self.__dict__.get('_values', ()))}")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(_plain(self))


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Experiment:
    """A training before it is run; equal ones give equal runs.

    Every key that is not given has its default, and an unknown one is refused with the nearest spelling:

    >>> experiment = Experiment(method="beta_vae", objective={"beta": 8}, train={"n_steps": 200})
    >>> experiment.objective.beta, experiment.train.batch_size
    (8, 128)

    Args:
        seed: of the weights, the order of images and all noise.
        method: a row of :data:`vaes.METHODS`.
        data: keys of the images' source, by its ``kind``.
        model: keys of network, likelihood and code.
        objective: keys of the method.
        train: see :class:`vaes.Settings`.

    Raises:
        UserError: naming the dotted key, what is wrong with it and what would be right.
    """

    seed: int
    method: str
    data: Section
    model: Section
    objective: Section
    train: Section

    def __init__(
        self,
        *,
        seed: int = 0,
        method: str = "vae",
        data: Mapping[str, Any] | str = Section({}),
        model: Mapping[str, Any] = Section({}),
        objective: Mapping[str, Any] = Section({}),
        train: Mapping[str, Any] = Section({}),
    ) -> None:
        given = {"seed": seed, "method": method, "data": data, "model": model, "objective": objective, "train": train}
        self._take(configuration.resolve(_plain(given)))

    @classmethod
    def of(cls, raw: Mapping[str, Any], arguments: Sequence[str] = ()) -> "Experiment":
        """From nested keys, as a YAML file has them, and ``--a.b VALUE`` arguments over them."""
        made = object.__new__(cls)
        made._take(configuration.load(_plain(raw), arguments))
        return made

    @classmethod
    def read(cls, path: str | Path, arguments: Sequence[str] = ()) -> "Experiment":
        """From a YAML file, or a shipped configuration by its name, and ``--a.b VALUE`` arguments over it."""
        return cls.of(configuration.read_file(find(str(path))), arguments)

    def replace(self, changes: Mapping[str, Any]) -> "Experiment":
        """The experiment with other values of dotted keys: ``{"objective.beta": 4, "seed": 1}``.

        Another ``method`` starts from its own defaults of ``objective``, and of what its row says of ``model`` and
        ``train``: the keys of one mean nothing to another.
        """
        raw = self.to_dict()
        method = changes.get("method", self.method)
        if method != self.method and method in METHODS:
            raw = configuration.of_method(raw, method)
        return Experiment.of(configuration.changed(raw, changes))

    def to_dict(self) -> dict[str, Any]:
        """As nested dicts; :meth:`of` gives the experiment back."""
        return {"seed": self.seed, "method": self.method} | {name: _plain(getattr(self, name)) for name in SECTIONS}

    def to_yaml(self) -> str:
        """As a YAML text; :meth:`of` with ``vaes.config.parse`` gives the experiment back."""
        return configuration.to_yaml(self.to_dict())

    def to_arguments(self) -> list[str]:
        """As arguments of ``vaes train``."""
        return configuration.to_arguments(self.to_dict())

    def __repr__(self) -> str:
        return f"Experiment({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"

    def fit(
        self,
        folder: str | Path | None = None,
        *,
        data: Splits | None = None,
        resume: "str | Path | Start | None" = None,
        device: str = "auto",
        init: str | Path | None = None,
        callbacks: Sequence["Listener"] = (),
    ) -> "Run":
        """Train, leave a run folder, and load the run.

        Args:
            folder: the run folder to make; by default a new one below ``runs``.
            data: images to take instead of those that the experiment names; see :func:`vaes.data.arrays`.
            resume: ``latest`` to go on in ``folder``, a checkpoint folder to go on from, or the URL of a run
                (``train.mirror``), which is fetched into ``folder``, and gone on in there.
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
            init: weights to begin with: a run, whose images and terms may be others, or a diffusers folder.
            callbacks: see :class:`vaes.Listener`.

        Raises:
            UserError: data, model and method do not go together, the folder is taken, the data are others than those
                that the run was trained on, a loss that is no number.
            Stopped: a signal came; the training was saved first.
        """
        from vaes.run import load

        done = self.train_in(folder, data=data, resume=resume, device=device, init=init, callbacks=callbacks)
        run = load(done.folder, device=device)
        return run if data is None else run.with_data(data)

    def train_in(
        self,
        folder: str | Path | None = None,
        *,
        data: Splits | None = None,
        resume: "str | Path | Start | None" = None,
        device: str = "auto",
        init: str | Path | None = None,
        callbacks: Sequence["Listener"] = (),
        read: Splits | None = None,
    ) -> "Outcome":
        """What :meth:`fit` does, in each process of a launcher, without loading the run afterwards; ``read`` is what
        :meth:`build_data` gave before, for several trainings on one copy of the images."""
        from vaes.train.runtime import together

        with (
            together(),
            self.begun_in(
                folder, data=data, resume=resume, device=device, init=init, callbacks=callbacks, read=read
            ) as (training, listeners),
        ):
            metrics = training.run(listeners)
            return Outcome(training.folder, metrics, training.runtime.is_main)

    @contextmanager
    def begun_in(
        self,
        folder: str | Path | None = None,
        *,
        data: Splits | None = None,
        resume: "str | Path | Start | None" = None,
        device: str = "auto",
        init: str | Path | None = None,
        callbacks: Sequence["Listener"] = (),
        read: Splits | None = None,
        notes: Sequence[str] = (),
    ) -> Iterator[tuple["Training", list["Listener"]]]:
        """The training of :meth:`train_in` before its first step, and what it is run with; ``notes`` go into the run's
        history."""
        from vaes.start import Start, starting_point
        from vaes.train.runtime import Runtime

        runtime = Runtime(device, self.settings().precision)
        with ExitStack() as opened:
            if not isinstance(resume, Start):
                begin = starting_point(resume, None if folder is None else Path(folder), runtime, init)
                resume = opened.enter_context(begin)
            yield opened.enter_context(self._begun(resume, data, read, runtime, callbacks, notes))

    @contextmanager
    def _begun(
        self,
        start: "Start",
        data: Splits | None,
        read: Splits | None,
        runtime: "Runtime",
        callbacks: Sequence["Listener"],
        more: Sequence[str],
    ) -> Iterator[tuple["Training", list["Listener"]]]:
        from vaes.start import FeatureNetworks, Provenance, reserved
        from vaes.train.loop import begun

        experiment = self if data is None else self.of_python()
        experiment._refuse_other_training(start)
        if data is not None:
            splits = configuration.drawn(experiment, data)
        else:
            splits = runtime.first(experiment.build_data) if read is None else read
        kept = experiment.replace({"data.changed": "refuse"})
        model, notes = kept.build_model(splits.train.shape), [*more]
        if start.initial is not None:
            notes += start.initial.put_into(model, kept.model)
        provenance = Provenance(kept, splits, start, accept=experiment.data["changed"] == "accept", notes=notes)
        networks = FeatureNetworks(splits, start, runtime)
        objective, weighting = configuration.build_objective(kept, model, splits.train.shape, find_features=networks)
        with (
            reserved(kept, start.folder, runtime) as folder,
            begun(
                objective,
                weighting,
                splits,
                kept.settings(),
                folder,
                seed=kept.seed,
                flip=kept.data["flip"],
                config=kept.to_yaml(),
                resume=start.saved,
                within=start.within,
                init=None if start.initial is None else start.initial.record,
                runtime=runtime,
            ) as training,
        ):
            yield training, [provenance, networks, *callbacks]

    def of_python(self) -> "Experiment":
        """The experiment on images that are given in Python: all keys of ``data`` but those of a source stay."""
        common = {key: self.data[key] for key in configuration.COMMON_DATA_KEYS}
        return self.replace({"data": {"kind": configuration.DATA_OF_PYTHON, **common}})

    def build_data(self) -> Splits:
        """Read the images."""
        return configuration.build_data(self)

    def build_model(self, image_shape: tuple[int, int, int]) -> VAE:
        """The model for images of a shape, its weights drawn from the seed."""
        return configuration.build_model(self, image_shape)

    @property
    def prior_to_fit(self) -> str | None:
        """The kind of prior to fit after training; None where the codes fill the one that they are drawn from."""
        posterior = configuration.registry.POSTERIORS[self.model["posterior"]["kind"]]
        if isinstance(posterior, type) and issubclass(posterior, Quantizer):
            return "autoregressive"
        return "flow_matching" if self.method == "kl_vae" and self.has_grids else FITTED.get(self.method)

    @property
    def has_grids(self) -> bool:
        """Whether its codes are grids."""
        return configuration.registry.NETWORKS[self.model["network"]["kind"]].grid is not None

    def settings(self) -> Settings:
        """The options of training."""
        return configuration.build_settings(self)

    def _take(self, resolved: configuration.Config) -> None:
        for name in ("seed", "method"):
            object.__setattr__(self, name, getattr(resolved, name))
        for name in SECTIONS:
            object.__setattr__(self, name, Section(getattr(resolved, name)))

    def _refuse_other_training(self, start: "Start") -> None:
        """Going on in a run changes nothing but ``train`` and where its images lie; into a new folder, nothing but the
        model must stay."""
        if start.raw is None:
            return
        before = Experiment.of(start.raw)
        sections = ("seed", "method", "data", "model", "objective") if start.within else ("method", "model")
        refuse_difference(
            self, before, sections, "--resume goes on with the same training; give a new run folder with -e"
        )
        if start.within and self.train["batch_size"] != before.train["batch_size"]:
            raise UserError(
                f"train.batch_size: {self.train['batch_size']} where this run has {before.train['batch_size']}, and "
                "its images are in that order; give a new run folder with -e"
            )

    def jumps(self, before: "Experiment") -> bool:
        """Whether a schedule that spans the whole training has another value now at the same step."""
        schedules = (part for section in (self.train, self.objective, self.model) for part in _schedules(section))
        spans = self.train["lr"] is None or any(value["steps"] is None for value in schedules)
        return bool(self.train["n_steps"] != before.train["n_steps"] and spans)


class Outcome(NamedTuple):
    """What a training has left."""

    folder: Path
    metrics: dict[str, Any]
    is_main: bool
    """Whether this is the first process of its launcher."""


HELD = "model.network.gradient_checkpointing"
"""What a training holds, and not what it computes."""


def refuse_difference(given: Experiment, other: Experiment, sections: Sequence[str], what: str) -> None:
    """Refuse an experiment whose sections differ from another's, but for where the images lie and what
    changes no number.

    Raises:
        UserError: naming the first key that differs, and both values.
    """
    ours, theirs = (_flat({name: e.to_dict()[name] for name in sections}) for e in (given, other))
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key, "nothing"), theirs.get(key, "nothing")
        if a != b and key not in {*(f"data.{name}" for name in WHERE), HELD}:
            raise UserError(f"{what}: {key} is {a} in the configuration given and {b} in theirs")


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Section(value)
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """As dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _schedules(value: object) -> Iterator[Mapping[str, Any]]:
    """All schedules with a length in a section."""
    if isinstance(value, Mapping):
        if "kind" in value and "steps" in value:
            yield value
        else:
            yield from (found for below in value.values() for found in _schedules(below))


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
