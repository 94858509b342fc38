"""The command line. Nothing heavy is imported before it is known what is wanted."""

from vaes.cli.arguments import MODES, compare, evaluate, fit_prior, main, sample, train
from vaes.cli.encoding import encode
from vaes.cli.guard import guarded
from vaes.cli.listing import cache, config

__all__ = [
    "MODES",
    "cache",
    "compare",
    "config",
    "encode",
    "evaluate",
    "fit_prior",
    "guarded",
    "main",
    "sample",
    "train",
]
