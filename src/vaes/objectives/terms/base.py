"""What every term is."""

import abc
import math

from torch import Tensor, nn

from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.randomness import Draw

__all__ = ["Term"]


class Term(nn.Module, abc.ABC):
    """A regulariser, one scalar for the whole batch; a module, because some have parameters of their own.

    The constructor takes ``z_shape``, ``image_shape``, ``value_range`` and ``find_features`` as positional parameters
    of these names where it needs them; its keyword-only parameters are keys. Over several processes a term sees the
    images of its own.
    """

    needs: frozenset[str] = frozenset()
    """Optional fields of the trace that must not be None."""
    unit: str = "nats per image"
    """Of its unweighted value; empty where it has none."""
    compares: bool = True
    """Whether it compares images, and so needs several of them."""
    least: int = 2
    """How many it needs then."""
    needs_gradient: bool = False
    """Whether its value takes a gradient, so that it cannot be computed in inference mode."""
    counts_images: bool = False
    """Whether it depends on the number of training images."""
    trains_prior: bool = False
    """Whether a prior with parameters learns from it, through the codes drawn from it."""
    lowest_weight: float = 0.0
    """Below it the loss would reward what the term is there to penalise, without end."""
    note: str = ""
    """What of it depends on the images, for people to read before the training."""
    draws_images: bool = False
    """Whether it looks at ``drawn.images``: mean images of the codes in the trace (the first sample of each image) and
    of those from the prior, whose gradient reaches the decoder and stops at the codes."""
    ranks: bool = True
    """Whether a lower loss with it is a better model, at different steps too: not where a critic that learns judges."""
    has_critic: bool = False
    """Whether :meth:`critic_loss` gives one."""
    chance: float = math.log(2)
    """:meth:`judgement` of a critic that cannot tell."""
    reads_model: bool = False
    """Whether it looks at ``drawn.model``, to decode other codes than the trace's."""
    silence: str = ""
    """What it means where its gradient is next to nothing, for people; empty where that is no fault."""

    def noise(self, z_shape: tuple[int, ...]) -> Draw | None:
        """What noise it takes beside codes from the prior: of each image, or of the whole batch where ``shared``."""
        return None

    @abc.abstractmethod
    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """The term, unweighted, a scalar. A critic of its own counts as a constant here: see :func:`frozen`."""

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """What the term's own critic minimises, a scalar, its gradient stopped at the trace.

        The model's loss sees the critic as a constant and the critic's the codes as constants, so that the gradients of
        the sum of both are those of two backward passes.
        """
        raise NotImplementedError(f"{type(self).__name__} has no critic")

    def judgement(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """:meth:`critic_loss` but for what regularises it: near 0 where the critic is always right."""
        return self.critic_loss(trace, drawn, context)
