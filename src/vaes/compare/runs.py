"""What runs left on disk: their configurations and evaluations, and whether the two still belong together."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vaes import config as configuration
from vaes import files
from vaes.config import Config
from vaes.config.registry import NETWORKS
from vaes.errors import UserError
from vaes.evaluate import report
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Evaluation, Group, shown
from vaes.terminal import quote

__all__ = [
    "NOT_A_DIFFERENCE",
    "SWEEP",
    "Result",
    "configured",
    "flat",
    "read_runs",
    "shortest_names",
    "training_metric",
    "warnings",
]

STEP = re.compile(r"step([0-9]+)")
SWEEP = "sweep.json"
"""What makes a folder of runs a sweep."""

NOT_A_DIFFERENCE = frozenset(
    {
        "seed", "device", "train.device",
        "data.root", "data.download", "data.mirrors", "data.changed",  # where images lie is not what they are
        "train.print_freq", "train.eval_freq", "train.sample_freq", "train.save_freq", "train.keep",
        "train.trackers", "train.mirror",
    }
)  # fmt: skip
"""Keys that runs may differ in and still be one configuration, by several seeds."""


class Result(NamedTuple):
    """One checkpoint of one run."""

    path: Path  # of the run
    name: str  # as short as tells it from the others
    config: Config
    checkpoint: str  # best, or step N
    evaluation: Evaluation  # with what training itself reported as the group "training"
    warnings: tuple[str, ...] = ()


class _Found(NamedTuple):
    folder: Path
    checkpoint: str
    evaluation: Evaluation
    meant: bool  # this very step was asked for, so that nothing newer is missed


def read_runs(paths: Sequence[Path], checkpoint: str | None = None) -> list[Result]:
    """Read runs: run folders, checkpoint folders in them, or one folder that holds runs.

    Of a run with several evaluations the one of the best checkpoint counts, if it was asked for by that name, else that
    of the highest step; of a single run, all of them. ``checkpoint`` is best, last or a step: that one of every run.

    Raises:
        UserError: one is no run, has not been evaluated, is there twice, or is a copy of another.
    """
    paths, unread = _expanded(paths)
    found: list[_Found] = []
    for path in paths:
        folder, wanted = _run_of(path, checkpoint)
        evaluations = _evaluations(folder)
        if len(paths) == 1 and wanted is None and len(evaluations) > 1:
            steps = sorted(evaluations, key=lambda one: one.step)
            found += [_Found(folder, f"step {one.step}", one, meant=one is not steps[-1]) for one in steps]
        else:
            one, name = _choose(folder, evaluations, wanted)
            found.append(_Found(folder, name, one, meant=wanted == str(one.step)))
    _refuse_copies(found)
    if len(found) < 2:
        raise UserError(f"{len(found)} run was given; two are needed to compare")
    names = shortest_names([one.folder for one in found])
    results = [
        _result(one, f"{name}@{one.evaluation.step}" if names.count(name) > 1 else name)
        for one, name in zip(found, names, strict=True)
    ]
    return [results[0]._replace(warnings=(*unread, *results[0].warnings)), *results[1:]]


def warnings(results: Sequence[Result]) -> list[str]:
    """What readers of the comparison have to know, a line each."""
    return [line for result in results for line in result.warnings]


def _expanded(paths: Sequence[Path]) -> tuple[Sequence[Path], tuple[str, ...]]:
    """The runs in the only folder given, if it is none itself; and what is said of those left out."""
    (path, *more) = paths
    if more or not path.is_dir() or any((path / name).exists() for name in ("config.yaml", report.FILE)):
        return paths, ()
    there = {found.parent for depth in ("*", "*/*") for found in path.glob(f"{depth}/config.yaml")}
    runs = sorted(there, key=lambda run: files.natural(str(run)))
    evaluated = [run for run in runs if (run / report.FILE).exists()]
    bare = [shown(str(run.relative_to(path))) for run in runs if run not in evaluated]
    left_out = (f"left out, for they have not been evaluated: {', '.join(bare)}",) if bare else ()
    return (evaluated, left_out) if evaluated else (paths, ())


def _run_of(path: Path, checkpoint: str | None) -> tuple[Path, str | None]:
    """The run folder that a path stands for, and which of its checkpoints."""
    if path.is_file():
        path = path.parent
    folder = Path(os.path.abspath(path))  # of "." too, links kept
    step = STEP.fullmatch(folder.name)
    if step and folder.parent.name == "ckpt" and not (path / report.FILE).exists():
        return path.parent.parent if path.parent.name == "ckpt" else folder.parent.parent, str(int(step[1]))
    return path, checkpoint


def _evaluations(folder: Path) -> list[Evaluation]:
    if (folder / report.FILE).exists():
        return report.read(folder)
    where = shown(str(folder))
    if (folder / "config.yaml").is_file():
        raise UserError(f"{where}: has not been evaluated; run: vaes evaluate {quote(folder)}")
    what = "holds no config.yaml" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
    raise UserError(f"{where}: {what}; give run folders")


def _choose(folder: Path, evaluations: Sequence[Evaluation], wanted: str | None) -> tuple[Evaluation, str]:
    asked = [one for one in evaluations if (wanted or "best") in one.asked]
    at_step = [one for one in evaluations if str(one.step) == wanted]
    if wanted in (None, "best") and asked:
        return asked[0], "best"
    if wanted is None:
        newest = max(evaluations, key=lambda one: one.step)
        return newest, f"step {newest.step}"
    if at_step or asked:
        one = (at_step or asked)[0]
        return one, f"step {one.step}"
    there = ", ".join(f"step {one.step}{''.join(f' ({name})' for name in one.asked)}" for one in evaluations)
    raise UserError(
        f"{shown(str(folder))}: its checkpoint {shown(wanted)} has not been evaluated, but {shown(there)}; run: "
        f"vaes evaluate {quote(folder)} --checkpoint {shown(wanted)}"
    )


def _refuse_copies(found: Sequence[_Found]) -> None:
    seen: dict[str, Path] = {}
    for done, (folder, _, evaluation, _) in enumerate(found):
        other = seen.setdefault(evaluation.weights, folder)
        where = shown(str(folder))
        if len(seen) > done:
            continue
        if other.resolve() == folder.resolve():
            raise UserError(f"{where}: this run was given twice")
        raise UserError(f"{where} and {shown(str(other))} hold the same weights: they are one run, not two")


def shortest_names(folders: Sequence[Path]) -> list[str]:
    """The fewest last parts of each path that no other folder shares."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]  # a link goes by its own name
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        n = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        names.append(shown("/".join(own[-n:]) or "/"))
    return names


def _result(found: _Found, name: str) -> Result:
    folder, which, evaluation, meant = found
    path = folder / "config.yaml"
    said = []
    if evaluation.config is None:
        if not path.is_file():
            raise UserError(f"{shown(str(folder))}: holds no config.yaml; give run folders")
        config = _load(configuration.read_file(path))
    else:  # that of the weights that were evaluated, whatever became of the run
        config = _load(configuration.parse(evaluation.config, f"{folder / report.FILE}: its configuration"))
        began = (folder / "history.jsonl").exists()  # then config.yaml is what the run began with
        if path.is_file() and not meant and not began:
            said += _changed(name, _load(configuration.read_file(path)), config)
    said += _gone_on(name, found)
    training = _training(folder / "metrics.json", config, evaluation)
    groups = {**evaluation.groups, **({"training": training} if training else {})}
    return Result(folder, name, config, which, evaluation._replace(groups=groups), tuple(said))


def configured(run: Path) -> Config:
    """The configuration that a run began with."""
    return _load(configuration.read_file(run / "config.yaml"))


def _load(raw: dict[str, Any]) -> Config:
    """A run's configuration; the keys of a network of the user's own, which is not here, are taken as they stand."""
    model = raw.get("model")
    network = model.get("network") if isinstance(model, dict) else None
    kind = network.get("kind") if isinstance(network, dict) else None
    if kind is None or kind in NETWORKS:
        return configuration.load(raw)
    assert isinstance(model, dict)
    without = {key: value for key, value in model.items() if key != "network"}
    config = configuration.load({**raw, "model": without})
    return config._replace(model={**config.model, "network": network})


def _changed(name: str, now: Config, then: Config) -> list[str]:
    a, b = flat(now.to_dict()), flat(then.to_dict())
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key) and key not in NOT_A_DIFFERENCE)
    if not keys:
        return []
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return [
        f"{name}: config.yaml says {keys[0]} {shown(str(a.get(keys[0])))} where the weights that were evaluated carry "
        f"{shown(str(b.get(keys[0])))}{more}; what they carry counts"
    ]


def _gone_on(name: str, found: _Found) -> list[str]:
    """What the checkpoints in a run folder have to say against its evaluation."""
    folder, which, evaluation, meant = found
    steps = {}
    for path in (folder / "ckpt").glob("step*"):
        if (step := STEP.fullmatch(path.name)) and (path / "state.json").is_file():
            steps[int(step[1])] = path
    if not steps:
        return []
    again = f"run: vaes evaluate {shown(str(folder))}"
    newest, said = max(steps), []
    try:
        best = _state(steps[newest]).get("best")
        if evaluation.step in steps and _state(steps[evaluation.step])["sha256"]["model.safetensors"] != (
            evaluation.weights
        ):
            said.append(
                f"{name}: its checkpoint of step {evaluation.step} holds other weights than those evaluated; {again}"
            )
        if which == "best":
            if isinstance(best, list) and best and int(best[0]) != evaluation.step:
                said.append(
                    f"{name}: evaluated at step {evaluation.step}, and its best is step {int(best[0])} now; {again}"
                )
        elif newest > evaluation.step and not meant and str(evaluation.step) not in evaluation.asked:
            said.append(f"{name}: evaluated at step {evaluation.step}, and has gone on to step {newest} since; {again}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        said.append(
            f"{name}: a state.json of its checkpoints is damaged ({shown(str(error))}): not all could be checked"
        )
    return said


def _state(checkpoint: Path) -> Any:
    state = json.loads(files.read_bytes(checkpoint / "state.json", files.MAX_JSON).decode("utf-8"))
    if state["format"] != "vaes-1" and state["checksum"] != files.digest(state, "checksum"):
        raise ValueError("its checksum is not the one that was saved")
    return state


def _training(path: Path, config: Config, evaluation: Evaluation) -> Group | None:
    """The loss and the terms on the test images that training ended with, which no evaluation knows."""
    if not path.is_file():
        return None
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        sections = [document, document.get("best") or document]  # of the last step, and of the best
        same = [section for section in sections if int(section["step"]) == evaluation.step]
        if not same:
            return None  # of other checkpoints than the one evaluated
        numbers = {str(name): dict(found) for name, found in same[0]["test"].items() if name not in _BETTER_KNOWN}
        metrics = [training_metric(name, found, config) for name, found in numbers.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: not what training writes ({type(error).__name__}: {shown(str(error))})") from None
    return Group("test", _test_images(evaluation, config), {}, metrics, [], "all")


_BETTER_KNOWN = frozenset({"elbo", "rate", "distortion", "mse"})


def training_metric(name: str, found: dict[str, Any], config: Config) -> Metric:
    """A number of ``metrics.json``."""
    sections = config.to_dict()
    about = {key: sections["model"][key] for key in ("likelihood", "value_range")}
    about |= {"method": config.method, "objective": sections["objective"]}
    definition = f"{name} of the test split as training reported it, with {json.dumps(about, sort_keys=True)}"
    value = math.nan if found["value"] is None else float(found["value"])
    return Metric(name, value, int(found["n"]), definition)


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
