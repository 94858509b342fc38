"""What is minimised: a bound on the evidence plus weighted terms, in nats per image."""

from vaes.objectives.bounds import ELBO, IWAE, Bound, Reconstruction
from vaes.objectives.objective import Noise, Objective
from vaes.objectives.terms import MMD, Term

__all__ = ["ELBO", "IWAE", "MMD", "Bound", "Noise", "Objective", "Reconstruction", "Term"]
