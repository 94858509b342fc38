"""Terms of codes that are words of a codebook."""

import math

import torch
from torch import Tensor, nn

from vaes.model import Trace
from vaes.objectives.context import Context, Drawn
from vaes.objectives.terms.base import Term
from vaes.schedules import Scheduled

__all__ = ["CodeEntropy", "Codebook", "Commitment"]

JOINTLY = 8
"""Channels whose 2^8 words are looked at together."""


class Commitment(Term):
    """``|z_e(x) - sg[e]|^2``, z_e being the code before it is quantized and e its words: the encoder stays with them.

    van den Oord, Vinyals & Kavukcuoglu, Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, equation 3. Summed over positions and channels (and books) of an image; nats,
    if a unit of squared code is to count as one of squared pixels under a Gaussian of scale 0.7.
    """

    needs = frozenset({"commitment"})
    compares = False

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, the mean over images."""
        return trace.aux["commitment"].mean()


class Codebook(Term):
    """``|sg[z_e(x)] - e|^2``: the words move to the codes that are quantized to them. See :class:`Commitment`, whose
    value is the same, and whose gradient the encoder's."""

    needs = frozenset({"codebook"})
    compares = False

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, the mean over images."""
        return trace.aux["codebook"].mean()


class CodeEntropy(Term):
    """``E H[q(.|x)] - H[E q(.|x)]``, summed over positions: each is to be sure of its word, and all together are to use
    every word alike. Here q(c|z) is ``softmax(-|z - c|^2 / temperature)`` over the words, which for signs are
    independent Bernoulli variables of logits ``4 z / temperature``.

    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023,
    https://arxiv.org/abs/2310.05737, equation 5. The mean is over all positions of the batch's images, so that this
    compares them. Of more than 8 channels, the second entropy is the sum of those of 8 at a time, which is an upper
    bound.

    Args:
        temperature: of q, in units of code squared.
    """

    needs = frozenset({"before_signs"})

    def __init__(self, *, temperature: Scheduled = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        """A scalar, in nats per image; from -P C log 2 to 0."""
        before = trace.aux["before_signs"]
        logits = 4 * before.flatten(0, 1) / context.own.get("temperature", self.temperature)
        each = (nn.functional.softplus(logits) - logits * torch.sigmoid(logits)).sum(-1).mean()
        mean = logits.new_zeros(())
        for part in logits.split(JOINTLY, -1):
            share = torch.logsumexp(_log_words(part), 0) - math.log(len(part))  # a log: 0 log 0 has no gradient
            mean = mean - (share.exp() * share).sum()
        return before.shape[1] * (each - mean)


def _log_words(logits: Tensor) -> Tensor:
    """Logits (n, C) of independent bits -> log-probabilities of all words (n, 2^C)."""
    found = logits.new_zeros(len(logits), 1)
    for bit in logits.unbind(-1):
        either = nn.functional.logsigmoid(torch.stack([-bit, bit], -1))
        found = (found[:, None] + either[:, :, None]).flatten(1)
    return found
