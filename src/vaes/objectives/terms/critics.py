"""Terms that a critic estimates: a network of the term's own, trained beside the model.

The gradient of each player's loss stops at the other: one forward, one backward, and the gradients of two.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.randomness import Draw

__all__ = ["Critic", "PriorCritic", "TotalCorrelationCritic", "adam", "frozen", "permuted"]


def adam(lr: float, betas: tuple[float, float]) -> Mapping[str, Any]:
    """The ``training_options`` of a critic: Adam whatever trains the model.

    Raises:
        ValueError: a learning rate or decays that Adam cannot have.
    """
    if not lr > 0 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"lr must be above 0 and betas in [0, 1), got {lr} and {list(betas)}")
    return {"matrix": False, "own_lr": lr, "betas": betas, "weight_decay": 0.0}


class Critic(nn.Module):
    """Codes (N, Z...) -> logits (N,): linear layers with LeakyReLU(0.2), trained by Adam whatever trains the model.

    Args:
        z_shape: of a code.
        width: of the hidden layers.
        depth: how many.
        lr: its learning rate, constant.
        betas: of its Adam.
    """

    def __init__(self, z_shape: tuple[int, ...], width: int, depth: int, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        sizes = [Draw(z_shape).size, *[width] * depth]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        self.net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 1))
        self.training_options: Mapping[str, Any] = adam(lr, betas)

    def forward(self, z: Tensor) -> Tensor:
        """(N, Z...) -> (N,)."""
        logits: Tensor = self.net(z)[:, 0]
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def frozen(module: nn.Module, x: Tensor) -> Any:
    """``module(x)`` with a gradient for x alone."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, constants, (x,))


def permuted(z: Tensor, noise: Tensor) -> Tensor:
    """Codes (B, D) whose dimensions are each shuffled over the batch, in the order of noise (B, D): draws from
    prod_j q(z_j).

    Kim & Mnih, Disentangling by Factorising, 2018, https://arxiv.org/abs/1802.05983, algorithm 1.
    """
    return z.gather(0, noise.argsort(0))


class _WithCritic(Term):
    has_critic = True

    def __init__(self, z_shape: tuple[int, ...], width: int, depth: int, lr: float, betas: tuple[float, float]) -> None:
        super().__init__()
        self.critic = Critic(z_shape, width, depth, lr, betas)


class TotalCorrelationCritic(_WithCritic):
    """``E_q(z) log d / (1 - d)``, the density ratio between q(z) and prod_j q(z_j) as a critic tells them apart: the
    total correlation, once the critic is good.

    Kim & Mnih, Disentangling by Factorising, 2018, https://arxiv.org/abs/1802.05983, equation 3 and algorithm 2. The
    critic sees the codes of one half of the batch, and those of the other half permuted: their two batches.

    Args:
        z_shape: of a code.
        width: of the critic's hidden layers.
        depth: how many.
        lr: the critic's learning rate.
        betas: of the critic's Adam.
    """

    least = 4  # two in each half

    def __init__(
        self,
        z_shape: tuple[int, ...],
        *,
        width: int = 1000,
        depth: int = 6,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.9),
    ) -> None:
        super().__init__(z_shape, width, depth, lr, betas)

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """Uniform numbers whose order shuffles each dimension."""
        return Draw((Draw(z_shape).size,), "uniform")

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image; of the first sample of each image."""
        logits: Tensor = frozen(self.critic, trace.z[0].flatten(1))
        return logits.mean()

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """The cross-entropy of telling codes from permuted ones, a scalar, log 2 where it cannot."""
        assert drawn.noise is not None
        first, second = trace.z[0].flatten(1).detach().tensor_split(2)
        real, shuffled = self.critic(first), self.critic(permuted(second, drawn.noise[len(first) :]))
        return 0.5 * (softplus(-real).mean() + softplus(shuffled).mean())


class PriorCritic(_WithCritic):
    """``E_q(z) -log d(z)``, d telling draws from the prior (1) from codes (0): small where the aggregate posterior
    passes for the prior. The non-saturating loss, as in both papers' algorithms.

    Makhzani et al., Adversarial Autoencoders, 2016, https://arxiv.org/abs/1511.05644, section 2; Tolstikhin et al.,
    Wasserstein Auto-Encoders, 2018, https://arxiv.org/abs/1711.01558, algorithm 1.

    Args:
        z_shape: of a code.
        width: of the critic's hidden layers.
        depth: how many.
        lr: the critic's learning rate.
        betas: of the critic's Adam.
    """

    unit = ""
    ranks = False

    def __init__(
        self,
        z_shape: tuple[int, ...],
        *,
        width: int = 512,
        depth: int = 3,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> None:
        super().__init__(z_shape, width, depth, lr, betas)

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar; of the first sample of each image."""
        return softplus(-frozen(self.critic, trace.z[0])).mean()

    def critic_loss(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """The cross-entropy of telling draws from the prior from codes, a scalar, log 2 where it cannot."""
        of_prior, of_codes = self.critic(drawn.prior_z.detach()), self.critic(trace.z[0].detach())
        return 0.5 * (softplus(-of_prior) + softplus(of_codes)).mean()
