"""What is minimised: a bound on the evidence plus weighted terms, in nats per image."""

from vaes.objectives.bounds import ELBO, IWAE, Bound, Reconstruction
from vaes.objectives.context import Context, Drawn, Noise
from vaes.objectives.objective import Objective
from vaes.objectives.terms import MMD, Term

__all__ = ["ELBO", "IWAE", "MMD", "Bound", "Context", "Drawn", "Noise", "Objective", "Reconstruction", "Term"]
