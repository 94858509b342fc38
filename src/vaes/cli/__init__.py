"""The command line. Nothing heavy is imported before it is known what is wanted."""

from vaes.cli.arguments import MODES, compare, encode, evaluate, main, sample, train
from vaes.cli.guard import guarded
from vaes.cli.listing import cache, config

__all__ = ["MODES", "cache", "compare", "config", "encode", "evaluate", "guarded", "main", "sample", "train"]
