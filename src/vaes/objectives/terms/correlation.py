"""The parts of the rate that a mini-batch can estimate: what the codes say of the images, and of each other."""

from typing import Literal

import torch
from torch import Tensor

from vaes.estimators import Aggregate, aggregate, stratified_log_weights, weighted_log_weights
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term

__all__ = ["MutualInformation", "TotalCorrelation"]

Estimator = Literal["weighted", "stratified"]


class _OfAggregate(Term):
    """What needs log q(z): the aggregate posterior, estimated from the batch and the number of training images.

    Over several processes the batch is a process's own.

    Args:
        estimator: ``stratified``, or ``weighted``, the paper's choice for its results.
    """

    needs = frozenset({"log_q", "mean", "logvar"})
    counts_images = True

    def __init__(self, *, estimator: Estimator = "weighted") -> None:
        super().__init__()
        self.estimator = estimator

    def _aggregates(self, trace: Trace, context: Context) -> list[Aggregate]:
        """log q(z) and its marginals, for each importance sample."""
        assert trace.mean is not None
        assert trace.logvar is not None
        if context.n < 1:
            raise ValueError(f"the number of training images is wanted in the context; got {context.n}")
        batch = len(trace.x)
        n = max(context.n, batch)  # a validation batch may be larger than a small training set
        shares = weighted_log_weights(batch, n) if self.estimator == "weighted" else stratified_log_weights(batch, n)
        mean, logvar = trace.mean.flatten(1), trace.logvar.flatten(1)
        return [aggregate(z, mean, logvar, shares) for z in trace.z.flatten(2)]


class TotalCorrelation(_OfAggregate):
    """``KL(q(z) || prod_j q(z_j)) = E [log q(z) - sum_j log q(z_j)]`` by mini-batch sampling: beside an ELBO with the
    whole rate, and weighed by beta - 1, it makes the loss of beta-TCVAE with alpha = gamma = 1.

    Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, https://arxiv.org/abs/1802.04942, equations 2 and
    4.

    Args:
        estimator: of log q: ``weighted``, as for the paper's results, or ``stratified``.
    """

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image; over K importance samples, the mean."""
        found = self._aggregates(trace, context)
        return torch.stack([(q.log_q - q.log_marginals.sum(1)).mean() for q in found]).mean()


class MutualInformation(_OfAggregate):
    """``I(x; z) = E [log q(z|x) - log q(z)]`` under the training images, by mini-batch sampling. The rate holds it
    once, so that a weight of -1 leaves it out of the loss, and one below would reward it.

    Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, https://arxiv.org/abs/1802.04942, equation 2.

    Args:
        estimator: of log q: ``weighted``, as for the paper's results, or ``stratified``.
    """

    lowest_weight = -1.0

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image; over K importance samples, the mean."""
        assert trace.log_q is not None
        found = self._aggregates(trace, context)
        return (trace.log_q - torch.stack([q.log_q for q in found])).mean()
