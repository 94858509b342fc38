"""Codebooks that are not learned: all points of a lattice."""

import abc
import math

import torch
from torch import Tensor

from vaes.posteriors.quantizer import MOST_WORDS, Assigned, Quantizer, grid_of, vectors_of

__all__ = ["FSQ", "LFQ"]

MARGIN = 1e-3  # the outermost levels are reached where tanh is not yet flat


class _Lattice(Quantizer):
    """Words that are products of levels of each channel, the first channel's running fastest."""

    remedy = "take a network that normalises (conv, autoencoder_kl), or a position of fewer channels or levels"
    size: Tensor
    place: Tensor

    def __init__(self, z_shape: tuple[int, ...], groups: int | None, levels: tuple[int, ...] | None, what: str) -> None:
        super().__init__(z_shape, groups)
        c, levels = self.channels, levels or ()
        if len(levels) != c or min(levels) < 2:
            raise ValueError(
                f"levels must be {c} numbers of 2 or more, one for each channel of a position, got {list(levels)}"
            )
        if math.prod(levels) > MOST_WORDS:
            raise ValueError(
                f"{what} of {c} channels make {math.prod(levels):,} words, and {MOST_WORDS:,} is the most: give a "
                "position fewer channels (more groups of a flat code, or a smaller grid channel count)"
            )
        self._counted(math.prod(levels))
        size = torch.tensor(levels)
        self.register_buffer("size", size, persistent=False)
        self.register_buffer("place", size.cumprod(0) // size, persistent=False)

    @property
    def words(self) -> Tensor:
        """(1, K, C)."""
        return self._word(torch.arange(self.use.shape[1], device=self.use.device)[:, None] // self.place)[None]

    def look_up(self, indices: Tensor) -> Tensor:
        """Indices (N, P, 1) -> codes (N, Z...)."""
        return grid_of(self._word(indices // self.place), self.z_shape)

    def nearest(self, z: Tensor) -> Tensor:
        """Any z (N, Z...), quantized or between -> the indices (N, P, 1) of the nearest words."""
        return (self._digits(vectors_of(z.detach(), self.positions)) * self.place).sum(-1, keepdim=True)

    @abc.abstractmethod
    def _word(self, digits: Tensor) -> Tensor:
        """Whole numbers (..., C), of which only the rest from division by the levels counts -> words (..., C)."""

    @abc.abstractmethod
    def _digits(self, vectors: Tensor) -> Tensor:
        """Any (..., C) -> the digits of the nearest word (..., C)."""

    def _assigned(self, digits: Tensor, soft: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        index = (digits * self.place).sum(-1)
        if keys is not None:
            self._follow(0, index)
        return index[:, None], self._word(digits).to(soft)


class FSQ(_Lattice):
    """Finite scalar quantization: each channel is squashed to a range and rounded to one of a few levels, and the
    codebook is all of their products; nothing is learned, and no loss is needed.

    Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, 2023, https://arxiv.org/abs/2309.15505, section 3.1
    and appendix A.1 (with the shift that makes its middle 0: atanh). Levels are evenly spaced within [-1, 1].

    Args:
        z_shape: of a code.
        groups: of a flat code, each of which has a word of its own; null makes groups of 4 numbers, or of 2 or 1 where
            z_dim is no multiple of 4. Each place of a grid is one, and takes none.
        levels: of each channel of a position; null is 8 for the first and 5 for the others. A word is one of their
            product, 262,144 at most.
    """

    def __init__(
        self, z_shape: tuple[int, ...], *, groups: int | None = None, levels: tuple[int, ...] | None = None
    ) -> None:
        channels = Quantizer.shape_of(z_shape, groups)[1]
        super().__init__(z_shape, groups, (8, *[5] * (channels - 1)) if levels is None else tuple(levels), "levels")

    def assign(self, vectors: Tensor, keys: Tensor | None) -> Assigned:
        """Squash and round; on the way back the rounding is left out, and the squashing is not."""
        size = self.size.to(vectors.dtype)
        half, offset = (size - 1) * (1 + MARGIN) / 2, 0.5 * (self.size % 2 == 0).to(vectors.dtype)
        bounded = torch.tanh(vectors + torch.atanh(offset / half)) * half - offset
        soft = bounded / (self.size // 2)
        index, word = self._assigned(bounded.detach().round().long() + self.size // 2, soft, keys)
        return Assigned(index, word, soft, {})

    def _word(self, digits: Tensor) -> Tensor:
        half = self.size // 2
        return (digits % self.size - half).to(self.use.dtype) / half

    def _digits(self, vectors: Tensor) -> Tensor:
        steps = (vectors * (self.size // 2)).round().long() + self.size // 2
        return steps.clamp(torch.zeros_like(self.size), self.size - 1)


class LFQ(_Lattice):
    """Lookup-free quantization: the sign of each channel, so that C channels have a codebook of 2^C words.

    Yu et al., Language Model Beats Diffusion: Tokenizer is Key to Visual Generation, 2023,
    https://arxiv.org/abs/2310.05737, section 3.1. The term code_entropy reads the channels before their signs,
    ``aux["before_signs"]`` (B, P, C).

    Args:
        z_shape: of a code.
        groups: of a flat code, each of which has a word of its own; null makes groups of 4 numbers, or of 2 or 1 where
            z_dim is no multiple of 4. Each place of a grid is one, and takes none. A position has 18 channels at most.
    """

    gives = Quantizer.gives | {"commitment", "before_signs"}
    losses = frozenset({"commitment"})

    def __init__(self, z_shape: tuple[int, ...], *, groups: int | None = None) -> None:
        super().__init__(z_shape, groups, (2,) * Quantizer.shape_of(z_shape, groups)[1], "signs")

    def assign(self, vectors: Tensor, keys: Tensor | None) -> Assigned:
        """The signs, 0 counting as below."""
        index, word = self._assigned((vectors.detach() > 0).long(), vectors, keys)
        commitment = (vectors - word).square().sum(-1)
        return Assigned(index, word, vectors, {"commitment": commitment}, {"before_signs": vectors})

    def _word(self, digits: Tensor) -> Tensor:
        return 2 * (digits % 2).to(self.use.dtype) - 1

    def _digits(self, vectors: Tensor) -> Tensor:
        return (vectors > 0).long()
