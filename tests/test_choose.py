"""What is chosen where only images are given, and that it trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vaes import choose as choosing
from vaes.choose import choose
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.train.runtime import Runtime

RNG = np.random.default_rng(0)


def pictures(folder: Path, sizes: list[tuple[int, int]], colours: int = 256) -> Path:
    folder.mkdir()
    for i, (h, w) in enumerate(sizes):
        x = RNG.integers(0, colours, (h, w)).astype(np.uint8) * (255 // (colours - 1))
        Image.fromarray(x).save(folder / f"{i}.png")
    return folder


def chosen(path: Path, *arguments: str) -> tuple[Experiment, dict[str, Any]]:
    experiment, choices = choose(path, 1, [*arguments, "--train.n_steps=3"], Runtime("cpu"))
    return experiment, {choice.key: choice.value for choice in choices}


@pytest.mark.parametrize(
    ("sizes", "size", "fit"),
    [
        ([(28, 20)] * 20, None, None),  # as they are
        ([(120, 160)] * 20, [48, 64], None),  # smaller, their shape kept
        ([(120, 160), (60, 80)] * 10, [48, 64], None),  # two cameras of one shape: nothing is cut
        ([(120, 160)] * 19 + [(160, 120)], [48, 64], "crop"),
        ([(120, 160), (160, 120)] * 10, [64, 64], "crop"),
        ([(40, 50), (50, 40)] * 10, [40, 40], "crop"),  # not enlarged
        ([(120, 160), (160, 120)] * 10 + [(9, 9)], [64, 64], "crop"),  # one thumbnail makes no set small
    ],
)
def test_pictures_keep_their_shape_and_are_never_larger_than_most_of_them(
    tmp_path: Path, sizes: list[tuple[int, int]], size: list[int] | None, fit: str | None
) -> None:
    experiment, values = chosen(pictures(tmp_path / "p", sizes))
    assert values.get("data.image_size") == size
    assert values.get("data.fit") == fit
    assert list(experiment.build_data().train.shape[1:]) == (size or list(sizes[0]))


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [
        (0.0, 1.0, (0, 1)),
        (0.02, 0.7, (0, 1)),
        (-0.9, 0.9, (-1, 1)),
        (0.0, 254.3, (0, 255)),
        (-14.95, 14.74, (-15, 15)),
        (-2.118, 2.64, (-2.2, 2.7)),
        (0.0, 0.01, (0, 0.01)),  # not nearly black
        (3.0, 3.0, (3, 3.1)),
    ],
)
def test_numbers_whose_type_tells_no_range_get_one_that_they_fill(
    tmp_path: Path, low: float, high: float, span: tuple[float, float]
) -> None:
    x = RNG.uniform(low, high, (60, 12))
    x[0, :2] = low, high
    np.save(tmp_path / "x.npy", x)
    experiment, values = chosen(tmp_path / "x.npy")
    assert tuple(values["data.value_range"]) == pytest.approx(span, abs=1e-12)
    assert values["model.network.kind"] == "mlp"
    assert len(experiment.build_data().train) > 40
    np.save(tmp_path / "whole.npy", RNG.integers(0, 4096, (60, 9, 9)).astype(np.int32))
    assert "data.value_range" not in chosen(tmp_path / "whole.npy")[1]  # white is found as it is for pictures


def test_what_is_given_stands_and_takes_the_choices_that_went_with_it_away(tmp_path: Path) -> None:
    path = pictures(tmp_path / "p", [(16, 16)] * 20)
    experiment, values = chosen(path, "--model.network.kind", "mlp", "--model.likelihood.kind=bernoulli")
    assert experiment.model.network.kind == "mlp"
    assert not [key for key in values if key.startswith(("model.network", "model.likelihood"))]
    assert values["model.z_dim"] == experiment.model.z_dim
    experiment, values = chosen(pictures(tmp_path / "d", [(16, 16), (18, 18)] * 10), "--data.kind=folder")
    assert values["data.image_size"] == [16, 16]
    assert "data.kind" not in values
    black_and_white = pictures(tmp_path / "b", [(16, 16)] * 20, colours=2)
    assert chosen(black_and_white)[1]["model.likelihood.kind"] == "bernoulli"


def test_the_length_leaves_time_for_validation_and_testing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(x: np.ndarray, minutes: float) -> tuple[dict[str, Any], Experiment]:
        np.save(tmp_path / "x.npy", x)
        experiment, choices = choose(tmp_path / "x.npy", minutes, [], Runtime("cpu"))
        return {c.key: c.value for c in choices}, experiment

    monkeypatch.setattr(choosing, "_seconds_per_step", lambda *_, **__: 1.28)  # 10 ms an image, 1/3 without gradient
    x = RNG.integers(0, 255, (20_000, 4, 4)).astype(np.uint8)
    values, experiment = of(x, 2)
    splits = experiment.build_data()
    passes = values["train.n_steps"] // values["train.eval_freq"]
    assert 1 < passes < 10
    spent = values["train.n_steps"] * 1.28 + ((passes + 1) * len(splits.valid) + 2 * len(splits.test)) / 300
    assert 100 < spent < 120
    assert "train.eval_freq" not in of(x, 60)[0]
    values, experiment = of(x[:400], 600)
    assert values["train.n_steps"] == 300  # a small set is learned by heart
    values, experiment = of(x[:8000], 600)
    most = 50 * len(experiment.build_data().train) / values["train.batch_size"]
    assert 0.9 * most < values["train.n_steps"] <= most


def test_a_run_folder_is_not_taken_for_images(tmp_path: Path) -> None:
    run = pictures(tmp_path / "run", [(8, 8)] * 9)
    (run / "config.yaml").touch()
    (run / "ckpt").mkdir()
    with pytest.raises(UserError, match=r"a run folder, not images.*--resume latest"):
        chosen(run)
