"""Distances between the codes of a batch and draws from the prior."""

from typing import Literal

import torch
from torch import Tensor

from vaes import functional as F
from vaes.estimators import sliced_wasserstein
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.randomness import Draw

__all__ = ["MMD", "SlicedWasserstein"]


class MMD(Term):
    """Squared maximum mean discrepancy between the batch's codes and as many draws from the prior. Dimensionless.

    Over several processes each compares its own share of the batch with its own draws.

    Args:
        kernel: ``median``, a Gaussian whose squared bandwidth is the median squared distance in the pooled batch;
        ``imq``, the inverse multiquadric over
            several scales around 2 D; ``mean_scaled``, ``exp(-|x - y|^2 / D^2)``. The first two see differences of
            shape in any dimension; the last, used by the first MMD-VAE codes, is nearly flat beyond a few dimensions
            (see :func:`vaes.functional.mean_scaled_gaussian_kernel`) and is here to reproduce them.
        biased: the V-statistic, diagonals included, instead of the unbiased U-statistic. Its gradient differs by the
        factor (B - 1) / B on like pairs.

    Zhao, Song & Ermon, InfoVAE, 2017, https://arxiv.org/abs/1706.02262, section 3.2.
    """

    unit = ""
    trains_prior = True

    def __init__(self, *, kernel: Literal["median", "imq", "mean_scaled"] = "median", biased: bool = False) -> None:
        super().__init__()
        self.kernel, self.biased = kernel, biased

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        prior_z = drawn.prior_z.flatten(1)
        return torch.stack(
            [F.mmd(z, prior_z, self._kernel(z, prior_z), biased=self.biased) for z in trace.z.flatten(2)]
        ).mean()

    def _kernel(self, z: Tensor, prior_z: Tensor) -> F.Kernel:
        if self.kernel == "median":
            return F.gaussian_kernel(F.median_squared_distance(z, prior_z))
        if self.kernel == "imq":
            return F.imq_kernel(2.0 * z.shape[1])
        return F.mean_scaled_gaussian_kernel


class SlicedWasserstein(Term):
    """The squared 2-Wasserstein distance between codes and as many draws from the prior, along random lines: the mean
    over lines of the mean squared difference of the sorted projections.

    Kolouri et al., Sliced-Wasserstein Autoencoder, 2018, https://arxiv.org/abs/1804.01947, equation 15. Over several
    processes each sorts its own.

    Args:
        z_shape: of a code.
        projections: how many lines, other ones at every step.
    """

    unit = ""
    trains_prior = True

    def __init__(self, z_shape: tuple[int, ...], *, projections: int = 50) -> None:
        super().__init__()
        if projections < 1:
            raise ValueError(f"projections must be at least 1, got {projections}")
        self.projections = projections

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """Directions, the same for all images."""
        return Draw((self.projections, Draw(z_shape).size), shared=True)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        assert drawn.noise is not None
        prior_z = drawn.prior_z.flatten(1)
        return torch.stack([sliced_wasserstein(z, prior_z, drawn.noise) for z in trace.z.flatten(2)]).mean()
