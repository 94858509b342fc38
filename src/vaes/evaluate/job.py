"""What the groups of metrics start from: a model, a split and a budget, and what several of them need, once."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data import ImageSet, Splits, to_float
from vaes.evaluate.features import Features, find_features
from vaes.evaluate.likelihood import Bound, Draws, bound_of
from vaes.evaluate.likeness import Distance, find_distance
from vaes.evaluate.passes import Codes, Samples, batches, central, choose, draw_samples, encode, join, pixels
from vaes.evaluate.record import Column
from vaes.fitting import Fitted
from vaes.model import VAE

__all__ = ["Budget", "Job"]


class Budget(NamedTuple):
    """How much is spent; more gives smaller errors and takes longer."""

    n_images: int = 10_000
    """Images of the split, at random, and as many samples."""
    iw_samples: int = 100
    """K of the importance-weighted bound."""
    iw_images: int = 500
    """Images that the bound with K samples, and the bits per dimension, are taken over."""
    ais_images: int = 16
    ais_steps: int = 500
    ais_chains: int = 8
    batch_size: int = 500
    """Images or codes that are in a network at once."""


class Job:
    """A model, a split and a budget, with what several groups need computed once."""

    def __init__(
        self, model: VAE, splits: Splits, split: str, budget: Budget, seed: int, progress: bool,
        features: Features | str, cache: Path | None, outliers: ImageSet | None, only: Sequence[str],
        fitted: Sequence[Fitted] = (), perceptual: str = "auto",
    ) -> None:  # fmt: skip
        self.model, self.splits, self.split, self.budget, self.only = model, splits, split, budget, only
        self.seed, self.progress, self.cache, self.outliers = seed, progress, cache, outliers
        self._features, self._perceptual, self.fitted = features, perceptual, fitted
        self.images: ImageSet = getattr(splits, split)
        self.index = choose(self.images, budget.n_images, seed)
        self.like = next(model.parameters())
        self.columns: dict[str, Column] = {}

    @cached_property
    def bounds(self) -> tuple[Codes, Bound]:
        """Codes of the images and their bounds by one draw each, (N,) float64, from one pass."""
        return self.bounds_of(self.images, self.index, "ELBO")

    def bounds_of(self, images: ImageSet, index: Tensor, what: str) -> tuple[Codes, Bound]:
        """What :attr:`bounds` holds, of any images."""
        codes, columns = [], []
        for part in batches(index, self.budget.batch_size, what, self.progress):
            x = self.floats(images, part)
            trace = self.model(x, Draws(self.seed, part.tolist(), self.model.z_dim).of(self.model.noise, 1, x))
            columns.append(torch.stack([column.double().cpu() for column in bound_of(trace, self.model)]))
            codes.append(central(trace))
        return join(codes), Bound(*torch.cat(columns, 1))

    @cached_property
    def codes(self) -> Codes:
        """Codes of the images, from the pass of the bounds if that is made anyhow."""
        if "log_q" in self.model.posterior.gives and {"likelihood", "downstream"} & set(self.only):
            return self.bounds[0]
        return encode(self.model, self.images, self.index, self.budget.batch_size, self.progress)

    @cached_property
    def training(self) -> tuple[Tensor, Codes]:
        """As many images of the training split: their indices and codes."""
        rows = choose(self.splits.train, self.budget.n_images, self.seed)
        return rows, encode(self.model, self.splits.train, rows, self.budget.batch_size, self.progress)

    @cached_property
    def features(self) -> Features:
        """The features, trained if need be."""
        if isinstance(self._features, Features):
            return self._features
        return find_features(self._features, self.splits, self.cache, progress=self.progress)

    @cached_property
    def distance(self) -> Distance:
        """How far reconstructions look from images."""
        return find_distance(self._perceptual, lambda: self.features, self.splits, self.cache, progress=self.progress)

    @cached_property
    def features_of_chosen(self) -> Tensor:
        """The features of the images (N, F)."""
        return torch.as_tensor(self.features.extract(self.chosen))

    @cached_property
    def chosen(self) -> Tensor:
        """The images, (N, C, H, W) uint8."""
        return pixels(self.images, self.index)

    @cached_property
    def samples(self) -> Samples:
        """As many samples as images; draws too if a group looks at them."""
        n, draws = len(self.index), "predictive" in self.only
        return draw_samples(self.model, n, self.budget.batch_size, self.seed, self.progress, draws=draws)

    def samples_of(self, fitted: Fitted) -> Samples:
        """As many means of codes from a prior that was fitted after training."""
        n, size = len(self.index), self.budget.batch_size
        return draw_samples(self.model, n, size, self.seed, self.progress, prior=fitted.prior)

    def column(self, name: str, values: Tensor, index: Tensor) -> None:
        """Keep what the metric ``name`` is the mean of: ``values`` (n,) of the images at ``index`` (n,)."""
        self.columns[name] = Column(tuple(index.tolist()), tuple(values.double().tolist()))

    def floats(self, images: ImageSet, index: Tensor) -> Tensor:
        """Images at an index in the model's value range, on its device and in its type."""
        return to_float(pixels(images, index), self.model.value_range).to(self.like)
