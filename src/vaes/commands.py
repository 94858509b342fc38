"""What the commands do, once their arguments are read."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaes import __version__, files
from vaes import config as configuration
from vaes.config import Config
from vaes.data import ImageSet
from vaes.errors import UserError
from vaes.runs import find_weights, load, refuse_difference
from vaes.train import checkpoint
from vaes.train.folder import locked, refuse_existing

__all__ = ["run_compare", "run_evaluate", "run_sample", "run_train"]

FIXED = ("seed", "method", "data", "model", "objective")


def run_train(
    path: str | None, exp_dir: Path | None, resume: str | None, arguments: Sequence[str], methods: tuple[str, ...]
) -> None:
    """Train as a configuration file and overrides say, anew or going on."""
    from vaes.train.processes import together

    with together():
        _train(path, exp_dir, resume, arguments, methods)


def _train(
    path: str | None, exp_dir: Path | None, resume: str | None, arguments: Sequence[str], methods: tuple[str, ...]
) -> None:
    from vaes.train.loop import fit
    from vaes.train.processes import join

    state = join()
    start = _find_start(resume, exp_dir)
    if path is not None:
        raw = configuration.read_file(path)
    else:
        raw = dict(configuration.DEFAULTS) if start.raw is None else start.raw
    if methods and start.raw is None and (path is None or "method" not in raw):
        raw["method"] = methods[0]
    config = configuration.load(raw, arguments)
    if methods and config.method not in methods:
        raise UserError(
            f"method: {config.method} is not what this command trains ({', '.join(methods)}); use vaes train"
        )
    run = exp_dir or (_home(resume) if resume else _new_folder(config))
    if start.raw is not None:
        _refuse_other_training(config, start)
    with state.main_process_first():  # the first decodes and caches, the others read the cache
        splits = configuration.build_data(config)
    model = configuration.build_model(config, splits.train.shape)
    objective, weighting = configuration.build_objective(config, model)
    metrics = fit(
        objective,
        weighting,
        splits,
        configuration.build_settings(config),
        run,
        seed=config.seed,
        flip=config.data["flip"],
        config=configuration.to_yaml(config),
        resume=start.saved,
        within=start.within,
    )
    if state.is_main_process:
        text = table(metrics)
        files.write_atomic(run / "metrics.txt", lambda path: path.write_text(text + "\n", encoding="utf-8"))
        print(f"{text}\nrun folder: {run}\nnext: vaes sample {run} --mode traverse")


def run_sample(
    where: Path, path: str | None, mode: str, save_dir: Path | None, options: dict[str, Any], arguments: Sequence[str]
) -> None:
    """Draw one mode with a trained model."""
    from vaes.view import Options, draw

    expected = configuration.load(configuration.read_file(path)) if path is not None else None
    run = load(where, expected)
    config = _elsewhere(run.config, arguments)
    images = configuration.build_data(config).test if _needs_images(mode, options, run.model.z_dim) else None
    folder = save_dir or _run_folder(run.weights) / "pictures"
    caption = f"{config.method} on {config.data['kind']}, step {run.step:,}"
    written = draw(mode, run.model, folder, Options(**options), images, caption)
    print(f"{len(written) - 1} pictures and {written[-1]}")


def run_evaluate(
    where: Path,
    only: Sequence[str] | None,
    split: str,
    budget: dict[str, int],
    seed: int,
    features: str,
    arguments: Sequence[str],
) -> None:
    """Compute the metrics of a trained model."""
    from vaes.evaluate import report, runner

    options = runner.Budget(**budget)
    groups = runner.DEFAULT_GROUPS if only is None else tuple(only)
    runner.check(groups, split, options, seed)
    run = load(where)
    weights = files.checksum(run.weights)
    own, of_outliers = _outlier_keys(arguments)
    splits = configuration.build_data(_elsewhere(run.config, own))
    other = _outliers(run.config, of_outliers) if of_outliers else None
    folder = _run_folder(run.weights)
    report.ready(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = runner.evaluate_groups(
        run.model.to(device), splits, only=groups, split=split, budget=options, seed=seed, features=features,
        cache=folder / "classifier.safetensors", outliers=other, progress=True,
    )  # fmt: skip
    print(report.table(found))
    asked = "last" if (where / "ckpt").is_dir() else str(run.step)
    config = configuration.to_yaml(run.config)
    new = report.Evaluation(run.step, weights, __version__, found, (asked,), config)
    print(f"definitions, seeds and all: {report.add(folder, new)}")


def run_compare(runs: Sequence[Path], save_dir: Path | None, format: str, checkpoint: str | None) -> None:
    """Put evaluated runs side by side."""
    from vaes import compare

    results = compare.read_runs(runs, checkpoint)
    columns = compare.pool(results)
    if save_dir is not None and save_dir.exists() and not save_dir.is_dir():
        raise UserError(f"--save_dir {save_dir}: there is a file of that name")
    for line in compare.warnings(results):
        print(f"warning: {line}", file=sys.stderr)
    bold = sys.stdout.isatty()
    print(compare.render(columns, format, width=shutil.get_terminal_size((120, 24)).columns, bold=bold))
    if save_dir is None:
        return
    save_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(compare.document(columns), indent=1, allow_nan=False) + "\n"
    files.write_atomic(save_dir / "comparison.json", lambda path: path.write_text(text, encoding="utf-8"))
    plot = save_dir / "rate-distortion.png"
    drawn = compare.rate_distortion(columns, plot)
    left_out = [column.label for column in columns if column.label not in drawn]
    why = "no rate and distortion that compare" if drawn else "no column has a rate and a distortion"
    without = f" (without {', '.join(left_out)}: {why})" if left_out else ""
    said = f"{plot}{without}" if drawn else f"no plot: {why}"
    print(f"\n{save_dir / 'comparison.json'}\n{said}", file=sys.stdout if format == "table" else sys.stderr)


def table(metrics: dict[str, Any]) -> str:
    """The test numbers, as people read them."""
    lines = [f"test numbers after step {metrics['step']:,} (mean over images ± standard error)"]
    for name, found in metrics["test"].items():
        error = f" ± {found['stderr']:.3g}" if found["stderr"] is not None else ""
        lines.append(f"  {name:<12} {found['value']:>12.5g}{error:<10}  {found['unit']}".rstrip())
    return "\n".join(lines)


def _elsewhere(config: Config, arguments: Sequence[str]) -> Config:
    """The configuration with other keys of ``data``."""
    changed = configuration.load(config.to_dict(), arguments)
    refuse_difference(
        changed, config, ("seed", "method", "model", "objective", "train"), "only keys of data can be given"
    )
    return changed


def _outliers(config: Config, arguments: Sequence[str]) -> ImageSet:
    try:
        return configuration.build_data(_elsewhere(config, arguments)).test
    except UserError as error:
        raise UserError(f"--outliers, read as a data section: {error}") from None


def _outlier_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into those of the run's own data and those of a second source, the latter spelt as the former."""
    own: list[str] = []
    other: list[str] = []
    to = own
    for word in arguments:
        if word.startswith("--"):
            to = other if word.startswith("--outliers.") else own
        to.append(word.replace("--outliers.", "--data.", 1) if to is other else word)
    return own, other


def _needs_images(mode: str, options: dict[str, Any], z_dim: int) -> bool:
    if mode == "interpolate":
        return options["between"] == "test"
    return mode != "sample"


def _run_folder(weights: Path) -> Path:
    """The run folder of a weights file, or the folder that it lies in."""
    in_run = weights.parent.parent.name == "ckpt"
    return weights.parent.parent.parent if in_run else weights.parent


def _new_folder(config: Config) -> Path:
    return Path("runs") / f"{config.method}-{config.data['kind']}-{time.strftime('%Y%m%d-%H%M%S')}"


def _home(resume: str) -> Path:
    """The run folder that a checkpoint folder lies in."""
    folder = Path(resume).resolve()
    if folder.parent.name != "ckpt":
        raise UserError(f"--resume {resume}: give -e too, the run folder to go on in")
    return folder.parent.parent


class _Start(NamedTuple):
    """What a training goes on from."""

    saved: checkpoint.Checkpoint | None = None
    raw: dict[str, Any] | None = None  # its configuration
    within: bool = False  # in the run folder that is there already


def _find_start(resume: str | None, exp_dir: Path | None) -> _Start:
    if resume is None:
        if exp_dir is not None:
            refuse_existing(exp_dir)
        return _Start()
    if resume == "latest":
        if exp_dir is None:
            raise UserError("--resume latest: say which run with -e RUN")
        if not (exp_dir / "config.yaml").is_file():
            raise UserError(f"--resume latest: {exp_dir} is no run folder; without --resume a new one is made")
        with locked(exp_dir, shared=True):  # every process of a launcher looks
            if not checkpoint.checkpoints(exp_dir):  # stopped before its first checkpoint: from the beginning
                return _Start(None, configuration.read_file(exp_dir / "config.yaml"), True)
            found = checkpoint.read(checkpoint.newest_folder(exp_dir))
        return _Start(found, _stored(found, resume), True)
    folder = find_weights(Path(resume)).parent
    home = folder.resolve().parent.parent
    within = exp_dir is None or exp_dir.resolve() == home
    if not within and exp_dir is not None:
        refuse_existing(exp_dir)
    found = checkpoint.read(folder)
    return _Start(found, _stored(found, resume), within)


def _stored(found: checkpoint.Checkpoint, where: str) -> dict[str, Any]:
    return configuration.parse(str(found.metadata.get("config", "")), f"{where}: its configuration")


def _refuse_other_training(config: Config, start: _Start) -> None:
    """Going on in a run changes nothing but ``train``; into a new folder, nothing but the model must stay."""
    stored = configuration.load(start.raw or {})
    sections = FIXED if start.within else ("method", "model")
    refuse_difference(
        config, stored, sections, "--resume goes on with the same training; give a new run folder with -e"
    )
    if not start.within:
        return
    if config.train["batch_size"] != stored.train["batch_size"]:
        raise UserError(
            f"train.batch_size: {config.train['batch_size']} where this run has {stored.train['batch_size']}, and its "
            "images are in that order; give a new run folder with -e"
        )
    schedules = [value for value in (config.train["lr"], *config.objective.values()) if isinstance(value, dict)]
    spans = config.train["lr"] is None or any(value.get("steps", 0) is None for value in schedules)
    if config.train["n_steps"] != stored.train["n_steps"] and spans:
        print(
            "note: a schedule without steps of its own spans the whole training, and that is longer or shorter now: "
            "its value jumps",
            file=sys.stderr,
        )
