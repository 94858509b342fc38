"""Everything that is asked of a GPU, one part after another, each written down as it ends.

    python benchmarks/gpu.py [--parts tests,agree,...] [--minutes 9] [--data FOLDER] [--out FOLDER] [--dry]

A part that has its ``gpu/PART.json`` is not done again, and one that trains for long goes on where it was cut off: the
same command, given until it says that all is done. ``--minutes`` ends it in time, trainings saved. ``--dry`` does every
part in its smallest form, on whatever there is.

- tests: the whole test suite;
- agree: float32, tf32 and bf16, the compiled step, and a resumed training, against the plain one;
- throughput: images/s of the MNIST configuration and of 64x64 colour images, with and without compilation;
- profile: where the time of those steps goes;
- together: runs side by side on one card, as processes of a sweep, against one after another;
- large: a step on 256x256 colour images in bf16, and its memory;
- study: ``study.py`` at its full size, as far as the time goes;
- iwae: the IWAE paper's one-layer table at its full length, its cells in the order of their cost.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import iwae_table
import numpy as np
import study
import torch
from common import DATA, ROOT, machine
from torch.profiler import ProfilerActivity, profile

import vaes
from vaes import Experiment
from vaes.data import Splits, arrays, binarize, mnist, to_float
from vaes.errors import Stopped, UserError
from vaes.train.state import TrainState

NEVER = {"print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Part = Callable[["Chosen"], dict[str, Any]]


class Chosen(argparse.Namespace):
    """The command line."""

    parts: str
    minutes: float | None
    data: Path
    out: Path
    dry: bool

    @property
    def home(self) -> Path:
        """Where everything goes."""
        return self.out / ("gpu-dry" if self.dry else "gpu")


def drawn(n: int, channels: int, side: int) -> Splits:
    """Noise as images: the arithmetic is the same."""
    images = np.random.default_rng(0).integers(0, 256, (n + 16, channels, side, side), dtype=np.uint8)
    return arrays(images[:n], images[n : n + 8], valid=images[n + 8 :])


def small(dry: bool) -> tuple[Experiment, Splits]:
    """The MNIST configuration, and images of its shape."""
    experiment = Experiment.read("vae-mnist").replace({"train.batch_size": 8 if dry else 256})
    return experiment, drawn(64 if dry else 60_000, 1, 32)


def colour(side: int, batch: int, n: int) -> tuple[Experiment, Splits]:
    """The CelebA configuration at a side, and images of its shape."""
    experiment = Experiment.read("vae-celeba").replace({"train.batch_size": batch})
    return experiment, drawn(n, 3, side)


def seconds(experiment: Experiment, images: Splits, folder: Path, steps: int, changes: Mapping[str, Any]) -> float:
    """Of a training, once: its start and its end included."""
    settings = {f"train.{name}": value for name, value in {**NEVER, "n_steps": steps, **changes}.items()}
    began = time.perf_counter()
    experiment.replace(settings).train_in(folder / f"{time.time_ns()}", data=images, device=DEVICE)
    return time.perf_counter() - began


def speed(experiment: Experiment, images: Splits, folder: Path, steps: int, changes: Mapping[str, Any]) -> float:
    """Images/s of ``steps`` steps: the difference of a long and a short training, so that start and end cancel."""
    warm = max(2, steps // 10)
    seconds(experiment, images, folder, warm, changes)
    short = seconds(experiment, images, folder, warm, changes)
    long = seconds(experiment, images, folder, warm + steps, changes)
    return steps * experiment.train["batch_size"] / max(long - short, 1e-9)


def tests(chosen: Chosen) -> dict[str, Any]:
    """The test suite; in the dry run the tests of schedules."""
    what = ["tests/test_schedules.py", "-p", "no:xdist"] if chosen.dry else ["-n", str(min(os.cpu_count() or 1, 16))]
    command = [sys.executable, "-m", "pytest", "-q", *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {"status": done.returncode, "end": done.stdout.splitlines()[-40:]}


def agree(chosen: Chosen) -> dict[str, Any]:
    """How far weights are from those of the plain training after some steps: the largest difference, and relative to
    the largest weight."""
    (experiment, images), steps = small(chosen.dry), 6 if chosen.dry else 200
    experiment = experiment.replace({"train.optimizer": "adam", "train.lr": 1e-3})

    def weights(folder: str, changes: Mapping[str, Any], resume: str | None = None, n: int = steps) -> torch.Tensor:
        settings = {f"train.{name}": value for name, value in {**NEVER, "n_steps": n, **changes}.items()}
        run = experiment.replace(settings).fit(
            chosen.home / "agree" / folder, data=images, device=DEVICE, resume=resume
        )
        return torch.cat([p.detach().cpu().flatten() for p in run.model.parameters()]).double()

    ways: dict[str, dict[str, Any]] = {"again": {}, "tf32": {"precision": "tf32"}, "bf16": {"precision": "bf16"}}
    if not chosen.dry:  # it takes a compiler, and a minute
        ways["compiled"] = {"compile": True}
    stamp = str(time.time_ns())
    plain = weights(f"{stamp}-plain", {"precision": "fp32"})
    found = {name: weights(f"{stamp}-{name}", {"precision": "fp32", **changes}) for name, changes in ways.items()}
    weights(f"{stamp}-resumed", {"precision": "fp32"}, n=steps // 2)
    found["resumed"] = weights(f"{stamp}-resumed", {"precision": "fp32"}, resume="latest")
    largest = float(plain.abs().max())
    differences = {name: float((other - plain).abs().max()) for name, other in found.items()}
    return {"steps": steps, "difference": differences, "relative": {k: v / largest for k, v in differences.items()}}


def throughput(chosen: Chosen) -> dict[str, Any]:
    """Images/s."""
    found = {}
    colours = colour(32, 2, 8) if chosen.dry else colour(64, 256, 20_000)
    for name, (experiment, images) in {"mnist": small(chosen.dry), "colour 64x64": colours}.items():
        ways: dict[str, dict[str, Any]] = {"fp32": {}, "tf32": {"precision": "tf32"}, "bf16": {"precision": "bf16"}}
        if not chosen.dry:
            ways |= {f"{way}, compiled": {**changes, "compile": True} for way, changes in ways.items()}
        for way, changes in list(ways.items())[: 1 if chosen.dry else None]:
            steps = 2 if chosen.dry else 1000
            found[f"{name}, {way}"] = round(speed(experiment, images, chosen.home / "speed", steps, changes))
    return {"images/s": found}


def profiled(chosen: Chosen) -> dict[str, Any]:
    """The operations that take most of a step."""
    found = {}
    colours = colour(32, 2, 8) if chosen.dry else colour(64, 256, 2000)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])
    for name, (experiment, images) in {"mnist": small(chosen.dry), "colour 64x64": colours}.items():
        with profile(activities=activities) as seen:
            seconds(experiment, images, chosen.home / "profile", 3 if chosen.dry else 50, {})
        key = "self_device_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
        found[name] = seen.key_averages().table(sort_by=key, row_limit=25).splitlines()
    return found


def together(chosen: Chosen) -> dict[str, Any]:
    """Seconds of N short runs, so many at a time, against one after another."""
    experiment, images = small(chosen.dry)
    steps, counts = (4, [1]) if chosen.dry else (2000, [4, 16])
    experiment = experiment.replace({"train.n_steps": steps, **{f"train.{k}": v for k, v in NEVER.items()}})
    found = {}
    for n in counts:
        for jobs in sorted({1, min(4, n), n}):
            began = time.perf_counter()
            home = chosen.home / "together" / f"{n}-{jobs}-{time.time_ns()}"
            done = vaes.sweep(experiment, None, n, folder=home, jobs=jobs, data=images, device=DEVICE)
            if done.failed:
                raise UserError(done.failed[0].why)
            found[f"{n} runs, {jobs} at a time"] = round(time.perf_counter() - began, 1)
    return {"seconds": found, "steps": steps}


def large(chosen: Chosen) -> dict[str, Any]:
    """Images/s and memory at 256x256."""
    experiment, images = colour(32, 2, 8) if chosen.dry else colour(256, 32, 512)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps = 2 if chosen.dry else 200
    found = speed(experiment, images, chosen.home / "large", steps, {"precision": "bf16"})
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None
    objective = vaes.config.build_objective(experiment, experiment.build_model(images.train.shape), images.train.shape)[
        0
    ]
    parameters = sum(p.numel() for p in TrainState(objective, experiment.settings()).model.parameters())
    return {"images/s": round(found), "peak GiB": memory, "parameters": parameters, "shape": images.train.shape}


def the_study(chosen: Chosen) -> dict[str, Any]:
    """The disentanglement study."""
    budget = study.BUDGETS["dry" if chosen.dry else "full"]
    runs = study.train(budget, chosen.home / "study", 1 if chosen.dry else 4)
    study.evaluate(runs, budget["images"])
    return study.analyse(runs)


def iwae(chosen: Chosen) -> dict[str, Any]:
    """The table, each cell a run that is gone on in."""
    cells = chosen.home / "iwae"
    if chosen.dry:
        grey, names, epochs = drawn(80, 1, 8), ["vae k=1"], [0.25] * iwae_table.STAGES
        model = {**iwae_table.MODEL, "network": {"kind": "mlp", "hidden": [4], "activation": "tanh"}}
    else:
        grey = mnist(root=str(chosen.data), image_size=None, n_valid=400, download=False, held_out="order")
        names, epochs = list(iwae_table.PAPER), iwae_table.BUDGETS["full"]["epochs"]
        model = iwae_table.MODEL
    splits = binarize(grey, "dynamic")
    mean = to_float(grey.train.read(torch.arange(len(grey.train))), (0.0, 1.0)).mean((0, 1)).flatten()
    found = {}
    for name in names:
        path = cells / f"{name}.json"
        if not path.exists():
            method, _, k = name.partition(" k=")
            lengths = [round(e * len(grey.train) / iwae_table.BATCH) for e in epochs]
            lr = {"kind": "stages", "lengths": lengths}
            settings = {**NEVER, "n_steps": sum(lengths), "batch_size": iwae_table.BATCH, "optimizer": "adam"}
            settings |= {"eps": 1e-4, "lr": lr, "save_freq": 50_000}
            raw = {"method": method, "objective": {"samples": int(k)}, "model": model, "train": settings}
            there = (cells / name / "config.yaml").exists()
            begin = [] if there else [iwae_table.Initialised(mean, 0)]
            run = Experiment.of(raw).fit(
                cells / name, data=splits, resume="latest" if there else None, callbacks=begin, device=DEVICE
            )
            n = 4 if chosen.dry else len(splits.test)
            iwae_table.SAMPLES = 20 if chosen.dry else iwae_table.SAMPLES
            nll, stderr = iwae_table.negative_log_likelihood(run.model, splits.test, n)
            path.write_text(json.dumps({"nll": nll, "stderr": stderr, "paper": iwae_table.PAPER[name]}))
        found[name] = json.loads(path.read_text())
    return found


PARTS: dict[str, Part] = {
    "tests": tests, "agree": agree, "throughput": throughput, "profile": profiled, "together": together,
    "large": large, "study": the_study, "iwae": iwae,
}  # fmt: skip


def about() -> dict[str, Any]:
    """The machine and its card."""
    card = torch.cuda.get_device_properties(0) if DEVICE == "cuda" else None
    named = (
        None
        if card is None
        else {"name": card.name, "GiB": round(card.total_memory / 2**30), "cuda": torch.version.cuda}
    )
    return {**machine(), "card": named}


def main() -> int:
    """Do the parts that are lacking; returns the exit status: 3 where some are left for the next call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="(default: all, in this order)")
    parser.add_argument("--minutes", type=float, help="end after so many, trainings saved")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the MNIST files (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT, help="gpu/ is made below it")
    parser.add_argument("--dry", action="store_true", help="every part in its smallest form")
    chosen = parser.parse_args(namespace=Chosen())
    if unknown := [name for name in chosen.parts.split(",") if name not in PARTS]:
        parser.error(f"--parts {unknown[0]}: must be among {', '.join(PARTS)}")
    chosen.home.mkdir(parents=True, exist_ok=True)
    if chosen.minutes is not None:
        timer = threading.Timer(60 * chosen.minutes, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()
        signal.signal(signal.SIGTERM, _out_of_time)
    failed = False
    for name in chosen.parts.split(","):
        path = chosen.home / f"{name}.json"
        if path.exists():
            print(f"{name}: there already", flush=True)
            continue
        began = time.perf_counter()
        try:
            found = PARTS[name](chosen)
        except Stopped as stopped:
            print(f"{name}: {stopped}; give the same command again", flush=True)
            return 3
        except Exception as error:  # the other parts do not depend on it
            print(f"{name}: failed: {type(error).__name__}: {error}", flush=True)
            failed = True
            continue
        document = {"part": name, "dry": chosen.dry, "seconds": time.perf_counter() - began, **about()}
        path.write_text(json.dumps({**document, "found": found}, indent=1, default=str) + "\n", encoding="utf-8")
        print(f"{name}: {document['seconds']:.1f} s: {path}", flush=True)
    return 1 if failed else 0


def _out_of_time(*_: object) -> None:
    raise Stopped("out of time", 3)


if __name__ == "__main__":
    sys.exit(main())
