"""What ``vaes sweep`` takes."""

import signal
from collections.abc import Sequence

from vaes import shipped
from vaes.cli.guard import rank
from vaes.cli.parser import SECTIONS, Parser, device_and_imports, number, path, whole
from vaes.errors import Stopped

__all__ = ["sweep", "sweep_parser"]


def sweep_parser() -> Parser:
    """Its parser."""
    from vaes.cli.arguments import KEYS, command

    parser = command(
        "vaes sweep",
        sections=SECTIONS,
        description="Train many runs from one configuration: a grid of values, several seeds. The same command goes "
        "on where it was stopped, and trains only what is new.",
        epilog="The section `sweep` of a configuration holds grid, seeds, jobs, together, engine, slurm and search "
        f"(trials, ranges, maximise, prune) too. {KEYS}",
    )
    parser.add_argument("-c", "--config", metavar="NAME|FILE", help="a shipped configuration, or a YAML file")
    parser.add_argument("-e", "--exp_dir", type=path, help="the sweep's folder; each run is a folder in its runs/")
    parser.add_argument(
        "--grid",
        metavar="KEY=A,B",
        action="append",
        default=[],
        help="values of a key (may be given several times: every combination is trained)",
    )
    parser.add_argument("--seeds", type=whole(1, 10_000), metavar="N", help="seeds of each, from seed on (default: 1)")
    parser.add_argument(
        "--jobs",
        type=whole(1, 10_000),
        metavar="N",
        help="runs at a time (default: as many as there are cores, one thread each; one on an accelerator)",
    )
    parser.add_argument("--retry", action="store_true", help="train those that failed once more")
    parser.add_argument(
        "--together",
        choices=("auto", "on", "off"),
        help="train runs that share their shapes (seeds, coefficients, learning rates) by one stacked step, equal to "
        "the same runs alone but for rounding; auto measures a few steps of both ways and says what it chose (default: "
        "off)",
    )
    parser.add_argument("--engine", choices=("local", "slurm", "ray"), help="what trains them (default: local)")
    parser.add_argument("--address", help="of a Ray cluster (default: a Ray of this machine alone)")
    parser.add_argument("--gpus", type=number(0, 64), metavar="N", help="of each run; for Ray a fraction too")
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="a parameter of the jobs: partition=gpu, timeout_min=600, mem_gb=16",
    )
    parser.add_argument("--search", choices=("optuna",), help="look for the best values in place of trying all")
    parser.add_argument("--trials", type=whole(1, 100_000), metavar="N", help="runs of a search (default: 20)")
    parser.add_argument(
        "--range",
        dest="ranges",
        metavar="KEY=LOW..HIGH[:log]",
        action="append",
        default=[],
        help="what a search may choose of a key; or values, KEY=A,B,C (may be given several times)",
    )
    parser.add_argument("--maximise", metavar="NAME", help="the validation number that is wanted high (default: elbo)")
    parser.add_argument("--minimise", metavar="NAME", help="or low: loss, distortion, mse")
    parser.add_argument("--prune", action="store_true", help="end runs of a search whose validation falls behind")
    device_and_imports(parser)
    return parser


def sweep(arguments: Sequence[str]) -> None:
    """``vaes sweep``."""
    read = sweep_parser().read(arguments)
    found = read.options
    named = None if found.config is None else str(shipped.find(found.config))
    if rank():
        return

    from vaes.sweep.command import Asked, run_sweep  # torch starts here

    try:
        options = {name: value for name, value in vars(found).items() if name in Asked._fields}
        run_sweep(Asked(**{**options, "config": named, "folder": found.exp_dir, "keys": read.keys}))
    except KeyboardInterrupt:
        raise Stopped("stopped at once; the same command goes on", 128 + signal.SIGINT) from None
