"""Terms: what a method adds to its bound, one scalar for the whole batch."""

import abc
from typing import Literal

import torch
from torch import Tensor, nn

from vaes import functional as F
from vaes.model import Trace

__all__ = ["MMD", "Term"]


class Term(nn.Module, abc.ABC):
    """A regulariser; a module, because some have parameters of their own."""

    needs: frozenset[str]
    """Fields of the trace that must not be None."""
    unit: str = "nats per image"
    """Of its unweighted value; empty where it has none."""

    @abc.abstractmethod
    def forward(self, trace: Trace, prior_z: Tensor) -> Tensor:
        """The trace of a batch and as many codes drawn from the prior (B, D) -> the term, unweighted, a scalar."""


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

    needs: frozenset[str] = frozenset()
    unit = ""

    def __init__(self, *, kernel: Literal["median", "imq", "mean_scaled"] = "median", biased: bool = False) -> None:
        super().__init__()
        self.kernel, self.biased = kernel, biased

    def forward(self, trace: Trace, prior_z: Tensor) -> Tensor:
        """A scalar; over K importance samples, the mean."""
        return torch.stack([F.mmd(z, prior_z, self._kernel(z, prior_z), biased=self.biased) for z in trace.z]).mean()

    def _kernel(self, z: Tensor, prior_z: Tensor) -> F.Kernel:
        if self.kernel == "median":
            return F.gaussian_kernel(F.median_squared_distance(z, prior_z))
        if self.kernel == "imq":
            return F.imq_kernel(2.0 * z.shape[1])
        return F.mean_scaled_gaussian_kernel
