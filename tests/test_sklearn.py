"""The transformer among scikit-learn's own."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from vaes.errors import UserError
from vaes.sklearn import VAETransformer


def small(**options: Any) -> VAETransformer:
    return VAETransformer(**{"n_components": 2, "hidden": (8,), "n_steps": 20, "random_state": 0, **options})


def rows(n: int = 60) -> np.ndarray:
    numbers = np.random.default_rng(0)
    return numbers.normal(size=(n, 2)) @ numbers.normal(size=(2, 5)) + 0.1 * numbers.normal(size=(n, 5))


@pytest.mark.filterwarnings("ignore:Skipping check")
def test_it_is_an_estimator() -> None:
    check_estimator(small(n_steps=3, n_draws=4))


def test_it_works_in_a_pipeline_and_a_search() -> None:
    x, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), small(), LogisticRegression())
    assert pipeline.fit(x[:100], y[:100]).predict(x[:7]).shape == (7,)
    assert list(pipeline[:-1].get_feature_names_out()) == ["vaetransformer0", "vaetransformer1"]
    grid = {"n_components": [1, 2], "options": [None, {"objective.beta": 4.0}]}
    found = GridSearchCV(small(method="beta_vae"), grid, cv=2).fit(x[:60])
    assert len(found.cv_results_["params"]) == 4
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_rows_are_images_of_the_shape_given() -> None:
    x = load_digits().data[:80]
    made = small(image_shape=(1, 8, 8), network="conv", value_range=(0, 16), options={"model.network.dim": 4}).fit(x)
    levels = np.floor(x * 255 / 16 + 0.5).astype(np.uint8)
    codes = made.run_.encode(levels[:, None].reshape(-1, 1, 8, 8)).mean
    assert np.abs(made.transform(levels * (16 / 255)) - codes).max() < 1e-5
    pictures = made.run_.decode(torch.tensor(codes).double()).flatten(1).numpy()
    assert np.abs(made.inverse_transform(codes) - 8 * (pictures + 1)).max() < 1e-4
    assert made.sample(3).shape == (3, 64)
    assert (made.sample(3) == made.sample(3, random_state=0)).all()
    assert (made.sample(3) != made.sample(3, random_state=1)).any()


def test_scores_are_the_density_of_the_features_in_their_own_units() -> None:
    x = rows()
    made, scaled = small(n_components=1, n_draws=4000).fit(x), small(n_components=1, n_draws=4000).fit(1000 * x + 7)
    scores = made.score_samples(x[:4])
    assert scores - scaled.score_samples(1000 * x[:4] + 7) == pytest.approx(5 * math.log(1000), abs=0.1)  # other draws
    assert made.score(x[:4]) == pytest.approx(scores.mean())

    # The integral of p(x|z) p(z) over a grid of z, the Gaussian written out.
    z = torch.linspace(-8, 8, 20_001, dtype=torch.float64)[:, None]
    means, span = made.inverse_transform(z.numpy()), (made.high_ - made.low_) / 2
    scale = made.run_.model.likelihood.variance.sqrt().item() * span
    inside = -0.5 * ((x[:4, None] - means) / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)
    joint = inside.sum(-1) - 0.5 * z.numpy()[:, 0] ** 2 - 0.5 * math.log(2 * math.pi)
    whole = np.log(np.exp(joint).sum(1) * (16 / 20_000))
    assert scores == pytest.approx(whole, abs=0.02)


def test_what_lies_outside_is_neither_cut_nor_rounded() -> None:
    x = rows()
    made = small(n_steps=200).fit(x)
    far = x[:1] + 50
    assert made.score_samples(far) < made.score_samples(x).min() - 100
    near = far + 1e-3
    assert (made.transform(near) != made.transform(far)).any()
    levels = small(likelihood="discretised_logistic").fit(x).score_samples(x)
    assert (levels < 0).all()  # logarithms of probabilities


def test_it_survives_pickling_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = small(n_steps=2).fit(rows())
    assert not list(tmp_path.iterdir())
    again = pickle.loads(pickle.dumps(made))
    assert (again.transform(rows()) == made.transform(rows())).all()
    kept = clone(made).set_params(folder=tmp_path / "run").fit(rows())
    assert (kept.transform(rows()) == made.transform(rows())).all()
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (1, 2, 2)}, r"image_shape: \(1, 2, 2\) is not right for rows of 5 numbers"),
        ({"value_range": (0, 1)}, "value_range: .* is not right for values from"),
        ({"method": "vea"}, "method"),
        ({"options": {"model.z": 3}}, "model.z: unknown key"),
        ({"n_components": 0}, "z_dim"),
    ],
)
def test_parameters_that_are_not_right_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        small(**options).fit(rows())
    assert "\n" not in str(caught.value)


def test_a_method_without_a_likelihood_does_not_score() -> None:
    made = small(method="ae").fit(rows())
    with pytest.raises(UserError, match="method: ae gives codes without a density"):
        made.score_samples(rows())
