"""Bounds: the part of an objective that every image has to itself."""

import abc
from typing import Literal

import torch
from torch import Tensor

from vaes.functional import log_mean_exp
from vaes.model import Trace
from vaes.objectives.context import Context
from vaes.schedules import Scheduled

__all__ = ["CIWAE", "ELBO", "IWAE", "MIWAE", "PIWAE", "Bound", "Reconstruction"]


class Bound(abc.ABC):
    """A loss per image from one pass of the model."""

    needs: frozenset[str]
    """Fields of the trace that must not be None."""
    weights: frozenset[str]
    """Names of the weights that it takes."""
    samples: int = 1
    """K, the importance samples that it wants of each image."""
    trains_prior: bool = True
    """Whether it holds log p(z), which a prior with parameters learns from."""

    @abc.abstractmethod
    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """The loss of each image (B,), in nats."""

    def parts(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        """What that is the sum of, each (B,)."""
        return {"bound": self(trace, context)}


class ELBO(Bound):
    """``distortion + weights['rate'] * rate``: the negative evidence lower bound where the weight is 1, beta-VAE's
    where it is beta. A row may weigh the distortion too (``weights['distortion']``, else 1).

    Kingma & Welling, Auto-Encoding Variational Bayes, 2013, https://arxiv.org/abs/1312.6114, equation 3.
    Higgins et al., beta-VAE, 2017, https://openreview.net/forum?id=Sy2fzU9gl, equation 4.

    Args:
        samples: of q(z|x) for each image; the distortion is their mean.
    """

    needs = frozenset({"rate"})
    weights = frozenset({"rate", "distortion"})

    def __init__(self, *, samples: int = 1) -> None:
        self.samples = _at_least_one(samples)

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.rate is not None
        distortion = context.weights.get("distortion", 1.0)
        return context.weights["rate"] * trace.rate - distortion * trace.log_px.mean(0)

    def parts(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        """Distortion and rate."""
        assert trace.rate is not None
        distortion = context.weights.get("distortion", 1.0)
        return {"distortion": -distortion * trace.log_px.mean(0), "rate": context.weights["rate"] * trace.rate}


class Reconstruction(Bound):
    """The distortion ``-log p(x|z)`` alone: an autoencoder's loss."""

    needs: frozenset[str] = frozenset()
    trains_prior = False
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

    The other gradients differ for the encoder alone, and have less noise: ``stl`` leaves the score of q out, which is
    biased for K > 1; ``dreg``, with the plain one's mean, puts the squares of the shares in its place. Roeder, Wu &
    Duvenaud, Sticking the Landing, 2017,
    https://arxiv.org/abs/1703.09194, equation 8; Tucker et al., Doubly Reparameterized Gradient Estimators, 2019,
    https://arxiv.org/abs/1810.04152, equation 8.

    Args:
        samples: K.
        gradient: ``plain``, ``stl`` or ``dreg``.
    """

    weights: frozenset[str] = frozenset()

    def __init__(self, *, samples: int = 5, gradient: Literal["plain", "stl", "dreg"] = "plain") -> None:
        self.samples, self.gradient = _at_least_one(samples), gradient
        self.needs = frozenset({"log_q"} if gradient == "plain" else {"log_q", "log_q_stopped"})

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.log_q is not None
        value = log_mean_exp(_log_weights(trace), 0)
        if self.gradient == "plain":
            return -value
        assert trace.log_q_stopped is not None
        share = torch.softmax(_log_weights(trace).detach(), 0)
        of_encoder = share if self.gradient == "stl" else share.square()
        return -_with_gradient(value, trace, share, of_encoder, trace.log_q_stopped)


class MIWAE(Bound):
    """The mean of ``groups`` importance-weighted bounds of ``samples`` samples each: looser than one of them all, with
    a stronger signal for the encoder.

    Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018, https://arxiv.org/abs/1802.04537,
    section 5.1.

    Args:
        samples: K, of each group.
        groups: M.
    """

    needs = frozenset({"log_q"})
    weights: frozenset[str] = frozenset()

    def __init__(self, *, samples: int = 8, groups: int = 8) -> None:
        self.samples = _at_least_one(samples) * _at_least_one(groups, "groups")
        self.groups = groups

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        return -log_mean_exp(_log_weights(trace).unflatten(0, (self.groups, -1)), 1).mean(0)


class PIWAE(MIWAE):
    """The importance-weighted bound of all samples, whose gradient trains decoder and prior, while the encoder is
    trained by MIWAE's. Its value is the former's.

    Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018, https://arxiv.org/abs/1802.04537,
    section 5.3.

    Args:
        samples: K, of each group.
        groups: M.
    """

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.log_q is not None
        weights = _log_weights(trace)
        constant = weights.detach()
        of_encoder = torch.softmax(constant.unflatten(0, (self.groups, -1)), 1).flatten(0, 1) / self.groups
        share = torch.softmax(constant, 0)
        return -_with_gradient(log_mean_exp(weights, 0), trace, share, of_encoder, trace.log_q)


class CIWAE(Bound):
    """``mix`` times the ELBO and ``1 - mix`` times the importance-weighted bound of the same samples.

    Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018, https://arxiv.org/abs/1802.04537,
    section 5.2.

    Args:
        samples: K.
        mix: the ELBO's share, beta in the paper.
    """

    needs = frozenset({"log_q", "rate"})
    weights: frozenset[str] = frozenset()

    def __init__(self, *, samples: int = 64, mix: Scheduled = 0.05) -> None:
        if not 0 <= mix <= 1:
            raise ValueError(f"mix must lie in [0, 1], got {mix}")
        self.samples, self.mix = _at_least_one(samples), mix

    def __call__(self, trace: Trace, context: Context) -> Tensor:
        """(B,), in nats."""
        assert trace.rate is not None
        mix = context.own.get("mix", self.mix)
        return mix * (trace.rate - trace.log_px.mean(0)) - (1 - mix) * log_mean_exp(_log_weights(trace), 0)


def _log_weights(trace: Trace) -> Tensor:
    """log p(x, z) / q(z|x) (K, B), in nats."""
    assert trace.log_q is not None
    return trace.log_px + trace.log_pz - trace.log_q


def _with_gradient(value: Tensor, trace: Trace, of_decoder: Tensor, of_encoder: Tensor, log_q: Tensor) -> Tensor:
    """``value`` (B,) whose gradient is the sum over samples of that of log p(x, z) - log q, weighed by ``of_decoder``
    (K, B) for what makes log p and by ``of_encoder`` (K, B) for what makes z and log q; exact where samples do not see
    each other, as they do under batch norm."""
    joint = trace.log_px + trace.log_pz
    surrogate = (of_decoder * joint - of_encoder * log_q).sum(0)
    if joint.requires_grad and trace.z.requires_grad:
        # The joint's gradient arrives at z weighed for the decoder: what is missing there is added.
        (at_z,) = torch.autograd.grad(joint.sum(), trace.z, retain_graph=True)
        lacking = (of_encoder - of_decoder).reshape(*of_encoder.shape, *[1] * (trace.z.dim() - 2))
        surrogate = surrogate + (lacking * at_z * trace.z).flatten(2).sum((0, 2))
    return value.detach() + surrogate - surrogate.detach()


def _at_least_one(count: int, name: str = "samples") -> int:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
    return count
