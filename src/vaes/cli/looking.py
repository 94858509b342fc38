"""The commands that look inside a run: the page in the browser, and the file that holds it."""

from collections.abc import Sequence

from vaes.cli.arguments import command
from vaes.cli.guard import rank
from vaes.cli.parser import Parser, checkpoint, device_and_imports, path, path_or_url, whole

__all__ = ["PARSERS", "explore", "report"]


def _explore() -> Parser:
    parser = command(
        "vaes explore",
        sections=("data",),
        description="A page in the browser: the latent map, sliders, traversals, curves, pictures of your own.",
        epilog="The address that it prints holds a token: who has it can use the page. Ctrl-C ends it.",
    )
    _runs(parser)
    parser.add_argument("--port", type=whole(0, 65535), default=0, help="of the page (default: any that is free)")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    return parser


def _runs(parser: Parser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=path_or_url, metavar="RUN", help="run folders, checkpoint folders or weights files"
    )
    parser.add_argument(
        "--checkpoint", metavar="best|last|STEP", type=checkpoint, help="of run folders (default: as for vaes sample)"
    )
    device_and_imports(parser)


def explore(arguments: Sequence[str]) -> None:
    """``vaes explore``."""
    read = _explore().read(arguments).here()
    found = read.options
    if rank():
        return

    from vaes.explore.command import run_explore  # torch starts here

    run_explore(
        found.runs,
        found.host,
        found.port,
        not found.no_browser,
        found.checkpoint,
        found.device,
        found.imports,
        read.keys,
    )


def _report() -> Parser:
    parser = command(
        "vaes report",
        sections=("data",),
        description="One HTML file in which the decoder itself runs, of one run or several side by side: "
        "open it from disk, without a network.",
    )
    _runs(parser)
    parser.add_argument(
        "-o", "--output", type=path, metavar="FILE", help="the file (default: report.html in the run's folder)"
    )
    parser.add_argument("--static", action="store_true", help="without the decoder: pictures alone, below 2 MB")
    return parser


def report(arguments: Sequence[str]) -> None:
    """``vaes report``."""
    read = _report().read(arguments).here()
    found = read.options
    if rank():
        return

    from vaes.explore.command import run_report  # torch starts here

    run_report(found.runs, found.output, found.static, found.checkpoint, found.device, found.imports, read.keys)


PARSERS = (_explore, _report)
