"""What every quantizer is: codes that are words of a codebook."""

import abc
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.posteriors.base import Latent, Posterior
from vaes.randomness import Draw

__all__ = [
    "WORDS",
    "Assigned",
    "Quantizer",
    "grid_of",
    "joined",
    "look_up",
    "nearest",
    "processes",
    "summed",
    "use_of",
    "vectors_of",
]

WORDS = "words of a codebook"
"""The support of quantized codes."""

MOST_WORDS = 2**18
AT_ONCE = 2**25  # distances that are held together
RARE = 0.1
"""Of an even share: a word whose share is below it counts as unused."""


def nearest(vectors: Tensor, words: Tensor) -> Tensor:
    """vectors (n, C) and words (K, C) -> the index (n,) of the word nearest to each; of several, the first."""
    if torch.compiler.is_compiling():  # an exported network has batches of any size
        return _nearest(vectors, words)
    return torch.cat([_nearest(part, words) for part in vectors.split(max(1, AT_ONCE // len(words)))])


def _nearest(vectors: Tensor, words: Tensor) -> Tensor:
    middle = words.mean(0)  # about which squares are smallest, and their rounding
    words = words - middle
    return (words.square().sum(1) - 2 * ((vectors - middle) @ words.T)).argmin(1)


def look_up(indices: Tensor, words: Tensor, z_shape: tuple[int, ...]) -> Tensor:
    """indices (N, P, Q) of words (Q, K, C), which are added up over the books -> codes (N, Z...)."""
    return grid_of(torch.stack([book[indices[..., q]] for q, book in enumerate(words.unbind(0))]).sum(0), z_shape)


def grid_of(vectors: Tensor, z_shape: tuple[int, ...]) -> Tensor:
    """The vector of each position (N, P, C) -> codes (N, Z...), what :func:`vectors_of` takes apart."""
    return (vectors if len(z_shape) == 1 else vectors.mT).reshape(vectors.shape[0], *z_shape)


def vectors_of(z: Tensor, positions: int) -> Tensor:
    """Codes (B, Z...) -> the vector of each position (B, P, C): a group of a flat code, or a place of a grid (C, h, w),
    row after row."""
    return z.reshape(z.shape[0], positions, -1) if z.dim() == 2 else z.flatten(2).mT


def summed(x: Tensor) -> Tensor:
    """The sum over the processes of a training."""
    if processes() > 1:
        x = x.clone()
        torch.distributed.all_reduce(x)
    return x


def joined(x: Tensor) -> Tensor:
    """The rows of all processes, in their order."""
    if processes() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(processes())]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def processes() -> int:
    """How many a training has."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


class Assigned(NamedTuple):
    """Which words a batch gets; n = B * P vectors."""

    indices: Tensor  # (n, Q)
    word: Tensor  # (n, C) the sum of the words, with their own gradient
    soft: Tensor  # (n, C) what stands for it on the way back to the encoder
    losses: Mapping[str, Tensor]  # (n,) by name
    beside: Mapping[str, Tensor] = {}  # (n, ...) what else aux is to hold


class Quantizer(Posterior):
    """q(z|x) that gives the one word nearest to what the encoder makes the mass 1: so log q is 0 and, under a prior
    that finds all words alike, the rate ``log K`` for each index, a constant (van den Oord, Vinyals & Kavukcuoglu,
    Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937, equations 1 and 2).

    A code has P positions: the h * w places of a grid (C, h, w), row after row, or groups of consecutive numbers of a
    flat one. Each is the sum of a word from each of Q books of K. The decoder sees words; gradients pass them straight
    through (equation 3).

    ``aux["indices"]`` is (B, P, Q), and of each image by its name: the losses, in units of code squared, summed over
    positions and channels, so that they stand beside the distortion, which is summed over pixels; and ``tells``. Those
    count the words of the images at hand in evaluation, of all of them in a validation, and in training those of about
    the last 1 / (1 - decay) batches.
    """

    gives = frozenset({"mean", "log_q", "indices", "code_usage", "code_perplexity"})
    tells = {"code_usage": "share of the words", "code_perplexity": "words"}  # noqa: RUF012 - as in the base
    partner = "codes"
    decay = 0.99
    remedy = "take fewer words (model.posterior.codes)"
    use: Tensor

    def __init__(self, z_shape: tuple[int, ...], groups: int | None, books: int = 1) -> None:
        super().__init__()
        self.z_shape, self.books = tuple(z_shape), books
        self.positions, self.channels = self.shape_of(self.z_shape, groups)
        if books < 1:
            raise ValueError(f"books must be at least 1, got {books}")

    @staticmethod
    def shape_of(z_shape: tuple[int, ...], groups: int | None) -> tuple[int, int]:
        """Positions and channels (P, C) of codes.

        Raises:
            ValueError: there are no such groups.
        """
        positions = _positions(tuple(z_shape), groups)
        return positions, Draw(tuple(z_shape)).size // positions

    def _counted(self, words: int, share: float | None = None) -> None:
        if not 2 <= words <= MOST_WORDS:
            raise ValueError(f"a codebook has from 2 to {MOST_WORDS:,} words, and this would have {words:,}")
        self.register_buffer("use", torch.full((self.books, words), 1 / words if share is None else share))

    @property
    @abc.abstractmethod
    def words(self) -> Tensor:
        """(Q, K, C)."""

    @abc.abstractmethod
    def assign(self, vectors: Tensor, keys: Tensor | None) -> Assigned:
        """vectors (n, C) -> Assigned; with ``keys`` (n,), random numbers, a codebook may follow them."""

    def support(self, z_shape: tuple[int, ...]) -> str:
        """Words."""
        return WORDS

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """The code before it is quantized."""
        if tuple(z_shape) != self.z_shape:
            raise ValueError(f"its codes are {self.z_shape}, and {tuple(z_shape)} are wanted")
        return Draw(self.z_shape).size

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """By which vectors that take the place of unused words are chosen; a code takes none."""
        return Draw((self.positions,))

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D) and noise (K, B, P) -> Latent: K times the same code."""
        return self._latent(h, len(noise), noise[0].flatten() if self.training else None)

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The code."""
        return self._latent(h, 1, None)

    def nearest(self, z: Tensor) -> Tensor:
        """Any z (N, Z...) -> the indices (N, P, Q) of the words that it is quantized to."""
        with torch.no_grad():
            found = self.assign(vectors_of(z, self.positions).flatten(0, 1), None).indices
        return found.reshape(z.shape[0], self.positions, self.books)

    def look_up(self, indices: Tensor) -> Tensor:
        """Indices (N, P, Q) -> codes (N, Z...)."""
        return look_up(indices, self.words, self.z_shape)

    def _latent(self, h: Tensor, samples: int, keys: Tensor | None) -> Latent:
        vectors = vectors_of(h.reshape(h.shape[0], *self.z_shape), self.positions)
        with torch.autocast(h.device.type, enabled=False):  # bfloat16 does not tell near words apart
            found = self.assign(vectors.flatten(0, 1), keys)
        batch, shape = h.shape[0], vectors.shape
        word = found.word.detach() + (found.soft - found.soft.detach())  # exactly the word, whatever the rounding
        z = grid_of(word.reshape(shape), self.z_shape)
        told = self.told(found.indices) if keys is None else self._use_of(self.use)
        aux = {name: loss.reshape(shape[:2]).sum(1) for name, loss in found.losses.items()}
        aux |= {name: value.expand(batch) for name, value in told.items()}
        aux |= {name: value.reshape(*shape[:2], *value.shape[1:]) for name, value in found.beside.items()}
        aux["indices"] = found.indices.reshape(*shape[:2], self.books)
        return Latent(z.expand(samples, *z.shape), h.new_zeros(samples, batch), z, None, aux)

    @torch.no_grad()
    def told(self, indices: Tensor) -> dict[str, Tensor]:
        """How the words are used by indices (..., Q)."""
        flat = indices.reshape(-1, self.books)
        return self._use_of(torch.stack([self._count(flat[:, q]) for q in range(self.books)]))

    def _use_of(self, share: Tensor) -> dict[str, Tensor]:
        usage, perplexity = use_of(share)
        return {"code_usage": usage, "code_perplexity": perplexity}

    def _count(self, index: Tensor) -> Tensor:
        """How often each word occurs (K,)."""
        ones = torch.ones_like(index, dtype=self.use.dtype)
        return torch.zeros_like(self.use[0]).scatter_add(0, index, ones)

    def _follow(self, book: int, index: Tensor) -> None:
        """Take a batch of all processes into the running shares of the words."""
        share = summed(self._count(index) / len(index)) / processes()
        self.use[book].mul_(self.decay).add_((1 - self.decay) * share)

    def worry(self) -> str:
        """That the codebook has collapsed, in words."""
        usage, perplexity = (float(value) for value in use_of(self.use))
        if usage >= 0.25:
            return ""
        return (
            f"the codebook has collapsed: {usage:.1%} of its {self.use.shape[1]:,} words are in use (perplexity "
            f"{perplexity:.1f}); {self.remedy}, or more images and a longer training"
        )


def use_of(share: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (Q, K) of each book's words, or their counts -> the share of words in use (those that have at least a
    tenth of an even share), and the perplexity ``exp(-sum p log p)``, both the mean over books."""
    p = share / share.sum(-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    usage = (p >= RARE / p.shape[-1]).to(p.dtype).mean()
    return usage, torch.exp(-torch.xlogy(p, p).sum(-1)).mean()


def _positions(z_shape: tuple[int, ...], groups: int | None) -> int:
    if len(z_shape) > 1:
        if groups is not None:
            raise ValueError(f"groups are of flat codes, and codes are {z_shape}: each place of a grid is one")
        return math.prod(z_shape[1:])
    (d,) = z_shape
    count = d // math.gcd(d, 4) if groups is None else groups
    if count < 1 or d % count:
        raise ValueError(f"groups must divide the {d} numbers of a code, got {count}")
    return count
