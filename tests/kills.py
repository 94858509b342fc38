"""Kill a training, an evaluation or a drawing at each of its changes to the disk, and see whether all is well after.

``python tests/kills.py FOLDER [--every N]`` kills before and after every N-th call of rename, replace, fsync, unlink,
rmdir and mkdir, and of a training's validation, lines and pictures; lets the same command be given again; and compares
what is left with what an undisturbed one leaves, byte for byte. It prints a line of JSON for each scene. Processes are
forked after the imports, so that a kill costs a fraction of a second and hits the work, not the start.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ACCELERATE_USE_CPU"] = "1"

import torch.utils.tensorboard  # noqa: F401 - every child would import it anew
from parts import small_vae  # noqa: F401 - the library, warm

import vaes.evaluate.runner
import vaes.view
from vaes import Experiment, load
from vaes.train import checkpoint, loop, record

PLACES: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir")),
    (loop.Training, "validate"),
    (record.Record, "metrics"),
    (record.Record, "picture"),
)
"""What is killed before and after: changes to the disk, and what lies between them in a training."""

ORIGIN = "trained"
"""The run that others begin with, or that something is done in."""

EXPERIMENT = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"network": {"kind": "mlp", "hidden": [4]}, "likelihood": "bernoulli"},
    "train": {
        "n_steps": 8, "batch_size": 16, "eval_freq": 2, "print_freq": 3, "save_freq": 3, "sample_freq": 4, "keep": 1,
        "ema": 0.9,
    },
}  # fmt: skip


def train(folder: Path) -> None:
    """As a user would: begin, or go on where there is something to go on in."""
    there = (folder / "config.yaml").exists()
    Experiment(**EXPERIMENT).fit(folder, resume="latest" if there else None)  # type: ignore[arg-type]


def begin(folder: Path) -> None:
    """As :func:`train`, with the weights of another run."""
    there = (folder / "config.yaml").exists() or checkpoint.checkpoints(folder)
    begun = {"resume": "latest"} if there else {"init": folder.parent / ORIGIN}
    Experiment(**EXPERIMENT).replace({"seed": 1}).fit(folder, **begun)  # type: ignore[arg-type]


def branch(folder: Path) -> None:
    """As :func:`train`, from a checkpoint of another run."""
    there = (folder / "config.yaml").exists() or checkpoint.checkpoints(folder)
    resume = "latest" if there else folder.parent / ORIGIN / "ckpt" / "step000008"
    Experiment(**EXPERIMENT).replace({"train.n_steps": 12}).fit(folder, resume=resume)  # type: ignore[arg-type]


def evaluate(folder: Path) -> None:
    """Two groups, and then one of them again."""
    for groups in (["latent"], ["latent", "reconstruction"]):
        load(folder).evaluate(groups, budget={"n_images": 40})


def sample(folder: Path) -> None:
    """A sheet and its single pictures."""
    vaes.view.draw("sample", load(folder).model, folder / "pictures", vaes.view.Options(n_samples=3, singles=True))


def encode(folder: Path) -> None:
    """Shards of codes."""
    run = load(folder.parent / ORIGIN)
    vaes.share.write_latents(run, {"valid": run.data.valid, "test": run.data.test}, folder, shard=70)


SCENES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "training": (train, False),
    "beginning": (begin, False),
    "branching": (branch, False),
    "evaluation": (evaluate, True),
    "sampling": (sample, True),
    "encoding": (encode, False),
}
"""What is done, and whether in a trained run."""


def contents(folder: Path) -> dict[str, bytes]:
    """All that counts: not the locks, and not what holds the time."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith(
            ("tensorboard", "history.jsonl", ".lock", ".evaluation.lock", "pictures/.pictures.lock")
        ):
            found[name] = path.read_bytes()
    return found


def armed(at: int, after: bool, count: Callable[[], int]) -> None:
    """Kill this process at its call number ``at``, before or after it is made."""
    for owner, name in PLACES:
        real = getattr(owner, name)

        def call(*arguments: object, real: Callable[..., object] = real, **options: object) -> object:
            mine = count() == at
            if mine and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*arguments, **options)
            finally:
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, call)


def forked(work: Callable[[], None]) -> tuple[int, int]:
    """Run it in a child; its exit status (negative for a signal) and how often it changed the disk."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os.write(write, f"{made[0]}".encode())
            os._exit(status)
    os.close(write)
    _, ended = os.waitpid(child, 0)
    said = os.read(read, 20)
    os.close(read)
    return os.waitstatus_to_exitcode(ended), int(said or b"0")


made = [0]


def counted() -> int:
    """How many calls there were before this one."""
    made[0] += 1
    return made[0] - 1


def play(scene: str, folder: Path, every: int) -> dict[str, object]:
    """All kills of a scene."""
    act, in_run = SCENES[scene]
    if act is not train:
        assert forked(lambda: train(folder / ORIGIN))[0] == 0

    def stage(name: str) -> Path:
        if in_run:
            shutil.copytree(folder / ORIGIN, folder / name)
        return folder / name

    def undisturbed() -> None:
        armed(-1, False, counted)
        act(whole)

    whole = stage("whole")
    status, calls = forked(undisturbed)
    assert status == 0, f"{scene}: fails without being killed"
    wanted, survived, advanced, failed = contents(whole), 0, 0, []
    points = [(at, after) for at in range(0, calls, every) for after in (False, True)]
    for at, after in points:
        run = stage("killed")

        def disturbed(run: Path = run, at: int = at, after: bool = after) -> None:
            armed(at, after, counted)
            act(run)

        status, _ = forked(disturbed)
        assert status == -signal.SIGKILL, f"{scene}: call {at} was never made"
        advanced += bool(checkpoint.checkpoints(run)) and not in_run
        again, _ = forked(lambda run=run: act(run))  # type: ignore[misc]
        if again == 0 and contents(run) == wanted:
            survived += 1
        else:
            left = contents(run)
            other = sorted(n for n in left.keys() | wanted.keys() if left.get(n) != wanted.get(n))
            failed.append({"call": at, "after": after, "status": again, "other": other})
        shutil.rmtree(run, ignore_errors=True)
    found: dict[str, object] = {"scene": scene, "calls": calls, "kills": len(points), "survived": survived}
    if not in_run:
        found["with a checkpoint when killed"] = advanced
    return {**found, "failed": failed}


def main() -> None:
    """Play all scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    chosen = parser.parse_args()
    for scene in chosen.scenes:
        (chosen.folder / scene).mkdir(parents=True)
        print(json.dumps(play(scene, chosen.folder / scene, chosen.every)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
