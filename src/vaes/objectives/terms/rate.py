"""Terms of the rate: how much a code may say."""

from torch import Tensor, nn

from vaes.estimators import capacity
from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
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
    """``sum_d max(floor - KL_d, 0)``, KL_d being the mean over the batch: beside a rate of the same weight, every
    dimension has ``floor`` nats that cost nothing, ``rate + free_bits = sum_d max(floor, KL_d)``.

    Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016,
    https://arxiv.org/abs/1606.04934, equation 15, each dimension a group of its own.

    Args:
        floor: nats per dimension.
    """

    needs = frozenset({"kl"})
    compares = False

    def __init__(self, *, floor: float = 0.25) -> None:
        super().__init__()
        if floor < 0:
            raise ValueError(f"floor must be 0 or more, got {floor}")
        self.floor = floor

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image."""
        assert trace.kl is not None
        return nn.functional.relu(self.floor - trace.kl.mean(0)).sum()
