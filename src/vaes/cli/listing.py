"""The commands that tell of what there is, without a run: configurations, methods, the cache."""

from collections.abc import Sequence

from vaes.cli.arguments import command
from vaes.cli.parser import Parser

__all__ = ["PARSERS", "cache", "config", "methods"]


def _config() -> Parser:
    parser = command(
        "vaes config",
        description="A configuration to start from, every key said; without NAME, what there is.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method, or a shipped configuration")
    return parser


def config(arguments: Sequence[str]) -> None:
    """``vaes config``."""
    found = _config().read(arguments).options

    from vaes.commands import run_config

    run_config(found.name)


def _methods() -> Parser:
    parser = command(
        "vaes methods",
        description="The methods by their papers; with NAME its parts, equation, reference and a configuration.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method")
    return parser


def methods(arguments: Sequence[str]) -> None:
    """``vaes methods``."""
    found = _methods().read(arguments).options

    from vaes.commands import run_methods

    run_methods(found.name)


def _cache() -> Parser:
    parser = command("vaes cache", description="The images that were decoded before: where they are, and how large.")
    parser.add_argument("--empty", action="store_true", help="delete them; they are decoded again when needed")
    return parser


def cache(arguments: Sequence[str]) -> None:
    """``vaes cache``."""
    found = _cache().read(arguments).options

    from vaes.commands import run_cache

    run_cache(found.empty)


PARSERS = (_config, _methods, _cache)
