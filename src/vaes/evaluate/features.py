"""Feature networks for sample quality. A number is comparable with another only under the same features, by name."""

import hashlib
import importlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vaes import files
from vaes.data import Batches, ImageSet, Splits
from vaes.errors import UserError
from vaes.evaluate.passes import choose, fingerprint, pixels
from vaes.evaluate.record import NotApplicable

__all__ = ["FEATURES", "Classifier", "Features", "classifier_features", "find_features", "inception", "pixel_features"]

logger = logging.getLogger(__name__)

FEATURES = ("classifier", "inception", "pixels")
WIDTH = 64
STEPS = 600
SEED = 0  # not the user's: runs on the same data are to get the same network


class Features(NamedTuple):
    """A named map from images to feature vectors."""

    name: str
    extract: Callable[[Tensor], Tensor]  # (N, C, H, W) uint8 -> (N, d)


class Classifier(nn.Module):
    """A small convolutional classifier of images (B, C, H, W) in [0, 1]; its 64 last hidden units are the features."""

    scale: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 16, WIDTH),
            nn.ReLU(),
        )
        self.head = nn.Linear(WIDTH, classes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, classes)."""
        logits: Tensor = self.head(self.body(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 64), of mean square 1 on training images: kernels of fixed width need a known scale."""
        return torch.as_tensor(self.body(x) * self.scale)


def find_features(name: str, splits: Splits, cache: Path | None, *, progress: bool = False) -> Features:
    """The features of a name: ``classifier``, ``inception``, ``pixels``, or the path of a classifier trained before.

    Args:
        name: one of :data:`FEATURES`, or a path that ends in ``.safetensors``.
        splits: images and labels for the classifier.
        cache: where a trained classifier is kept; None to keep it nowhere.
        progress: show a bar on a terminal.

    Raises:
        UserError: no such features, or what they need is not installed.
        NotApplicable: the data have no labels to train a classifier on.
    """
    if name == "pixels":
        return pixel_features()
    if name == "inception":
        return inception()
    if name == "classifier":
        return classifier_features(splits, cache, progress=progress)
    if name.endswith(".safetensors"):
        return _load(Path(name), splits.train.shape[0])
    raise UserError(f"features: {name!r} is none of {', '.join(FEATURES)}, nor the .safetensors file of a classifier")


def pixel_features() -> Features:
    """The pixels themselves, in [0, 1]: no network, and no notion of what a picture shows."""
    return Features("pixels", lambda images: images.flatten(1).float() / 255)


def inception() -> Features:
    """The 2,048 pool features of Inception v3 with the weights of the first FID, through torch-fidelity.

    That package resizes to 299x299 as the original did and fetches the weights (91 MB) when first used. Grey images are
    repeated over three channels.

    Raises:
        UserError: torch-fidelity is not installed, or the weights cannot be fetched.
    """
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError:
        raise UserError("features: inception needs torch-fidelity: pip install torch-fidelity") from None
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
    train, test = splits.train, splits.test
    if train.labels is None or test.labels is None:
        raise NotApplicable("the images come without labels, which the classifier is trained on: take other features")
    classes = 1 + int(torch.cat([train.labels, test.labels]).max())
    if classes < 2:
        raise NotApplicable("the labels are of one class: there is nothing to train a classifier on")
    wanted = fingerprint(train)
    if cache is not None and cache.is_file():
        try:
            tensors, metadata = files.read_tensors(cache)
            if (metadata.get("train"), metadata.get("steps")) == (wanted, steps):
                return _held(tensors, metadata, train.shape[0], cache)
        except UserError as error:
            logger.warning("%s; the classifier is trained anew", error)
    network = _train(train, classes, steps, progress)
    hits = sum(
        int((network(_unit(pixels(test, part))).argmax(1) == test.labels[part]).sum())
        for part in torch.arange(len(test)).split(500)
    )
    accuracy = hits / len(test)
    if cache is not None:
        metadata = {"train": wanted, "steps": steps, "accuracy": accuracy, "test_images": len(test)}
        files.write_atomic(cache, lambda path: files.write_tensors(path, network.state_dict(), metadata))
    return _features(network, accuracy)


def _train(images: ImageSet, classes: int, steps: int, progress: bool) -> Classifier:
    assert images.labels is not None
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(SEED)
        network = Classifier(images.shape[0], classes)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = Batches(images, min(128, len(images)), SEED)
        for step in tqdm(range(steps), desc="classifier", disable=None if progress else True, leave=False):
            index = order.index(step)
            # Cloned: what is read under inference mode may not meet autograd.
            x, labels = _unit(pixels(images, index)).clone(), images.labels[index.cpu()].clone()
            loss = F.cross_entropy(network(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        hidden = network.body(_unit(pixels(images, choose(images, 2_000, SEED))))
        network.scale.copy_(hidden.square().mean().clamp_min(1e-12).rsqrt())
    return network.eval().requires_grad_(False)


def _unit(images: Tensor) -> Tensor:
    return images.float() / 255


def _load(path: Path, channels: int) -> Features:
    tensors, metadata = files.read_tensors(path)
    return _held(tensors, metadata, channels, path)


def _held(tensors: dict[str, Tensor], metadata: dict[str, Any], channels: int, path: Path) -> Features:
    """The features of a file that :func:`classifier_features` wrote."""
    if not isinstance(metadata.get("accuracy"), float):
        raise UserError(f"{path}: not a classifier that vaes evaluate trained")
    return _features(_build(tensors, channels, path), metadata["accuracy"])


def _build(tensors: dict[str, Tensor], channels: int, path: Path) -> Classifier:
    classes = len(tensors["head.bias"]) if "head.bias" in tensors else 1
    network = Classifier(channels, classes)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise UserError(f"{path}: not the weights of a classifier of images with {channels} channel(s)") from None
    return network.eval().requires_grad_(False)


def _features(network: Classifier, accuracy: float) -> Features:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    name = f"classifier-{digest.hexdigest()[:8]} (test accuracy {accuracy:.4f})"
    return Features(name, lambda images: torch.cat([network.features(_unit(part)) for part in images.split(500)]))
