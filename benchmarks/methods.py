"""Every method of the table on MNIST, and the disentangling ones on sprites: the same network and budget, some seeds.

    python benchmarks/methods.py [--jobs 2] [--parts mnist sprites] [--methods NAME ...] [--seeds 3] [--budget MINUTES]

A member is one training of one method from one seed: an ordinary run in a folder of its own below ``--runs``, trained
in a process of its own with one thread. Killed anywhere, the same command goes on; finished members are kept, one that
fails is listed with its sentence, does not stop the rest, and is tried again by the next command. Results are gathered
in ``benchmarks/results/methods.json``, and the table made of it is written into ``docs/results.md``.

``mnist``: binarised MNIST at 28x28, a Bernoulli likelihood. A row that has another likelihood by default keeps it,
learns grey pixels, and is marked: its nats and errors are of other images. ``sprites``: 32x32, black and white.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from common import DATA, ROOT, machine
from method_member import PLAN, RESULT, grey_mnist, run_member
from method_table import sheet, write_tables

from vaes import METHODS, Experiment, UserError, files
from vaes.evaluate.features import CLASSIFIER, classifier_features

SPRITES = ("vae", "beta_vae", "annealed_vae", "beta_tcvae", "factor_vae", "dip_vae_i", "dip_vae_ii")
NETWORK = {"mnist": {"kind": "mlp", "hidden": [200, 200]}, "sprites": {"kind": "mlp", "hidden": [256, 128]}}
Z_DIM = {"mnist": 20, "sprites": 10}
IMAGE_SIZE = {"mnist": 28, "sprites": 32}
BATCH = {"mnist": 128, "sprites": 64}
LESS: dict[str, dict[str, Any]] = {
    "miwae": {"samples": 4, "groups": 4},
    "piwae": {"samples": 4, "groups": 4},
    "ciwae": {"samples": 16},
    "factor_vae": {"total_correlation_critic": {"width": 256}},
}
"""Keys of ``objective`` that would take a row ten times the others' seconds: what they are here, for the budget."""

SECONDS = {"mnist": 22.0, "sprites": 38.0}
"""Of a member before any was timed, one thread of an AMD EPYC."""


class Member(NamedTuple):
    """One cell of the table."""

    part: str
    method: str
    seed: int
    folder: Path
    plan: dict[str, Any]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.part} {self.method} seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).is_file()


def main() -> int:
    """Run what is missing, gather what is there, write the tables."""
    chosen = arguments()
    if chosen.member:
        return member(chosen)
    path = chosen.out / "benchmarks" / "results" / "methods.json"
    try:
        document = opened(path, protocol(chosen))
        members, refused = planned(chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = dict(refused)
    if not chosen.table:
        gather(document, members, failed, path)
        try:
            run_all(chosen, members, failed, document, path)
        except KeyboardInterrupt:
            print("stopped; the same command goes on", file=sys.stderr)
            return 130
    if chosen.sheets:
        sheet(
            [one.folder for one in members if one.part == "mnist" and one.seed == 0 and one.done],
            chosen.out / "docs" / "images" / "methods.png",
        )
    write_tables(document, chosen.out / "docs" / "results.md")
    print(f"{len(document['members'])} members, {len(document['failed'])} failed: {path}")
    return 1 if document["failed"] else 0


def arguments() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parts", nargs="+", choices=tuple(NETWORK), default=list(NETWORK))
    add("--methods", nargs="+", choices=tuple(METHODS), metavar="NAME", help="by default all that a part has")
    add("--seeds", type=int, default=3, help="trainings of each method (default: %(default)s)")
    add("--steps", type=int, nargs="+", default=[1500, 3000], help="on mnist, and on sprites (default: %(default)s)")
    add("--n-train", type=int, default=None, help="training images (default: all)")
    add("--n-images", type=int, nargs="+", default=[2000, 10_000], help="evaluated, of each part")
    add("--iw-samples", type=int, default=500, help="K of the importance-weighted bound (default: %(default)s)")
    add("--iw-images", type=int, default=200, help="that the bound is taken over (default: %(default)s)")
    add("--binarize", choices=("dynamic", "static"), default="dynamic", help="of mnist (default: %(default)s)")
    add("--jobs", type=int, default=2, help="processes at once, a thread each (default: %(default)s)")
    add("--budget", type=float, metavar="MINUTES", help="start no member that would end later; go on another time")
    add("--data", type=Path, default=DATA, help="folder of the MNIST files (default: %(default)s)")
    add("--runs", type=Path, default=ROOT / "runs" / "methods", help="folders of all members (default: %(default)s)")
    add("--out", type=Path, default=ROOT, help="benchmarks/results and docs are written below it")
    add("--table", action="store_true", help="only write the tables again, from the stored results")
    add("--sheets", action="store_true", help="draw samples of every method into docs/images/methods.png")
    add("--member", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def protocol(chosen: argparse.Namespace) -> dict[str, Any]:
    """What all members have in common, for beside the numbers."""
    both = {}
    for i, part in enumerate(NETWORK):
        steps, n_images = (values[min(i, len(values) - 1)] for values in (chosen.steps, chosen.n_images))
        both[part] = {
            "network": NETWORK[part],
            "z_dim": Z_DIM[part],
            "image_size": IMAGE_SIZE[part],
            "train": {"n_steps": steps, "batch_size": BATCH[part], "optimizer": "adam", "lr": 1e-3},
            "n_train": chosen.n_train,
            "binarize": chosen.binarize if part == "mnist" else "none",
            "evaluation": {"n_images": n_images, "iw_samples": chosen.iw_samples, "iw_images": chosen.iw_images},
        }
    return both


def planned(chosen: argparse.Namespace) -> tuple[list[Member], dict[str, str]]:
    """All members, one seed of everything after the other, and the sentences of those that cannot be built."""
    members, refused = [], {}
    for seed in range(chosen.seeds):
        for part, said in protocol(chosen).items():
            names = chosen.methods or list(METHODS)
            names = [name for name in names if part == "mnist" or name in SPRITES]
            for method in names if part in chosen.parts else ():
                try:
                    plan = plan_of(part, method, seed, said)
                except UserError as error:
                    refused[f"{part} {method} seed {seed}"] = str(error)
                    continue
                digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
                members.append(Member(part, method, seed, chosen.runs / f"{part}-{method}-{seed}-{digest}", plan))
    return members, refused


def plan_of(part: str, method: str, seed: int, said: Mapping[str, Any]) -> dict[str, Any]:
    """A member in plain values; another plan gets another folder.

    Raises:
        UserError: the method does not take the network or the code.
    """
    own = METHODS[method].defaults.get("model", {}).get("likelihood", "bernoulli")
    kind = own if isinstance(own, str) else own.get("kind", "gaussian")
    grey = part == "mnist" and kind != "bernoulli"
    n_steps = said["train"]["n_steps"]
    often = {"print_freq": n_steps, "eval_freq": 0, "sample_freq": 0, "save_freq": max(1, n_steps // 3), "keep": 1}
    raw = {
        "seed": seed,
        "method": method,
        "data": {"kind": "digits", "binarize": "none" if grey else said["binarize"]},
        "model": {"z_dim": said["z_dim"], "network": said["network"]},
        "objective": LESS.get(method, {}),
        "train": {**said["train"], **often},
    }
    if not grey:
        raw["model"]["likelihood"] = "bernoulli"
    pixels = "grey" if grey else "black and white"
    whole = {"part": part, "method": method, "seed": seed, "experiment": Experiment.of(raw).to_dict(), "pixels": pixels}
    return whole | {name: said[name] for name in ("n_train", "image_size", "evaluation")}


def opened(path: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """The document of results: the one that is there, or a new one.

    Raises:
        UserError: the one that is there is of another budget, whose numbers do not belong into the same table.
    """
    if path.is_file():
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        there = document["protocol"]
        for part in said:
            for key in said[part]:
                if there[part][key] != said[part][key]:
                    raise UserError(
                        f"{path}: its numbers are of {part}.{key} {there[part][key]}, and {said[part][key]} was asked "
                        "for; give another --out, or move it away"
                    )
        return document
    return {"benchmark": "methods", "protocol": dict(said), "less": LESS, "members": [], "failed": [], "not_run": []}


def gather(document: dict[str, Any], members: list[Member], failed: Mapping[str, str], path: Path) -> None:
    """Put what is done into the document and write it; members that this command does not plan stay."""
    cells = {f"{one['part']} {one['method']} seed {one['seed']}": one for one in document["members"]}
    wrong = {one["member"]: one["reason"] for one in document["failed"]}
    for one in members:
        wrong.pop(one.name, None)
        if one.done:
            cells[one.name] = json.loads((one.folder / RESULT).read_text(encoding="utf-8"))
    wrong |= failed
    order = {name: i for i, name in enumerate(METHODS)}
    document["members"] = sorted(
        (one for name, one in cells.items() if name not in wrong),
        key=lambda one: (one["part"], order.get(one["method"], len(order)), one["seed"]),
    )
    document["failed"] = [{"member": name, "reason": reason} for name, reason in sorted(wrong.items())]
    document["not_run"] = [one.name for one in members if one.name not in cells and one.name not in wrong]
    document["machine"] = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, document)


def run_all(
    chosen: argparse.Namespace, members: list[Member], failed: dict[str, str], document: dict[str, Any], path: Path
) -> None:
    """Run what is not done, so many at once, and write the document after each."""
    missing = [one for one in members if not one.done]
    began = time.perf_counter()
    print(
        f"{len(members)} members, {len(members) - len(missing)} done; about "
        f"{sum(expected(document, one) for one in missing) / 60 / chosen.jobs:.0f} minutes for the rest, {chosen.jobs} "
        "at once on cores of their own",
        flush=True,
    )
    if any(one.part == "mnist" for one in missing):
        chosen.runs.mkdir(parents=True, exist_ok=True)
        print("features:", classifier_features(grey_mnist(chosen.data), chosen.runs).name, flush=True)

    def within(queue: list[Member]) -> Iterator[Member]:
        for one in queue:
            ends = (time.perf_counter() - began + expected(document, one)) / 60
            if chosen.budget is None or ends <= chosen.budget:
                yield one

    queue, running = within(missing), {}
    with ThreadPoolExecutor(chosen.jobs) as pool:
        while True:
            while len(running) < chosen.jobs and (following := next(queue, None)) is not None:
                running[pool.submit(run_one, chosen, following)] = following
            if not running:
                break
            ended: set[Future[str | None]] = wait(running, return_when=FIRST_COMPLETED).done
            for future in ended:
                one, sentence = running.pop(future), future.result()
                if sentence is not None:
                    failed[one.name] = sentence
                gather(document, members, failed, path)
                print(f"{one.name}: {sentence or 'done'} ({document_size(document, members)})", flush=True)


def document_size(document: Mapping[str, Any], members: list[Member]) -> str:
    """How far all is."""
    return f"{sum(one.done for one in members)} of {len(members)}, {len(document['failed'])} failed"


def expected(document: Mapping[str, Any], member: Member) -> float:
    """Seconds: of the method's members that are done, else of all of its part, else a guess."""
    done = [one for one in document["members"] if one["part"] == member.part and one["seconds"] is not None]
    times = {one["method"]: [] for one in done}  # type: dict[str, list[float]]
    for one in done:
        times[one["method"]].append(one["seconds"] + one["evaluation_seconds"])
    if member.method in times:
        return statistics.fmean(times[member.method])
    everything = [value for values in times.values() for value in values]
    return statistics.fmean(everything) if everything else SECONDS[member.part]


def run_one(chosen: argparse.Namespace, one: Member) -> str | None:
    """Run a member in a process of its own; why it failed, or None."""
    one.folder.mkdir(parents=True, exist_ok=True)
    files.write_json(one.folder / PLAN, one.plan)
    command = [sys.executable, __file__, "--member", str(one.folder), "--data", str(chosen.data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, "--runs", str(chosen.runs)], capture_output=True, text=True, env=environment, check=False
    )
    if ran.returncode == 0 and one.done:
        return None
    lines = ran.stderr.strip().splitlines()
    if ran.returncode < 0:
        return f"its process was ended by signal {-ran.returncode}"
    return lines[-1].removeprefix("error: ") if lines else f"its process ended with status {ran.returncode}"


def member(chosen: argparse.Namespace) -> int:
    """What a member's own process does."""
    try:
        run_member(chosen.member, chosen.data, chosen.runs / CLASSIFIER)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
