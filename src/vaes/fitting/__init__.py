"""Priors that are fitted to the codes of a trained model, and stored beside its weights."""

from vaes.fitting.codes import Codes, draw_codes
from vaes.fitting.indices import Indices, draw_indices, fit_indices
from vaes.fitting.kinds import KINDS, Fitted, Numbers, check_options, fit
from vaes.fitting.matching import fit_matching
from vaes.fitting.store import choose, chosen, file_of, find, read, write
from vaes.fitting.whole import check, fit_to

__all__ = [
    "KINDS",
    "Codes",
    "Fitted",
    "Indices",
    "Numbers",
    "check",
    "check_options",
    "choose",
    "chosen",
    "draw_codes",
    "draw_indices",
    "file_of",
    "find",
    "fit",
    "fit_indices",
    "fit_matching",
    "fit_to",
    "read",
    "write",
]
