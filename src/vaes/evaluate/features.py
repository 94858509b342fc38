"""Feature networks for sample quality. A number is comparable with another only under the same features, by name."""

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaes import files
from vaes.data import ImageSet, Splits
from vaes.errors import UserError
from vaes.evaluate.feature_network import SEED, STEPS, Classifier, FeatureMaps, digest, fit, seen
from vaes.evaluate.passes import fingerprint, pixels
from vaes.evaluate.pretext import Solved, train_on_tasks
from vaes.evaluate.record import NotApplicable

__all__ = [
    "FEATURES",
    "TRAINED",
    "Features",
    "classifier_features",
    "find_features",
    "inception",
    "known",
    "leave",
    "load_network",
    "pixel_features",
    "pretext_features",
    "title",
    "train_classifier",
    "train_pretext",
]

logger = logging.getLogger(__name__)

FEATURES = ("auto", "classifier", "pretext", "inception", "pixels")
TRAINED = ("auto", "classifier", "pretext")
"""Those that are trained on the images, which takes a while."""
CLASSIFIER, PRETEXT = "classifier.safetensors", "pretext.safetensors"


class Features(NamedTuple):
    """A named map from images to feature vectors."""

    name: str
    extract: Callable[[Tensor], Tensor]  # (N, C, H, W) uint8 -> (N, d)
    maps: nn.Module | None = None  # (N, C, H, W) in [0, 1] -> maps (N, C', H', W') of its layers


def find_features(name: str, splits: Splits, cache: Path | None, *, progress: bool = False) -> Features:
    """The features of a name, or of a network trained before.

    Args:
        name: one of :data:`FEATURES`, or a path that ends in ``.safetensors``; ``auto`` is ``classifier`` where the
            images have labels of two kinds and more, else ``pretext``.
        splits: images, and labels for the classifier.
        cache: the folder in which a trained network is kept; None to keep it nowhere.
        progress: show a bar on a terminal.

    Raises:
        UserError: no such features, or what they need is not installed.
        NotApplicable: the images have nothing for such a network to learn, or it does not take them.
    """
    if name == "auto":
        name = "classifier" if _classes(splits) > 1 else "pretext"
    if name == "pixels":
        return pixel_features()
    if name == "inception":
        c, h, w = splits.train.shape
        if c not in (1, 3) or min(h, w) < 2:
            raise NotApplicable(f"inception takes grey or colour pictures, not {c} channels of {h}x{w}")
        return inception()
    if name == "classifier":
        return classifier_features(splits, cache, progress=progress)
    if name == "pretext":
        return pretext_features(splits, cache, progress=progress)
    if name.endswith(".safetensors"):
        return _features(*load_network(Path(name), splits.train.shape[0]))
    raise UserError(
        f"features: {name!r} is none of {', '.join(FEATURES)}, nor the .safetensors file that vaes evaluate has left"
    )


def _classes(splits: Splits) -> int:
    """How many kinds of labels there are; 0 without any."""
    train, test = splits.train.labels, splits.test.labels
    return 0 if train is None or test is None else 1 + int(torch.cat([train, test]).max())


def pixel_features() -> Features:
    """The pixels themselves, in [0, 1]: no network, and no notion of what a picture shows."""
    return Features("pixels", lambda images: images.flatten(1).float() / 255)


def inception() -> Features:
    """The 2,048 pool features of Inception v3 with the weights of the first FID, through torch-fidelity.

    That package resizes to 299x299 as the original did and fetches the weights (91 MB) when first used. Grey images are
    repeated over three channels.

    Raises:
        UserError: torch-fidelity is not installed or does not load, or the weights cannot be fetched.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:  # the latter of a torchvision that was built for another torch
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"features: inception needs torch-fidelity ({why}): pip install 'vaes[fid]', with the build of torchvision "
            f"that fits torch {torch.__version__}"
        ) from None
    try:
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except OSError as error:
        raise UserError(f"features: the weights of inception could not be fetched ({error})") from None

    def extract(images: Tensor) -> Tensor:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return torch.cat([network(part)[0].float() for part in rgb.split(64)])

    return Features("inception-v3-compat-2048", extract)


def classifier_features(
    splits: Splits, cache: Path | None = None, *, steps: int = STEPS, progress: bool = False
) -> Features:
    """The last hidden layer of a classifier trained here on the labels of the training split, in seconds.

    So many steps of 128 images with Adam, always from seed 0: runs on the same data get the same network (on one
    machine; the name holds a hash of its weights). Its accuracy on the test split is in the name too. A damaged
    `cache` is named in a warning and made anew.

    Raises:
        NotApplicable: the data have no labels, or one class.
    """
    _labels(splits)
    path = None if cache is None else cache / CLASSIFIER
    return _kept(path, splits.train, steps, lambda: train_classifier(splits, steps=steps, progress=progress))


def train_classifier(
    splits: Splits, *, steps: int = STEPS, progress: bool = False, seed: int = SEED
) -> tuple[Classifier, dict[str, Any]]:
    """The network of :func:`classifier_features`, and its ``accuracy`` on the test split.

    Raises:
        NotApplicable: the data have no labels, or one class.
    """
    (labels, truth), test = _labels(splits), splits.test

    def loss(network: nn.Module, x: Tensor, index: Tensor, step: int) -> Tensor:
        return F.cross_entropy(network(x), labels[index].clone())

    network = fit(splits.train, _classes(splits), loss, steps=steps, what="classifier", progress=progress, seed=seed)
    parts = torch.arange(len(test)).split(500)
    hits = sum(int((network(seen(pixels(test, part))).argmax(1) == truth[part]).sum()) for part in parts)
    return network, {"accuracy": hits / len(test), "test_images": len(test)}


def _labels(splits: Splits) -> tuple[Tensor, Tensor]:
    train, test = splits.train.labels, splits.test.labels
    if train is None or test is None:
        raise NotApplicable("the images come without labels, which the classifier is trained on: take other features")
    if _classes(splits) < 2:
        raise NotApplicable("the labels are of one class: there is nothing to train a classifier on")
    return train, test


def pretext_features(
    splits: Splits, cache: Path | None = None, *, steps: int = STEPS, progress: bool = False
) -> Features:
    """The last hidden layer of a network that is trained here to tell how images of the training split were turned, and
    their quarters put in another order: no labels are needed, and about a minute. Else as
    :func:`classifier_features`; the name holds the tasks at which it beats chance, and its accuracy at each.

    Raises:
        NotApplicable: images that have neither orientation nor quarters, or on which no task beats chance.
    """
    path = None if cache is None else cache / PRETEXT
    try:
        return _kept(path, splits.train, steps, lambda: train_pretext(splits, steps=steps, progress=progress))
    except NotApplicable as error:
        raise NotApplicable(f"{error}: take --features pixels, or another network's") from None


def train_pretext(
    splits: Splits, *, steps: int = STEPS, progress: bool = False, seed: int = SEED
) -> tuple[Classifier, dict[str, Any]]:
    """The network of :func:`pretext_features`, and its ``tasks``, each with the accuracy on the test split.

    Raises:
        NotApplicable: images that have neither orientation nor quarters, or on which no task beats chance.
    """
    network, solved = train_on_tasks(splits, steps=steps, progress=progress, seed=seed)
    return network, {"tasks": {name: list(one) for name, one in solved.items()}, "test_images": len(splits.test)}


def _kept(
    path: Path | None, train: ImageSet, steps: int, trained: Callable[[], tuple[Classifier, dict[str, Any]]]
) -> Features:
    """Of the network at a path, if it was trained so, else of one that is trained and left there."""
    wanted = {"train": fingerprint(train), "steps": steps}
    if path is not None and (found := known(path, train.shape[0], wanted)) is not None:
        return _features(*found)
    network, about = trained()
    metadata = {**wanted, **about}
    if path is not None:
        leave(path, network, metadata)
    return _features(network, metadata)


def known(path: Path, channels: int, wanted: Mapping[str, Any]) -> tuple[Classifier, dict[str, Any]] | None:
    """The network at a path and what is known of it, if that is what is wanted; a damaged one is named in a warning."""
    if not path.is_file():
        return None
    try:
        network, metadata = load_network(path, channels)
    except UserError as error:
        logger.warning("%s; it is trained anew", error)
        return None
    return (network, metadata) if {key: metadata.get(key) for key in wanted} == wanted else None


def leave(path: Path, network: Classifier, metadata: Mapping[str, Any]) -> None:
    """Write a network and what is known of it, for :func:`load_network`."""
    whole = {**metadata, "sha256": digest(network)}
    files.write_atomic(path, lambda file: files.write_tensors(file, network.state_dict(), whole))


def load_network(path: Path, channels: int) -> tuple[Classifier, dict[str, Any]]:
    """A network that was left at a path, and what is known of it.

    Raises:
        UserError: it is no such file, of images with other channels, or damaged.
    """
    tensors, metadata = files.read_tensors(path)
    if not isinstance(metadata.get("accuracy"), float) and not _solved(metadata) and not metadata.get("untrained"):
        raise UserError(f"{path}: not a network that vaes evaluate trained")
    network = Classifier(channels, len(tensors["head.bias"]) if "head.bias" in tensors else 1)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path}: not the weights of a network of images with {channels} channel(s)") from None
    if metadata.get("sha256") not in (None, digest(network)):  # None: written before there was one
        raise UserError(f"{path}: damaged, its weights are not those that were written")
    return network.eval().requires_grad_(False), metadata


def _solved(metadata: Mapping[str, Any]) -> dict[str, Solved]:
    try:
        return {str(name): Solved(float(a), int(n)) for name, (a, n) in metadata["tasks"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def title(network: Classifier, metadata: Mapping[str, Any], split: str = "test") -> str:
    """A network's name: how it was trained, a hash of its weights, and how good it is on a split."""
    short = digest(network)[:8]
    if metadata.get("untrained"):
        return f"random-{short} (not trained)"
    if solved := _solved(metadata):
        said = ", ".join(f"{name} {one.accuracy:.4f} of {one.classes}" for name, one in solved.items())
        return f"pretext-{short} (held-out accuracy: {said})"
    return f"classifier-{short} ({split} accuracy {metadata['accuracy']:.4f})"


def _features(network: Classifier, metadata: Mapping[str, Any]) -> Features:
    name = title(network, metadata)
    return Features(
        name,
        lambda images: torch.cat([network.features(seen(part)) for part in images.split(500)]),
        FeatureMaps(network),
    )
