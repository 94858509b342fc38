"""Tasks that unlabelled images set by themselves: which way up they are, and where their quarters belong.

Gidaris, Singh & Komodakis, Unsupervised Representation Learning by Predicting Image Rotations, 2018,
https://arxiv.org/abs/1803.07728 (four quarter turns; here also mirrored, eight, and four where a side is longer);
Noroozi & Favaro, Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, 2016,
https://arxiv.org/abs/1603.09246 (nine tiles; here four, in all 24 orders).
"""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn
from torch.nn import functional as F

from vaes.data import ImageSet, Splits
from vaes.evaluate.feature_network import SEED, STEPS, Classifier, fit, seen
from vaes.evaluate.passes import choose, pixels
from vaes.evaluate.record import NotApplicable

__all__ = ["Solved", "Task", "beats_chance", "tasks", "train_on_tasks"]

MIN_SIDE = 4
MOST_HELD_OUT = 4_000
LIFT = 0.05  # of the way from chance to no error
LEVEL = 1e-3
ORDERS = tuple(permutations(range(4)))


class Task(NamedTuple):
    """One of so many changes is made to an image, and the network is to say which."""

    name: str
    classes: int
    change: Callable[[Tensor, int], Tensor]  # (B, C, H, W), class -> (B, C, H, W)

    def apply(self, x: Tensor, which: Tensor) -> Tensor:
        """Images (B, C, H, W), each changed by its own class (B,)."""
        changed = torch.empty_like(x)
        for label in which.unique().tolist():
            changed[which == label] = self.change(x[which == label], label)
        return changed


class Solved(NamedTuple):
    """What a network knows of a task."""

    accuracy: float  # on held-out images
    classes: int


def tasks(h: int, w: int) -> list[Task]:
    """What can be asked of images (C, H, W); nothing of those with a side below 4 pixels, vectors among them."""
    if min(h, w) < MIN_SIDE:
        return []
    return [Task("orientations", 8, _turn) if h == w else Task("mirrors", 4, _mirror), Task("tiles", 24, _tile)]


def _turn(x: Tensor, label: int) -> Tensor:
    return (x.flip(3) if label >= 4 else x).rot90(label % 4, (2, 3))


def _mirror(x: Tensor, label: int) -> Tensor:
    return x.flip([axis for axis, bit in ((3, 1), (2, 2)) if label & bit])


def _tile(x: Tensor, label: int) -> Tensor:
    """Quarters in another order; an odd last row or column stays."""
    h, w = (side // 2 for side in x.shape[2:])
    places = [(slice(i, i + h), slice(j, j + w)) for i in (0, h) for j in (0, w)]
    out = x.clone()
    for (to_rows, to_columns), place in zip(places, ORDERS[label], strict=True):
        rows, columns = places[place]
        out[:, :, to_rows, to_columns] = x[:, :, rows, columns]
    return out


def train_on_tasks(
    splits: Splits, *, steps: int = STEPS, progress: bool = False, seed: int = SEED
) -> tuple[Classifier, dict[str, Solved]]:
    """A network that learns the tasks on the training split, and how well it does on the test split. Tasks at which it
    does not beat chance there are dropped, and it learns the others anew.

    Raises:
        NotApplicable: no task can be asked of such images, or none beats chance.
    """
    _, h, w = splits.train.shape
    left = tasks(*seen(pixels(splits.train, torch.tensor([0]))).shape[2:])
    if not left:
        raise NotApplicable(
            f"images of {h}x{w} have neither orientation nor quarters to learn features from without labels"
        )
    said = []
    while left:
        network = _train(splits.train, left, steps, progress, seed)
        accuracy, n = _held_out(network, splits.test, left), min(len(splits.test), MOST_HELD_OUT)
        good = [task for task in left if beats_chance(accuracy[task.name], n, task.classes)]
        if len(good) == len(left):
            return network, {task.name: Solved(accuracy[task.name], task.classes) for task in left}
        said += [f"{task.name} {accuracy[task.name]:.3f} against {1 / task.classes:.3f} by chance"
                 for task in left if task not in good]  # fmt: skip
        left = good
    raise NotApplicable(
        f"nothing that can be learned without labels from these images beats chance on {n} held-out ones "
        f"({', '.join(said)})"
    )


def beats_chance(accuracy: float, n: int, classes: int) -> bool:
    """Whether so many right answers of n are more than luck (a binomial tail below 0.001) and more than a trifle (a
    twentieth of the way from chance to no error)."""
    chance = 1 / classes
    luck = float(binom.sf(round(accuracy * n) - 1, n, chance))
    return luck < LEVEL and (accuracy - chance) / (1 - chance) >= LIFT


def _train(images: ImageSet, asked: Sequence[Task], steps: int, progress: bool, seed: int) -> Classifier:
    def loss(network: nn.Module, x: Tensor, index: Tensor, step: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        values = []
        for task, part, head in zip(asked, x.chunk(len(asked)), _heads(asked), strict=False):
            which = torch.from_numpy(rng.integers(task.classes, size=len(part)))
            logits = network(task.apply(part, which))[:, head]
            values.append(F.cross_entropy(logits, which))
        return torch.stack(values).sum()

    outputs = sum(task.classes for task in asked)
    what = "features without labels"
    return fit(images, outputs, loss, steps=steps, what=what, progress=progress, seed=seed)


def _heads(asked: Sequence[Task]) -> list[slice]:
    """The outputs that answer each task."""
    ends = np.cumsum([task.classes for task in asked]).tolist()
    return [slice(end - task.classes, end) for task, end in zip(asked, ends, strict=True)]


def _held_out(network: Classifier, images: ImageSet, asked: Sequence[Task]) -> dict[str, float]:
    rng = np.random.default_rng((SEED, 0, 1))
    index = choose(images, MOST_HELD_OUT, SEED)
    hits = {task.name: 0 for task in asked}
    with torch.no_grad():
        for part in index.split(500):
            x = seen(pixels(images, part))
            for task, head in zip(asked, _heads(asked), strict=True):
                which = torch.from_numpy(rng.integers(task.classes, size=len(part)))
                hits[task.name] += int((network(task.apply(x, which))[:, head].argmax(1) == which).sum())
    return {name: count / len(index) for name, count in hits.items()}
