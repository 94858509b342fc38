"""Uniform priors over classes, alone and beside numbers."""

import math

import torch
from torch import Tensor

from vaes.distributions import Joint as GivenX
from vaes.distributions import kl_joint
from vaes.functional import log_normal
from vaes.posteriors import Latent, corners, equal_variables, unequal_variables, words
from vaes.priors.base import Encode, Prior

__all__ = ["Categorical", "Joint"]


class _WithClasses(Prior):
    """N(0, I) over the first numbers of a code, and uniform one-hot vectors after them."""

    def __init__(self, z_shape: int | tuple[int, ...], numbers: int, variables: tuple[int, ...]) -> None:
        super().__init__(z_shape)
        self.numbers, self.variables = numbers, variables

    @property
    def support(self) -> str:
        """Numbers, if any, then one-hot vectors."""
        return words(self.variables, self.numbers)

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., D) -> (...), in nats: of a corner its log-mass, of what lies between the same."""
        zero = torch.zeros((), dtype=z.dtype, device=z.device)
        return log_normal(z[..., : self.numbers], zero, zero).sum(-1) - sum(map(math.log, self.variables))

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Standard normal noise (N, D) -> codes: the largest of a variable's numbers is its class."""
        return self.project(noise)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """0, and the first class of each variable: all classes are alike, and their mean is none."""
        return torch.cat([torch.zeros(self.numbers), corners(torch.zeros(sum(self.variables)), self.variables)])

    def project(self, z: Tensor) -> Tensor:
        """z (..., D) -> its numbers, and of each variable the class that has most."""
        numbers, scores = z.tensor_split([self.numbers], -1)
        return torch.cat([numbers, corners(scores, self.variables)], -1)

    def kl(self, latent: Latent) -> Tensor | None:
        """The closed form (B, D), a variable's in even shares."""
        if "logits" not in latent.aux:
            return None
        logits = latent.aux["logits"]
        mean, logvar = latent.aux.get("gaussian", logits[:, :0]).tensor_split(2, -1)
        of_numbers, of_variables = kl_joint(GivenX(mean, logvar, logits.split(self.variables, -1)))
        shares = [kl[:, None].expand(-1, c) / c for kl, c in zip(of_variables.unbind(-1), self.variables, strict=True)]
        return torch.cat([of_numbers, *shares], -1)


class Categorical(_WithClasses):
    """p(z) of independent one-hot vectors, every class as likely as another.

    Args:
        z_shape: of a code.
        classes: of each variable, of which there are z_dim / classes; null is the most up to 10 that divide z_dim.
    """

    partner = "relaxed_categorical of the same classes"

    def __init__(self, z_shape: int | tuple[int, ...], *, classes: int | None = None) -> None:
        shape = (z_shape,) if isinstance(z_shape, int) else z_shape
        super().__init__(shape, 0, equal_variables(shape, classes))


class Joint(_WithClasses):
    """p(z) = N(0, I) over numbers, beside independent one-hot vectors, every class as likely as another.

    Args:
        z_shape: of a code.
        classes: of each variable; null is one variable that takes half of z_dim.
    """

    partner = "joint of the same classes"

    def __init__(self, z_shape: int | tuple[int, ...], *, classes: tuple[int, ...] | None = None) -> None:
        shape = (z_shape,) if isinstance(z_shape, int) else z_shape
        variables = unequal_variables(shape, classes)
        super().__init__(shape, shape[0] - sum(variables), variables)
