"""The runs of a sweep by the numbers that their trainings ended with, for where they have not all been evaluated."""

import json
from pathlib import Path
from typing import Any

from vaes import files
from vaes.compare.runs import SWEEP, Result, configured, shortest_names, training_metric
from vaes.config import Config
from vaes.data.identity import Identity
from vaes.errors import UserError
from vaes.evaluate import report
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Evaluation, Group, shown

__all__ = ["trained"]

OF_IMAGES = frozenset({"elbo", "rate", "distortion", "mse"})
"""Means over images, whatever the objective was."""


def trained(path: Path) -> list[Result] | None:
    """The finished runs of a sweep; None where the path is none, or all of them have been evaluated.

    Raises:
        UserError: a run's numbers are damaged, or there are not two.
    """
    if not (path / SWEEP).is_file():
        return None
    there = [found.parent for found in (path / "runs").glob("*/config.yaml")]
    runs = sorted(there, key=lambda run: files.natural(run.name))
    done = [run for run in runs if (run / "metrics.json").is_file()]
    evaluated = sum((run / report.FILE).is_file() for run in done)
    if evaluated == len(done) and done:
        return None
    if len(done) < 2:
        raise UserError(f"{shown(str(path))}: {len(done)} finished run in this sweep; two are needed to compare")
    said = [
        f"the numbers are those of the test images that training ended with, for {evaluated} of {len(done)} runs have "
        "been evaluated; vaes evaluate RUN for each gives all metrics"
    ]
    if left := [shown(run.name) for run in runs if run not in done]:
        said.append(f"left out, for they are not finished: {', '.join(left)}")
    results = [_result(run, name) for run, name in zip(done, shortest_names(done), strict=True)]
    return [results[0]._replace(warnings=(*said, *results[0].warnings)), *results[1:]]


def _result(run: Path, name: str) -> Result:
    config = configured(run)
    path = run / "metrics.json"
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        best = document.get("best")
        section = best or document
        step = int(section["step"])
        metrics = [_metric(str(key), dict(found), config) for key, found in section["test"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not what training writes ({type(error).__name__}: {shown(str(error))})") from None
    images = Identity.read(run / "data.safetensors").fingerprints["test"]
    group = Group("test", images, {}, metrics, [], "all")
    evaluation = Evaluation(step, str(run), "", {"training": group})
    return Result(run, name, config, "best" if best else f"step {step}", evaluation)


def _metric(name: str, found: dict[str, Any], config: Config) -> Metric:
    metric = training_metric(name, found, config)
    if name not in OF_IMAGES:
        return metric
    model = config.to_dict()["model"]
    about = json.dumps({key: model[key] for key in ("likelihood", "value_range")}, sort_keys=True)
    definition = f"{name} of the test split as training reported it, with {about}"
    return metric._replace(definition=definition, stderr=found.get("stderr"))
