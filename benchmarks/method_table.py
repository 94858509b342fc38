"""The tables of ``docs/results.md`` that ``methods.py`` writes from its JSON, and the sheet of samples."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import pyplot as plt

from vaes import METHODS, UserError, files, load

__all__ = ["ANCHORS", "Anchor", "sheet", "write_tables"]

BEGIN, END = "<!-- methods.py: begin -->", "<!-- methods.py: end -->"
MARK = "†"  # of rows on grey images


class Anchor(NamedTuple):
    """What a paper says, and what keeps ours from it."""

    part: str
    key: str  # of a member's numbers
    value: float
    where: str
    why: str
    higher: bool = False  # is better


SHORT = "our training is a few percent of theirs"
NETS = "other features: sizes do not compare, only whether the fitted prior is below N(0, I); convolutions there"
STATIC = "the paper's binarisation is static"
DISENTANGLED = "64x64 dSprites, convolutions and 300,000 steps there; theirs are selected runs"
ANCHORS: dict[str, tuple[Anchor, ...]] = {
    "vae": (
        Anchor("mnist", "nll", 86.76, "Burda et al. 2016, table 1, k = 1, 5,000 samples", SHORT),
        Anchor("sprites", "mig_locatello", 0.10, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "factor_vae_score", 0.63, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "dci_disentanglement", 0.30, "as a later paper quotes it", DISENTANGLED, True),
    ),
    "beta_vae": (
        Anchor("sprites", "mig_locatello", 0.21, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "factor_vae_score", 0.63, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "dci_disentanglement", 0.41, "as a later paper quotes it", DISENTANGLED, True),
    ),
    "beta_tcvae": (
        Anchor("sprites", "mig_locatello", 0.45, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "factor_vae_score", 0.62, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "dci_disentanglement", 0.29, "as a later paper quotes it", DISENTANGLED, True),
    ),
    "factor_vae": (
        Anchor("sprites", "mig_locatello", 0.43, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "factor_vae_score", 0.82, "as a later paper quotes it", DISENTANGLED, True),
        Anchor("sprites", "dci_disentanglement", 0.74, "as a later paper quotes it", DISENTANGLED, True),
    ),
    "iwae": (Anchor("mnist", "nll", 85.54, "Burda et al. 2016, table 1, k = 5, 5,000 samples", SHORT),),
    "miwae": (Anchor("mnist", "nll", 84.97, "Rainforth et al. 2018, (8, 8)", f"{SHORT}, and 4 x 4 samples for 8 x 8"),),
    "piwae": (Anchor("mnist", "nll", 84.46, "Rainforth et al. 2018, (8, 8)", f"{SHORT}, and 4 x 4 samples for 8 x 8"),),
    "ciwae": (Anchor("mnist", "nll", 84.57, "Rainforth et al. 2018, mix 0.05", f"{SHORT}, and 16 samples for 64"),),
    "vamp_vae": (
        Anchor("mnist", "nll", 85.57, "Tomczak & Welling 2018, one layer", f"{SHORT}, its layers are gated; {STATIC}"),
    ),
    "realnvp_vae": (Anchor("mnist", "nll", 79.99, "Xu et al., RealNVP prior", f"{SHORT}, of a deep net; {STATIC}"),),
    "iaf_vae": (
        Anchor("mnist", "nll", 79.88, "quoted by a paper on flow priors", f"{SHORT}, of a deep ResNet; {STATIC}"),
    ),
    "hyperspherical_vae": (Anchor("mnist", "nll", 93.16, "Davidson et al. 2018, 500 samples", SHORT),),
    "ae": (
        Anchor("mnist", "fid", 58.73, "Ghosh et al. 2020, table 1, N(0, I)", NETS),
        Anchor("mnist", "fid_fitted", 10.66, "Ghosh et al. 2020, table 1, mixture", NETS),
    ),
    "rae_l2": (
        Anchor("mnist", "fid", 22.22, "Ghosh et al. 2020, table 1, N(0, I)", NETS),
        Anchor("mnist", "fid_fitted", 8.69, "Ghosh et al. 2020, table 1, mixture", NETS),
    ),
    "rae_gp": (
        Anchor("mnist", "fid", 22.21, "Ghosh et al. 2020, table 1, N(0, I)", NETS),
        Anchor("mnist", "fid_fitted", 11.54, "Ghosh et al. 2020, table 1, mixture", NETS),
    ),
    "rae_sn": (
        Anchor("mnist", "fid", 19.67, "Ghosh et al. 2020, table 1, N(0, I)", NETS),
        Anchor("mnist", "fid_fitted", 11.74, "Ghosh et al. 2020, table 1, mixture", NETS),
    ),
    "wae_mmd": (
        Anchor("mnist", "fid", 20.42, "Ghosh et al. 2020, table 1, N(0, I)", NETS),
        Anchor("mnist", "fid_fitted", 9.39, "Ghosh et al. 2020, table 1, mixture", NETS),
    ),
    "two_stage_vae": (Anchor("mnist", "fid_fitted", 12.6, "Dai & Wipf 2019, table 1", NETS),),
}
"""Method -> what is published of it under the nearest protocol. Rows that are not here have no number on these data
that was read at its source."""

REASONS = {
    "categorical_vae": "has two one-hot codes of 10 for its 20 numbers here, 4.6 nats at most; the row's own is 200.",
    "vae_gan": "fails: its critic is shown black and white pixels against the decoder's grey means, tells them apart "
    "within 100 steps, and from then on pulls the decoder away. The paper has normalised convolutions and faces.",
    "aae": "and `wae_gan` have twice the error of `wae_mmd`: the adversary outweighs pixels in so short a training.",
    "kl_vae": "is a tokenizer's recipe, for codes that are grids and pictures that are not strokes: it has more error "
    "than `vae`, at fifty times its seconds.",
    "annealed_vae": "reaches its rate, 25 to 29 nats, and uses it badly: a weight of 1,000 a nat leaves pixels little "
    "say in 1,500 steps; the paper trains a hundred times as long.",
}
"""Rows that fail with this network and budget, or fall far behind their neighbours -> why."""

NAMES = {
    "nll": "NLL", "fid": "FID", "fid_fitted": "FID, fitted prior", "mig_locatello": "MIG",
    "factor_vae_score": "FactorVAE score", "dci_disentanglement": "DCI",
}  # fmt: skip


def write_tables(document: Mapping[str, Any], path: Path) -> None:
    """Put the tables between their marks in a Markdown file, or at its end where it has none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    section = "\n".join([BEGIN, *_lines(document), END])
    before, mark, rest = text.partition(BEGIN)
    if mark:
        _, end, after = rest.partition(END)
        if not end:
            raise UserError(f"{path}: {BEGIN} without {END} after it; put it back, or take both out")
        text = before + section + after
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Every method, one network and budget"
    yield ""
    yield "Made by `python benchmarks/methods.py`; every number is in `benchmarks/results/methods.json`."
    for part, table in (("mnist", _mnist), ("sprites", _sprites)):
        members = [one for one in document["members"] if one["part"] == part]
        if members:
            yield ""
            yield from table(document["protocol"][part], members)
    yield ""
    rows = {one["method"] for one in document["members"]}
    for method in METHODS:
        if method in REASONS and method in rows:
            yield f"- `{method}` {REASONS[method]}"
    yield ""
    yield from _beside(document)
    yield from _missing(document)


def _said(said: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({one["seed"] for one in members})
    train, network = said["train"], said["network"]
    side, widths = said["image_size"], "-".join(map(str, network["hidden"]))
    processors = ", ".join(sorted({one["machine"]["processor"] for one in members}))
    less = f", {said['n_train']:,} training images" if said["n_train"] else ""
    return (
        f"{side}×{side}{less}; {network['kind']} {side * side}-{widths}-z{said['z_dim']} and back; "
        f"{train['n_steps']:,} steps of {train['batch_size']} images, Adam at {train['lr']:g}; "
        f"{said['evaluation']['n_images']:,} test "
        f"images; seeds {', '.join(map(str, seeds))}, mean ± standard deviation over them; {processors}, one thread"
    )


def _mnist(said: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    evaluation = said["evaluation"]
    features = _features(members)
    yield f"**MNIST**, {said['binarize']} binarisation, {_said(said, members)}."
    yield ""
    yield (
        f"NLL is minus the importance-weighted bound of {evaluation['iw_samples']} samples on "
        f"{evaluation['iw_images']} "
        "images, nats an image; `≤` where the effective sample size is too small for an error, so that it is an upper "
        f"bound of unknown slack. FID of means of samples against grey test images, under {features}, from the "
        "model's prior and from one fitted after training to its codes. MSE per pixel. Seconds are the training's, of "
        f"one thread. {MARK}: learns grey pixels by another likelihood; its nats and MSE do not compare."
    )
    yield ""
    yield "| method | NLL | -ELBO | MSE | FID | FID, fitted prior | active units | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for method, group in _groups(members):
        grey = any(one["pixels"] == "grey" for one in group)
        loose = "≤ " if any(one.get("nll_note") for one in group) else ""
        nll = _over(group, "nll", 1)
        kinds = sorted({one["fitted"] for one in group if "fitted" in one})
        fitted = _over(group, "fid_fitted", 2) + (f" ({', '.join(kinds)})" if kinds else "")
        cells = [
            f"`{method}`" + (f" {MARK}" if grey else ""),
            f"{loose}{nll}" if nll else "",
            _over(group, "elbo", 1, sign=-1),
            _over(group, "mse", 4),
            _over(group, "fid", 2),
            fitted,
            _over(group, "active_units", 0),
            _over(group, "seconds", 0),
        ]
        yield f"| {' | '.join(cells)} |"


def _features(members: Sequence[Mapping[str, Any]]) -> str:
    """The features that most FIDs are of, and which methods' are of others: those do not compare."""
    methods: dict[str, set[str]] = {}
    for one in members:
        methods.setdefault(one["features"], set()).add(one["method"])
    first, *others = sorted(methods, key=lambda name: -len(methods[name]))
    aside = (f"`{name}` for {', '.join(f'`{method}`' for method in sorted(methods[name]))}" for name in others)
    return "; ".join([f"`{first}`", *aside])


def _sprites(said: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield f"**Sprites**, black and white, {_said(said, members)}."
    yield ""
    yield "| method | MIG (Locatello) | FactorVAE score | DCI disentanglement | MSE | active units | seconds |"
    yield "|---|---|---|---|---|---|---|"
    keys = (("mig_locatello", 3), ("factor_vae_score", 3), ("dci_disentanglement", 3))
    for method, group in _groups(members):
        cells = [_over(group, *key) for key in (*keys, ("mse", 4), ("active_units", 0), ("seconds", 0))]
        yield f"| `{method}` | {' | '.join(cells)} |"


def _beside(document: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for method in METHODS:
        for anchor in ANCHORS.get(method, ()):
            group = [one for one in document["members"] if (one["part"], one["method"]) == (anchor.part, method)]
            values = [one[anchor.key] for one in group if one.get(anchor.key) is not None]
            if values:
                ours = statistics.fmean(values)
                if anchor.key.startswith("fid"):
                    verdict = anchor.why
                else:
                    short = anchor.value - ours if anchor.higher else ours - anchor.value
                    verdict = f"{'short' if short > 0 else 'better'} by {abs(short):.2f}: {anchor.why}"
                digits = 3 if anchor.higher else 2
                what = f"`{method}` | {NAMES[anchor.key]}"
                rows.append(f"| {what} | {ours:.{digits}f} | {anchor.value:g} | {anchor.where} | {verdict} |")
    if rows:
        yield "Beside what is published under the nearest protocol:"
        yield ""
        yield "| method | | ours | theirs | whose | |"
        yield "|---|---|---|---|---|---|"
        yield from rows


def _missing(document: Mapping[str, Any]) -> Iterator[str]:
    for method, keys in document["less"].items():
        if any(one["method"] == method for one in document["members"]):
            yield f"\n`{method}` is run with `objective` {json.dumps(keys)}, for the budget."
    for one in document["failed"]:
        yield f"\nFailed: {one['member']}: {one['reason']}"
    refused = {(one["method"], one["fid_fitted_refused"]) for one in document["members"] if "fid_fitted_refused" in one}
    for method, reason in sorted(refused):
        yield f"\nNo fitted prior for `{method}`: {reason}"
    if document["not_run"]:
        yield f"\nNot run yet: {', '.join(document['not_run'])}."


def _groups(members: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for method in dict.fromkeys(one["method"] for one in members):
        yield method, [one for one in members if one["method"] == method]


def _over(group: Sequence[Mapping[str, Any]], key: str, digits: int, sign: int = 1) -> str:
    """Mean ± standard deviation over seeds; nothing where no seed has the number."""
    values = [sign * one[key] for one in group if one.get(key) is not None]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def sheet(folders: Sequence[Path], path: Path, count: int = 8) -> None:
    """Draw some samples of each member in a figure of two columns: from the model's prior, as mean images."""
    if not folders:
        raise UserError("--sheets: no member of seed 0 on mnist is done; run them first")
    rows = -(-len(folders) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(9, 0.47 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, folder in zip(axes.T.flat, folders, strict=False):
        run = load(folder / "run")
        strip = run.sample(count, seed=0)[:, 0].permute(1, 0, 2).flatten(1)
        low, high = run.model.value_range
        axis.imshow(strip, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        axis.text(-6, 14, run.experiment.method, ha="right", va="center", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
