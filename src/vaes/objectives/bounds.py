"""Bounds: the part of an objective that every image has to itself."""

import abc

from torch import Tensor

from vaes.functional import log_mean_exp
from vaes.model import Trace
from vaes.objectives.context import Context

__all__ = ["ELBO", "IWAE", "Bound", "Reconstruction"]


class Bound(abc.ABC):
    """A loss per image from one pass of the model."""

    needs: frozenset[str]
    """Fields of the trace that must not be None."""
    weights: frozenset[str]
    """Names of the weights that it takes."""
    samples: int = 1
    """K, the importance samples that it wants of each image."""

    @abc.abstractmethod
    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """The loss of each image (B,), in nats."""


class ELBO(Bound):
    """``distortion + weights['rate'] * rate``: the negative evidence lower bound where the weight is 1, beta-VAE's
    where it is beta.

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, equation 3.
    Higgins et al., beta-VAE, 2017, https://openreview.net/forum?id=Sy2fzU9gl, equation 4.

    Args:
        samples: of q(z|x) for each image; the distortion is their mean.
    """

    needs = frozenset({"rate"})
    weights = frozenset({"rate"})

    def __init__(self, *, samples: int = 1) -> None:
        self.samples = _at_least_one(samples)

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.rate is not None
        return context.weights["rate"] * trace.rate - trace.log_px.mean(0)


class Reconstruction(Bound):
    """The distortion ``-log p(x|z)`` alone: an autoencoder's loss."""

    needs: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        return -trace.log_px.mean(0)


class IWAE(Bound):
    """The negative importance-weighted bound ``-log (1/K) sum_k p(x, z_k) / q(z_k|x)``, z_k drawn from q(z|x).

    At K = 1 the ELBO with its rate by Monte Carlo; tighter the larger K. Its gradient weighs the samples by their share
    of the sum.

    Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519, equations 8
    and 13.

    Args:
        samples: K.
    """

    needs = frozenset({"log_q"})
    weights: frozenset[str] = frozenset()

    def __init__(self, *, samples: int = 5) -> None:
        self.samples = _at_least_one(samples)

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.log_q is not None
        return -log_mean_exp(trace.log_px + trace.log_pz - trace.log_q, 0)


def _at_least_one(samples: int) -> int:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    return samples
