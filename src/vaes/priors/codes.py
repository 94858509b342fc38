"""The uniform prior over the words of a codebook."""

import math

import torch
from torch import Tensor

from vaes.posteriors import WORDS, Posterior, Quantizer
from vaes.priors.base import Encode, Prior
from vaes.randomness import Draw

__all__ = ["Codes"]

BINS = 2**23  # of uniform noise, which lies at their centres


class Codes(Prior):
    """p(z) that finds all words alike at every position, those of the posterior's own codebook.

    It is what the bound of a quantized code is made of, and not what codes are like: until a prior is fitted to them
    (``vaes fit-prior --kind autoregressive``), samples are words put together at random.

    Args:
        z_shape: of a code.
    """

    partner = "vq, rvq, fsq, lfq or simvq"

    def __init__(self, z_shape: int | tuple[int, ...]) -> None:
        super().__init__(z_shape)
        self._quantizers: list[Quantizer] = []  # in a list: it is the posterior's module, and not a second time this

    def bind(self, posterior: Posterior) -> None:
        """Take the words of this posterior."""
        assert isinstance(posterior, Quantizer)
        self._quantizers = [posterior]

    @property
    def quantizer(self) -> Quantizer:
        """Whose words they are."""
        if not self._quantizers:
            raise RuntimeError("a prior of codes is a model's: make a VAE of it and a quantizer first")
        return self._quantizers[0]

    @property
    def support(self) -> str:
        """Words."""
        return WORDS

    @property
    def noise(self) -> Draw:
        """Two uniform numbers for each index: the second is the finer part."""
        q = self.quantizer
        return Draw((q.positions, q.books, 2), "uniform")

    def log_prob(self, z: Tensor, encode: Encode | None = None) -> Tensor:
        """z (..., Z...) -> (...), in nats: ``-log K`` for each index, and of what lies between words the same."""
        q = self.quantizer
        value = -q.positions * q.books * math.log(q.use.shape[1])
        return z.new_full(z.shape[: z.dim() - len(self.z_shape)], value)

    def sample(self, noise: Tensor, encode: Encode | None = None) -> Tensor:
        """Noise (N, P, Q, 2) -> codes (N, Z...)."""
        coarse, fine = (noise * BINS).long().clamp(0, BINS - 1).unbind(-1)
        k = self.quantizer.use.shape[1]
        index = (coarse * k + (fine * k >> 23)) >> 23  # floor(K u) of a u with 46 bits
        return self.quantizer.look_up(index)

    def centre(self, encode: Encode | None = None) -> Tensor:
        """The code nearest to 0."""
        return self.project(torch.zeros(self.z_shape).to(self.quantizer.use))

    def project(self, z: Tensor) -> Tensor:
        """z (..., Z...) -> the words nearest to it, found as the posterior finds them."""
        lead = z.shape[: z.dim() - len(self.z_shape)]
        flat = z.reshape(math.prod(lead), *self.z_shape)
        return self.quantizer.look_up(self.quantizer.nearest(flat)).reshape(z.shape).to(z.dtype)
