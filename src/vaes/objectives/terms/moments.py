"""Terms of the codes' covariance."""

from typing import Literal

from torch import Tensor

from vaes.estimators import dip_penalties, latent_covariance
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.schedules import Scheduled

__all__ = ["DIP"]


class DIP(Term):
    """``sum_{i != j} C_ij^2 + diagonal * sum_i (C_ii - 1)^2``, C being the covariance of the codes: an aggregate
    posterior whose dimensions do not go together. The weight is the paper's lambda_od, ``diagonal`` its lambda_d /
    lambda_od.

    Kumar, Sattigeri & Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations, 2018, https://arxiv.org/abs/1711.00848, equations 6 (I) and 7 (II). C is over the batch, divided by
    B - 1.

    Args:
        covariance: of the ``mean`` codes (DIP-VAE-I), or of ``samples``, E Var[z|x] + Cov E[z|x] (DIP-VAE-II).
        diagonal: weight of the diagonal over that of the rest.
    """

    needs = frozenset({"mean", "logvar"})
    unit = ""

    def __init__(self, *, covariance: Literal["mean", "samples"] = "mean", diagonal: Scheduled = 10.0) -> None:
        super().__init__()
        if diagonal < 0:
            raise ValueError(f"diagonal must be 0 or more, got {diagonal}")
        self.covariance, self.diagonal = covariance, diagonal

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar."""
        assert trace.mean is not None
        assert trace.logvar is not None
        logvar = trace.logvar.flatten(1) if self.covariance == "samples" else None
        off, diagonal = dip_penalties(latent_covariance(trace.mean.flatten(1), logvar))
        return off + context.own.get("diagonal", self.diagonal) * diagonal
