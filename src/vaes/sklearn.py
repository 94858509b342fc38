"""A VAE as a scikit-learn transformer: rows of numbers to codes and back."""

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from vaes.data import arrays, to_float, to_uint8
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.model import VAE, evaluation
from vaes.randomness import Use, draw, drawn

__all__ = ["VAETransformer"]

ROWS = 256
"""Rows that go through the networks at once."""


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder of the rows of an array (n, features): their codes are the transformed features.

    Fitting brings values to 256 levels between the smallest and the largest; what comes later is neither rounded nor
    cut, so that a row far outside is still far outside. All rows train; a `Pipeline` or `GridSearchCV` holds out.

    Args:
        n_components: numbers in a code.
        method: a row of :data:`vaes.METHODS`.
        image_shape: (C, H, W), C = 1 or 3, where rows are images: pixels are in this order, channel by channel, and
            each of its H rows after the other. None takes them as vectors.
        network: ``mlp``, or one for images: see ``vaes config --list model.network``.
        hidden: widths of an MLP's hidden layers, and of the other networks nothing.
        likelihood: ``gaussian`` (its scale is fitted, its mean may be any number), or another kind.
        value_range: the lowest and the highest value of all features; None is what they are in ``fit``, for each
            feature apart, or over all pixels where rows are images.
        n_steps: optimiser steps.
        batch_size: rows per step, at most all.
        lr: the learning rate; None is one cycle.
        options: any other keys of an experiment, ``{"objective.beta": 4.0, "model.prior": "vamp"}``.
        n_draws: draws a row of :meth:`score_samples`; more bring it closer to the likelihood.
        device: that fits: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        folder: where the run is left, new with every fit; None keeps it in memory alone.
        random_state: a seed, a ``RandomState``, or None for another result with every fit.

    Attributes:
        run_: the :class:`vaes.Run`; its model computes in float64 on a CPU.
        experiment_: what was trained.
        low_, high_: (features,) what became the lowest and the highest value.
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        method: str = "vae",
        image_shape: tuple[int, int, int] | None = None,
        network: str = "mlp",
        hidden: Sequence[int] = (128, 128),
        likelihood: str = "gaussian",
        value_range: tuple[float, float] | None = None,
        n_steps: int = 1000,
        batch_size: int = 128,
        lr: float | None = None,
        options: Mapping[str, Any] | None = None,
        n_draws: int = 32,
        device: str = "cpu",
        folder: str | Path | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.image_shape = image_shape
        self.network = network
        self.hidden = hidden
        self.likelihood = likelihood
        self.value_range = value_range
        self.n_steps = n_steps
        self.batch_size = batch_size
        self.lr = lr
        self.options = options
        self.n_draws = n_draws
        self.device = device
        self.folder = folder
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> "VAETransformer":
        """Train on rows (n, features), n at least 2; ``y`` is not looked at.

        Raises:
            UserError: (a ValueError) a parameter, or data, that no VAE can be trained with.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        shape = self._shape(X.shape[1])
        self.low_, self.high_ = self._limits(X)
        levels = np.floor(self._unit(X) * 255 + 0.5).astype(np.uint8).reshape(len(X), *shape)
        images = arrays(levels, levels[:1], valid=levels[:1])  # a training wants them; nobody reads the numbers
        self.experiment_ = self._experiment(len(X))
        if self.folder is not None:
            self.run_ = self.experiment_.fit(self.folder, data=images, device=self.device)
        else:
            with tempfile.TemporaryDirectory() as folder:
                self.run_ = self.experiment_.fit(Path(folder) / "run", data=images, device=self.device)
        if self.run_.device.type == "cpu":  # a row's code is then the same to 1e-7 in whatever company it comes
            self.run_.model.double()
        self._n_features_out = self.run_.model.z_dim
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Rows (n, features) -> the means of their codes (n, components)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

        def centre(model: VAE, x: Tensor) -> Tensor:
            latent = model.encode(x)
            return (latent.z[0] if latent.mean is None else latent.mean).flatten(1)

        return self._through(centre, self._pixels(X)).astype(X.dtype)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Codes (n, components) -> the mean rows that they stand for (n, features)."""
        check_is_fitted(self)
        codes = check_array(X, dtype=[np.float64, np.float32])
        if codes.shape[1] != self._n_features_out:
            raise UserError(f"X has {codes.shape[1]} columns; codes have {self._n_features_out}")
        z = torch.from_numpy(np.ascontiguousarray(codes))
        return self._rows(self._through(lambda model, z: model.decode(model.shaped(z)), z)).astype(codes.dtype)

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> NDArray[Any]:
        """Draw codes from the prior -> the mean rows that they stand for (n_samples, features).

        ``random_state``: by default the estimator's.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise UserError(f"n_samples: {n_samples} is not right; it must be at least 1")
        seed = _seed(self.random_state if random_state is None else random_state)
        noise = drawn(self.run_.model.prior.noise, (n_samples,), torch.Generator().manual_seed(seed))
        return self._rows(self._through(lambda model, noise: model.sample(noise), noise))

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Rows (n, features) -> log p(x) of each, in nats, from below: the importance-weighted bound of ``n_draws``.

        It is a density of the features as they were given, so that models compare; of discrete likelihoods, the
        probability of the row's levels. The draws depend on the row's values alone.

        Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519,
        equation 8.

        Raises:
            UserError: (a ValueError) the method has no likelihood.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        model = self.run_.model
        if "log_q" not in model.posterior.gives:
            raise UserError(f"method: {self.method} gives codes without a density, and so no likelihood of a row")
        x = self._pixels(X)
        continuous = model.likelihood.measure(x) == "density"
        if not continuous:
            x = to_float(to_uint8(x, model.value_range), model.value_range).double()
        bounds = self._through(self._bound, x)
        low, high = model.value_range
        stretch = np.log((high - low) / (self.high_ - self.low_)).sum() if continuous else 0.0
        return np.asarray(bounds + stretch, np.float64)

    def score(self, X: Any, y: object = None) -> float:
        """The mean of :meth:`score_samples`, nats a row: what a search over parameters maximises."""
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _experiment(self, n: int) -> Experiment:
        network = {"kind": self.network} | ({"hidden": list(self.hidden)} if self.network == "mlp" else {})
        fitted = {"scale": "optimal", "link": "identity"} if self.likelihood == "gaussian" else {}
        length = {"n_steps": self.n_steps, "batch_size": min(self.batch_size, n)}
        lr = {} if self.lr is None else {"lr": self.lr}
        made = Experiment(
            seed=_seed(self.random_state),
            method=self.method,
            data={"kind": "arrays"},
            model={"z_dim": self.n_components, "network": network, "likelihood": {"kind": self.likelihood, **fitted}},
            train={**length, **lr, "print_freq": 0, "eval_freq": 0, "sample_freq": 0, "save_freq": 0},
        )
        return made.replace(self.options) if self.options else made

    def _shape(self, features: int) -> tuple[int, int, int]:
        if self.image_shape is None:
            return 1, 1, features
        shape = tuple(self.image_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or math.prod(shape) != features:
            raise UserError(
                f"image_shape: {shape} is not right for rows of {features} numbers; it is (C, H, W) with C = 1 or 3 "
                f"and C * H * W = {features}"
            )
        return shape[0], shape[1], shape[2]

    def _limits(self, X: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is lowest and highest, of each feature."""
        if self.value_range is None:
            apart = self.image_shape is None
            low, high = (np.asarray(f(X, axis=0) if apart else f(X), np.float64) for f in (np.min, np.max))
        else:
            low, high = (np.asarray(end, np.float64) for end in self.value_range)
            if not low < high or X.min() < low or X.max() > high:
                raise UserError(
                    f"value_range: {self.value_range} is not right for values from {X.min():g} to {X.max():g}; give "
                    "the lowest and then the highest that there can be"
                )
        high = np.where(high > low, high, low + 1)  # of a feature that never changes
        return np.broadcast_to(low, X.shape[1:]).copy(), np.broadcast_to(high, X.shape[1:]).copy()

    def _unit(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return (X - self.low_) / (self.high_ - self.low_)

    def _pixels(self, X: NDArray[Any]) -> Tensor:
        """Rows as the model's images, neither rounded nor cut."""
        low, high = self.run_.model.value_range
        return torch.from_numpy(low + (high - low) * self._unit(X)).reshape(len(X), *self.run_.image_shape)

    def _rows(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """The model's images as rows in the features' own units."""
        low, high = self.run_.model.value_range
        unit = (images.reshape(len(images), -1).astype(np.float64) - low) / (high - low)
        return self.low_ + unit * (self.high_ - self.low_)

    def _through(self, part: Callable[[VAE, Tensor], Tensor], x: Tensor) -> NDArray[Any]:
        """What a part of the model makes of x, some rows at a time."""
        model = self.run_.model
        like = next(model.parameters())
        with evaluation(model):
            return np.concatenate([part(model, chunk.to(like)).cpu().numpy() for chunk in x.split(ROWS)])

    def _bound(self, model: VAE, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B,) log of the mean of p(x, z) / q(z|x) over draws of q."""
        content = [int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "big") for row in x.cpu().numpy()]
        seed = self.experiment_.seed
        rows = [draw(model.noise, (self.n_draws,), seed, Use.ENCODING, index) for index in content]
        trace = model(x, torch.stack(rows, 1).to(x))
        assert trace.log_q is not None
        weights: Tensor = trace.log_px + trace.log_pz - trace.log_q
        return weights.logsumexp(0) - math.log(self.n_draws)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))
