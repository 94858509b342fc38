"""What runs left on disk: their configurations and evaluations."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes import config as configuration
from vaes.config import Config
from vaes.errors import UserError
from vaes.evaluate import report
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Evaluation, Group

__all__ = ["Result", "flat", "read_runs"]


class Result(NamedTuple):
    """One run."""

    path: Path
    config: Config
    evaluation: Evaluation  # with what training itself reported as the group "training"


def read_runs(paths: Sequence[Path]) -> list[Result]:
    """Read the runs in these folders.

    Raises:
        UserError: one is no run, has not been evaluated, is there twice, or is a copy of another.
    """
    if len(paths) < 2:
        raise UserError(f"{len(paths)} run was given; two are needed to compare")
    found: dict[Path, Result] = {}
    for path in paths:
        if path.resolve() in found:
            raise UserError(f"{path}: this run was given twice")
        found[path.resolve()] = _read(path)
    seen: dict[str, Path] = {}
    for result in found.values():
        weights = result.evaluation.weights
        if weights in seen:
            raise UserError(f"{result.path} and {seen[weights]} hold the same weights: they are one run, not two")
        seen[weights] = result.path
    return list(found.values())


def _read(path: Path) -> Result:
    if not (path / "config.yaml").is_file():
        what = "holds no config.yaml" if path.is_dir() else "does not exist"
        raise UserError(f"{path}: {what}; give run folders")
    if not (path / report.FILE).is_file():
        raise UserError(f"{path}: has not been evaluated; run: vaes evaluate {path}")
    config = configuration.load(configuration.read_file(path / "config.yaml"))
    evaluation = report.read(path / report.FILE)
    training = _training(path / "metrics.json", config, evaluation)
    groups = {**evaluation.groups, **({"training": training} if training else {})}
    return Result(path, config, evaluation._replace(groups=groups))


def _training(path: Path, config: Config, evaluation: Evaluation) -> Group | None:
    """The test numbers that training ended with, where no evaluation has better ones: loss and terms."""
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if int(document["step"]) != evaluation.step:
            return None  # of another checkpoint than the one evaluated
        numbers = {str(name): dict(found) for name, found in document["test"].items()}
        known = {metric.name for group in evaluation.groups.values() for metric in group.metrics}
        metrics = [_metric(name, found, config) for name, found in numbers.items() if name not in known]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not what training writes ({type(error).__name__}: {error})") from None
    return Group("test", _test_images(evaluation, config), {}, metrics, [])


def _metric(name: str, found: dict[str, Any], config: Config) -> Metric:
    sections = config.to_dict()
    about = {key: sections["model"][key] for key in ("likelihood", "value_range")}
    if name not in ("elbo", "rate", "distortion", "mse"):  # the loss and its terms mean what the objective says
        about |= {"method": config.method, "objective": sections["objective"]}
    stderr = found.get("stderr")
    definition = f"{name} of the test split as training reported it, with {json.dumps(about, sort_keys=True)}"
    spread = None if stderr is None else float(stderr)
    return Metric(name, float(found["value"]), int(found["n"]), definition, stderr=spread)


def _test_images(evaluation: Evaluation, config: Config) -> str:
    for group in evaluation.groups.values():
        if group.split == "test":
            return group.images
    return json.dumps({key: value for key, value in config.data.items() if key != "root"}, sort_keys=True)


def flat(value: object, path: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    if not isinstance(value, dict):
        return {path: value}
    return {k: v for key, item in value.items() for k, v in flat(item, f"{path}.{key}" if path else str(key)).items()}
