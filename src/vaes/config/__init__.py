"""Configuration: YAML and dotted overrides -> validated, resolved values -> parts.

The constructors' signatures are the schema. Library modules never import this package.
"""

from vaes.config.build import build_data, build_model, build_objective, build_settings
from vaes.config.load import DEFAULTS, load, parse, read_file, to_yaml
from vaes.config.resolve import Config, resolve

__all__ = [
    "DEFAULTS",
    "Config",
    "build_data",
    "build_model",
    "build_objective",
    "build_settings",
    "load",
    "parse",
    "read_file",
    "resolve",
    "to_yaml",
]
