"""Terms that keep an autoencoder's codes and decoder smooth."""

import torch
from torch import Tensor

from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.randomness import Draw

__all__ = ["GradientPenalty", "LatentNorm"]


class LatentNorm(Term):
    """``E |z|^2 / 2``: what a standard normal prior says of a code, but for its constant.

    Ghosh et al., From Variational to Deterministic Autoencoders, 2020, https://arxiv.org/abs/1903.12436, equation 11.
    """

    compares = False

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        return 0.5 * trace.z.flatten(2).square().sum(-1).mean()


class GradientPenalty(Term):
    """``E |J|_F^2 / 2``, J being the Jacobian of the decoder's output at the code.

    Ghosh et al., From Variational to Deterministic Autoencoders, 2020, https://arxiv.org/abs/1903.12436, section 4
    (their released code takes the gradient of the outputs' sum). Here Hutchinson's unbiased estimate
    ``|J' v|^2``, v standard normal, one for each image and step; it takes a gradient of a gradient.

    Args:
        image_shape: (C, H, W).
    """

    needs = frozenset({"x_mean"})
    compares = False
    needs_gradient = True
    unit = ""

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """A direction in the space of images."""
        return Draw(self.image_shape)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        assert drawn.noise is not None
        assert trace.x_mean is not None
        along = (trace.x_mean * drawn.noise).sum()
        (found,) = torch.autograd.grad(along, trace.z, create_graph=torch.is_grad_enabled())
        return 0.5 * found.flatten(2).square().sum(-1).mean()
