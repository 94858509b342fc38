"""Terms: what a method adds to its bound, one scalar for the whole batch."""

from vaes.objectives.terms.base import Term
from vaes.objectives.terms.discrepancy import MMD

__all__ = ["MMD", "Term"]
