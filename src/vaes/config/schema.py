"""A signature as a schema: keyword-only parameters are keys, their annotations types, their defaults defaults.

Positional parameters are what the program wires (an image's shape, the length of the training); they are no keys.
"""

import difflib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic

from vaes.errors import UserError
from vaes.keys import hint
from vaes.schedules import Schedule
from vaes.terminal import brief, escape

__all__ = ["check_keys", "keys", "unknown", "validate"]

Part = Callable[..., Any]


def keys(part: Part) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a constructor or function, by name."""
    parameters = inspect.signature(part).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def unknown(what: str, name: object, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not among the allowed ones, with the nearest spelling."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}? " if near else ""
    return UserError(f"{what}: {meant}allowed: {', '.join(names) or 'none'}")


def check_keys(path: str, values: object, allowed: Iterable[str]) -> dict[str, Any]:
    """The values as a dict, if it is one and holds allowed keys alone; else UserError naming the dotted key."""
    if not isinstance(values, Mapping):
        raise UserError(
            f"{path or 'configuration'}: {brief(values)} is not a group of keys; allowed: {', '.join(sorted(allowed))}"
        )
    names = set(allowed)
    for key in values:
        if key not in names:
            name, meant = dotted(path, escape(str(key)[:80])), hint(path, key, names, values[key])
            raise UserError(f"{name}: unknown key: {meant}allowed: {', '.join(sorted(names)) or 'none'}")
    return dict(values)


def dotted(path: str, key: object) -> str:
    """The key below the path."""
    return f"{path}.{key}" if path else str(key)


def validate(path: str, part: Part, values: object) -> dict[str, Any]:
    """The keyword arguments for ``part`` that the values give, defaults filled in, as plain numbers, texts, lists and
    dicts.

    Raises:
        UserError: an unknown key, a missing one, or a value of the wrong type, with its dotted path.
    """
    parameters = keys(part)
    given = check_keys(path, values, parameters)
    resolved = {}
    for name, parameter in parameters.items():
        if name in given:
            resolved[name] = _checked(dotted(path, name), parameter.annotation, given[name])
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(f"{dotted(path, name)}: missing; it must be {describe(parameter.annotation)}")
        else:
            resolved[name] = parameter.default
    return resolved


def _checked(path: str, annotation: Any, value: object) -> Any:
    if isinstance(value, Mapping) and takes_schedule(annotation):
        return dict(value)  # its keys are checked where schedules are known
    adapter = pydantic.TypeAdapter(_plain(annotation), config=pydantic.ConfigDict(strict=True, allow_inf_nan=False))
    try:
        found = adapter.validate_python(_tuples(value))
        if any(abs(number) >= 2**63 for number in _whole_numbers(found)):
            raise UserError(f"{path}: {brief(_plain_value(value))} is absurd; whole numbers are below 2^63")
        return found
    except pydantic.ValidationError:
        raise UserError(
            f"{path}: {brief(_plain_value(value))} is not right; it must be {describe(annotation)}"
        ) from None


def takes_schedule(annotation: Any) -> bool:
    """Whether a parameter may be a schedule."""
    return annotation is Schedule or any(takes_schedule(arg) for arg in get_args(annotation))


def _plain(annotation: Any) -> Any:
    """The annotation without its schedules: what a plain value must be."""
    if get_origin(annotation) is Annotated:
        return get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(arg for arg in get_args(annotation) if arg is not Schedule)]  # noqa: UP007
    return annotation


def _whole_numbers(value: object) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _whole_numbers(item)


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _plain_value(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def describe(annotation: Any) -> str:
    """An annotation in words.

    >>> describe(int | tuple[int, int] | None)
    'a whole number, or a list of 2 whole numbers, or null'
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if annotation is Schedule:
        return "a schedule ({kind: ...})"
    if origin is Annotated:
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is tuple:
        kinds = [arg for arg in args if arg is not Ellipsis]
        count = "" if Ellipsis in args else f"{len(kinds)} "
        if get_origin(kinds[0]) is Literal:
            names = get_args(kinds[0])
            return f"a list ([{names[0]}], say) of {count}{', '.join(map(str, names))}"
        return f"a list of {count}{_WORDS[kinds[0]].removeprefix('a ')}s"
    return ", or ".join(describe(arg) for arg in args)
