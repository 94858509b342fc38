"""Evaluated runs made by hand."""

import json
from pathlib import Path

from vaes import config
from vaes.evaluate.record import Column, Metric
from vaes.evaluate.report import Evaluation, add, group
from vaes.files import digest


def metric(name: str, value: float, stderr: float | None = 0.1, definition: str = "d") -> Metric:
    return Metric(name, value, 100, definition, stderr=stderr)


def make(
    folder: Path, name: str, metrics: list[Metric], *, seed: int = 0, beta: float = 1.0, images: str = "fp",
    chosen: str = "chosen", drawn: int = 0, step: int = 9, arguments: tuple[str, ...] = (),
    training: dict[str, object] | None = None, columns: dict[str, Column] | None = None, asked: tuple[str, ...] = (),
    weights: str | None = None, group_name: str = "likelihood",
) -> Path:  # fmt: skip
    """A run folder with a configuration and one more evaluation of one group."""
    run = folder / name
    run.mkdir(parents=True, exist_ok=True)
    options = ["--seed", str(seed), "--objective.beta", str(beta), *arguments]
    text = config.to_yaml(config.load(config.DEFAULTS, options))
    run.joinpath("config.yaml").write_text(text)
    found = group(metrics, "test", images, {"n_images": 100}, chosen, drawn, columns)
    add(run, Evaluation(step, weights or f"sha of {name} at {step}", "0", {group_name: found}, asked, text))
    if training is not None:
        run.joinpath("metrics.json").write_text(json.dumps(training))
    return run


def checkpoint(run: Path, step: int, weights: str, best: int | None = None) -> None:
    """What a run folder says of a checkpoint."""
    folder = run / "ckpt" / f"step{step:06d}"
    folder.mkdir(parents=True)
    state = {
        "format": "vaes-2",
        "sha256": {"model.safetensors": weights},
        "best": None if best is None else [best, 1.0],
    }
    folder.joinpath("state.json").write_text(json.dumps({**state, "checksum": digest(state, "checksum")}))
