"""What each command takes. torch starts where :mod:`vaes.commands` is imported, once the arguments are known to fit."""

import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from vaes import __version__, shipped, terminal
from vaes.cli import fitting
from vaes.cli.guard import guarded, rank
from vaes.cli.parser import (
    MOST_IMAGES,
    SECTIONS,
    SEEDS,
    Parser,
    checkpoint,
    device_and_imports,
    imports,
    keys_help,
    number,
    numbers,
    of_a_run,
    path,
    path_or_url,
    whole,
)
from vaes.cli.sweeping import sweep, sweep_parser
from vaes.errors import Stopped

__all__ = ["MODES", "command", "compare", "evaluate", "fit_prior", "main", "sample", "train"]

MODES = ("sample", "interpolate", "traverse", "reconstruct", "visualize_latent", "decode")

FILMS = ("traverse", "interpolate")
"""The modes that can be films."""

READ_BY = {
    "n_samples": ("sample", "interpolate", "traverse", "reconstruct"),
    "n_interpolate": ("interpolate",),
    "n_traverse": ("traverse",),
    "traverse_range": ("traverse", "visualize_latent"),
    "traverse_dim": ("traverse",),
    "path": ("interpolate",),
    "between": ("interpolate",),
    "projection": ("visualize_latent",),
    "images": ("reconstruct",),
    "codes": ("sample", "decode", "traverse"),
    "z": ("sample", "decode", "traverse"),
    "prior": ("sample", "interpolate", "traverse"),
    "fps": FILMS,
    "seconds": FILMS,
}
"""Which modes read an option of ``vaes sample``; those that all read are left out."""

MOST_AT_A_TIME = 100_000

KEYS = (
    "Any key of the configuration can be given as --KEY VALUE or --KEY=VALUE: --method beta_vae, --objective.beta 4, "
    "--data.kind folder, --data.root photos, --train.lr 1e-3. Without -c and PATH it is the shipped configuration "
    "vae-digits. `vaes config` lists methods and shipped configurations, `vaes config METHOD` prints one to start from."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vaes``; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> None:
    from vaes.cli.encoding import encode
    from vaes.cli.listing import cache, config, methods
    from vaes.cli.looking import explore, report
    from vaes.cli.sharing import export, plot, push

    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": train,
        "sweep": sweep,
        "sample": sample,
        "fit-prior": fit_prior,
        "encode": encode,
        "evaluate": evaluate,
        "compare": compare,
        "plot": plot,
        "explore": explore,
        "report": report,
        "export": export,
        "push": push,
        "config": config,
        "methods": methods,
        "cache": cache,
    }
    parser = Parser(
        prog="vaes",
        description="Train, sample, evaluate and look inside variational autoencoders.",
        epilog="First steps: vaes train -e runs/first; vaes sample runs/first; vaes evaluate runs/first.",
    )
    parser.appendix = lambda: "\n".join(["", *map(_in_a_line, _parsers().values()), ""])
    parser.add_argument("--version", action="version", version=f"vaes {__version__}")
    parser.add_argument("command", choices=commands, metavar="command", help="vaes COMMAND --help tells more")
    parser.others = _parsers
    commands[parser.read(words[:1]).options.command](words[1:])


def _in_a_line(parser: Parser) -> str:
    return textwrap.fill(f"{parser.prog:<14} {parser.description}", 79, subsequent_indent=" " * 15)


def _parsers() -> dict[str, Parser]:
    """The parsers of all commands, by what is typed to get them."""
    from vaes.cli import encoding, listing, looking, sharing

    makers = (
        _train_parser, sweep_parser, _sample, _fit_prior, *encoding.PARSERS, _evaluate, _compare,
        *looking.PARSERS, *sharing.PARSERS, *listing.PARSERS,
    )  # fmt: skip
    return {parser.prog: parser for parser in (make() for make in makers)}


def command(prog: str, *, sections: Sequence[str] = (), **options: Any) -> Parser:
    """The parser of one command, which knows of the others."""
    parser = Parser(prog=prog, sections=sections, **options)
    parser.others = _parsers
    return parser


def _train_parser(prog: str = "vaes train", scripts: bool = False) -> Parser:
    parser = command(prog, sections=SECTIONS, description="Train a model.", epilog=KEYS)
    parser.appendix = lambda: f"\nKEYS, each with its type and default, and what it means:\n{keys_help()}\n"
    if not scripts:
        parser.add_argument(
            "path",
            nargs="?",
            type=path,
            metavar="PATH",
            help="images (a folder, a zip, an .npy or .npz): looks at them and chooses a configuration",
        )
        parser.add_argument(
            "--minutes",
            type=number(0, 525_600, above=True),
            metavar="M",
            help="how long the training on PATH may take, about (default: 5)",
        )
    parser.add_argument("-c", "--config", metavar="NAME|FILE", help="a shipped configuration, or a YAML file")
    parser.add_argument("-e", "--exp_dir", type=path, help="the run folder to make (default: a new one in runs/)")
    parser.add_argument(
        "--resume", metavar="latest|PATH|URL", help="go on in the run folder -e, or from a checkpoint folder"
    )
    parser.add_argument(
        "--init",
        type=path_or_url,
        metavar="RUN|FOLDER",
        help="begin with the weights of a run (its configuration where there is no -c; images and terms may be others) "
        "or of a diffusers folder",
    )
    device_and_imports(parser)
    return parser


def train(arguments: Sequence[str], *, prog: str = "vaes train", methods: tuple[str, ...] = ()) -> None:
    """``vaes train``; ``methods``, where given, are the ones that this command trains, the first by default."""
    parser = _train_parser(prog, scripts=bool(methods))
    read = parser.read(arguments)
    found = read.options
    named = None if found.config is None else str(shipped.find(found.config))

    from vaes.commands import run_train  # torch starts here

    try:
        run_train(
            named,
            None if methods else found.path,
            found.exp_dir,
            found.resume,
            None if methods else found.minutes,
            found.device,
            found.imports,
            read.keys,
            methods,
            found.init,
        )
    except KeyboardInterrupt:
        raise Stopped("stopped at once; a checkpoint that was saved before is whole", 128 + signal.SIGINT) from None


def _sample(prog: str = "vaes sample") -> Parser:
    from vaes.cli import encoding

    parser = command(prog, sections=("data",), description="Draw pictures with a trained model.")
    of_a_run(parser, "?")
    parser.add_argument("--weights", type=path_or_url, help="the same as RUN")
    parser.add_argument(
        "-c",
        "--config",
        metavar="NAME|FILE",
        help="the configuration that the weights belong to (they carry their own)",
    )
    parser.add_argument(
        "--mode", choices=MODES, metavar="MODE", default="sample", help=f"{', '.join(MODES)} (default: sample)"
    )
    parser.add_argument("--seed", type=whole(0, SEEDS), default=0)
    parser.add_argument("--n_samples", type=whole(1, 100_000), help="pictures, pairs or rows (default: 64, 32 or 8)")
    parser.add_argument("--save_dir", type=path, help="where to (default: pictures/ in the run folder)")
    parser.add_argument(
        "--batch_size", type=whole(1, MOST_AT_A_TIME), default=256, help="images at a time (default: 256)"
    )
    parser.add_argument("--n_interpolate", type=whole(2, 1000), default=10, help="pictures on each path (default: 10)")
    parser.add_argument(
        "--n_traverse", type=whole(2, 1000), default=9, help="pictures along each dimension (default: 9)"
    )
    parser.add_argument(
        "--traverse_range", type=number(0, 1e6, above=True), default=3.0, help="walk from -R to R (default: 3)"
    )
    parser.add_argument(
        "--traverse_dim", type=whole(0, 10**9), help="one dimension, counted from 0 (default: all, by their KL)"
    )
    parser.add_argument("--path", choices=("linear", "spherical"), default="linear", help="of interpolate")
    parser.add_argument(
        "--between", choices=("prior", "test"), default="prior", help="of interpolate: random or test codes"
    )
    parser.add_argument("--projection", choices=("pca", "tsne"), help="of visualize_latent, where z_dim is not 2")
    parser.add_argument(
        "--images", nargs="+", type=path, metavar="PATH", help="of reconstruct: these pictures, or those in a folder"
    )
    parser.add_argument("--codes", type=path, metavar="FILE", help="of decode: the codes of a table (z0, z1, ...)")
    parser.add_argument(
        "--z", type=numbers, metavar="Z0,Z1,...", help="of decode: this code; of traverse: where to start"
    )
    fitting.prior(parser, "what codes are drawn from (default: the prior fitted last, where there is one, else own)")
    parser.add_argument(
        "--format", choices=("png", "gif", "mp4", "webp"), default="png",
        help="a sheet (png), or of traverse and interpolate a film; mp4 needs vaes[film] (default: png)",
    )  # fmt: skip
    parser.add_argument("--fps", type=whole(1, 50), default=25, help="of a film: frames a second (default: 25)")
    parser.add_argument(
        "--seconds", type=number(0.1, 60), default=4.0, help="of a film: how long, there and back (default: 4)"
    )
    encoding.tile(parser)
    parser.add_argument("--singles", action="store_true", help="each picture in a file of its own too")
    parser.epilog = "Keys of the data section can be given too: --data.root elsewhere"
    return parser


OPTIONS = (
    "n_samples", "seed", "batch_size", "n_interpolate", "n_traverse", "traverse_range", "traverse_dim", "path",
    "between", "projection", "images", "codes", "z", "prior", "singles", "format", "fps", "seconds", "tile",
)  # fmt: skip


def sample(arguments: Sequence[str], *, prog: str = "vaes sample", singles: bool = False) -> None:
    """``vaes sample``; ``singles``: each picture goes to a file of its own too, asked for or not."""
    parser = _sample(prog)
    read = parser.read(arguments).here()
    found = read.options
    where = found.run or found.weights
    if where is None or (found.run and found.weights):
        parser.error("give one of RUN and --weights")
    if found.codes and found.z:
        parser.error("give one of --codes and --z")
    film = found.format != "png"
    if film and found.mode not in FILMS:
        parser.error(f"--format {found.format}: {found.mode} has no film; --mode {' and '.join(FILMS)} have")
    if rank():
        return  # under a launcher of many processes the first one draws

    still = ("n_interpolate", "n_traverse", "singles") if film else ("fps", "seconds")
    for name in still:
        if found.mode in FILMS and getattr(found, name) != parser.get_default(name):
            terminal.note(f"warning: --{name} is for --format {'png' if film else 'gif, mp4 or webp'}; it is ignored")
    for name, modes in READ_BY.items():  # the origin's commands give some of them to every mode: no reason to stop
        if found.mode not in modes and getattr(found, name) != parser.get_default(name):
            terminal.note(f"warning: --{name} is for --mode {' or '.join(modes)}; {found.mode} ignores it")
    if found.n_samples is None:
        found.n_samples = {"sample": 64, "reconstruct": 32}.get(found.mode, 8)
    found.singles = found.singles or singles
    named = None if found.config is None else str(shipped.find(found.config))
    options = {name: getattr(found, name) for name in OPTIONS}

    from vaes.commands import run_sample  # torch starts here

    run_sample(
        where,
        named,
        found.mode,
        found.save_dir,
        found.checkpoint,
        found.device,
        found.imports,
        options,
        read.keys,
    )


def _fit_prior() -> Parser:
    about = "Fit a prior to the codes of a trained model; sample and evaluate then draw from it."
    return fitting.options(command("vaes fit-prior", sections=("data",), description=about))


def fit_prior(arguments: Sequence[str]) -> None:
    """``vaes fit-prior``."""
    fitting.fit_prior(_fit_prior().read(arguments).here())


BUDGET = {
    "n_images": (10_000, MOST_IMAGES, "images and samples, at most"),
    "iw_samples": (100, 1_000_000, "K of the importance-weighted bound"),
    "iw_images": (500, MOST_IMAGES, "images for that bound, at most"),
    "ais_images": (16, MOST_IMAGES, "images for ais, at most"),
    "ais_steps": (500, 1_000_000, "temperatures of ais"),
    "ais_chains": (8, 10_000, "chains of ais for each image"),
    "batch_size": (500, MOST_AT_A_TIME, "images or codes at a time"),
}
"""Default, largest value and meaning of the numbers that ``vaes evaluate`` is held to."""


def _evaluate(prog: str = "vaes evaluate") -> Parser:
    parser = command(
        prog,
        sections=("data", "outliers"),
        description="Compute the metrics of a trained model; they go to evaluation.json.",
    )
    of_a_run(parser)
    parser.add_argument(
        "--only",
        metavar="A,B",
        help="groups, of likelihood, ais, reconstruction, generation, predictive, disentanglement, latent, downstream "
        "(default: all but ais, annealed importance sampling, which takes minutes)",
    )
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="(default: test)")
    for name, (default, most, meaning) in BUDGET.items():
        parser.add_argument(f"--{name}", type=whole(1, most), default=default, help=f"{meaning} (default: {default:,})")
    parser.add_argument("--seed", type=whole(0, SEEDS), default=0)
    parser.add_argument(
        "--features",
        default="auto",
        help="for sample quality: classifier (trained here on the labels), pretext (trained here without labels), both "
        "kept in the run folder, inception (needs vaes[fid]), pixels, or the classifier.safetensors or "
        "pretext.safetensors of another run (default: auto, the first where there are labels, else the second)",
    )
    parser.add_argument(
        "--perceptual",
        default="auto",
        help="in which features of places reconstructions are held against images: lpips (needs vaes[lpips]), "
        "timm:NAME (needs vaes[timm]), classifier, pretext or a path as above (default: auto, those of --features, "
        "where it has some)",
    )
    fitting.prior(parser, "fitted priors to measure samples of too, beside the model's own (default: all; own: none)")
    parser.add_argument("--output", type=path, metavar="DIR", help="where the results go (default: the run folder)")
    parser.epilog = (
        "Keys of the data section can be given too (--data.root elsewhere), and a second source for outlier detection: "
        "--outliers.kind mnist --outliers.root ..."
    )
    return parser


def evaluate(arguments: Sequence[str], *, prog: str = "vaes evaluate") -> None:
    """``vaes evaluate``."""
    parser = _evaluate(prog)
    read = parser.read(arguments).here()
    found = read.options
    if rank():
        return
    only = None if found.only is None else [name for name in found.only.split(",") if name]
    budget = {name: getattr(found, name) for name in BUDGET}

    from vaes.commands import run_evaluate  # torch starts here

    run_evaluate(
        found.run,
        only,
        found.split,
        budget,
        found.seed,
        found.features,
        found.perceptual,
        found.prior,
        found.checkpoint,
        found.device,
        found.imports,
        found.output,
        read.keys,
    )


def _compare(prog: str = "vaes compare") -> Parser:
    parser = command(
        prog,
        description="Evaluated runs side by side; runs that differ in seed alone are pooled. "
        "Differences are from the first one.",
    )
    parser.add_argument(
        "runs", nargs="+", type=path_or_url, metavar="RUN", help="run folders, a folder of them, or a sweep"
    )
    parser.add_argument("--format", choices=("table", "markdown", "csv", "latex"), default="table")
    parser.add_argument(
        "--checkpoint", metavar="best|last|STEP", type=checkpoint, help="of every run (default: see vaes evaluate)"
    )
    parser.add_argument("--save_dir", type=path, help="where comparison.json and the plot go (default: nowhere)")
    parser.add_argument("--html", type=path, metavar="FILE", help="a page of the runs: parallel coordinates and slices")
    imports(parser)
    return parser


def compare(arguments: Sequence[str], *, prog: str = "vaes compare") -> None:
    """``vaes compare``."""
    found = _compare(prog).read(arguments).here().options

    from vaes.commands import run_compare

    run_compare(found.runs, found.save_dir, found.format, found.checkpoint, found.imports, found.html)
