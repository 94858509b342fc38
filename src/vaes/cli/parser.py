"""Reading a command's arguments: options of its own, dotted keys beside them, and what was meant by what is neither."""

import argparse
import difflib
import math
import re
import shutil
import textwrap
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from vaes import terminal
from vaes.errors import UserError
from vaes.keys import Group, groups, hint, meant
from vaes.remote import fault

__all__ = [
    "MOST_IMAGES",
    "SECTIONS",
    "SEEDS",
    "Parser",
    "Read",
    "checkpoint",
    "device_and_imports",
    "imports",
    "keys_help",
    "number",
    "numbers",
    "of_a_run",
    "path",
    "path_or_url",
    "whole",
]

SECTIONS = ("seed", "method", "data", "model", "objective", "train")

SYNONYMS = {
    "n_samples": "n num num_samples count number samples",
    "n_images": "n num num_images n_samples num_samples count number samples",
    "exp_dir": "o name run",
    "save_dir": "out output output_dir out_dir o dir exp_dir outdir",
    "output": "out save_dir o out_file file output_dir",
    "batch_size": "bs batch",
    "device": "gpu gpus cuda cpu accelerator",
    "checkpoint": "ckpt step epoch",
    "weights": "model load",
    "only": "metrics metric groups",
    "traverse_dim": "dim dims",
    "traverse_range": "range",
    "n_interpolate": "steps n_steps",
    "images": "image input inputs",
    "format": "fmt",
    "kind": "type method",
    "components": "k n_components num_components clusters",
    "steps": "iterations iters n_steps max_iter",
}
"""What other programs call an option of a command that is not ``train``."""


MOST_IMAGES, SEEDS = 10_000_000, 2**63 - 1


class Read(NamedTuple):
    """A command line: its options, and the dotted keys with their values."""

    options: argparse.Namespace
    keys: list[str]

    def here(self) -> "Read":
        """The same, once the runs that are given by URL are on this machine."""
        for name in ("run", "runs", "weights"):
            if (value := getattr(self.options, name, None)) is not None:
                here = [_fetched(one) for one in value] if isinstance(value, list) else _fetched(value)
                setattr(self.options, name, here)
        return self


class Parser(argparse.ArgumentParser):
    """The parser of one command; ``sections`` are those whose keys it takes as ``--section.key VALUE``."""

    def __init__(self, *, sections: Sequence[str] = (), **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self.sections = tuple(sections)
        self.others: Callable[[], Mapping[str, Parser]] = dict  # the other commands, for what belongs to one of them
        self.appendix: Callable[[], str] = str  # what --help ends in, as it stands

    def read(self, arguments: Sequence[str]) -> Read:
        """Sort a command line. A value may begin with a minus sign, and operands may stand anywhere.

        Raises:
            UserError: an option that does not exist, with the one that was meant, or a value that is not right.
        """
        plain: list[str] = []
        keys: list[str] = []
        words = deque(arguments)
        while words:
            word = words.popleft()
            name, equals, _ = word.partition("=")
            if word == "--":
                plain += [word, *words]
                break
            if not re.match(r"-+[A-Za-z]", word):
                plain.append(word)
            elif name in self._option_string_actions:
                plain += self._option(word, equals, words)
            elif name.startswith("--") and self._is_key(name[2:]):
                keys.append(word)
                if not equals and words and not _is_option(words[0]):
                    keys.append(words.popleft())
            elif not (match := re.match(r"-[A-Za-z](?!-)", word)) or match[0] not in self._option_string_actions:
                raise self._unknown(name, words[0] if words and not equals else word[len(name) + 1 :])
            else:
                plain.append(word)  # -cFILE
        found, rest = self.parse_known_intermixed_args(plain)
        if rest:
            operand = getattr(found, "path", None)
            beside = f" beside {operand}: one PATH is taken" if isinstance(operand, Path) else ""
            self.error(f"{rest[0]}: a leftover argument{beside}; options are --key value or --key=value")
        return Read(found, keys)

    def _option(self, word: str, equals: str, words: deque[str]) -> list[str]:
        """An option with its value in one word, so that the value may begin with a minus sign."""
        action = self._option_string_actions[word.partition("=")[0]]
        taken = [word]
        if action.nargs is None and not equals and words and not _is_option(words[0]):
            value = words.popleft()
            taken = [f"{word}={value}"] if word.startswith("--") else [f"{action.option_strings[-1]}={value}"]
        while action.dest == "imports" and words and words[0].endswith(".py") and not _is_option(words[0]):
            taken.append(f"--import={words.popleft()}")
        return taken

    def _is_key(self, name: str) -> bool:
        section, dot, _ = name.partition(".")
        return (bool(dot) or section in SECTIONS) and section in self.sections

    def _unknown(self, name: str, value: str) -> UserError:
        bare = name.lstrip("-").lower().replace("-", "_")
        last = bare.rpartition(".")[2]
        own, keys = self._near(last), meant(bare)
        homes = [prog for prog, parser in self.others().items() if f"--{bare}" in parser._option_string_actions]
        start = f"unrecognized arguments: {name}"
        if "train" in self.sections and (keys or not (own or homes)):
            clause = hint("", name.lstrip("-"), SECTIONS, _number(value), dash="--")
            return UserError(f"{name}: unknown key: {clause or 'no key or option is near; '}see {self.prog} --help")
        if own:
            return UserError(f"{start}: did you mean {' or '.join(own)}? See {self.prog} --help")
        if homes:
            return UserError(f"{start}: it is an option of {', '.join(homes)}; see {self.prog} --help")
        if "data" in self.sections and (of_data := [key for key in keys if key.startswith("data.")]):
            return UserError(f"{start}: did you mean --{of_data[0]}? See {self.prog} --help")
        if keys:
            only = f"; only keys of {self.sections[0]} can be given here" if self.sections else ""
            return UserError(f"{start}: {keys[0].lstrip('-')} is for vaes train{only}; see {self.prog} --help")
        return UserError(f"{start}; see {self.prog} --help")

    def _near(self, last: str) -> list[str]:
        own = [name[2:] for name in self._option_string_actions if name.startswith("--") and name != "--help"]
        plain = {name.replace("_", ""): name for name in own}
        if exact := plain.get(last.replace("_", "")):
            return [f"--{exact}"]
        for name, said in SYNONYMS.items():
            if last in said.split() and name in own:
                return [f"--{name}"]
        for action in self._actions:
            if last in (action.choices or ()) and action.option_strings:
                return [f"{action.option_strings[-1]} {last}"]
        close = difflib.get_close_matches(last[:100], own, n=1, cutoff=0.6)
        begun = [name for name in own if len(last) > 1 and name.startswith(last)][:3]
        return [f"--{name}" for name in close or begun]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            near = difflib.get_close_matches(str(value)[:100], names, n=1, cutoff=0.5)
            clause = f"did you mean {near[0]}? " if near else ""
            raise argparse.ArgumentError(
                action, f"invalid choice: {terminal.brief(value)}: {clause}choose from {', '.join(names)}"
            )

    def format_help(self) -> str:
        """The help, with its appendix."""
        return f"{super().format_help()}{self.appendix()}"

    def _print_message(self, message: str, file: Any = None) -> None:
        terminal.say(message.rstrip("\n"))  # argparse's own drops it without a word where it cannot be written

    def error(self, message: str) -> NoReturn:
        """A UserError in place of usage and exit."""
        raise UserError(f"{message} (see {self.prog} --help)")


def _is_option(word: str) -> bool:
    return re.match(r"--?[A-Za-z]", word) is not None


def _fetched(where: Path | str) -> Path:
    """A path as it is, and a URL as the folder that it was fetched into, which is said."""
    if isinstance(where, Path):
        return where
    from vaes.train.fetch import fetch  # torch starts here

    found = fetch(where)
    terminal.note(f"{terminal.escape(where)}: fetched to {terminal.escape(found)}")
    return found


def _number(text: str) -> object:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else text


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option: a whole number within limits, which are checked before anything is done with it."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\s*[-+]?[0-9]{1,1000}\s*", text):
            raise argparse.ArgumentTypeError(f"{terminal.brief(text)} is not right; it must be a whole number")
        return _limited(int(text), least, most)

    return read


def number(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option: a number within limits, or ``above`` the lower one."""

    def read(text: str) -> float:
        try:
            value = float(text[:100])
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise argparse.ArgumentTypeError(f"{terminal.brief(text)} is not right; it must be a number")
        if above and value <= least:
            raise argparse.ArgumentTypeError(f"{value:g}; it must be above {least:g}")
        return _limited(value, least, most)

    return read


def _limited(value: Any, least: Any, most: Any) -> Any:
    if value < least:
        raise argparse.ArgumentTypeError(f"{terminal.brief(value)}; it must be at least {least:,}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{terminal.brief(value)}; it must be at most {most:,}")
    return value


def numbers(text: str) -> list[float]:
    """The type of an option: numbers with commas between them."""
    if text.count(",") >= 10_000:
        raise argparse.ArgumentTypeError("more than 10,000 numbers")
    return [number(-1e6, 1e6)(part) for part in text.split(",")]


def checkpoint(text: str) -> str:
    """The type of ``--checkpoint``: best, last or a step."""
    if text in ("best", "last") or re.fullmatch(r"[0-9]{1,12}", text):
        return text
    raise argparse.ArgumentTypeError(
        f"{terminal.brief(text)} is not right; it must be best, last or a step such as 2000"
    )


def keys_help() -> str:
    """Every key of a configuration with its type, default and meaning, as wide as the terminal, 100 columns at most."""
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join(line for group in groups() for line in _group_help(group, max(width, 40)))


def _group_help(group: Group, width: int) -> Iterator[str]:
    title = group.choice or group.section or "keys"
    if group.section == "schedule" and not group.choice:
        yield ""
        yield from textwrap.wrap(
            "SCHEDULES: where a number or a schedule is allowed, KEY.kind names one and its keys follow: "
            "--objective.beta.kind linear --objective.beta.start 0 --objective.beta.stop 1",
            width,
        )
    yield ""
    yield from textwrap.wrap(f"{title}: {group.about}" if group.about else f"{title}:", width)
    if not group.keys:
        yield "  no keys of its own"
    for key in group.keys:
        name = key.name.replace("schedule.", "KEY.", 1)
        default = "must be given" if key.default is None else f"default {key.default}"
        yield from _indented(f"--{name}  ({key.type}; {default})", width, "  ")
        yield from _indented(key.meaning, width, "      ")


def _indented(text: str, width: int, first: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * 6, break_on_hyphens=False)


def path(text: str) -> Path:
    """The type of an option: a path."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("an empty path")
    if "://" in text:
        raise argparse.ArgumentTypeError(
            "a URL, where a path on this machine is needed (train.mirror copies a run to one)"
        )
    return Path(text)


def path_or_url(text: str) -> Path | str:
    """The type of an argument that a run is given by: a path, or a URL as text."""
    if "://" not in text:
        return path(text)
    if found := fault(text):
        raise argparse.ArgumentTypeError(found)
    return text


def device_and_imports(parser: Parser) -> None:
    """The options that all commands with a model have."""
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="what computes (default: auto)"
    )
    imports(parser)


def imports(parser: Parser) -> None:
    """``--import``."""
    parser.add_argument(
        "--import",
        dest="imports",
        metavar="FILE",
        action="append",
        type=path,
        default=[],
        help="a Python file that registers networks of your own; it is run (may be given several times)",
    )


def of_a_run(parser: Parser, run: str | None = None, *, computes: bool = True) -> None:
    """RUN, which of its checkpoints, and what goes with it; ``computes``: on what device too."""
    parser.add_argument(
        "run",
        nargs=run,
        type=path_or_url,
        metavar="RUN",
        help="a run folder, checkpoint folder or weights file, or URL",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="best|last|STEP",
        type=checkpoint,
        help="of a run folder (default: best where there was a validation, else last)",
    )
    (device_and_imports if computes else imports)(parser)
