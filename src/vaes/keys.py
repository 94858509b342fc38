"""The keys of a configuration as a table that is read without starting torch: for ``--help``, and for answers to keys
that do not exist. ``python -m vaes.config.document`` writes it from the constructors' signatures and docstrings."""

import difflib
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["FILE", "Group", "Key", "groups", "hint", "meant", "methods"]

FILE = Path(__file__).with_name("keys.json")


class Key(NamedTuple):
    """One key: its dotted name, its type in words, its default as YAML (None: it must be given), what it means."""

    name: str
    type: str
    default: str | None
    meaning: str


class Group(NamedTuple):
    """Keys that belong together: all of a section, or those of one kind (``data.kind: folder``)."""

    section: str
    choice: str
    about: str
    keys: tuple[Key, ...]


@functools.cache
def groups() -> tuple[Group, ...]:
    """The whole table, in the order of a configuration; the keys of schedules come last, as section ``schedule``."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Group(*row[:3], tuple(Key(*key) for key in row[3])) for row in found)  # type: ignore[call-arg]


def methods() -> list[str]:
    """The names that ``method`` can have."""
    rows = {row.name: row.type for group in groups() for row in group.keys}
    return rows["method"].removeprefix("one of ").split(", ")


SYNONYMS = {
    "train.n_steps": "epochs n_epochs num_epochs max_epochs epoch steps max_steps num_steps n_iter iterations iters",
    "train.lr": "learning_rate",
    "train.batch_size": "batch bs",
    "train.optimizer": "opt optim",
    "train.weight_decay": "wd l2",
    "train.clip_grad": "grad_clip max_grad_norm gradient_clip_val clip",
    "train.precision": "amp fp16 bf16 mixed_precision dtype",
    "train.ema": "ema_decay",
    "train.accumulate": "accumulation gradient_accumulation grad_accum accumulation_steps gradient_accumulation_steps",
    "train.print_freq": "log_every log_interval log_freq log_every_n_steps",
    "train.eval_freq": "eval_every eval_interval val_check_interval valid_freq",
    "train.save_freq": "save_every save_interval checkpoint_freq ckpt_freq",
    "model.z_dim": "latent_dim latent_dims latent_size latent n_latent n_latents latents z nz code_dim code_size zdims",
    "model.network.kind": "arch architecture network backbone net encoder",
    "model.likelihood.kind": "likelihood loss recon_loss reconstruction_loss",
    "data.kind": "dataset data_set dataset_name",
    "data.root": "data_dir data_path data_root path folder image_dir images input dataroot",
    "data.image_size": "img_size size resolution imgsize",
    "objective.beta": "kl_weight kl kld_weight kl_coef coef_kl",
    "--device": "device accelerator",
    "--device cuda": "gpu gpus cuda use_gpu gpu_id",
    "--device cpu": "cpu no_cuda",
    "--exp_dir": "output out output_dir out_dir log_dir logdir run_dir workdir save_dir results_dir exp",
    "--config": "cfg conf config_file yaml",
    "--resume": "restart continue load load_checkpoint",
}
"""What other programs call a key, or an option of ``vaes train``."""

_MEANT = {name: key for key, names in SYNONYMS.items() for name in names.split()}


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace("_", "")


_PLAIN = {_plain(name): key for name, key in _MEANT.items()}


def hint(path: str, key: object, allowed: Iterable[str], value: object = None, *, dash: str = "") -> str:
    """What a key that does not exist below ``path`` was meant to be, as a clause that ends in a space; empty where
    nothing is near.

    >>> hint("", "beta", ["data", "model", "objective", "train"])
    'did you mean objective.beta? '
    """
    name, names = f"{path}.{key}" if path else str(key), sorted(allowed)
    if len(name) > 100:
        return ""
    others = [group.choice for group in groups() for row in group.keys if row.name == name and group.choice]
    if others:
        return f"it is a key of {'; '.join(_joined(others))}; "
    found = meant(name)
    if not found:
        near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5 if path else 0.7)
        found = [f"{path}.{near[0]}" if path else near[0]] if near else _near(name)
    if not found:
        return ""
    inside = {f"{path}.{name}" if path else name: name for name in names}
    shown = [name if name.startswith("--") else f"{dash}{inside.get(name, name)}" for name in found]
    return f"did you mean {' or '.join(shown)}? {_arithmetic(key, found, value)}"


def _joined(choices: Iterable[str]) -> list[str]:
    """``data.kind folder`` and ``data.kind mnist`` -> ``data.kind folder, mnist``."""
    by: dict[str, list[str]] = {}
    for choice in choices:
        by.setdefault(choice.split(" ")[0], []).append(choice.split(" ")[1])
    return [f"{key} {_some(values)}" for key, values in by.items()]


def _some(values: list[str]) -> str:
    return ", ".join(values) if len(values) <= 5 else f"{', '.join(values[:3])} and {len(values) - 3} more"


def _all() -> dict[str, str]:
    """Every dotted key -> its last part."""
    rows = [row.name for group in groups() if group.section != "schedule" for row in group.keys]
    rows = [name for name in rows if not name.startswith("objective.terms.")]  # each a method's own key as well
    return {name: name.rpartition(".")[2] for name in rows}


def meant(name: str) -> list[str]:
    """The keys that are written so but for dots, dashes and case, or whose last part is, or that others call so."""
    plain, whole = _plain(name.rpartition(".")[2]), _plain(name.replace(".", ""))
    if same := [key for key in _all() if _plain(key.replace(".", "")) == whole]:
        return same
    found = [key for key, part in _all().items() if _plain(part) == plain]
    found = [key for key in found if key.count(".") == min(other.count(".") for other in found)]
    return found[:3] if found and len(found) <= 3 else [_PLAIN[plain]] if plain in _PLAIN else []


def _near(name: str) -> list[str]:
    known = _all()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if near:
        return near
    last = name.rpartition(".")[2]
    parts = difflib.get_close_matches(last, {*known.values(), *_MEANT}, n=1, cutoff=0.75)
    return meant(parts[0]) if parts else []


def _arithmetic(key: object, found: list[str], value: object) -> str:
    if found != ["train.n_steps"] or "epoch" not in str(key).lower():
        return ""
    n = value if isinstance(value, int) and 0 < value < 10**6 else 10
    return (
        f"Lengths are in optimiser steps: epochs * training images / train.batch_size; {n} epochs of 60,000 images at "
        f"batch_size 128 are {n} * 60000 / 128 = {round(n * 60000 / 128)} steps. "
    )
