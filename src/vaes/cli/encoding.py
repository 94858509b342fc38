"""``vaes encode``."""

from collections.abc import Sequence

from vaes.cli.arguments import MOST_AT_A_TIME, command
from vaes.cli.guard import rank
from vaes.cli.parser import Parser, of_a_run, path, whole

__all__ = ["PARSERS", "encode", "tile"]

TABLES = (".csv", ".parquet", ".npz")


def _encode() -> Parser:
    parser = command(
        "vaes encode",
        sections=("data",),
        description="Codes and scores of images as a table, one row an image; or codes alone as shards of tensors in a "
        "folder, for models of codes.",
    )
    of_a_run(parser)
    parser.add_argument("paths", nargs="*", type=path, metavar="PATH", help="pictures, folders or archives of them")
    parser.add_argument("--split", choices=("train", "valid", "test"), help="of the run's own images, in place of PATH")
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        required=True,
        metavar="FILE|FOLDER",
        help="a table, which ends in .csv, .parquet or .npz; or a folder for shards, of all the run's images where "
        "neither PATH nor --split is given: the same command goes on where it was stopped",
    )
    parser.add_argument(
        "--shard", type=whole(1, 10_000_000), metavar="N", help="images in a shard (default: about 64 MB of them)"
    )
    parser.add_argument(
        "--normalise",
        action="store_true",
        help="codes of mean 0 and variance 1 in each channel over the training images, as the run's statistics say",
    )
    parser.add_argument(
        "--batch_size", type=whole(1, MOST_AT_A_TIME), default=256, help="images at a time (default: 256)"
    )
    tile(parser)
    return parser


def tile(parser: Parser) -> None:
    """``--tile``."""
    parser.add_argument(
        "--tile",
        type=whole(1, 1_000_000),
        metavar="N",
        help="networks see squares of N pixels, one at a time, which are blended: large images in little memory",
    )


def encode(arguments: Sequence[str]) -> None:
    """``vaes encode``."""
    parser = _encode()
    read = parser.read(arguments).here()
    found = read.options
    table = found.output.suffix in TABLES
    if (found.paths and found.split) or (table and not (found.paths or found.split)):
        parser.error("give one of PATH and --split")
    if not table and found.output.suffix and not found.output.is_dir():
        parser.error(f"--output {found.output}: must end in {', '.join(TABLES[:-1])} or {TABLES[-1]}, or be a folder")
    if table and found.shard is not None:
        parser.error(f"--shard: {found.output} is a table, and shards go to a folder")
    if rank():
        return

    from vaes.commands import run_encode  # torch starts here

    run_encode(
        found.run,
        found.paths,
        found.split,
        found.output,
        found.checkpoint,
        found.device,
        found.imports,
        found.batch_size,
        read.keys,
        found.normalise,
        found.shard,
        found.tile,
    )


PARSERS = (_encode,)
