"""Codebooks that are learned: vector quantization."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vaes.posteriors.quantizer import Assigned, Quantizer, joined, nearest, processes, summed

__all__ = ["RVQ", "VQ", "SimVQ"]


class _Learned(Quantizer):
    """Words that are sought by distance, book after book, each in what the ones before left over."""

    training_options = {"matrix": False, "weight_decay": 0.0}  # noqa: RUF012 - words are rows, and no matrix

    gives = Quantizer.gives | {"commitment", "codebook"}
    losses = frozenset({"commitment", "codebook"})

    def assign(self, vectors: Tensor, keys: Tensor | None) -> Assigned:
        """Each book's nearest word to what the ones before left; ``commitment`` and ``codebook`` are summed over books:
        ``sum_q |r_q - sg[e_q]|^2`` and ``sum_q |sg[r_q] - e_q|^2``."""
        rest, indices, chosen = vectors, [], []
        commitment, codebook = vectors.new_zeros(()), vectors.new_zeros(())
        rounding = 16 * torch.finfo(vectors.dtype).eps * vectors.detach().abs().amax(-1, keepdim=True)
        for book in range(self.books):
            if keys is not None:
                self._revive(book, rest.detach(), keys)
            words = self.words[book]
            index = nearest(rest.detach(), words.detach())
            word = words[index]
            commitment = commitment + (rest - word.detach()).square().sum(-1)
            codebook = codebook + (rest.detach() - word).square().sum(-1)
            if keys is not None:
                self._follow(book, index)
                self._learn(book, index, rest.detach())
            rest = rest - word.detach()
            rest = torch.where(rest.abs() > rounding, rest, 0.0)  # a vector that is a word leaves nothing over
            indices.append(index)
            chosen.append(word)
        losses = {"commitment": commitment, "codebook": codebook}
        return Assigned(torch.stack(indices, -1), torch.stack(chosen).sum(0), vectors, losses)

    def _revive(self, book: int, vectors: Tensor, keys: Tensor) -> None:
        """Before a batch is quantized: put vectors of it in the place of words that are out of use."""

    def _learn(self, book: int, index: Tensor, vectors: Tensor) -> None:
        """After it: move words without gradients."""


class RVQ(_Learned):
    """Residual vector quantization: each position is the sum of a word from each book, a book's being the nearest to
    what the ones before left over; every word trained by gradient or following the mean of its vectors.

    Lee et al., Autoregressive Image Generation using Residual Quantization, 2022, https://arxiv.org/abs/2203.01941,
    section 3.1, whose books are one and the same; here each has its own, as in Zeghidour et al., SoundStream,
    2021, https://arxiv.org/abs/2107.03312. A sum of words, quantized again, may be given others.

    Args:
        z_shape: of a code.
        groups: of a flat code, each of which has a word of its own; null makes groups of 4 numbers, or of 2 or 1 where
            z_dim is no multiple of 4. Each place of a grid is one, and takes none.
        books: Q, how many words are added up.
        codes: K, the words of each book.
        learn: ``gradient``, by the term codebook; or ``ema``, running means of the vectors nearest to each word: the
            term codebook moves nothing then.
        decay: of the running shares and means: 0.99 looks back over about a hundred batches (micro-batches, where steps
            are divided).
        restart: a word whose running share is below this part of an even share gives its place to a vector of the
            batch, chosen by the step's own noise; so the first batches fill the books. 0 for never.
    """

    remedy = "take fewer words (model.posterior.codes), model.posterior.restart above 0, or the posterior simvq"
    words_of_ema: Tensor
    means: Tensor
    offset: Tensor

    def __init__(
        self,
        z_shape: tuple[int, ...],
        *,
        groups: int | None = None,
        books: int = 4,
        codes: int = 256,
        learn: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        restart: float = 0.1,
    ) -> None:
        super().__init__(z_shape, groups, books)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        if not 0 <= restart < 1:
            raise ValueError(f"restart must lie in [0, 1), got {restart}")
        self._counted(codes, 0.0 if restart else None)
        self.learn, self.decay, self.restart = learn, decay, restart
        first = torch.randn(books, codes, self.channels) / math.sqrt(self.channels)
        if learn == "gradient":
            self.weight = nn.Parameter(first)
            self.register_buffer("offset", torch.zeros_like(first))
        else:
            self.losses = frozenset({"commitment"})
            self.register_buffer("words_of_ema", first)
            self.register_buffer("means", first * self.use[..., None])

    @property
    def words(self) -> Tensor:
        """(Q, K, C)."""
        # An offset, because what is given another place lies in no parameter: those are the optimiser's.
        return self.weight + self.offset if self.learn == "gradient" else self.words_of_ema

    @torch.no_grad()
    def _revive(self, book: int, vectors: Tensor, keys: Tensor) -> None:
        if not self.restart:
            return
        k = self.use.shape[1]
        keys, order = keys.sort(descending=True, stable=True)
        best, fresh = joined(keys[:k]), joined(vectors[order[:k]])
        fresh = fresh[best.sort(descending=True, stable=True).indices[:k]]
        dead = self.use[book] < self.restart / k
        rank = dead.long().cumsum(0) - 1
        taken = dead & (rank < len(fresh))
        fresh = fresh[rank.clamp(0, len(fresh) - 1)]
        self.use[book].copy_(torch.where(taken, 1 / k, self.use[book]))
        if self.learn == "gradient":
            self.offset[book].copy_(torch.where(taken[:, None], fresh - self.weight[book], self.offset[book]))
        else:
            self.words_of_ema[book].copy_(torch.where(taken[:, None], fresh, self.words_of_ema[book]))
            self.means[book].copy_(torch.where(taken[:, None], fresh / k, self.means[book]))

    @torch.no_grad()
    def _learn(self, book: int, index: Tensor, vectors: Tensor) -> None:
        """van den Oord et al., 2017, appendix A.1, counts and sums divided by those of the batch."""
        if self.learn != "ema":
            return
        share, k = torch.zeros_like(self.means[book]), self.use.shape[1]
        at_once = max(1, 2**24 // k)
        for some, these in zip(index.split(at_once), vectors.split(at_once), strict=True):
            member = nn.functional.one_hot(some, k).to(these)  # a sum in one order, so that a resumed run has its bits
            share = share + member.T @ these
        share = summed(share / len(index)) / processes()
        self.means[book].mul_(self.decay).add_((1 - self.decay) * share)
        count = self.use[book][:, None]
        known = count > torch.finfo(count.dtype).tiny / (1 - self.decay)
        moved = self.means[book] / torch.where(known, count, 1.0)
        self.words_of_ema[book].copy_(torch.where(known, moved, self.words_of_ema[book]))


class VQ(RVQ):
    """Vector quantization: each position takes the nearest of K words.

    van den Oord, Vinyals & Kavukcuoglu, Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, equation 3 and appendix A.1.

    Args:
        z_shape: of a code.
        groups: of a flat code, each of which has a word of its own; null makes groups of 4 numbers, or of 2 or 1 where
            z_dim is no multiple of 4. Each place of a grid is one, and takes none.
        codes: K, the words.
        learn: ``gradient``, by the term codebook; or ``ema``, running means of the vectors nearest to each word: the
            term codebook moves nothing then.
        decay: of the running shares and means: 0.99 looks back over about a hundred batches (micro-batches, where steps
            are divided).
        restart: a word whose running share is below this part of an even share gives its place to a vector of the
            batch, chosen by the step's own noise; so the first batches fill the codebook. 0 for never.
    """

    def __init__(
        self,
        z_shape: tuple[int, ...],
        *,
        groups: int | None = None,
        codes: int = 512,
        learn: Literal["gradient", "ema"] = "gradient",
        decay: float = 0.99,
        restart: float = 0.1,
    ) -> None:
        super().__init__(
            z_shape, groups=groups, books=1, codes=codes, learn=learn, decay=decay, restart=restart
        )  # fmt: skip


class SimVQ(_Learned):
    """Words that are a fixed random basis through one learned linear map, so that every gradient moves all of them and
    none is left behind.

    Zhu et al., Addressing Representation Collapse in Vector Quantized Models with One Linear Layer, 2024,
    https://arxiv.org/abs/2411.02038.

    Args:
        z_shape: of a code.
        groups: of a flat code, each of which has a word of its own; null makes groups of 4 numbers, or of 2 or 1 where
            z_dim is no multiple of 4. Each place of a grid is one, and takes none.
        codes: K, the words.
    """

    basis: Tensor

    def __init__(self, z_shape: tuple[int, ...], *, groups: int | None = None, codes: int = 512) -> None:
        super().__init__(z_shape, groups)
        self._counted(codes)
        self.register_buffer("basis", torch.randn(codes, self.channels) / math.sqrt(self.channels))
        self.weight = nn.Parameter(torch.eye(self.channels))

    @property
    def words(self) -> Tensor:
        """(1, K, C)."""
        with torch.autocast(self.weight.device.type, enabled=False):
            return (self.basis @ self.weight.T)[None]
