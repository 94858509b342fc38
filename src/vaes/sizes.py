"""A trained model for images of another size than it was trained on."""

import copy
from pathlib import Path
from typing import Self

from torch import Tensor

from vaes.config.registry import NETWORKS
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.model import VAE
from vaes.tiles import tiled

__all__ = ["Sized", "at_size"]


class Sized:
    """What a run is to images of any size: its ``model`` and ``image_shape`` are those of the size at hand."""

    experiment: Experiment
    model: VAE
    image_shape: tuple[int, int, int]
    folder: Path
    notes: list[str]

    def __init__(self, model: VAE, image_shape: tuple[int, int, int]) -> None:
        self.model, self.image_shape = model, image_shape
        self._trained, self._resized = (model, image_shape), {image_shape: model}
        self.tile: int | None = None

    def at(self, size: int | tuple[int, ...]) -> Self:
        """The run for images of another size, a side or (H, W), which a fully convolutional network takes: the same
        weights, and codes that are a larger or smaller grid. It is itself where images have that size already.

        Raises:
            UserError: the network's codes are flat, the sides do not divide, or a part has weights for one size alone.
        """
        h, w = (size, size) if isinstance(size, int) else size
        if (h, w) == self.image_shape[1:]:
            return self
        other = copy.copy(self)
        other.notes = []
        other._take_size((h, w))
        return other

    def tiled(self, tile: int) -> Self:
        """The run with networks that see squares of ``tile`` pixels, one at a time: see :func:`vaes.tiles.tiled`.

        Raises:
            UserError: codes are flat, or the tile does not divide.
        """
        other = copy.copy(self)
        other.tile, other.model = tile, tiled(self._resized[self.image_shape], self.image_shape, tile)
        return other

    def for_code(self, z: Tensor) -> Self:
        """The run for the images of codes (N, Z...): where they are grids of other sides, of another size.

        Raises:
            UserError: codes of another shape.
        """
        own = self.model.z_shape
        if z.dim() == 4 and len(own) == 3 and z.shape[1] == own[0] and min(z.shape) > 0:
            f = _factors(self.image_shape, own)
            return self.at((f[0] * z.shape[2], f[1] * z.shape[3]))
        if tuple(z.shape[1:]) not in (own, (self.model.z_dim,)):
            raise UserError(
                f"codes of {tuple(z.shape[1:])} where the model's are {own}, or {self.model.z_dim} numbers flattened"
            )
        return self

    @property
    def words_of_size(self) -> str:
        """What there is to say where images have another size than in training."""
        _, trained = self._trained
        ours, theirs, code = ("x".join(map(str, x)) for x in (self.image_shape[1:], trained[1:], self.model.z_shape))
        return (
            "" if ours == theirs else f"images are {ours}, and the weights were trained on {theirs}: codes are {code}"
        )

    @property
    def home(self) -> Path:
        """Where numbers go by default: for images of another size than in training not among the run's own."""
        return self.folder / f"at-{self.image_shape[1]}x{self.image_shape[2]}" if self.words_of_size else self.folder

    def _take_size(self, size: tuple[int, ...]) -> None:
        h, w = size
        if (shape := (self.image_shape[0], h, w)) == self.image_shape:
            return
        model, trained = self._trained
        if shape not in self._resized:
            self._resized = {trained: model, shape: at_size(self.experiment, model, trained, shape)}
        self.model, self.image_shape = self._resized[shape], shape
        if self.tile is not None:
            self.model = tiled(self.model, shape, self.tile)
        self.notes = [*self.notes, *([self.words_of_size] if self.words_of_size else [])]


def at_size(experiment: Experiment, model: VAE, trained: tuple[int, int, int], shape: tuple[int, int, int]) -> VAE:
    """The model, whose weights were trained on images ``trained`` (C, H, W), for images of another shape.

    Raises:
        UserError: as :meth:`Sized.at`.
    """
    said, theirs = ("x".join(map(str, x[1:])) for x in (shape, trained))
    kind = experiment.model["network"]["kind"]
    if NETWORKS[kind].grid is None:
        raise UserError(
            f"images of {shape} where the model takes {trained}, both (C, H, W): the network {kind} makes flat codes; "
            "bring them to that size, or train a network whose codes are grids (autoencoder_kl)"
        )
    factors = _factors(trained, model.z_shape)
    if any(side % f or not side for side, f in zip(shape[1:], factors, strict=True)):
        fit = [max(f, side // f * f) for side, f in zip(shape[1:], factors, strict=True)]
        more = [side // f * f + f for side, f in zip(shape[1:], factors, strict=True)]
        raise UserError(
            f"images are {said}, and the network divides their sides by {factors[0]}: {fit[0]}x{fit[1]} fits, and "
            f"{more[0]}x{more[1]}; bring them to such a size (--data.image_size)"
        )
    made = experiment.build_model(shape)
    own, there = made.state_dict(), model.state_dict()
    bound = [name for name in there if name not in own or own[name].shape != there[name].shape]
    if bound:
        raise UserError(f"images are {said}, and {bound[0]} belongs to images of {theirs} alone, as in training")
    made.load_state_dict(there)
    return made.to(next(model.parameters()).device).train(model.training)


def _factors(image_shape: tuple[int, ...], z_shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = (side // code for side, code in zip(image_shape[1:], z_shape[1:], strict=True))
    return height, width
