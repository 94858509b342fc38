"""One member of the table of ``methods.py``: a method trained from a seed, in a folder of its own, and its numbers.

A member is said by its *plan*, a document of plain values. Its folder holds ``plan.json``, ``run`` (an ordinary run
folder) and, once it is done, ``result.json``; until then the same call goes on where a killed one was.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from common import machine

from vaes import Experiment, Listener, Run, UserError, files
from vaes.data import Splits, mnist, sprites, to_uint8
from vaes.errors import Stopped
from vaes.evaluate import Metric, NotApplicable, Skipped, attempt, dci, factor_vae_score, mig_locatello
from vaes.evaluate.features import find_features
from vaes.evaluate.generation import fid_with_bias
from vaes.evaluate.passes import choose, encode, pixels
from vaes.evaluate.report import Evaluation
from vaes.train.loop import Training

__all__ = ["PLAN", "RESULT", "grey_mnist", "run_member"]

PLAN, RESULT = "plan.json", "result.json"
GROUPS = {"mnist": ("likelihood", "reconstruction", "latent"), "sprites": ("reconstruction", "latent")}
WANTED = ("elbo", "rate", "mse", "active_units")
TO_FIT = 10_000  # training images whose codes a prior is fitted to
DCI_ROWS = 5_000  # trees on more rows would take most of the time


class WithParent(Listener):
    """Ends a training whose parent process has died, so that the parent's command can be given again at once."""

    def __init__(self) -> None:
        self._parent = os.getppid()

    def stepped(self, training: Training, step: int) -> None:
        """After each step."""
        if os.getppid() != self._parent:
            raise Stopped("the process that started this one is gone", 128 + signal.SIGHUP)


def run_member(folder: Path, data: Path, features: Path) -> dict[str, Any]:
    """Train and measure what ``plan.json`` in the folder says; the result is left in ``result.json``.

    Raises:
        UserError: what the training or a metric refuses; nothing is left in ``result.json``.
    """
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    with files.locked(folder / ".lock", taken=f"{folder}: another process works on this member"):
        splits = _splits(plan, data)
        home = folder / "run"
        begun = (home / "config.yaml").exists()
        before = time.process_time()
        run = Experiment.of(plan["experiment"]).fit(
            home, data=splits, resume="latest" if begun else None, device="cpu", callbacks=[WithParent()]
        )
        # Of a training that was cut off only the rest is known.
        seconds = None if begun else round(time.process_time() - before, 1)
        before = time.process_time()
        evaluation = run.evaluate(GROUPS[plan["part"]], budget=plan["evaluation"])
        numbers = _numbers(evaluation, plan["evaluation"]["iw_samples"])
        numbers |= _quality(run, splits, plan, features) if plan["part"] == "mnist" else _factors(run, plan)
        result = {
            **{name: plan[name] for name in ("part", "method", "seed", "pixels")},
            "seconds": seconds,
            "evaluation_seconds": round(time.process_time() - before, 1),
            **numbers,
            "machine": {name: value for name, value in machine().items() if name != "command"},
        }
        files.write_json(folder / RESULT, result)
    return result


def grey_mnist(data: Path) -> Splits:
    """MNIST at 28x28 with 5,000 images for validation."""
    return mnist(root=str(data), image_size=None, n_valid=5000, download=False)


def _splits(plan: dict[str, Any], data: Path) -> Splits:
    """The images before they are drawn black or white; as many test images as are evaluated, because a training
    measures itself on all."""
    if plan["part"] == "sprites":
        whole = sprites(image_size=plan["image_size"], n_train=plan["n_train"], n_valid=500)
    else:
        whole = grey_mnist(data)
    sizes = (plan["n_train"] or len(whole.train), 500, plan["evaluation"]["n_images"])
    return Splits(*(part.subset(choose(part, size, 0)) for part, size in zip(whole, sizes, strict=True)))


def _numbers(evaluation: Evaluation, k: int) -> dict[str, Any]:
    """The metrics that the table shows, and why others are not there."""
    found = {one.name: one for group in evaluation.groups.values() for one in group.metrics}
    numbers: dict[str, Any] = {name: found[name].value for name in WANTED if name in found}
    if bound := found.get(f"iw_bound_k{k}"):
        numbers |= {"nll": -bound.value, "nll_note": bound.note}
        numbers["ess"] = found[f"{bound.name}_ess"].value if f"{bound.name}_ess" in found else None
    skipped = {one.name: one.reason for group in evaluation.groups.values() for one in group.skipped}
    return numbers | {"skipped": {name: skipped[name] for name in (*WANTED, f"iw_bound_k{k}") if name in skipped}}


def _quality(run: Run, grey: Splits, plan: dict[str, Any], path: Path) -> dict[str, Any]:
    """FID of mean images of samples, which are grey, against the grey test images, with the prior of the model and
    with one that is fitted to its codes."""
    n = plan["evaluation"]["n_images"]
    features = find_features(str(path), grey, None)
    found: dict[str, Any] = {"features": features.name}
    with torch.inference_mode():
        real = features.extract(pixels(grey.test, choose(grey.test, n, 0)))
    for name, images in _samples(run, n, found).items():
        try:
            with torch.inference_mode():
                value, bias = fid_with_bias(real, features.extract(images), features=features.name)
        except NotApplicable as reason:
            found[f"{name}_refused"] = str(reason)
        else:
            found |= {name: value.value, f"{name}_bias": bias.value}
    return found


def _samples(run: Run, n: int, found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Samples (n, C, H, W) uint8 for each number that is made of them; says in ``found`` which prior was fitted, or why
    none was."""
    samples = {"fid": run.sample(n, seed=0)}
    if hasattr(run, "fit_prior"):
        try:
            fitted = run.fit_prior(seed=0, n_images=TO_FIT, write=False)
            samples["fid_fitted"] = run.sample(n, seed=0, prior=fitted)
            found["fitted"] = fitted.kind
        except UserError as error:
            found["fid_fitted_refused"] = str(error)
    return {name: to_uint8(images, run.model.value_range) for name, images in samples.items()}


def _factors(run: Run, plan: dict[str, Any]) -> dict[str, Any]:
    """Scores of the mean codes against the factors that the sprites were drawn from."""
    test = run.data.test
    index = choose(test, plan["evaluation"]["n_images"], 0)
    with torch.inference_mode():
        codes = encode(run.model, test, index, 500).mean.double()
    assert test.factors is not None
    factors = test.factors[index]
    few, theirs = codes[:DCI_ROWS], factors[:DCI_ROWS]
    found = attempt("mig_locatello", lambda: mig_locatello(codes, factors))
    found += attempt("factor_vae_score", lambda: factor_vae_score(codes, factors))
    found += attempt("dci_disentanglement", lambda: dci(few, theirs))
    scores = {one.name: one.value for one in found if isinstance(one, Metric)}
    return scores | {f"{one.name}_refused": one.reason for one in found if isinstance(one, Skipped)}
