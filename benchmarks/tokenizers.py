"""Tokenizers on real pictures: f4 and f8, with and without features and critic, from the same seeds and budget.

    python benchmarks/tokenizers.py --data faces.zip [--budget small] [--seeds 3] [--minutes 60]

A member is one training, an ordinary run in a folder of its own below ``--runs``, and after it PSNR, SSIM and rFID of
as many test and training images. Killed anywhere, the same command goes on; members that are done are kept, one that
fails is listed with its sentence and does not stop the rest. Numbers go into ``benchmarks/results/tokenizers.json``,
and the tables made of them into ``docs/tokenizers.md``; sheets of pictures stay below ``--runs``.

``small``: pictures at 64x64 and a network of 8 channels, for a CPU core. ``full``: the protocol from scratch of
LiteVAE's table 1 (Sadat et al. 2024, https://arxiv.org/abs/2405.14477) on FFHQ at 128 and 256, for a GPU and days; rFID
by Inception (``vaes[fid]``). ``dry``: drawn sprites and a few steps, a test of the script.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import ROOT, machine
from tokenizer_table import write_tables

from vaes import Experiment, Run, UserError, files, load
from vaes.data import Splits, folder, sprites, to_uint8
from vaes.errors import Stopped
from vaes.evaluate import Metric, NotApplicable, reconstruction_metrics
from vaes.evaluate.feature_maps import FILE, find_feature_maps
from vaes.evaluate.features import Features, find_features
from vaes.evaluate.generation import fid_with_bias
from vaes.evaluate.passes import choose, decode, encode, pixels
from vaes.view.layout import sheet

RESULT = "result.json"
SHOWN = 12  # pictures in a row of the sheets


class Budget(NamedTuple):
    """What the trainings of a budget have in common."""

    sizes: tuple[int, ...]  # of a side of the images
    factors: tuple[int, ...]  # how much smaller the grid is
    ch: int
    blocks: int
    train: dict[str, Any]
    critic: dict[str, Any]
    n_images: int  # that numbers are of, on each split
    features: str  # of rFID
    prior: dict[str, Any]  # of the discrete one
    device: str


BUDGETS = {
    "dry": Budget(
        (32,),
        (4,),
        8,
        1,
        {"n_steps": 6, "batch_size": 8, "print_freq": 2},
        {"start": 2, "width": 8, "layers": 1},
        80,
        "perceptual",
        {"steps": 5, "width": 16},
        "cpu",
    ),
    "small": Budget(
        (64,),
        (4, 8),
        8,
        1,
        {"n_steps": 800, "batch_size": 8, "print_freq": 50},
        {"start": 250, "width": 32, "layers": 2, "lr": 5e-4},
        1000,
        "auto",
        {"steps": 400, "width": 96},
        "cpu",
    ),
    "full": Budget(
        (128, 256),
        (8,),
        128,
        2,
        {
            "n_steps": 100_000,
            "batch_size": 16,
            "optimizer": "adam",
            "lr": 1e-4,
            "betas": [0.5, 0.9],
            "ema": 0.999,
            "print_freq": 200,
        },
        {"start": 5_000, "width": 64, "layers": 3, "lr": 1e-4},
        10_000,
        "inception",
        {"steps": 50_000, "width": 512},
        "auto",
    ),
}
RECIPES = {
    "plain": {"gamma": 0.0, "adversary": 0.0},
    "features": {"gamma": 1.0, "adversary": 0.0},
    "critic": {"gamma": 0.0, "adversary": 0.1},
    "both": {"gamma": 1.0, "adversary": 0.1},
}
"""Weights of ``kl_vae``: of the distance of features, and of the critic of patches."""
CHEAP = ("plain", "features")
"""Those of more than one seed."""
DISCRETE = "vq"


class Member(NamedTuple):
    """One training."""

    name: str
    factor: int
    recipe: str
    seed: int
    folder: Path
    plan: dict[str, Any]

    @property
    def done(self) -> bool:
        """Whether its numbers are there."""
        return (self.folder / RESULT).is_file()


def main() -> int:
    """Run what is missing, gather what is there, write the tables."""
    chosen = arguments()
    path = chosen.out / "benchmarks" / "results" / "tokenizers.json"
    if chosen.table:
        write_tables(json.loads(path.read_text(encoding="utf-8")), chosen.out / "docs" / "tokenizers.md")
        return 0
    if chosen.budget != "dry" and not (chosen.data and chosen.data.exists()):
        print(f"skipped: {chosen.data or '--data'} is not there; give --data FOLDER or ARCHIVE of pictures")
        return 0
    try:
        document = opened(path, chosen)
        for size in BUDGETS[chosen.budget].sizes:
            run_all(chosen, size, document, path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (Stopped, KeyboardInterrupt):
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    write_tables(document, chosen.out / "docs" / "tokenizers.md")
    print(f"{len(document['members'])} members, {len(document['failed'])} failed: {path}")
    return 1 if document["failed"] else 0


def arguments() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--budget", choices=tuple(BUDGETS), default="small")
    add("--data", type=Path, help="folder or archive of the pictures")
    add("--seeds", type=int, default=3, help=f"trainings of {' and '.join(CHEAP)} (default: %(default)s)")
    add("--minutes", type=float, help="start no member after so many; the same command goes on another time")
    add("--runs", type=Path, default=ROOT / "runs" / "tokenizers", help="folders of all members (default: %(default)s)")
    add("--out", type=Path, default=ROOT, help="benchmarks/results and docs are written below it")
    add("--table", action="store_true", help="only write the tables again, from the stored results")
    return parser.parse_args()


def opened(path: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The document of results: the one that is there, or a new one.

    Raises:
        UserError: the one that is there is of another budget.
    """
    protocol = json.loads(json.dumps({**BUDGETS[chosen.budget]._asdict(), "recipes": RECIPES}))
    if path.is_file():
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["protocol"] != protocol:
            raise UserError(f"{path}: its numbers are of another protocol; give another --out, or move it away")
        return document
    about = {"benchmark": "tokenizers", "budget": chosen.budget, "protocol": protocol}
    return {**about, "data": {}, "members": [], "failed": [], "not_run": []}


def planned(chosen: argparse.Namespace, size: int) -> list[Member]:
    """All members of a size of images: the first seed of each, then the others of the cheap ones."""
    budget, cells = BUDGETS[chosen.budget], []
    # What shows most comes first, for a budget that ends early.
    first, last = budget.factors[0], budget.factors[-1]
    cells += [(first, "plain", 0), (first, "both", 0), (last, DISCRETE, 0)]
    cells += [(factor, recipe, 0) for recipe in ("plain", "both", "features", "critic") for factor in budget.factors]
    cells = list(dict.fromkeys(cells))
    for seed in range(1, chosen.seeds):
        cells += [(factor, recipe, seed) for factor in budget.factors for recipe in CHEAP]
    found, data = [], {"kind": "sprites", "image_size": size}
    if chosen.budget != "dry":
        data = {"kind": "folder", "root": str(chosen.data), "image_size": size, "fit": "crop", "flip": True}
    for factor, recipe, seed in cells:
        plan = plan_of(budget, data, chosen.runs / f"{size}-{FILE}", factor, recipe, seed)
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{size} f{factor} {recipe} seed {seed}"
        found.append(Member(name, factor, recipe, seed, chosen.runs / f"{name.replace(' ', '-')}-{digest}", plan))
    return found


def plan_of(
    budget: Budget, data: dict[str, Any], features: Path, factor: int, recipe: str, seed: int
) -> dict[str, Any]:
    """The experiment of a member."""
    stages = factor.bit_length()
    n_steps = budget.train["n_steps"]
    often = {"eval_freq": 0, "sample_freq": n_steps, "save_freq": max(1, n_steps // 4), "keep": 1, "trackers": []}
    network = {"kind": "autoencoder_kl", "ch": budget.ch, "ch_mult": [1, 2, 4, 4, 4][:stages]}
    network |= {"num_res_blocks": budget.blocks, "groups": min(32, budget.ch), "attention": budget.ch >= 64}
    model: dict[str, Any] = {"z_channels": 4, "network": network}
    raw = {"seed": seed, "data": data, "model": model, "train": {**budget.train, **often}}
    if recipe == DISCRETE:
        model["posterior"] = {"kind": "vq", "codes": 512}
        return {**raw, "method": "vq_vae"}
    objective: dict[str, Any] = {"beta": 1e-6, **RECIPES[recipe]}
    if objective["gamma"]:
        objective["perceptual"] = {"features": str(features)}
    if objective["adversary"]:
        start = budget.critic["start"]
        count = {
            "kind": "ramp",
            "start": 0.0,
            "stop": objective["adversary"],
            "after": start,
            "steps": max(1, start // 2),
        }
        objective |= {"adversary": count, "patch_critic": budget.critic}
    return {**raw, "method": "kl_vae", "objective": objective}


def pictures(chosen: argparse.Namespace, size: int) -> Splits:
    """The images, of which as many are held out to validate on as a training needs to be told apart."""
    if chosen.budget == "dry":
        whole = sprites(image_size=size, n_train=200, n_valid=60)
    else:
        whole = folder(root=str(chosen.data), image_size=size, fit="crop")
    n = BUDGETS[chosen.budget].n_images
    parts = ((whole.train, len(whole.train)), (whole.valid, 200), (whole.test, n))
    return Splits(*(part.subset(choose(part, size, 0)) for part, size in parts))


def run_all(chosen: argparse.Namespace, size: int, document: dict[str, Any], path: Path) -> None:
    """Train and measure what is not done; the document is written after each."""
    budget, members, began = BUDGETS[chosen.budget], planned(chosen, size), time.perf_counter()
    chosen.runs.mkdir(parents=True, exist_ok=True)
    splits = pictures(chosen, size)
    seen = find_feature_maps("random" if chosen.budget == "dry" else "auto", splits)
    if not (maps := chosen.runs / f"{size}-{FILE}").is_file():
        seen.write(chosen.runs)
        (chosen.runs / FILE).rename(maps)
    # A test of the script does not train a second network.
    features = find_features(str(maps) if budget.features == "perceptual" else budget.features, splits, chosen.runs)
    real = {split: measured_images(getattr(splits, split), budget.n_images) for split in ("test", "train")}
    of_real = {split: extracted(features, images) for split, images in real.items()}
    floor, bias = fid_with_bias(of_real["test"], of_real["train"], features=features.name)
    document["data"][str(size)] = {
        "name": chosen.data.name if chosen.data else "sprites",
        "images": {"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)},
        "features": features.name,
        "perceptual": seen.name,
        "n": {split: len(images) for split, images in real.items()},
        "fid_of_training_images": floor.value,
        "fid_of_training_images_bias": bias.value,
    }
    failed: dict[str, str] = {}
    gather(document, members, failed, path)
    for one in members:
        if one.done or (chosen.minutes is not None and time.perf_counter() - began > 60 * chosen.minutes):
            continue
        try:
            result = run_member(one, splits, budget, features, real, of_real)
            files.write_json(one.folder / RESULT, result)
        except UserError as error:
            failed[one.name] = str(error)
        gather(document, members, failed, path)
        print(f"{one.name}: {failed.get(one.name, 'done')}, {time.perf_counter() - began:.0f} s", flush=True)
    draw_sheet(chosen, size, [one for one in members if one.done and one.seed == 0], real)


def measured_images(images: Any, n: int) -> torch.Tensor:
    """As bytes (n, C, H, W)."""
    return pixels(images, choose(images, n, 0))


def extracted(features: Features, images: torch.Tensor) -> torch.Tensor:
    """Features (N, d) of bytes."""
    with torch.inference_mode():
        return features.extract(images)


def run_member(
    one: Member,
    splits: Splits,
    budget: Budget,
    features: Features,
    real: Mapping[str, torch.Tensor],
    of_real: Mapping[str, torch.Tensor],
) -> dict[str, Any]:
    """Train, or go on where a killed training was, and measure.

    Raises:
        UserError: what the training refuses.
    """
    home = one.folder / "run"
    begun, before = (home / "config.yaml").exists(), time.process_time()
    run = Experiment.of(one.plan).fit(home, data=splits, resume="latest" if begun else None, device=budget.device)
    seconds = None if begun else round(time.process_time() - before, 1)  # of a training cut off only the rest is known
    numbers: dict[str, Any] = {}
    for split in ("test", "train"):
        numbers[split] = fidelity(run, splits, split, budget, features, real[split], of_real[split])
    if one.recipe == DISCRETE:
        numbers |= prior_of(run, budget, features, of_real["test"], one.folder)
    return {
        "name": one.name,
        "factor": one.factor,
        "recipe": one.recipe,
        "seed": one.seed,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        **numbers,
        "curve": [{k: line[k] for k in CURVE if k in line} for line in run.history.train],
        "machine": {name: value for name, value in machine().items() if name != "command"},
    }


CURVE = ("step", "loss", "distortion", "rate", "perceptual", "patch_critic", "critic_loss")


def fidelity(
    run: Run, splits: Splits, split: str, budget: Budget, features: Features, x: torch.Tensor, of_x: torch.Tensor
) -> dict[str, Any]:
    """PSNR, SSIM and rFID of the central codes' mean images, as bytes, over the images of a split."""
    images = getattr(splits, split)
    with torch.inference_mode():
        codes = encode(run.model, images, choose(images, budget.n_images, 0), 100)
        y = to_uint8(decode(run.model, codes.mean, 100), run.model.value_range)
    found = reconstruction_metrics(x.double() / 255, y.double() / 255, data_range=1)
    numbers: dict[str, Any] = {one.name: one.value for one in found if isinstance(one, Metric)}
    value, bias = fid_with_bias(of_x, extracted(features, y), features=features.name)
    return {**numbers, "rfid": value.value, "rfid_bias": bias.value, "n": len(x)}


def prior_of(run: Run, budget: Budget, features: Features, real: torch.Tensor, home: Path) -> dict[str, Any]:
    """The autoregressive prior of a discrete one: its nats on codes held out, its samples and their FID."""
    before = time.process_time()
    fitted = run.fit_prior("autoregressive", seed=0, **budget.prior)
    seconds = round(time.process_time() - before, 1)
    samples = {}
    for name, prior in (("fitted", fitted), ("own", "own")):
        samples[name] = to_uint8(run.sample(budget.n_images, seed=0, prior=prior), run.model.value_range)
    sheet(samples["fitted"][: 6 * SHOWN], SHOWN, title="Samples, autoregressive prior").save(home / "samples.png")
    found: dict[str, Any] = {"seconds": seconds, "numbers": fitted.numbers._asdict()}
    for name, images in samples.items():
        try:
            found[f"gfid_{name}"] = fid_with_bias(real, extracted(features, images), features=features.name)[0].value
        except NotApplicable as reason:
            found[f"gfid_{name}_refused"] = str(reason)
    return {"prior": found}


def gather(document: dict[str, Any], members: list[Member], failed: Mapping[str, str], path: Path) -> None:
    """Put what is done into the document and write it; members that this command does not plan stay."""
    cells = {one["name"]: one for one in document["members"]}
    cells |= {one.name: json.loads((one.folder / RESULT).read_text(encoding="utf-8")) for one in members if one.done}
    wrong = {one["member"]: one["reason"] for one in document["failed"]} | dict(failed)
    names = {one.name for one in members}
    document["members"] = list(cells.values())
    document["failed"] = [{"member": name, "reason": why} for name, why in wrong.items() if name not in cells]
    others = [name for name in document["not_run"] if name not in names]
    document["not_run"] = others + [one.name for one in members if one.name not in cells and one.name not in wrong]
    document["machine"] = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, document)


def draw_sheet(chosen: argparse.Namespace, size: int, done: Iterable[Member], real: Mapping[str, torch.Tensor]) -> None:
    """A row of test images, and below it a row of each member's reconstructions; stays below ``--runs``."""
    rows, labels = [real["test"][:SHOWN]], ["images"]
    for one in sorted(done, key=lambda one: (one.factor, [*RECIPES, DISCRETE].index(one.recipe))):
        model = load(one.folder / "run", device="cpu").model
        low, high = model.value_range
        x = low + (high - low) * rows[0].float() / 255
        with torch.inference_mode():
            rows.append(to_uint8(model.reconstruct(x), model.value_range))
        labels.append(one.name)
    sheet(torch.cat(rows), SHOWN, title="Reconstructions", row_labels=labels).save(
        chosen.runs / f"reconstructions-{size}.png"
    )


if __name__ == "__main__":
    sys.exit(main())
