"""A prior over the words of a codebook that draws one index after another."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.posteriors import WORDS, look_up, nearest, vectors_of
from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["Autoregressive"]

LAYERS = 4
AT_ONCE = 2**25  # logits that are held together

Past = tuple[Tensor, Tensor]


class Autoregressive(Prior):
    """``log p(z) = sum_t log p(i_t | i_1 .. i_{t-1})`` over the T = P * Q indices of a code, position after position
    (row after row), and of one its books in their order: a causal transformer of 4 layers.

    As van den Oord, Vinyals & Kavukcuoglu, Neural Discrete Representation Learning, 2017,
    https://arxiv.org/abs/1711.00937, section 3.3, with attention in the place of PixelCNN's convolutions. It starts as
    the uniform law. It holds the words itself, so that it needs no model beside it. Codes that are sums of several
    words have the indices that residual quantization gives them.

    Args:
        z_shape: of a code.
        positions: P.
        words: (Q, K, C).
        width: of the hidden layers.
    """

    words: Tensor

    def __init__(self, z_shape: int | tuple[int, ...], positions: int, words: Tensor, *, width: int = 128) -> None:
        super().__init__(z_shape)
        self.books, self.classes, channels = words.shape
        self.positions, self.length = positions, positions * self.books
        if positions * channels != self.z_dim:
            raise ValueError(f"{positions} positions of {channels} channels are no code of {self.z_shape}")
        self.register_buffer("words", words.detach().clone())
        self.embedding = nn.Embedding(self.books * self.classes, width)
        self.place = nn.Parameter(torch.empty(self.length, width))
        self.layers = nn.ModuleList([_Layer(width) for _ in range(LAYERS)])
        head = nn.Linear(width, self.classes)
        self.last = nn.Sequential(nn.LayerNorm(width), head)
        for table in (self.embedding.weight, self.place):
            nn.init.normal_(table, std=0.02)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)

    @property
    def support(self) -> str:
        """Words."""
        return WORDS

    @property
    def noise(self) -> Draw:
        """A uniform number for each index."""
        return Draw((self.length,), "uniform")

    def log_mass(self, indices: Tensor) -> Tensor:
        """Indices (N, P, Q) -> (N,), in nats, exact."""
        parts = indices.flatten(1).split(max(1, AT_ONCE // (self.length * self.classes)))
        return torch.cat([self._log_mass(part) for part in parts])

    def _log_mass(self, tokens: Tensor) -> Tensor:
        before = F.pad(self._embedded(tokens[:, :-1], 0), (0, 0, 1, 0))  # nothing comes before the first
        h = before + self.place
        for layer in self.layers:
            h, _ = layer(h, None)
        log_p = torch.log_softmax(self.last(h), -1)
        return log_p.gather(-1, tokens[..., None])[..., 0].sum(-1)

    def _embedded(self, tokens: Tensor, first: int) -> Tensor:
        """Tokens (N, t), those of the places from ``first`` on -> (N, t, width)."""
        book = torch.arange(first, first + tokens.shape[1], device=tokens.device) % self.books
        embedded: Tensor = self.embedding(tokens + book * self.classes)
        return embedded

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> (...), in nats: of the words nearest to it."""
        lead = z.shape[: z.dim() - len(self.z_shape)]
        return self.log_mass(self._nearest(z)).reshape(lead)

    def draw_indices(self, noise: Tensor) -> Tensor:
        """Noise (N, T) -> indices (N, P, Q), each by the inverse distribution function given those before it."""
        before = torch.zeros(len(noise), 1, self.place.shape[1]).to(self.place)
        past: list[Past | None] = [None] * len(self.layers)
        drawn: list[Tensor] = []
        for t in range(self.length):
            h = before + self.place[t]
            for i, layer in enumerate(self.layers):
                h, past[i] = layer(h, past[i])
            steps = torch.softmax(self.last(h[:, 0]), -1).cumsum(-1)[:, :-1]
            drawn.append((noise[:, t, None] >= steps).sum(-1))
            before = self._embedded(drawn[-1][:, None], t)
        return torch.stack(drawn, 1).unflatten(1, (self.positions, self.books))

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Noise (N, T) -> codes (N, Z...)."""
        return look_up(self.draw_indices(noise), self.words, self.z_shape)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The code nearest to 0."""
        return self.project(torch.zeros(self.z_shape).to(self.words))

    def project(self, z: Tensor) -> Tensor:
        """z (..., Z...) -> the words nearest to it, book after book."""
        return look_up(self._nearest(z), self.words, self.z_shape).reshape(z.shape)

    def _nearest(self, z: Tensor) -> Tensor:
        """z (..., Z...) -> indices (N, P, Q)."""
        lead = z.shape[: z.dim() - len(self.z_shape)]
        rest = vectors_of(z.reshape(math.prod(lead), *self.z_shape), self.positions).flatten(0, 1)
        found = []
        for book in self.words.to(z.dtype):
            found.append(nearest(rest, book))
            rest = rest - book[found[-1]]
        return torch.stack(found, -1).reshape(-1, self.positions, self.books)


class _Layer(nn.Module):
    """Causal attention, then two layers, each beside a shortcut and after a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(n for n in (8, 4, 2, 1) if width % n == 0)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.project, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """h (N, t, W), and keys and values of what came before it, with which t is 1 -> the same of both."""
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.project(
            self.norms[0](h)).chunk(3, -1))  # fmt: skip
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=h.shape[1] > 1)
        h = h + self.out(found.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norms[1](h)), (key, value)
