"""What the commands do, once their arguments are read: thin covers over :class:`Experiment` and :class:`Run`."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vaes import config as configuration
from vaes import files, fitting
from vaes.code_statistics import FILE as STATISTICS
from vaes.command_parts import data_of, import_files, near, outlier_keys, outliers_of, sized
from vaes.data import ImageSet
from vaes.errors import Stopped, UserError
from vaes.experiment import Experiment
from vaes.fitting import Fitted
from vaes.methods import FITTED
from vaes.run import Run, load
from vaes.terminal import escape, note, quote, say
from vaes.train.screen import decoding
from vaes.weights import find_weights

__all__ = [
    "run_cache",
    "run_compare",
    "run_config",
    "run_encode",
    "run_evaluate",
    "run_export",
    "run_fit_prior",
    "run_methods",
    "run_push",
    "run_sample",
    "run_train",
]

WITHOUT = "since codes of this method do not fill the prior that they would be drawn from"


def run_train(
    config: str | None,
    path: Path | None,
    exp_dir: Path | None,
    resume: str | None,
    minutes: float | None,
    device: str,
    imports: Sequence[Path],
    arguments: Sequence[str],
    methods: tuple[str, ...],
    init: str | Path | None = None,
) -> None:
    """Train as a configuration, a folder of images and overrides say, anew or going on."""
    from vaes.choose import chosen_by_all
    from vaes.start import starting_point
    from vaes.train.record import metrics_table
    from vaes.train.runtime import Runtime, together
    from vaes.train.screen import Screen

    import_files(imports)
    with decoding(), together(), starting_point(resume, exp_dir, runtime := Runtime(device), init) as start:
        brought = start.raw or (None if start.initial is None else start.initial.raw)
        if path is not None:
            if config is not None or brought is not None:
                raise UserError(
                    f"{path}: images to choose a configuration for, and -c, --init or --resume brings one; drop one "
                    f"(with --init: --data.kind folder --data.root {path})"
                )
            experiment, choices = chosen_by_all(path, 5.0 if minutes is None else minutes, arguments, runtime)
            if runtime.is_main:
                note(choices)
        else:
            if minutes is not None:
                raise UserError("--minutes goes with the PATH of images; train.n_steps is the length otherwise")
            raw = configuration.read_file(config) if config is not None else brought or dict(configuration.DEFAULTS)
            if methods and brought is None and (config is None or "method" not in raw):
                raw["method"] = methods[0]
            experiment = Experiment.of(raw, arguments)
        if methods and experiment.method not in methods:
            raise UserError(
                f"method: {experiment.method} is not what this command trains ({', '.join(methods)}); use vaes train"
            )
        if start.within and start.raw is not None and experiment.jumps(Experiment.of(start.raw)) and runtime.is_main:
            note(
                "note: a schedule without steps of its own spans the whole training, and that is longer or shorter "
                "now: its value jumps"
            )
        screen = [Screen()] if runtime.is_main else []
        done = experiment.train_in(resume=start, device=device, callbacks=screen)
    if not done.is_main:
        return
    say(metrics_table(done.metrics))
    say(f"run folder: {escape(done.folder)}")
    if bad := done.metrics.get("not_finite"):
        raise Stopped(
            f"error: {', '.join(bad)} came out as no finite number: the model is of no use as it is; a lower train.lr, "
            "more varied images or model.network.norm none may help",
            1,
        )
    say(f"next: vaes sample {quote(done.folder)} --mode traverse")
    if kind := FITTED.get(experiment.method):
        say(f"next: vaes fit-prior {quote(done.folder)} --kind {kind}, {WITHOUT}")


def run_sample(
    where: Path,
    config: str | None,
    mode: str,
    save_dir: Path | None,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    options: dict[str, Any],
    arguments: Sequence[str],
) -> None:
    """Draw one mode with a trained model."""
    from vaes.encoding import read_codes
    from vaes.view import Options, check, check_film, draw, draw_film

    import_files(imports)
    given, codes, z, prior, form, tile = (
        options.pop(name, None) for name in ("images", "codes", "z", "prior", "format", "tile")
    )
    chosen = Options(**options)
    check(chosen)
    if form not in (None, "png"):
        check_film(mode, form)
    expected = Experiment.read(config) if config is not None else None
    run = load(where, checkpoint=checkpoint, device=device, expected=expected).elsewhere(arguments)
    run = run if tile is None else run.tiled(tile)
    if save_dir is None:
        files.refuse_links(run.folder, ["pictures"])
    if z is not None:
        chosen = chosen._replace(codes=torch.tensor([z]))
    elif codes is not None:
        chosen = chosen._replace(codes=read_codes(codes))
    if chosen.codes is not None and mode == "sample":
        mode = "decode"
    images: ImageSet | None = None
    if given:
        with decoding():
            images, reading = run.read_images(given)
        chosen = chosen._replace(whose="given")
        run = sized(run, images, reading)
    elif mode in ("reconstruct", "visualize_latent") or (mode == "interpolate" and chosen.between == "test"):
        images = data_of(run).test
    elif mode == "traverse" and chosen.traverse_dim is None and chosen.codes is None:
        try:
            images = data_of(run).test
        except UserError as error:
            note(f"note: the dimensions are not sorted by their KL: {error}")
    if mode == "sample" or (images is None and chosen.codes is None and mode in ("interpolate", "traverse")):
        fitted = run.fitted_prior(prior)
        if fitted is not None:
            chosen = chosen._replace(prior=fitted.prior, prior_words=fitted.words)
        _say_prior(run, fitted, prior)
    folder = save_dir or run.folder / "pictures"
    caption = f"{run.experiment.method} on {run.experiment.data['kind']}, {run.which}"
    if form in (None, "png"):
        drawn = draw(mode, run.model, folder, chosen, images, caption)
    else:
        drawn = draw_film(mode, run.model, folder, form, chosen, images, caption)
    for remark in drawn.remarks:
        note(f"note: {remark}")
    n = len(drawn.paths) - 1
    singles = f"{n} picture{'s' * (n > 1)} and " if n else ""
    say(f"{singles}{near(drawn.paths[-1])} ({run.which})")


def run_evaluate(
    where: Path,
    only: Sequence[str] | None,
    split: str,
    budget: dict[str, int],
    seed: int,
    features: str,
    perceptual: str,
    prior: str | None,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    output: Path | None,
    arguments: Sequence[str],
) -> None:
    """Compute the metrics of a trained model."""
    from vaes.evaluate import report, runner

    import_files(imports)
    groups = runner.DEFAULT_GROUPS if only is None else tuple(only)
    runner.check(groups, split, runner.Budget(**budget), seed)
    own, of_outliers = outlier_keys(arguments)
    run = load(where, checkpoint=checkpoint, device=device).elsewhere(own)
    with decoding():
        _ = run.data
    home = output or run.home
    found = run.evaluate(
        groups, split=split, seed=seed, features=features, perceptual=perceptual, prior=prior, output=home,
        progress=True, outliers=outliers_of(run, of_outliers) if of_outliers else None, budget=budget,
    )  # fmt: skip
    data_of(run)
    say(report.table(found.groups))
    if bad := report.not_finite(found.groups):
        raise Stopped(f"error: {', '.join(bad)} came out as no finite number, and went to {report.FILE} as such", 1)
    say(f"checkpoint: {run.which}\ndefinitions, seeds and all: {near(home / report.FILE)}")


def _say_prior(run: Run, fitted: Fitted | None, asked: str | None) -> None:
    """Which prior codes were drawn from, where there is anything to say."""
    if fitted is not None:
        file = fitting.file_of(run.folder, fitted.kind).name
        note(f"drawn from {fitted.words} ({file}); --prior own draws from the model's own")
    elif asked is None and (kind := FITTED.get(run.experiment.method)):
        note(f"note: vaes fit-prior {quote(run.folder)} --kind {kind} may give better samples, {WITHOUT}")


def run_fit_prior(
    where: Path,
    kind: str | None,
    options: dict[str, Any],
    seed: int,
    n_images: int,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    arguments: Sequence[str],
) -> None:
    """Fit a prior to the codes of a trained model."""
    import_files(imports)
    run = load(where, checkpoint=checkpoint, device=device).elsewhere(arguments)
    chosen = kind or FITTED.get(run.experiment.method, "gmm")
    fitting.check(run.model, chosen, options, run.folder)
    data_of(run)
    found = run.fit_prior(chosen, seed=seed, n_images=n_images, progress=True, **options)
    n, path = found.numbers, fitting.file_of(run.folder, chosen)
    say(f"{found.words}: {n.codes:,} codes of {n.images:,} training images ({run.which})")
    gain = f"{n.nats - n.gaussian:+.2f} ± {1.96 * n.gain_stderr:.2f}"
    say(
        f"codes of {n.held:,} images held out, in nats a code: {found.nats}; {found.simplest} {n.gaussian:.2f} "
        f"({gain}); the model's own prior {n.own:.2f}"
    )
    if n.nats < n.gaussian - 1.96 * n.gain_stderr and chosen == "autoregressive":
        note("note: frequencies explain indices held out better: more --steps, or more images, may serve better")
    elif n.nats < n.gaussian - 1.96 * n.gain_stderr and found.prior.exact:
        note("note: one Gaussian explains codes held out better: --kind gmm with fewer --components may serve better")
    if _moved_on(run, where, checkpoint):
        note("note: the training went on meanwhile, and other weights would be taken now: fit again once it has ended")
    say(f"{near(path)}: sample and evaluate draw from it now, where --prior does not say otherwise")


def _moved_on(run: Run, where: Path, checkpoint: str | None) -> bool:
    """Whether what was asked for stands for other weights now than when they were read."""
    try:
        return find_weights(where, checkpoint).path.resolve() != run.weights.resolve()
    except UserError:  # it is gone
        return True


def run_encode(
    where: Path,
    paths: Sequence[Path],
    split: str | None,
    output: Path,
    checkpoint: str | None,
    device: str,
    imports: Sequence[Path],
    batch_size: int,
    arguments: Sequence[str],
    normalise: bool = False,
    shard: int | None = None,
    tile: int | None = None,
) -> None:
    """Write a row of codes and numbers for each image, or shards of codes into a folder."""
    from vaes import encoding

    import_files(imports)
    table = output.suffix.lower() in (".csv", ".parquet", ".npz")
    if (split is not None and paths) or (table and split is None and not paths):
        raise UserError("give either PATHs of images or --split train, valid or test")
    if table:
        encoding.check_output(output)
    run = load(where, checkpoint=checkpoint, device=device).elsewhere(arguments)
    run = run if tile is None else run.tiled(tile)
    if paths:
        with decoding():
            images, reading = run.read_images(paths)
        run, sets = sized(run, images, reading), {"given": images}
    else:
        splits = data_of(run)
        sets = {name: getattr(splits, name) for name in (("train", "valid", "test") if split is None else (split,))}
    found = run.code_statistics(batch_size=batch_size, progress=True) if normalise else None
    if not table:
        _write_shards(run, {name: x for name, x in sets.items() if len(x)}, output, found, shard, batch_size)
        return
    (images,) = sets.values()
    codes = run.encode(images, batch_size=batch_size, progress=True)
    encoding.write(codes if found is None else encoding.normalised(codes, run.model, found.mean, found.std), output)
    say(f"{len(codes.path):,} rows of {run.model.z_dim} dimensions: {escape(output)} ({run.which})")
    say("\n".join(f"  {name:<12} {meaning}" for name, meaning in encoding.MEANING.items()))
    if found is not None:
        say(f"z and logvar are of codes normalised by the means and spreads in {near(run.folder / STATISTICS)}")


def _write_shards(run: Run, sets: Any, output: Path, found: Any, shard: int | None, batch_size: int) -> None:
    from vaes import share

    done = share.write_latents(run, sets, output, statistics=found, shard=shard, batch_size=batch_size, progress=True)
    counts = ", ".join(f"{len(x):,} {name}" for name, x in sets.items())
    if done.kept:
        note(f"{done.kept} of {done.shards} shards were there already")
    shape = "x".join(map(str, run.model.z_shape))
    say(f"codes of {shape} of {counts} images in {done.shards} shards: {near(output)}/ ({run.which})")
    if done.encoded:
        say(f"{done.encoded:,} images in {done.seconds:.1f} s: {done.encoded / max(done.seconds, 1e-9):,.0f} images/s")
    if found is not None:
        say(f"mean and logvar are of codes normalised by the means and spreads in {near(run.folder / STATISTICS)}")


def run_compare(
    runs: Sequence[Path],
    save_dir: Path | None,
    format: str = "table",
    checkpoint: str | None = None,
    imports: Sequence[Path] = (),
    html: Path | None = None,
) -> None:
    """Put evaluated runs side by side."""
    from vaes import compare

    import_files(imports)
    for folder in (save_dir, html and html.parent):
        if folder is not None:
            files.refuse_unwritable(folder)
    swept = compare.trained(runs[0]) if len(runs) == 1 and checkpoint is None else None
    results = compare.read_runs(runs, checkpoint) if swept is None else swept
    columns = compare.pool(results)
    for line in compare.warnings(results):
        note(f"warning: {line}")
    terminal = sys.stdout is not None and sys.stdout.isatty()
    say(compare.render(columns, format, width=shutil.get_terminal_size((120, 24)).columns, bold=terminal))
    if html is not None:
        compare.write_page(results, escape(runs[0].resolve().name) if len(runs) == 1 else f"{len(results)} runs", html)
        note(str(html))
    if save_dir is None:
        return
    files.write_json(save_dir / "comparison.json", compare.document(columns))
    plot = save_dir / "rate-distortion.png"
    drawn = compare.rate_distortion(columns, plot)
    left_out = [column.label for column in columns if column.label not in drawn]
    why = "no rate and distortion that compare" if drawn else "no column has a rate and a distortion"
    without = f" (without {', '.join(left_out)}: {why})" if left_out else ""
    note(f"{save_dir / 'comparison.json'}\n{f'{plot}{without}' if drawn else f'no plot: {why}'}")
    if compare.curves(columns, _lines, save_dir / "curves.png"):
        note(str(save_dir / "curves.png"))


def _lines(run: Path) -> list[dict[str, Any]]:
    from vaes.train.record import read_lines

    return read_lines(path) if (path := run / "metrics.jsonl").is_file() else []


def run_export(
    where: Path,
    to: Any,
    parts: Sequence[Any],
    dtype: Any,
    output: Path | None,
    checkpoint: str | None = None,
    imports: Sequence[Path] = (),
) -> None:
    """Give away parts of a trained model."""
    from vaes import share

    import_files(imports)
    run = load(where, checkpoint=checkpoint)
    if output is None:
        files.refuse_links(run.folder, ["export", "diffusers"])
    if to == "diffusers":
        paths, notes = share.export_diffusers(run, output or run.folder / "diffusers", progress=True)
        for text in notes:
            note(f"note: {text}")
        say("\n".join(f"{near(path)} ({path.stat().st_size / 1e6:.2f} MB, {run.which})" for path in paths))
        return
    made = share.export_parts(run, to, parts, dtype)
    for path, one in zip(share.write(made, output or run.folder / "export", to), made, strict=True):
        say(f"{near(path)} ({len(one.content) / 1e6:.2f} MB, {run.which})")
        for sign, names in (("<-", one.inputs), ("->", one.outputs)):
            for name, meaning in names.items():
                say(f"  {sign} {name:<7} {meaning}")
        levels = "" if one.levels is None else f", {one.levels:.2g} of 255 levels of a pixel"
        say(f"  at most {one.difference:.1g} from the model{levels}")


def run_push(where: Path, repo: str, checkpoint: str | None, imports: Sequence[Path], **options: Any) -> None:
    """Give a run away on the Hugging Face Hub."""
    from vaes import share

    import_files(imports)
    run = load(where, checkpoint=checkpoint)
    say(f"{share.push(run, repo, **options)} ({run.which})")


def run_plot(folder: Path, output: Path | None = None, smooth: int = 1, plane: bool = False) -> None:
    """Draw the curves of a training, or the film of its latent plane."""
    if output is None:
        files.refuse_links(folder, ["pictures"])
    path = output or folder / "pictures" / ("plane.gif" if plane else "curves.png")
    remarks: list[str] = []
    if plane:
        from vaes.view import write_forming

        remarks = write_forming(folder, path)
    else:
        from vaes.share import write_plot

        write_plot(folder, path, smooth=smooth)
    for line in (near(path), *remarks):
        say(line)


def run_config(name: str | None) -> None:
    """Print a configuration to start from, or what there is."""
    from vaes.config.document import listing, starting_point

    say(listing() if name is None else starting_point(name))


def run_methods(name: str | None) -> None:
    """Print the table of methods, or what one is made of and a configuration to start from."""
    from vaes.config.document import listed_methods, method_page

    say(listed_methods() if name is None else method_page(name))


def run_cache(empty: bool) -> None:
    """Say how large the cache of decoded images is, or empty it."""
    from vaes.data import cache

    found = cache.empty_cache() if empty else cache.cache_size()
    what = "freed from" if empty else "in"
    say(f"{found.bytes / 1e9:.2f} GB, {found.entries} decoded sets {what} {escape(found.folder)}")
