"""How far images look from each other: distances in the feature maps of a network, each by the network's name."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaes import functional
from vaes.data import Splits
from vaes.errors import UserError
from vaes.evaluate.features import TRAINED, Features, find_features
from vaes.evaluate.published_features import is_published, published
from vaes.evaluate.record import NotApplicable

__all__ = ["Distance", "find_distance"]

PART = 100  # images in the network at once


class Distance(NamedTuple):
    """A distance of pairs of images: the one that the term ``perceptual`` of a training lowers, in maps of its own."""

    name: str
    """``perceptual``, or ``lpips`` in the maps and with the weights of LPIPS."""
    features: str
    maps: nn.Module

    def of(self, x: Tensor, y: Tensor) -> Tensor:
        """Images (N, C, H, W), bytes or numbers in [0, 1] -> (N,), 0 where they are equal; on the maps' device."""
        of_channels = getattr(self.maps, "weights", None)
        weights = None if of_channels is None else of_channels()
        device = next(itertools.chain(self.maps.parameters(), self.maps.buffers())).device
        found = []
        for pair in zip(x.split(PART), y.split(PART), strict=True):
            a, b = (self.maps(_unit(one).to(device)) for one in pair)
            found.append(functional.feature_distance(a, b, weights))
        return torch.cat(found).cpu()


def _unit(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float() / 255


def find_distance(
    name: str, features: Callable[[], Features], splits: Splits, cache: Path | None, *, progress: bool = False
) -> Distance:
    """The distance of a name.

    Args:
        name: ``auto`` for the maps of ``features``; ``classifier``, ``pretext`` or the path of such a network's
            .safetensors file, as :func:`vaes.evaluate.features.find_features` has them; ``lpips``, or ``timm:NAME``.
        features: those that sample quality is measured in.
        splits: images, and labels for the classifier.
        cache: the folder in which a trained network is kept; None to keep it nowhere.
        progress: show a bar on a terminal.

    Raises:
        UserError: no such features, or what they need is not installed.
        NotApplicable: they have no maps.
    """
    if is_published(name):
        found, maps = published(name, splits.train.shape)
        return Distance("lpips", "vgg", maps) if name == "lpips" else Distance("perceptual", found, maps)
    if name not in TRAINED and not name.endswith(".safetensors"):
        raise UserError(
            f"{name!r} is none of {', '.join(TRAINED)}, lpips, timm:NAME, nor the .safetensors file of a "
            "network that vaes evaluate has left"
        )
    own = features() if name == "auto" else find_features(name, splits, cache, progress=progress)
    if own.maps is None:
        raise NotApplicable(
            f"{own.name} are no features of places, by which pictures could be compared; those of classifier, pretext, "
            "lpips and timm:NAME are"
        )
    return Distance("perceptual", own.name, own.maps)
