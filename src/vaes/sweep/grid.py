"""Which members a sweep has: every combination of the values of a grid, by every seed, each with a name."""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vaes import config as configuration
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.terminal import brief, escape

__all__ = ["Member", "changed", "checked_grid", "members", "named", "parse_grid", "split_values"]

MOST = 10_000
"""Members of one sweep."""

LONGEST_VALUE, LONGEST_NAME = 40, 180


class Member(NamedTuple):
    """One run of a sweep."""

    name: str
    experiment: Experiment
    changes: dict[str, Any]
    """Dotted keys in which it differs from the sweep's experiment, the seed among them."""


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """``KEY=A,B`` texts as a grid; values are read as those of ``--KEY VALUE`` are.

    Raises:
        UserError: no such text, a key twice, or the same value twice.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key = key.strip().removeprefix("--")
        if not equals or not key or not values.strip():
            raise UserError(f"--grid {escape(text[:80])}: not KEY=A,B such as objective.beta=1,4,16")
        pairs = [configuration.overrides([f"--{key}={part}"])[0] for part in split_values(values)]
        name = configuration.canonical(key, pairs[0][1])[0]
        if name in found:
            raise UserError(f"--grid {escape(key[:80])}: two grids over {name}; put all its values into one")
        found[name] = [value for _, value in pairs]
    return checked_grid(found)


def split_values(text: str) -> list[str]:
    """The parts of a text between commas, but for commas inside brackets, braces and quotation marks.

    >>> split_values("[256,128],[64],'a,b'")
    ['[256,128]', '[64]', "'a,b'"]
    """
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not parts[-1].strip():
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def checked_grid(grid: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A grid with lists of values by canonical dotted keys.

    Raises:
        UserError: naming the key, and what is wrong with its values.
    """
    if not isinstance(grid, Mapping):
        raise UserError(f"grid: {brief(grid)} is not a group of keys with lists, such as {{objective.beta: [1, 4]}}")
    found: dict[str, list[Any]] = {}
    for key, given in grid.items():
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise UserError(f"grid: {escape(str(key)[:80])}: {brief(given)} is not a list of values")
        values = list(given)
        if not values:
            raise UserError(f"grid: {escape(str(key)[:80])}: no values; give one or more")
        for i, value in enumerate(values):
            if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in values[:i]):
                raise UserError(f"grid: {escape(str(key)[:80])}: {brief(value)} is there twice")
        name = configuration.canonical(str(key), values[0])[0]
        if name in found:
            raise UserError(f"grid: two grids over {name}; put all its values into one")
        found[name] = values
    return found


def members(
    base: Experiment, grid: Mapping[str, Sequence[Any]], seeds: int | Sequence[int] | None
) -> tuple[list[Member], list[str]]:
    """All members in the order of the grid, the seed changing fastest, and what has to be said of them.

    A key that one method (or one kind of a part) lacks and another has is left out where it is lacking.

    Raises:
        UserError: naming the key that does not exist or the value that is not right.
    """
    grid = dict(grid)
    if "seed" in grid and seeds is not None:
        raise UserError("seed: two grids over it, --seeds and --grid seed=...; drop one")
    of_seeds = grid.pop("seed", None) or _seeds(base, seeds)
    if (n := math.prod(map(len, grid.values())) * len(of_seeds)) > MOST:
        raise UserError(f"grid: {n:,} members; a sweep has at most {MOST:,}")
    chooses = any(key == "method" or key.endswith(".kind") for key in grid)
    found: dict[Experiment, dict[str, Any]] = {}
    lacking: dict[str, UserError] = {}
    for values in itertools.product(*grid.values()):
        changes = dict(zip(grid, values, strict=True))
        experiment = changed(base, changes, lacking if chooses else None)
        for seed in of_seeds:
            found.setdefault(changed(experiment, {"seed": seed}, None), {**changes, "seed": seed})
    for key, error in lacking.items():
        if not any(key in changes for changes in found.values()):
            raise error
    short = _short([*grid, "seed"])
    notes = [f"{key} is left out of the members whose method or kind has no such key" for key in lacking]
    return [Member(named(changes, short), experiment, changes) for experiment, changes in found.items()], notes


def changed(base: Experiment, changes: dict[str, Any], lacking: dict[str, UserError] | None) -> Experiment:
    """The experiment with the changes; a key that it lacks is taken out of them, where ``lacking`` is there for it."""
    while True:
        try:
            return base.replace(changes)
        except UserError as error:
            unknown = [key for key in changes if str(error).startswith(f"{key}: unknown key")]
            if lacking is not None and unknown:
                lacking.setdefault(unknown[0], error)
                del changes[unknown[0]]
                continue
            if len(changes) < 2 or any(str(error).startswith((f"{key}:", f"{key}.")) for key in changes):
                raise
            said = ", ".join(f"{key} {value}" for key, value in changes.items())
            raise UserError(f"with {escape(said)}: {error}") from None


def _seeds(base: Experiment, seeds: int | Sequence[int] | None) -> list[int]:
    if seeds is None or isinstance(seeds, int):
        count = 1 if seeds is None else seeds
        if isinstance(seeds, bool) or not 1 <= count <= MOST:
            raise UserError(f"seeds: {brief(seeds)} is not right; it must be a whole number from 1 to {MOST:,}")
        return [base.seed + i for i in range(count)]
    return list(checked_grid({"seed": seeds})["seed"])


def _short(keys: Sequence[str]) -> dict[str, str]:
    """The fewest last parts of each key that no other has; a part's kind goes by the part."""
    parts = {key: (key.removesuffix(".kind") or key).split(".") for key in keys}
    return {
        key: next(
            ".".join(own[-n:])
            for n in range(1, len(own) + 1)
            if n == len(own) or all(other[-n:] != own[-n:] for name, other in parts.items() if name != key)
        )
        for key, own in parts.items()
    }


def named(changes: Mapping[str, Any], short: Mapping[str, str] | None = None) -> str:
    """The name of a member, which is that of its folder too.

    >>> named({"objective.beta": 4, "model.network.hidden": [256, 128], "seed": 0})
    'beta=4,hidden=256x128,seed=0'
    """
    short = _short(list(changes)) if short is None else short
    name = ",".join(f"{short[key]}={_word(value)}" for key, value in changes.items())
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}-{_hash(name)}"


def _word(value: Any) -> str:
    text = "x".join(_leaves(value)) if isinstance(value, list | tuple) else "".join(_leaves(value))
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", text)
    if plain == text and len(text) <= LONGEST_VALUE and not isinstance(value, Mapping):
        return text
    return f"{plain[:LONGEST_VALUE]}-{_hash(json.dumps(value, sort_keys=True, default=str))}"


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield str(value.get("kind", "keys"))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, bool) or value is None:
        yield {True: "true", False: "false", None: "null"}[value]
    else:
        yield str(value)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]
