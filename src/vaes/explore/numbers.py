"""What a run's files tell, and what follows from it, in plain words."""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaes import files
from vaes.encoding import Codes
from vaes.errors import UserError
from vaes.evaluate import report
from vaes.run import Run
from vaes.share import training_curves
from vaes.train.folder import history
from vaes.train.record import read_lines
from vaes.view import grid, planes, read_plane
from vaes.view.forming import TILES

__all__ = ["curves", "diagnosis", "evaluated", "film", "frame", "plane", "planes", "segments", "tested", "units"]

MOST_POINTS = 2000
"""Of a curve: more are thinned out evenly, the last kept."""
MOST_FRAME = 20_000_000
FRAME = re.compile(r"step(\d{6,18})\.png")


def curves(folder: Path) -> dict[str, Any]:
    """``metrics.jsonl`` by split and term: {"train": {"step": [...], "elbo": [...]}, "valid": ...}."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return {}
    found: dict[str, dict[str, list[Any]]] = {}
    lines = read_lines(path)
    for split in ("train", "valid"):
        rows = [line for line in lines if line["split"] == split]
        if len(rows) > MOST_POINTS:
            keep = np.linspace(0, len(rows) - 1, MOST_POINTS).round().astype(int)
            rows = [rows[i] for i in keep]
        names = dict.fromkeys(name for row in rows for name, value in row.items() if name != "split")
        found[split] = {name: [_number(row.get(name)) for row in rows] for name in names}
    return {split: columns for split, columns in found.items() if columns}


def units(folder: Path) -> dict[str, str]:
    """The unit of each curve, "" where it has none."""
    found = curves(folder)
    names = dict.fromkeys(name for columns in found.values() for name in columns if name != "step")
    return training_curves.units(folder, names, found.get("valid", {}))


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def evaluated(folder: Path, sha256: str | None) -> dict[str, Any] | None:
    """``evaluation.json`` of these weights, or of the last that were evaluated; None where there is none."""
    if not (folder / report.FILE).exists():
        return None
    there = report.read(folder)
    own = next((one for one in there if one.weights == sha256), None)
    one = own or there[0]
    groups = []
    for name, group in one.groups.items():
        metrics = []
        for metric in group.metrics:
            interval = report.interval95(metric)
            metrics.append(
                {
                    "name": metric.name,
                    "value": metric.value,
                    "text": report.number(metric.value),
                    "interval": None if interval is None else [report.number(end) for end in interval],
                    "n": metric.n,
                    "definition": metric.definition,
                    "features": metric.features,
                    "note": metric.note,
                    "seed": metric.seed,
                    "version": metric.version,
                }
            )
        skipped = [{"name": s.name, "reason": s.reason} for s in group.skipped]
        groups.append({"name": name, "split": group.split, "metrics": metrics, "skipped": skipped})
    return {"step": one.step, "same": own is not None, "version": one.version, "groups": groups}


def tested(folder: Path) -> dict[str, Any] | None:
    """``metrics.json``, the numbers that the training ended with; None before its end."""
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(files.read_bytes(path, files.MAX_JSON))
        rows = document["test"].items()
        found = {
            str(name): {key: one[key] for key in ("value", "stderr", "n", "unit")}
            for name, one in rows
            if isinstance(one["value"], int | float | None)
        }
        return {"step": int(document["step"]), "test": found}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: is damaged; a training that ends writes it anew") from None


def segments(folder: Path) -> list[dict[str, Any]]:
    """When and with what the run was begun and gone on with."""
    keep = ("step", "reading", "versions", "machine", "notes", "time", "started")
    return [{key: line[key] for key in keep if key in line} for line in history(folder) if "config" in line]


def film(folder: Path) -> list[int]:
    """The steps of the pictures that the training left, ascending."""
    home = folder / "samples"
    if not home.is_dir():
        return []
    return sorted(int(match[1]) for path in home.iterdir() if (match := FRAME.fullmatch(path.name)))


def frame(folder: Path, step: int) -> bytes:
    """The picture (PNG) of a step.

    Raises:
        UserError: there is none.
    """
    if step not in film(folder):
        raise UserError(f"there is no picture of step {step:,}")
    content = files.read_bytes(folder / "samples" / f"step{step:06d}.png", MOST_FRAME)
    if not content.startswith(b"\x89PNG"):
        raise UserError(f"the picture of step {step:,} is damaged")
    return content


def plane(folder: Path, step: int) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The latent plane as it was after a step: arrays, its tiles as one picture (WebP), and what is said of them.

    Raises:
        UserError: none was kept, or its file is damaged.
    """
    kept = read_plane(folder, step)
    file = io.BytesIO()
    grid(kept.tiles, TILES).save(file, "WEBP", quality=60, method=6)
    arrays: dict[str, NDArray[Any]] = {
        "points": kept.points.numpy(),
        "sheet": np.frombuffer(file.getvalue(), np.uint8),
    }
    if kept.labels is not None:
        arrays["labels"] = kept.labels.numpy().astype(np.int32)
    return arrays, {"limits": list(kept.limits), "names": list(kept.names), "normal": kept.normal}


# Diagnosis


def diagnosis(run: Run, drawn: Mapping[str, Any], codes: Codes | None, dims: Mapping[str, Any]) -> list[dict[str, str]]:
    """What the numbers say of the model in plain words, each with the one change that would help; nothing where
    nothing is wrong. ``level`` is good, look or bad."""
    found = [
        *_collapsed(run, dims),
        *_overfitted(drawn),
        *_unfinished(drawn),
        *_drowned(run, codes),
        *_aggregate(run, codes),
    ]
    if not found and codes is not None:
        found.append(
            _said("good", "Nothing stands out", "Every dimension is used, validation follows training, and q(z) lies "
                  "where the prior does.", "")
        )  # fmt: skip
    return found


def _said(level: str, title: str, text: str, change: str) -> dict[str, str]:
    return {"level": level, "title": title, "text": text, "change": change}


def _collapsed(run: Run, dims: Mapping[str, Any]) -> list[dict[str, str]]:
    value = dims["value"]
    if value is None:
        return []
    dead, all_of = sum(v < dims["unused"] for v in value), len(value)
    if not dead:
        return []
    what = f"below {dims['unused']} {'nats of KL' if dims['unit'] == 'nats' else 'of variance'}"
    beta = run.experiment.objective.get("beta")
    lower = isinstance(beta, int | float) and beta > 1
    change = f"--objective.beta {max(1, beta / 2):g}" if lower and isinstance(beta, int | float) else ""
    if dead == all_of:
        change = change or '--objective.beta "{kind: linear, start: 0, stop: 1, steps: 2000}"'
        return [
            _said("bad", "The posterior has collapsed", f"No dimension carries anything ({what}): every image has the "
                  "same code, and the decoder ignores it.", change)
        ]  # fmt: skip
    # Some unused dimensions are how a VAE says that it needs no more; many are memory that does nothing.
    level = "look" if dead > all_of / 2 or lower else "good"
    text = f"{dead} of {all_of} dimensions carry nothing ({what}). The model needs no more; they do no harm."
    return [_said(level, f"{dead} unused dimensions", text, change or f"--model.z_dim {all_of - dead}")]


def _overfitted(drawn: Mapping[str, Any]) -> list[dict[str, str]]:
    valid, train = drawn.get("valid", {}), drawn.get("train", {})
    name = "elbo" if "elbo" in valid else "loss"
    pairs = [(s, v) for s, v in zip(valid.get("step", []), valid.get(name, []), strict=False) if v is not None]
    if len(pairs) < 4:
        return []
    sign = 1 if name == "elbo" else -1
    best_step, best = max(pairs, key=lambda pair: sign * pair[1])
    last_step, last = pairs[-1]
    first = pairs[0][1]
    gained, lost = abs(best - first), abs(best - last)
    if best_step >= last_step or lost < 0.02 * gained or lost < 0.5:
        return []
    rows = [v for v in train.get(name, []) if v is not None]
    gap = f" Training stands at {rows[-1]:.1f}." if rows else ""
    text = f"Validation was best at step {best_step:,} ({best:.1f} nats) and has lost {lost:.1f} nats since.{gap}"
    return [_said("bad" if lost > 0.1 * gained else "look", "It overfits", text, "--train.patience 5")]


def _unfinished(drawn: Mapping[str, Any]) -> list[dict[str, str]]:
    valid = drawn.get("valid", {})
    name = "elbo" if "elbo" in valid else "loss"
    pairs = [(s, v) for s, v in zip(valid.get("step", []), valid.get(name, []), strict=False) if v is not None]
    if len(pairs) < 6:
        return []
    sign = 1 if name == "elbo" else -1
    quarter = pairs[-1 - len(pairs) // 4][1]
    gained, late = sign * (pairs[-1][1] - pairs[0][1]), sign * (pairs[-1][1] - quarter)
    if gained <= 0 or late < 0.05 * gained or late < 1:
        return []
    text = f"Validation gained {late:.1f} nats in the last quarter of the training: there is more to be had."
    return [_said("look", "It was still learning", text, f"--train.n_steps {2 * int(pairs[-1][0])}")]


def _drowned(run: Run, codes: Codes | None) -> list[dict[str, str]]:
    scale = getattr(run.model.likelihood, "scale", None)
    kind = run.experiment.model["likelihood"]["kind"]
    if codes is None or kind != "gaussian" or not isinstance(scale, int | float):
        return []
    low, high = run.model.value_range
    best = float(np.sqrt(np.mean(codes.mse.astype(np.float64)))) * (high - low)
    if not best or scale < 1.5 * best:
        return []
    text = (
        f"The likelihood expects pixels to miss by {scale:g}; they miss by {best:.2g} (pixels from {low:g} to "
        f"{high:g}). An error counts {(scale / best) ** 2:.0f} times less than it should, so the rate is held down "
        "and pictures blur, as under a large beta."
    )
    level = "bad" if scale > 5 * best else "look"
    return [_said(level, "The scale drowns the image", text, "--model.likelihood.scale optimal")]


def _aggregate(run: Run, codes: Codes | None) -> list[dict[str, str]]:
    """q(z) beside a standard normal prior, one dimension at a time: variance, and mass that neither shares."""
    if codes is None or codes.logvar is None or run.experiment.model["prior"]["kind"] != "standard_normal":
        return []
    mean, variance = codes.mean.astype(np.float64), np.exp(codes.logvar.astype(np.float64))
    whole = mean.var(0) + variance.mean(0)
    off = [f"z{d} has variance {v:.2g}" for d, v in enumerate(whole) if not 0.5 < v < 2]
    shift = [f"z{d} has mean {m:.2g}" for d, m in enumerate(mean.mean(0)) if abs(m) > 0.5]
    found = []
    if off or shift:
        more = f" and {len(off + shift) - 3} more" if len(off + shift) > 3 else ""
        text = f"q(z), the codes of all images together, is not the prior's unit normal: {', '.join((off + shift)[:3])}"
        found.append(
            _said("look", "q(z) is not where the prior is", f"{text}{more}. Samples come from where few images lie.",
                  "--model.prior.kind vamp")
        )  # fmt: skip
    if mean.shape[1] == 2:
        holes = _holes(mean, variance)
        if holes > 0.1:
            text = (
                f"{holes:.0%} of the prior's mass lies where q(z) has less than a tenth of the prior's density: "
                "samples from there are of no image that was seen."
            )
            found.append(_said("bad" if holes > 0.3 else "look", "q(z) has holes", text, "--model.prior.kind vamp"))
    return found


def _holes(mean: np.ndarray, variance: np.ndarray) -> float:
    """The prior's mass where q(z) < p(z) / 10, in the plane, by 1,000 draws and 2,000 posteriors."""
    z = np.random.default_rng(0).standard_normal((1000, 2))
    m, v = mean[:2000], variance[:2000]
    # (z - m)^2 / v by its three terms, as products of matrices.
    log_q = z**2 @ (-0.5 / v).T + z @ (m / v).T - 0.5 * (m**2 / v + np.log(2 * np.pi * v)).sum(1)
    most = log_q.max(1, keepdims=True)
    density = most[:, 0] + np.log(np.exp(log_q - most).mean(1))
    log_p = (-0.5 * (z**2 + np.log(2 * np.pi))).sum(-1)
    return float((density < log_p - np.log(10)).mean())
