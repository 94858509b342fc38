"""The commands that make of a run what others open without it."""

from collections.abc import Sequence

from vaes.cli.arguments import command
from vaes.cli.guard import rank
from vaes.cli.parser import Parser, of_a_run, path, path_or_url, whole

__all__ = ["PARSERS", "export", "plot", "push"]

PARTS = ("encoder", "decoder", "sampler")
ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}


def _export() -> Parser:
    parser = command(
        "vaes export",
        description="Encoder, decoder and sampler as ONNX models or torch programs, which need no vaes to run; or the "
        "weights of an autoencoder_kl as a folder that diffusers loads.",
    )
    of_a_run(parser, computes=False)
    parser.add_argument(
        "--to",
        choices=(*ENDINGS, "diffusers"),
        required=True,
        help="ONNX (needs vaes[onnx]), torch.export, or AutoencoderKL of diffusers",
    )
    parser.add_argument("--only", metavar="A,B", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="that weights are stored in; numbers are computed in float32 (default: float32)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        metavar="FOLDER|FILE",
        help="a folder for encoder.onnx (.pt2) and so on, or for one part a file (default: export/ in the run folder, "
        "or diffusers/)",
    )
    return parser


def export(arguments: Sequence[str]) -> None:
    """``vaes export``."""
    parser = _export()
    found = parser.read(arguments).here().options
    if found.to == "diffusers" and (found.only is not None or found.dtype != "float32"):
        parser.error("--to diffusers: the whole autoencoder goes, in float32; drop --only and --dtype")
    parts = PARTS if found.only is None else tuple(dict.fromkeys(found.only.split(",")))
    for part in parts:
        if part not in PARTS:
            parser.error(f"--only {part!r}: choose from {', '.join(PARTS)}")
    if found.output is not None and found.output.suffix.lower() in ENDINGS.values():
        if found.to == "diffusers":
            parser.error(f"--output {found.output}: --to diffusers makes a folder")
        if found.output.suffix != ENDINGS[found.to]:
            parser.error(f"--output {found.output}: --to {found.to} makes a file that ends in {ENDINGS[found.to]}")
        if len(parts) > 1:
            parser.error(f"--output {found.output}: is one file, and there are {len(parts)} parts; give a folder")
    if rank():
        return

    from vaes.commands import run_export  # torch starts here

    run_export(found.run, found.to, parts, found.dtype, found.output, found.checkpoint, found.imports)


def _plot() -> Parser:
    parser = command("vaes plot", description="The curves of a training as a picture, also of one that is at work.")
    parser.add_argument("run", type=path_or_url, metavar="RUN", help="a run folder")
    parser.add_argument(
        "-o", "--output", type=path, metavar="FILE",
        help="ends in .png, .svg or .pdf (default: pictures/curves.png), or a film's in .gif, .webp or .mp4",
    )  # fmt: skip
    parser.add_argument(
        "--smooth", type=whole(1, 100_000), default=1, metavar="N", help="means of N training lines (default: 1, none)"
    )
    parser.add_argument(
        "--plane", action="store_true", help="the film of the latent plane forming (default: pictures/plane.gif)"
    )
    return parser


def plot(arguments: Sequence[str]) -> None:
    """``vaes plot``."""
    parser = _plot()
    found = parser.read(arguments).here().options
    if found.plane and found.smooth > 1:
        parser.error("--smooth: is of curves, and --plane makes a film; leave one of them out")
    if rank():
        return

    from vaes.commands import run_plot  # torch starts here

    run_plot(found.run, found.output, found.smooth, found.plane)


def _push() -> Parser:
    parser = command("vaes push", description="Give a run away on the Hugging Face Hub, with a card (needs vaes[hub]).")
    of_a_run(parser, computes=False)
    parser.add_argument("repo", metavar="USER/NAME", help="the repository, made if it is not there")
    parser.add_argument("--license", default="unknown", metavar="ID", help="of the weights: mit, cc-by-4.0, ...")
    parser.add_argument("--private", action="store_true", help="for its owner alone, where the repository is made now")
    parser.add_argument("--revision", metavar="BRANCH", help="another branch than main, made if it is not there")
    return parser


def push(arguments: Sequence[str]) -> None:
    """``vaes push``."""
    found = _push().read(arguments).here().options
    if rank():
        return

    from vaes.commands import run_push  # torch starts here

    options = {"license": found.license, "private": found.private, "revision": found.revision}
    run_push(found.run, found.repo, found.checkpoint, found.imports, **options)


PARSERS = (_export, _plot, _push)
