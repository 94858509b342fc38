"""What is minimised: a bound on the evidence plus weighted terms, in nats per image."""

from vaes.objectives import terms
from vaes.objectives.bounds import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Bound, Reconstruction
from vaes.objectives.context import Context, Drawn, Noise
from vaes.objectives.objective import Objective
from vaes.objectives.terms import MMD, Term

__all__ = [
    "CIWAE",
    "ELBO",
    "IWAE",
    "MIWAE",
    "MMD",
    "PIWAE",
    "Bound",
    "Context",
    "Drawn",
    "Noise",
    "Objective",
    "Reconstruction",
    "Term",
    "terms",
]
