"""The small network whose last hidden layer gives features, and its training, always the same on the same images."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from vaes.data import Batches, ImageSet
from vaes.evaluate.passes import choose, pixels

__all__ = ["SEED", "STEPS", "Classifier", "FeatureMaps", "digest", "fit", "seen", "shrunk"]

WIDTH = 64
STEPS = 600
BATCH = 128
LARGEST = 64  # pixels of a side: what the network sees of larger images, so that a minute is enough
SEED = 0  # not the user's: runs on the same data are to get the same network


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


class FeatureMaps(nn.Module):
    """The three convolutions of a :class:`Classifier`: images (N, C, H, W) in [0, 1] -> maps (N, 32, H / 2, W / 2), (N,
    64, H / 4, W / 4) twice; sides above 64 pixels are shrunk to that first."""

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer for layer in network.body if isinstance(layer, nn.Conv2d))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, from fine to coarse."""
        found, x = [], shrunk(x)
        for layer in self.layers:
            x = layer(x).relu()
            found.append(x)
        return found


def seen(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> what the network sees: in [0, 1], and means over areas where a side exceeds 64 pixels."""
    return shrunk(images.float() / 255)


def shrunk(x: Tensor) -> Tensor:
    """(B, C, H, W), means over areas where a side exceeds 64 pixels."""
    h, w = x.shape[2:]
    if max(h, w) <= LARGEST:
        return x
    size = [max(1, round(side * LARGEST / max(h, w))) for side in (h, w)]
    return F.interpolate(x, size=size, mode="area")


def fit(
    images: ImageSet, outputs: int, loss: Callable[[nn.Module, Tensor, Tensor, int], Tensor], *, steps: int, what: str,
    progress: bool, seed: int = SEED,
) -> Classifier:  # fmt: skip
    """A network of so many outputs, trained for so many steps of 128 images with Adam.

    Args:
        images: to train on.
        outputs: of the network's head.
        loss: (network, images (B, C, H, W) as :func:`seen`, their indices (B,), step) -> what falls.
        steps: of Adam.
        what: the bar's name.
        progress: show a bar on a terminal.
        seed: of the first weights and of the order of images.
    """
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        network = Classifier(images.shape[0], outputs)
        optimizer = torch.optim.Adam(network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        order = Batches(images, min(BATCH, len(images)), seed)
        for step in tqdm(range(steps), desc=what, disable=None if progress else True, leave=False):
            index = order.index(step)
            # Cloned: what is read under inference mode may not meet autograd.
            value = loss(network, seen(pixels(images, index)).clone(), index.cpu(), step)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        hidden = network.body(seen(pixels(images, choose(images, 2_000, SEED))))
        network.scale.copy_(hidden.square().mean().clamp_min(1e-12).rsqrt())
    return network.eval().requires_grad_(False)


def digest(network: nn.Module) -> str:
    """SHA-256 of the weights."""
    found = hashlib.sha256()
    for tensor in network.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()
