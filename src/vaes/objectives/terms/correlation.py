"""The parts of the rate that a mini-batch can estimate: what the codes say of the images, and of each other."""

import math
from typing import Literal

import torch
from torch import Tensor

from vaes import functional as F
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term

__all__ = ["MutualInformation", "TotalCorrelation", "log_shares"]

Estimator = Literal["weighted", "stratified"]


def log_shares(estimator: Estimator, images: int, n: int, like: Tensor) -> Tensor:
    """Log-weights (B, B) of ``q(z_i) ~ sum_j w_ij q(z_i|x_j)``, z_i drawn from q(z|x_i), x_j the batch out of n images.

    ``weighted``: 1 / (n B), biased. ``stratified``, with M = B - 1 others: 1/n for the image itself, (n - M) / (n M)
    for one of the others, and 1/M for the rest, unbiased.

    Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, https://arxiv.org/abs/1802.04942, appendices C.1
    and C.2.
    """
    if n < images:
        raise ValueError(f"the number of training images is wanted in the context, at least a batch; got {n}")
    if estimator == "weighted":
        return like.new_full((images, images), -math.log(n * images))
    if images < 2:
        raise ValueError("the stratified estimator needs a batch of 2 images or more")
    others = images - 1
    place = torch.arange(images, device=like.device)
    distance = (place[None] - place[:, None]) % images
    shares = like.new_full((images, images), -math.log(others))
    shares = torch.where(distance == 0, -math.log(n), shares)
    return torch.where(distance == 1, math.log((n - others) / (n * others)), shares)


class _OfAggregate(Term):
    """What needs log q(z): the aggregate posterior, estimated from the batch and the number of training images.

    Over several processes the batch is a process's own.

    Args:
        estimator: ``stratified``, or ``weighted``, the paper's choice for its results.
    """

    needs = frozenset({"log_q", "mean", "logvar"})

    def __init__(self, *, estimator: Estimator = "weighted") -> None:
        super().__init__()
        self.estimator = estimator

    def _each(self, trace: Trace, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert trace.mean is not None
        assert trace.logvar is not None
        shares = log_shares(self.estimator, len(trace.x), context.n, trace.mean)
        return trace.z.flatten(2), trace.mean.flatten(1), trace.logvar.flatten(1), shares


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
        codes, mean, logvar, shares = self._each(trace, context)
        found = []
        for z in codes:
            joint = torch.logsumexp(shares + F.log_normal_pairs(z, mean, logvar), 1)
            found.append((joint - F.log_mixtures(z, mean, logvar, shares).sum(1)).mean())
        return torch.stack(found).mean()


class MutualInformation(_OfAggregate):
    """``I(x; z) = E [log q(z|x) - log q(z)]`` under the training images, by mini-batch sampling. A negative weight
    would reward it.

    Chen et al., Isolating Sources of Disentanglement in VAEs, 2018, https://arxiv.org/abs/1802.04942, equation 2.

    Args:
        estimator: of log q: ``weighted``, as for the paper's results, or ``stratified``.
    """

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image; over K importance samples, the mean."""
        assert trace.log_q is not None
        codes, mean, logvar, shares = self._each(trace, context)
        joint = [torch.logsumexp(shares + F.log_normal_pairs(z, mean, logvar), 1) for z in codes]
        return (trace.log_q - torch.stack(joint)).mean()
