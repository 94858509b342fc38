"""Terms of the rate: how much a code may say."""

import torch
from torch import Tensor, nn

from vaes.estimators import capacity
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.randomness import Draw
from vaes.schedules import Scheduled

__all__ = ["Capacity", "FreeBits", "JointCapacity"]


class Capacity(Term):
    """``|rate - target|``, the rate being the mean over the batch: with a target that grows, the code opens up slowly.

    Burgess et al., Understanding disentangling in beta-VAE, 2018, https://arxiv.org/abs/1804.03599, equation 8. The
    rate's own weight is to be 0.

    Args:
        target: the capacity C, nats per image.
    """

    needs = frozenset({"rate"})
    compares = False

    def __init__(self, *, target: Scheduled = 25.0) -> None:
        super().__init__()
        if target < 0:
            raise ValueError(f"target must be 0 or more, got {target}")
        self.target = target

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image."""
        assert trace.rate is not None
        return capacity(trace.rate, context.own.get("target", self.target))


class JointCapacity(Term):
    """``|rate of the numbers - numbers| + |rate of the classes - classes|``: a capacity for each half of a joint code.

    Dupont, Learning Disentangled Joint Continuous and Discrete Representations, 2018,
    https://arxiv.org/abs/1804.00104, equation 7. The rate's own weight is to be 0. Classes hold ``sum log C`` nats at
    most; a higher target pulls as that one does.

    Args:
        numbers: the capacity of the Gaussian, nats per image.
        classes: the capacity of the categoricals, nats per image.
    """

    needs = frozenset({"kl", "gaussian", "logits"})
    compares = False

    def __init__(self, *, numbers: Scheduled = 5.0, classes: Scheduled = 5.0) -> None:
        super().__init__()
        if min(numbers, classes) < 0:
            raise ValueError(f"numbers and classes must be 0 or more, got {numbers} and {classes}")
        self.numbers, self.classes = numbers, classes

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image."""
        assert trace.kl is not None
        size = trace.aux["logits"].shape[-1]
        numbers, classes = trace.kl[:, :-size].sum(-1), trace.kl[:, -size:].sum(-1)
        return capacity(numbers, context.own.get("numbers", self.numbers)) + capacity(
            classes, context.own.get("classes", self.classes)
        )


class FreeBits(Term):
    """``sum_g max(floor - KL_g, 0)``, KL_g being the rate of a group of dimensions, the mean over the batch: beside a
    rate of the same weight, every group has ``floor`` nats that cost nothing, ``rate + free_bits = sum_g max(floor,
    KL_g)``.

    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016,
    https://arxiv.org/abs/1606.04934, equation 15.

    Args:
        z_shape: of a code, which the groups must make up; None asks nothing of them.
        floor: nats per group.
        groups: how many dimensions each has, in the order of the code (a posterior joint has its numbers first); null
            is every dimension a group of its own.
    """

    needs = frozenset({"kl"})
    compares = False

    def __init__(
        self,
        z_shape: tuple[int, ...] | None = None,
        *,
        floor: Scheduled = 0.25,
        groups: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if floor < 0:
            raise ValueError(f"floor must be 0 or more, got {floor}")
        size = sum(groups or ()) if z_shape is None else Draw(z_shape).size
        if groups is not None and (min(groups, default=0) < 1 or sum(groups) != size):
            raise ValueError(f"groups must be sizes that add up to the {size} dimensions of a code, got {list(groups)}")
        self.floor, self.groups = floor, groups

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image."""
        assert trace.kl is not None
        rates = trace.kl.mean(0).flatten()
        if self.groups is not None:
            rates = torch.stack([group.sum() for group in rates.split(self.groups)])
        return nn.functional.relu(context.own.get("floor", self.floor) - rates).sum()
