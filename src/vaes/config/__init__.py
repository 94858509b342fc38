"""Configuration: YAML and dotted overrides -> validated, resolved values -> parts.

The constructors' signatures are the schema. Library modules never import this package.
"""

from vaes.config.build import COMMON_DATA_KEYS, build_data, build_model, build_objective, build_settings, drawn
from vaes.config.load import (
    DEFAULTS,
    canonical,
    changed,
    load,
    of_first_format,
    of_method,
    of_weights,
    overrides,
    parse,
    read_file,
    to_arguments,
    to_yaml,
)
from vaes.config.own import OWN, import_file, register_network
from vaes.config.registry import DATA_OF_PYTHON
from vaes.config.resolve import Config, resolve

__all__ = [
    "COMMON_DATA_KEYS",
    "Config",
    "DATA_OF_PYTHON",
    "OWN",
    "DEFAULTS",
    "build_data",
    "build_model",
    "build_objective",
    "build_settings",
    "canonical",
    "changed",
    "drawn",
    "import_file",
    "load",
    "of_first_format",
    "of_method",
    "of_weights",
    "overrides",
    "parse",
    "read_file",
    "register_network",
    "resolve",
    "to_arguments",
    "to_yaml",
]
