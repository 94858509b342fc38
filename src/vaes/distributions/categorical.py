"""Categorical variables: exact, and relaxed to the simplex so that gradients pass."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.functional import kl_normal

__all__ = [
    "Joint",
    "choose",
    "gumbel",
    "gumbel_of_normal",
    "kl_categorical",
    "kl_joint",
    "log_categorical",
    "log_relaxed",
    "relaxed",
    "split_joint",
    "straight_through",
]


def gumbel(uniform: Tensor) -> Tensor:
    """Uniform noise on [0, 1] -> standard Gumbel noise ``-log(-log u)``, finite at both ends."""
    info = torch.finfo(uniform.dtype)
    return -torch.log(-torch.log(uniform.clamp(info.tiny, 1 - info.eps / 2)))


def gumbel_of_normal(normal: Tensor) -> Tensor:
    """Standard normal noise -> standard Gumbel noise, the quantile of its distribution function.

    From the tail, which keeps the digits on both sides; ``log_ndtr`` has no rule under vmap.
    """
    tail = 0.5 * torch.special.erfc(normal.abs() * 0.5**0.5)
    return -torch.log(-torch.where(normal > 0, torch.log1p(-tail), torch.log(tail)))


def relaxed(logits: Tensor, noise: Tensor, temperature: Tensor | float) -> Tensor:
    """Draws from the relaxed categorical, as log-weights: logits (B, C) and Gumbel noise (K, B, C) -> (K, B, C).

    ``log softmax((logits + noise) / temperature)``. Jang, Gu & Poole, Categorical Reparameterization with
    Gumbel-Softmax, 2017, https://arxiv.org/abs/1611.01144, equation 2; Maddison, Mnih & Teh, The Concrete
    Distribution, 2017, https://arxiv.org/abs/1611.00712, definition 1. Logarithms, because at low temperatures weights
    underflow where :func:`log_relaxed` needs them.
    """
    return torch.log_softmax((logits + noise) / temperature, -1)


def log_relaxed(log_y: Tensor, logits: Tensor, temperature: Tensor | float) -> Tensor:
    """Log-density of the log-weights (..., C) under the relaxed categorical -> (...), in nats.

    Maddison et al., 2017, appendix C.3 (ExpConcrete): a density over the C - 1 differences ``log y_c - log y_C``. For
    one over the first C - 1 weights (definition 1) subtract ``log_y.sum(-1)``.
    """
    classes = log_y.shape[-1]
    t = torch.as_tensor(temperature, dtype=log_y.dtype, device=log_y.device)
    score = logits - t * log_y
    constant = math.lgamma(classes) + (classes - 1) * torch.log(t)
    return constant + score.sum(-1) - classes * torch.logsumexp(score, -1)


def straight_through(y: Tensor) -> Tensor:
    """The corner of the simplex nearest to y (..., C), with y's gradient (Jang et al., 2017, section 2.2)."""
    corner = torch.zeros_like(y).scatter(-1, y.argmax(-1, keepdim=True), 1.0)
    return corner + (y - y.detach())


def log_categorical(weights: Tensor, logits: Tensor) -> Tensor:
    """``sum_c weights_c log p_c``, (..., C) -> (...), in nats: the log-mass of a corner, linear in between."""
    return (weights * torch.log_softmax(logits, -1)).sum(-1)


def kl_categorical(logits: Tensor, prior_logits: Tensor | None = None) -> Tensor:
    """KL(Cat(logits) || Cat(prior_logits)), (..., C) -> (...), in nats; the uniform where no prior is given.

    ``sum_c q_c (log q_c - log p_c)``: for the uniform ``log C`` less the entropy (Jang et al., 2017, section 2). It is
    the rate of the categorical, not of its relaxation: as Jang et al. do, and no bound while draws are relaxed.
    """
    log_q = torch.log_softmax(logits, -1)
    log_p = -math.log(logits.shape[-1]) if prior_logits is None else torch.log_softmax(prior_logits, -1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """Exact draws of a class by the inverse distribution function: logits (C,), uniforms (...) -> indices (...)."""
    steps = torch.softmax(logits, -1).cumsum(-1)[..., :-1]  # the last is 1 but for rounding
    return (uniform[..., None] >= steps).sum(-1)


class Joint(NamedTuple):
    """A diagonal Gaussian beside independent categoricals, all given x; B batch."""

    mean: Tensor  # (B, D)
    logvar: Tensor  # (B, D)
    logits: tuple[Tensor, ...]  # one (B, C) for each categorical


def split_joint(h: Tensor, dimensions: int, classes: tuple[int, ...]) -> Joint:
    """h (B, 2 D + sum C): means, log-variances, then the logits of each categorical.

    Dupont, Learning Disentangled Joint Continuous and Discrete Representations, 2018,
    https://arxiv.org/abs/1804.00104, section 3.
    """
    mean, logvar, *logits = h.split((dimensions, dimensions, *classes), dim=-1)
    return Joint(mean, logvar, tuple(logits))


def kl_joint(q: Joint) -> tuple[Tensor, Tensor]:
    """The Gaussian's rate per dimension (B, D) and each categorical's (B, G), to N(0, I) and uniforms, in nats.

    They add up; they are apart because Dupont, 2018, steers each towards a capacity of its own (equation 7), of which
    the second can be at most ``sum log C``.
    """
    return kl_normal(q.mean, q.logvar), torch.stack([kl_categorical(logits) for logits in q.logits], -1)
