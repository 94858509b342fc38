"""How well reconstructions of held-out and of training images do while a training is under way: PSNR, SSIM, rFID and a
perceptual distance."""

import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vaes.data import ImageSet, to_float, to_uint8
from vaes.errors import UserError
from vaes.evaluate import Metric, NotApplicable, fid, reconstruction_metrics
from vaes.evaluate.features import Features, find_features
from vaes.evaluate.likeness import Distance, find_distance
from vaes.evaluate.passes import choose, pixels
from vaes.model import evaluation
from vaes.train.units import OF_FIDELITY
from vaes.train.validate import BLOCK

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Fidelity"]


class _Seen(NamedTuple):
    """Images that are looked at each time, as bytes, and their features (N, d) in the first process."""

    images: Tensor
    features: Tensor


class Fidelity:
    """Numbers of n validation and n training images, the same each time: ``psnr[n]``, ``ssim[n]``, ``rfid[FEATURES,
    n]`` and ``perceptual[FEATURES,n]``, or ``lpips[vgg,n]``, of the mean images of their central codes, rounded to
    bytes; those of training images are ``psnr_train[n]`` and so on. As many of both, because FID falls with the number
    of images: where the two rFIDs part, the model knows its training images better than others.

    Args:
        n: images of each split.
        features: of rFID: see :func:`vaes.evaluate.features.find_features`. A network that is trained for it is left in
            the run folder, where ``vaes evaluate`` finds it.
        perceptual: see :func:`vaes.evaluate.likeness.find_distance`.
    """

    _features: Features
    _distance: Distance | None = None

    def __init__(self, n: int, features: str, perceptual: str = "auto") -> None:
        self.n, self._asked, self._perceptual = n, features, perceptual
        self._seen: dict[str, _Seen] = {}

    def start(self, training: "Training") -> None:
        """Take images and features.

        Raises:
            UserError: there are too few images, or they allow no such features.
        """
        splits = training.splits
        for split in ("valid", "train"):
            if (there := len(getattr(splits, split))) < self.n:
                raise UserError(
                    f"train.monitor: {self.n:,} images of each split, and {split} has {there:,}; ask for {there:,} or "
                    f"fewer, or take more images (data.n_{split})"
                )
        images = {
            suffix: _bytes(getattr(splits, split), self.n) for suffix, split in (("", "valid"), ("_train", "train"))
        }
        training.runtime.from_first(lambda: self._begin(training, images))
        if not self._seen:
            self._seen = {suffix: _Seen(taken, torch.empty(0)) for suffix, taken in images.items()}

    def _begin(self, training: "Training", images: dict[str, Tensor]) -> None:
        with torch.inference_mode():
            try:
                self._features = find_features(self._asked, training.splits, training.folder)
                seen = {suffix: _Seen(taken, self._features.extract(taken)) for suffix, taken in images.items()}
                self._rfid(seen["_train"].features, seen[""].features)
            except NotApplicable as reason:
                raise UserError(f"train.monitor: rFID of {self.n:,} images: {reason}") from None
        self._seen = seen
        training.say(f"rfid[{self._short(self._features.name)}] is in the features of {self._features.name}")
        self._find_distance(training)

    def _find_distance(self, training: "Training") -> None:
        try:
            found = find_distance(self._perceptual, lambda: self._features, training.splits, training.folder)
        except NotApplicable as reason:
            if self._perceptual != "auto":
                raise UserError(f"train.monitor_perceptual: {reason}") from None
            training.say(f"no perceptual distance: {reason} (train.monitor_perceptual)")
            return
        except UserError as error:
            raise UserError(f"train.monitor_perceptual: {error}") from None
        maps = copy.deepcopy(found.maps).to(training.runtime.device)  # the vectors are taken on the CPU, by the first
        self._distance = found._replace(maps=maps)

    def _short(self, features: str) -> str:
        return f"{features.split(' ')[0]},{self.n}"

    def _rfid(self, real: Tensor, fake: Tensor) -> float:
        return fid(real, fake, features=self._features.name).value

    def measure(self, training: "Training") -> dict[str, float]:
        """The numbers, in every process, each of which reconstructs its share."""
        if not self._seen:
            self.start(training)
        model, runtime, made = training.state.model, training.runtime, {}
        with training.clock.on("validation"), training.state.averaged(), evaluation(model):
            for suffix, (images, _) in self._seen.items():
                mine = {}
                for number, part in enumerate(images.split(BLOCK // 5)):
                    if number % runtime.world == runtime.rank:
                        x = to_float(part, model.value_range).to(runtime.device)
                        mine[number] = to_uint8(model.reconstruct(x), model.value_range).cpu()
                parts = {number: part for each in runtime.collected(mine) for number, part in each.items()}
                made[suffix] = torch.cat([parts[number] for number in sorted(parts)])
            found: dict[str, float] = runtime.from_first(lambda: self._numbers(made))
        return found

    def _numbers(self, made: dict[str, Tensor]) -> dict[str, float]:
        found: dict[str, float] = {}
        for suffix, (images, real) in self._seen.items():
            pairs = reconstruction_metrics(images.double() / 255, made[suffix].double() / 255, data_range=1)
            found |= {
                f"{one.name}{suffix}[{self.n}]": one.value
                for one in pairs
                if isinstance(one, Metric) and one.name in OF_FIDELITY
            }
            found[f"rfid{suffix}[{self._short(self._features.name)}]"] = self._rfid(
                real, self._features.extract(made[suffix])
            )
            if (one := self._distance) is not None:
                found[f"{one.name}{suffix}[{self._short(one.features)}]"] = one.of(images, made[suffix]).mean().item()
        return found


def _bytes(images: ImageSet, n: int) -> Tensor:
    return pixels(images, choose(images, n, 0)).clone()
