"""Networks in whose feature maps a training compares images with their reconstructions."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from vaes.data import Splits
from vaes.errors import UserError
from vaes.evaluate.feature_network import Classifier, FeatureMaps
from vaes.evaluate.features import known, leave, load_network, title, train_classifier, train_pretext
from vaes.evaluate.passes import fingerprint
from vaes.evaluate.record import NotApplicable

__all__ = ["FILE", "KINDS", "Found", "find_feature_maps", "untrained"]

STEPS = 300
FILE = "perceptual.safetensors"
KINDS = ("auto", "classifier", "pretext", "random")
SEED = 1
"""Another than that of the features that ``vaes evaluate`` trains: a model that was trained to look right in features
is not to be judged in the same ones."""


class Found(NamedTuple):
    """A network, and what is known of it."""

    network: Classifier
    metadata: dict[str, Any]

    @property
    def name(self) -> str:
        """How it was trained, a hash of its weights, and how good it is on validation images."""
        return title(*self, split="validation")

    @property
    def maps(self) -> FeatureMaps:
        """Its features."""
        return FeatureMaps(self.network)

    def write(self, run: Path) -> None:
        """Leave it in a run folder, for :func:`find_feature_maps`."""
        leave(run / FILE, *self)


def find_feature_maps(
    name: str, splits: Splits, run: Path | None = None, *, steps: int = STEPS, progress: bool = False
) -> Found:
    """The network of a name, trained on the training images and tried on the validation images.

    Args:
        name: one of :data:`KINDS`, or a path that ends in ``.safetensors``; ``auto`` is ``classifier`` where the images
            have labels of two kinds and more, else ``pretext``, and ``random`` where they allow neither.
        splits: images, and labels for the classifier.
        run: where one may be that :meth:`Found.write` left; taken if it is of this name and these images.
        steps: of its training.
        progress: show a bar on a terminal.

    Raises:
        UserError: no such network.
        NotApplicable: the images have nothing for such a network to learn.
    """
    path = Path(name)
    if name not in KINDS and path.suffix != ".safetensors":
        raise UserError(
            f"{name!r} is none of {', '.join(KINDS)}, lpips, timm:NAME, nor a .safetensors file of such a network"
        )
    channels = splits.train.shape[0]
    wanted = {"asked": name, "train": fingerprint(splits.train), "steps": steps, "seed": SEED}
    if run is not None and (found := known(run / FILE, channels, wanted)) is not None:
        return Found(*found)
    if name in KINDS:
        tried = dataclasses.replace(splits, test=splits.valid)  # the test images are for the end
        network, about = _trained(name, tried, steps, progress)
    else:
        network, about = load_network(path, channels)
    return Found(network, {**about, **wanted})


def _trained(name: str, splits: Splits, steps: int, progress: bool) -> tuple[Classifier, dict[str, Any]]:
    for kind, train in (("classifier", train_classifier), ("pretext", train_pretext)):
        if name in (kind, "auto"):
            try:
                return train(splits, steps=steps, progress=progress, seed=SEED)
            except NotApplicable:
                if name != "auto":
                    raise
    return _random(splits.train.shape[0])


def _random(channels: int) -> tuple[Classifier, dict[str, Any]]:
    """Random filters: less of what people see than learned ones, but enough to reconstruct pictures and textures from
    (He, Wang & Hopcroft, A Powerful Generative Model Using Random Weights for the Deep Image Representation, 2016,
    https://arxiv.org/abs/1606.04801), for images that teach nothing, and as the control of learned ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Classifier(channels, 1)
        for layer in network.body:
            if isinstance(layer, nn.Conv2d):  # at torch's own scale the biases drown what comes in
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return network.eval().requires_grad_(False), {"untrained": True}


def untrained(channels: int, name: str) -> tuple[str, nn.Module]:
    """The network of ``random``, and of ``auto`` where there are no images to train one on.

    Raises:
        ValueError: another is wanted.
    """
    if name not in ("auto", "random"):
        raise ValueError(f"features: {name} needs images, which are not at hand here: use random")
    found = Found(*_random(channels))
    return found.name, found.maps
