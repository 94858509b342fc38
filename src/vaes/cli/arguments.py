"""The command line, one function per command. Nothing heavy is imported before it is known what is wanted."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from vaes import __version__, terminal
from vaes.errors import Stopped, UserError
from vaes.memory import keep_freed_memory

__all__ = ["compare", "evaluate", "main", "sample", "train"]

MODES = ("sample", "interpolate", "traverse", "reconstruct", "visualize_latent")

READ_BY = {
    "n_samples": ("sample", "interpolate", "traverse", "reconstruct"),
    "n_interpolate": ("interpolate",),
    "n_traverse": ("traverse",),
    "traverse_range": ("traverse", "visualize_latent"),
    "traverse_dim": ("traverse",),
    "path": ("interpolate",),
    "between": ("interpolate",),
    "projection": ("visualize_latent",),
}
"""Which modes read an option of ``vaes sample``; those that all read are left out."""

KEYS = """\
Any key of the configuration can be given as --KEY VALUE or --KEY=VALUE: --method beta_vae, --objective.beta 4,
--data.kind folder, --data.root photos, --model.z_dim 16, --train.n_steps 2000, --train.lr 1e-3, ... An unknown key
is answered with the allowed ones. Without -c the configuration is that of configs/vae-digits.yaml.
"""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Dotted keys are set aside first, each with its value, or argparse would take the value for an operand."""
        plain: list[str] = []
        dotted: list[str] = []
        words = list(args)
        while words:
            word = words.pop(0)
            if not re.match(r"--\w+\.", word):
                plain.append(word)
                continue
            dotted.append(word)
            if "=" not in word and words and not re.match(r"--[A-Za-z]", words[0]):
                dotted.append(words.pop(0))
        found, rest = super().parse_known_args(plain, namespace)
        return found, rest + dotted

    def _print_message(self, message: str, file: Any = None) -> None:
        terminal.say(message.rstrip("\n"))  # argparse's own drops it without a word where it cannot be written

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``vaes``; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": train,
        "sample": sample,
        "evaluate": evaluate,
        "compare": compare,
    }
    return guarded(lambda: _dispatch(arguments, commands))


def guarded(command: Callable[[], None]) -> int:
    """Run a command; a mistake of the user's becomes one line on stderr and status 2."""
    # Threads that wait spin for some microseconds, then sleep: a third faster on idle cores than sleeping at once, and
    # several times faster than spinning for long on cores that others use too (docs/performance.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory()
    threading.excepthook = _say_of_thread
    with terminal.outputs():
        return _status(command)


def _status(command: Callable[[], None]) -> int:
    prefix = ""
    try:
        prefix = f"[process {_rank()}] " if _rank() else ""
        with _unwinding():
            command()
            sys.stdout.flush()
    except UserError as error:
        terminal.note(f"{prefix}error: {terminal.line(error)}")
        return 2
    except Stopped as stopped:
        terminal.note(f"{prefix}{terminal.line(stopped)}")
        return stopped.status
    except terminal.ReaderGone:
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        terminal.note(f"{prefix}stopped")
        return 128 + signal.SIGINT
    except MemoryError as error:
        terminal.note(f"{prefix}error: not enough memory ({terminal.line(error)}); a smaller batch_size takes less")
        return 2
    except OSError as error:  # a full disk, a folder that cannot be written
        if error.strerror is None:
            raise
        terminal.note(f"{prefix}error: {terminal.line(_sentence(error))}")
        return 2
    return 0


ADVICE = {
    errno.ENOSPC: "make room on that disk, then try again; a training goes on with --resume latest",
    errno.EDQUOT: "make room in your quota, then try again; a training goes on with --resume latest",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose a file system that takes larger ones",
    errno.EACCES: "choose another place, or ask for the right to use this one",
    errno.EROFS: "choose another place",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.EISDIR: "a file is wanted here",
    errno.ENOTDIR: "a folder is wanted here",
}


def _sentence(error: OSError) -> str:
    """What, where, what to do; an error of writing carries no path, and then what was done stands in its place."""
    if error.filename is not None:
        where = str(error.filename)
    else:
        doing = [
            frame.name for frame in traceback.extract_tb(error.__traceback__) if "vaes" in Path(frame.filename).parts
        ]
        where = f"while at {doing[-1].strip('_')}" if doing else "somewhere"
    advice = ADVICE.get(error.errno or 0)
    return f"{where}: {error.strerror}{f'; {advice}' if advice else ''}"


@contextmanager
def _unwinding() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end the command by an exception, so that nothing half-written stays; while a training
    runs, it sees to them itself."""
    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    usual = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(f"stopped by {signal.Signals(number).name}", 128 + number)

    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, signal.SIG_DFL)


def _rank() -> int:
    """This process's place among those of a launcher, 0 without one."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        if not re.fullmatch(r"-?\d+", text := os.environ.get(name, "0")):
            raise UserError(f"{name}: the environment holds {text!r} where a launcher puts a whole number; unset it")
    return int(os.environ.get("RANK", "0"))


def _say_of_thread(args: threading.ExceptHookArgs) -> None:
    """A disk that fails under a library's thread (TensorBoard's writer) is a line, as it is under ours."""
    if isinstance(args.exc_value, OSError):
        terminal.note(f"warning: {terminal.line(args.exc_value)}")
    else:
        threading.__excepthook__(args)


def _dispatch(arguments: list[str], commands: dict[str, Callable[[Sequence[str]], None]]) -> None:
    parser = _Parser(prog="vaes", description="Train, sample, evaluate and look inside variational autoencoders.")
    parser.add_argument("--version", action="version", version=f"vaes {__version__}")
    parser.add_argument("command", choices=commands, help="vaes COMMAND --help tells more")
    parsed = parser.parse_args(arguments[:1])
    commands[parsed.command](arguments[1:])


def train(arguments: Sequence[str], *, prog: str = "vaes train", methods: tuple[str, ...] = ()) -> None:
    """``vaes train``; ``methods``, where given, are the ones that this command trains, the first by default."""
    parser = _Parser(prog=prog, description="Train a model.", epilog=KEYS)
    parser.add_argument("-c", "--config", help="a YAML file")
    parser.add_argument("-e", "--exp_dir", type=Path, help="the run folder to make (default: a new one in runs/)")
    parser.add_argument(
        "--resume", metavar="latest|PATH", help="go on in the run folder -e, or from a checkpoint folder"
    )
    parsed, rest = parser.parse_known_args(arguments)

    from vaes.commands import run_train  # torch starts here

    try:
        run_train(parsed.config, parsed.exp_dir, parsed.resume, rest, methods)
    except KeyboardInterrupt:
        raise Stopped("stopped at once; a checkpoint that was saved before is whole", 128 + signal.SIGINT) from None


def sample(arguments: Sequence[str], *, prog: str = "vaes sample") -> None:
    """``vaes sample``."""
    parser = _Parser(prog=prog, description="Draw pictures with a trained model.")
    parser.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="a run folder, checkpoint folder or weights file"
    )
    parser.add_argument(
        "-c", "--config", help="the configuration that the weights belong to (they carry their own too)"
    )
    parser.add_argument("--weights", type=Path, help="the same as RUN")
    parser.add_argument("--mode", choices=MODES, default="sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n_samples", type=int, help="pictures, pairs or rows (default: 64, 32 or 8)")
    parser.add_argument("--save_dir", type=Path, help="where to (default: pictures/ in the run folder)")
    parser.add_argument("--batch_size", type=int, default=256, help="images at a time (default: 256)")
    parser.add_argument("--n_interpolate", type=int, default=10, help="pictures on each path (default: 10)")
    parser.add_argument("--n_traverse", type=int, default=9, help="pictures along each dimension (default: 9)")
    parser.add_argument("--traverse_range", type=float, default=3.0, help="walk from -R to R (default: 3)")
    parser.add_argument("--traverse_dim", type=int, help="one dimension, counted from 0 (default: all, by their KL)")
    parser.add_argument("--path", choices=("linear", "spherical"), default="linear", help="of interpolate")
    parser.add_argument(
        "--between", choices=("prior", "test"), default="prior", help="of interpolate: random or test codes"
    )
    parser.add_argument("--projection", choices=("pca", "tsne"), help="of visualize_latent, where z_dim is not 2")
    parser.epilog = "Keys of the data section can be given too: --data.root elsewhere"
    parsed, rest = parser.parse_known_args(arguments)
    where = parsed.run or parsed.weights
    if where is None or (parsed.run and parsed.weights):
        parser.error("give one of RUN and --weights")
    if _rank():
        return  # under a launcher of many processes the first one draws

    for name, modes in READ_BY.items():  # the origin's commands give some of them to every mode: no reason to stop
        if parsed.mode not in modes and getattr(parsed, name) != parser.get_default(name):
            terminal.note(f"warning: --{name} is for --mode {' or '.join(modes)}; {parsed.mode} ignores it")

    from vaes.commands import run_sample  # torch starts here

    names = (
        "n_samples",
        "seed",
        "batch_size",
        "n_interpolate",
        "n_traverse",
        "traverse_range",
        "traverse_dim",
        "path",
        "between",
        "projection",
    )
    if parsed.n_samples is None:
        parsed.n_samples = {"sample": 64, "reconstruct": 32}.get(parsed.mode, 8)
    options = {name: getattr(parsed, name) for name in names}
    run_sample(where, parsed.config, parsed.mode, parsed.save_dir, options, rest)


def evaluate(arguments: Sequence[str], *, prog: str = "vaes evaluate") -> None:
    """``vaes evaluate``."""
    parser = _Parser(prog=prog, description="Compute the metrics of a trained model; they go to evaluation.json.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, checkpoint folder or weights file")
    parser.add_argument(
        "--only",
        metavar="A,B",
        help="groups, of likelihood, ais, reconstruction, generation, disentanglement, latent, downstream "
        "(default: all but ais, annealed importance sampling, which takes minutes)",
    )
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test")
    parser.add_argument("--n_images", type=int, default=10_000, help="images and samples, at most (default: 10,000)")
    parser.add_argument("--iw_samples", type=int, default=100, help="K of the importance-weighted bound (default: 100)")
    parser.add_argument("--iw_images", type=int, default=500, help="images for that bound, at most (default: 500)")
    parser.add_argument("--ais_images", type=int, default=16, help="images for ais, at most (default: 16)")
    parser.add_argument("--ais_steps", type=int, default=500, help="temperatures of ais (default: 500)")
    parser.add_argument("--ais_chains", type=int, default=8, help="chains of ais for each image (default: 8)")
    parser.add_argument("--batch_size", type=int, default=500, help="images or codes at a time (default: 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--features",
        default="classifier",
        help="for sample quality: classifier (trained here on the labels, kept in the run folder), inception (needs "
        "torch-fidelity), pixels, or the classifier.safetensors of another run (default: classifier)",
    )
    parser.epilog = (
        "Keys of the data section can be given too (--data.root elsewhere), and a second source for outlier detection: "
        "--outliers.kind mnist --outliers.root ..."
    )
    parsed, rest = parser.parse_known_args(arguments)
    if _rank():
        return

    from vaes.commands import run_evaluate  # torch starts here

    names = ("n_images", "iw_samples", "iw_images", "ais_images", "ais_steps", "ais_chains", "batch_size")
    budget = {name: getattr(parsed, name) for name in names}
    only = None if parsed.only is None else [name for name in parsed.only.split(",") if name]
    run_evaluate(parsed.run, only, parsed.split, budget, parsed.seed, parsed.features, rest)


def compare(arguments: Sequence[str], *, prog: str = "vaes compare") -> None:
    """``vaes compare``."""
    parser = _Parser(
        prog=prog,
        description="Evaluated runs side by side; runs that differ in seed alone are pooled. "
        "Differences are from the first one.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, checkpoint folders, or one folder of runs"
    )
    parser.add_argument("--checkpoint", metavar="best|last|STEP", help="of every run (default: best, else the highest)")
    parser.add_argument("--format", choices=("table", "markdown", "csv", "latex"), default="table")
    parser.add_argument("--save_dir", type=Path, help="where comparison.json and the plot go (default: nowhere)")
    parsed = parser.parse_args(arguments)

    from vaes.commands import run_compare

    run_compare(parsed.runs, parsed.save_dir, parsed.format, parsed.checkpoint)
