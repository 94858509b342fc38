"""Numbers, pictures and configurations to the programs that people keep their experiments in."""

import abc
import contextlib
import importlib.util
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from PIL import Image

from vaes import files
from vaes.errors import UserError
from vaes.train.listeners import Listener

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["IDS", "Tracked", "Tracker", "refuse_missing", "tracked"]

logger = logging.getLogger(__name__)

IDS = "trackers.json"
"""Which of a tracker's runs a run folder is, so that going on in it goes on there."""

PROJECT = "vaes"


class Tracker(abc.ABC):
    """One program's run. Whatever it raises is a warning, and the end of it for this training."""

    module: ClassVar[str]

    @abc.abstractmethod
    def begin(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """Begin a run named as the folder, or go on in the ``known`` one -> which it is."""

    @abc.abstractmethod
    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by SPLIT/NAME."""

    @abc.abstractmethod
    def picture(self, step: int, image: Image.Image) -> None:
        """The picture of a step."""

    @abc.abstractmethod
    def end(self, final: Mapping[str, float] | None) -> None:
        """Close the run with its final numbers; None where the training did not come to its end."""


class WandB(Tracker):
    """Weights & Biases; ``WANDB_MODE=offline`` keeps it in ``RUN/wandb``, which ``wandb sync`` sends later."""

    module = "wandb"

    def begin(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """See :class:`Tracker`."""
        import wandb

        self._wandb = wandb
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False, timeout=30):  # or it would ask and wait
            raise RuntimeError("no key: run `wandb login`, or set WANDB_MODE=offline")
        settings = wandb.Settings(console="off", save_code=False)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.name, dir=folder, id=known,
            resume="allow", config=dict(config), reinit="create_new", settings=settings,
        )  # fmt: skip
        return str(self._run.id)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image.Image) -> None:
        """See :class:`Tracker`."""
        self._run.log({"samples": self._wandb.Image(image)}, step=step)

    def end(self, final: Mapping[str, float] | None) -> None:
        """See :class:`Tracker`."""
        self._run.summary.update(dict(final or {}))
        self._run.finish(exit_code=int(final is None))


class MLflow(Tracker):
    """MLflow, at ``MLFLOW_TRACKING_URI`` or where MLflow itself keeps runs; the process's own active run is left
    alone."""

    module = "mlflow"

    def begin(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """See :class:`Tracker`."""
        import mlflow
        from mlflow.entities import Param

        self._client, self._metric, self._step = mlflow.MlflowClient(), mlflow.entities.Metric, 0
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return known
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self._id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        params = [Param(key, str(value)[:6000]) for key, value in _flat(config).items()]
        for first in range(0, len(params), 100):  # the most that it takes at once
            self._client.log_batch(self._id, params=params[first : first + 100])
        return str(self._id)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._step, now = step, _now()
        # It takes no brackets and commas in names.
        named = {re.sub(r"[^\w./ -]+", "_", name).strip("_"): value for name, value in values.items()}
        self._client.log_batch(self._id, metrics=[self._metric(k, v, now, step) for k, v in named.items()])

    def picture(self, step: int, image: Image.Image) -> None:
        """See :class:`Tracker`."""
        self._client.log_image(self._id, image, artifact_file=f"samples/step{step:06d}.png")

    def end(self, final: Mapping[str, float] | None) -> None:
        """See :class:`Tracker`."""
        if final:
            self.numbers(self._step, final)
        self._client.set_terminated(self._id, "FAILED" if final is None else "FINISHED")


class Trackio(Tracker):
    """Trackio, on this machine: in ``TRACKIO_DIR``, or where it keeps runs itself."""

    module = "trackio"

    def begin(self, folder: Path, config: Mapping[str, Any], known: str | None) -> str:
        """See :class:`Tracker`."""
        import trackio

        self._trackio, self._step = trackio, 0
        name = folder.name if known is None else known
        self._run = trackio.init(
            project=PROJECT, name=name, config=dict(config), resume="allow" if known else "never",
            embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        return str(self._run.name)

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """See :class:`Tracker`."""
        self._step = step
        self._run.log(dict(values), step=step)

    def picture(self, step: int, image: Image.Image) -> None:
        """See :class:`Tracker`."""
        self._run.log({"samples": self._trackio.Image(image)}, step=step)

    def end(self, final: Mapping[str, float] | None) -> None:
        """See :class:`Tracker`."""
        if final:
            self._run.log(dict(final), step=self._step)
        self._run.finish()


TRACKERS: dict[str, Callable[[], Tracker]] = {"mlflow": MLflow, "trackio": Trackio, "wandb": WandB}


class Tracked(Listener):
    """Gives a tracker what a training publishes, under the names that TensorBoard has; it never ends the training."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def start(self, training: "Training") -> None:
        """Begin, with the configuration and the units of all numbers."""
        units = {"every other number": "nats per image", "coefficients and lr": "", **training.units}
        config = {**(yaml.safe_load(training.config or "{}") or {}), "units": units}
        path = training.folder / IDS
        known = _ids(path)
        with self._trying(training) as tracker:
            which = tracker.begin(training.folder, config, known.get(self._name)) if tracker else ""
            if which and which != known.get(self._name):
                files.write_json(path, {**known, self._name: which})

    def metrics(self, training: "Training", step: int, split: str, values: Mapping[str, float]) -> None:
        """Numbers, and the speed."""
        found = {f"{split}/{name}": value for name, value in values.items()}
        if training.speed is not None:
            found["speed/images_per_second"] = training.speed
        with self._trying(training) as tracker:
            if tracker:
                tracker.numbers(step, found)

    def picture(self, training: "Training", step: int, image: Image.Image) -> None:
        """A picture."""
        with self._trying(training) as tracker:
            if tracker:
                tracker.picture(step, image.convert("RGB"))

    def end(self, training: "Training") -> None:
        """The test numbers, with their standard errors."""
        with self._trying(training) as tracker:
            if tracker:
                tracker.end(None if training.final is None else _final(training.final))

    @contextlib.contextmanager
    def _trying(self, training: "Training") -> Iterator[Tracker | None]:
        """The tracker, while it has not failed; what it prints goes where lines for people go."""
        try:
            with training.clock.on("trackers"), contextlib.redirect_stdout(sys.stderr), _few_retries():
                yield self._tracker
        except Exception as error:  # whatever a network, a server or a library does
            self._tracker = None
            why = " ".join(str(error).split())[:200]
            text = f"train.trackers: {self._name} failed and is left out from here on ({type(error).__name__}: {why})"
            logger.warning("%s", text)


def tracked(names: Sequence[str]) -> list[Listener]:
    """A listener for each of the trackers that are no files of the run."""
    return [Tracked(name, TRACKERS[name]()) for name in dict.fromkeys(names) if name in TRACKERS]


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        UserError: with the command that installs it.
    """
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise UserError(f"train.trackers: {name} needs a package more: pip install 'vaes[{name}]'")


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Inside, MLflow asks a server that is gone three times, and not for four minutes, unless the user has said how
    often."""
    key = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    given = os.environ.get(key)
    os.environ.setdefault(key, "2")
    try:
        yield
    finally:
        if given is None:
            os.environ.pop(key, None)


def _final(document: Mapping[str, Any]) -> dict[str, float]:
    """The test numbers of ``metrics.json``: of the last step, and as best/... of the best."""
    found: dict[str, float] = {}
    for prefix, numbers in (("test", document), ("best", document.get("best") or {})):
        for name, number in numbers.get("test", {}).items():
            for key, value in ((name, number["value"]), (f"{name}_stderr", number["stderr"])):
                if value is not None and math.isfinite(value):
                    found[f"{prefix}/{key}"] = value
    return found


def _ids(path: Path) -> dict[str, str]:
    try:
        found = json.loads(files.read_bytes(path, files.MAX_JSON))
        return {str(key): str(value) for key, value in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        logger.warning("%s: cannot be read (%s); trackers begin anew", path, error)
        return {}


def _flat(value: object, path: str = "") -> dict[str, object]:
    if not isinstance(value, Mapping):
        return {path: value}
    below = ((f"{path}.{key}" if path else str(key), item) for key, item in value.items())
    return {key: found for name, item in below for key, found in _flat(item, name).items()}


def _now() -> int:
    """Milliseconds, as MLflow wants them."""
    return int(time.time() * 1000)
