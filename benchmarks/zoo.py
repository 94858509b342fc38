"""Trains the small models that come with the package, and writes them into src/vaes/zoo: weights and cards.

    python benchmarks/zoo.py --data DIR --runs runs/zoo        (about four minutes on two cores)

A run that is in --runs already is taken as it is. The numbers of a card are those of the file that is written, whose
tensors are rounded to float16; its SHA-256 is in the card. MNIST's images are the only ones that must be there.
"""

import argparse
import math
from pathlib import Path

import torch
import yaml

import vaes
from vaes import config, files, shipped, zoo
from vaes.experiment import Experiment

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
MODELS = {
    "digits": ("vae-digits", {"model.network.dim": 16, "train.n_steps": 1000}),
    "mnist": (
        "vae-mnist",
        {"model.network.dim": 16, "model.likelihood": "bernoulli", "train.n_steps": 2000, "train.batch_size": 128},
    ),
    "sprites": ("beta-vae-sprites", {"model.network.dim": 8, "train.n_steps": 2000}),
}
"""Name -> the shipped configuration, and what is smaller or shorter than in it."""
NUMBERS = ("elbo", "rate", "distortion", "mse", "psnr", "ssim")


def trained(name: str, runs: Path, data: Path) -> vaes.Run:
    """The run of a name: loaded, or trained first."""
    if not (runs / name / "metrics.json").exists():
        start, changes = MODELS[name]
        root = {"data.root": str(data)} if name == "mnist" else {}
        Experiment.read(shipped.find(start)).replace({**changes, **root}).fit(runs / name)
    return vaes.load(runs / name)


def write(name: str, made: vaes.Run) -> None:
    """The weights in float16, with an experiment whose data lie where the shipped configuration says."""
    raw = made.experiment.to_dict()
    given = yaml.safe_load(shipped.find(MODELS[name][0]).read_text(encoding="utf-8"))["data"]
    raw["data"] = {**raw["data"], **given}
    tensors, metadata, _ = files.hold_tensors(made.weights)
    half = {key: t.half() if t.dtype == torch.float32 else t for key, t in tensors.items()}
    path = zoo.FOLDER / f"{name}.safetensors"
    files.write_tensors(path, half, {**metadata, "config": config.to_yaml(raw)})
    path.chmod(0o644)  # whoever installed the package, others use it


def card(name: str, data: Path) -> str:
    """What a file is, how it came to be, and its numbers on the test images."""
    made = vaes.load(f"zoo:{name}")
    if name == "mnist":
        made = made.elsewhere({"data.root": str(data)})
    found = made.evaluate(["likelihood", "reconstruction"], write=False, budget={"n_images": 1000})
    start, changes = MODELS[name]
    words = " ".join(f"--{key}{'.kind' if key == 'model.likelihood' else ''} {value}" for key, value in changes.items())
    size = sum(p.numel() for p in made.model.parameters())
    lines = [
        f"# zoo:{name}", "",
        f"`{made.experiment.method}` on `{made.experiment.data['kind']}`, images {made.image_shape}, "
        f"{made.model.z_dim} latent dimensions, {size:,} parameters in float16, step {made.step:,}, "
        f"seed {made.experiment.seed}.",
        "", "```", f"vaes train -c {start} {words}", "```", "",
        "| on test images | value ± half a 95 % interval | images |", "|---|---|---|",
    ]  # fmt: skip
    for group in found.groups.values():
        for m in group.metrics:
            if m.name in NUMBERS:
                lines.append(f"| {m.name} | {m.value:.5g} ± {1.96 * (m.stderr or math.nan):.3g} | {m.n:,} |")
    return "\n".join([*lines, "", f"SHA-256 of the file: `{made.sha256}`. Licence: MIT, as the program.", ""])


def main() -> None:
    """Train what is not there, and write all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the MNIST files (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/zoo"), help="the run folders (default: %(default)s)")
    arguments = parser.parse_args()
    for name in arguments.names or MODELS:
        write(name, trained(name, arguments.runs, arguments.data))
        (zoo.FOLDER / f"{name}.md").write_text(card(name, arguments.data), encoding="utf-8")


if __name__ == "__main__":
    main()
