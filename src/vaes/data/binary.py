"""Black and white images drawn from grey ones, by named protocols."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from vaes.data.images import ImageSet
from vaes.data.splits import Splits
from vaes.errors import UserError
from vaes.randomness import Use, generator

__all__ = ["BinarySet", "Protocol", "binarize", "coin", "splitmix64"]

Protocol = Literal["none", "static", "dynamic"]


def binarize(splits: Splits, protocol: Protocol, *, seed: int = 0) -> Splits:
    """Draw each pixel black or white, white with probability grey / 255.

    `static`: every image is drawn once, as a function of (`seed`, split, its place in the split), and is the same
    whenever and in whatever company it is read. `dynamic`: training images are drawn anew at every step, as a function
    of the training's seed, the step and the position in the global batch; elsewhere, and in the validation and test
    splits, images are those of `static`. `none`: the grey images.

    Dynamic binarisation is that of Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016,
    https://arxiv.org/abs/1509.00519. Ours is another draw than the fixed one of Larochelle & Murray, The Neural
    Autoregressive Distribution Estimator, 2011, which is a set of files of its own (binarized_mnist_*.amat):
    likelihoods under the two do not compare to the last nat.
    """
    if protocol == "none":
        return splits
    if protocol == "static" and splits.stream is not None:
        raise UserError("data.binarize: static draws belong to places in a set, and a stream has none; use dynamic")
    parts = [BinarySet(images, seed, place) for place, images in enumerate(splits)]
    if protocol == "dynamic":
        parts[0].redrawn = splits.train
    return replace(splits, train=parts[0], valid=parts[1], test=parts[2])


class BinarySet(ImageSet):
    """The fixed draw of `grey`, of which it is the split number `part`; `rows` (M,), where given, selects images."""

    def __init__(self, grey: ImageSet, seed: int, part: int, rows: Tensor | None = None) -> None:
        notes = grey.notes if rows is None else grey.notes.take(rows)
        super().__init__(grey.shape, grey.device, grey.index_device, notes)
        self.ahead = grey.ahead
        self._grey, self._seed, self._part = grey, seed, part
        self._rows = None if rows is None else rows.to(grey.index_device)

    def __len__(self) -> int:
        return len(self._grey if self._rows is None else self._rows)

    def read(self, index: Tensor) -> Tensor:
        """The images at `index` (B,) int64, as (B, C, H, W) uint8, 0 or 255, on the device."""
        index = index.to(self.index_device)
        rows = index if self._rows is None else self._rows[index]
        return coin(self._grey.read(rows), rows, self._seed, Use.STATIC, self._part)

    def definition(self) -> str | None:
        """That of the grey images."""
        return self._grey.definition() if self._rows is None else None

    def to(self, device: torch.device | str) -> "BinarySet":
        """The same images, read on `device`."""
        moved = BinarySet(self._grey.to(device), self._seed, self._part, self._rows)
        moved.redrawn = None if self.redrawn is None else self.redrawn.to(device)
        return moved

    def subset(self, index: Tensor) -> "BinarySet":
        """The images at `index` (M,) int64 as a set: each stays as it was drawn."""
        index = index.to(self.index_device)
        part = BinarySet(self._grey, self._seed, self._part, index if self._rows is None else self._rows[index])
        part.redrawn = None if self.redrawn is None else self.redrawn.subset(index)
        return part


def coin(images: Tensor, numbers: Tensor, seed: int, use: Use, step: int) -> Tensor:
    """Draw `images` (B, C, H, W) uint8 black or white, 0 or 255, white with probability grey / 255.

    The draw of an image depends on (seed, use, step), its own of the `numbers` (B,) int64 and nothing else, on any
    device. Black stays black and white stays white; in between the probability is right to 2^-16.
    """
    pixels = images[0].numel()
    words = -(-pixels // 4)  # a random number serves four pixels with 16 bits each
    key = int(generator(seed, use, step).integers(-(2**63), 2**63 - 1))
    counters = numbers.to(images.device)[:, None] * words + torch.arange(words, device=images.device)
    bits = splitmix64(key, counters).view(torch.int16)[:, :pixels].to(torch.int32) + 2**15
    threshold = (bits * 255) >> 16  # 0 .. 254
    return (threshold.view_as(images) < images).to(torch.uint8) * 255


def splitmix64(key: int, counters: Tensor) -> Tensor:
    """The numbers at `counters` (int64, from 0 on) of the SplitMix64 generator started at `key`: 64 bits, as int64.

    Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
    https://doi.org/10.1145/2660193.2660195.
    """
    # int64 wraps around as the generator's unsigned arithmetic does; only the shifts need care.
    z = (counters + 1) * _signed(0x9E3779B97F4A7C15) + key
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A shift to the right of int64 as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - 2**64
