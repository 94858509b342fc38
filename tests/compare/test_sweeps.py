"""A sweep's runs side by side, evaluated or not, and their curves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sweep_here import engine, experiment

import vaes
from vaes import compare
from vaes.cli import main
from vaes.compare.bands import banded
from vaes.errors import UserError


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    engine(monkeypatch)
    vaes.sweep(experiment(), {"objective.beta": [1, 4]}, 2, folder=tmp_path / "s")
    return tmp_path / "s"


def test_what_training_ended_with_is_pooled_over_seeds(swept: Path, tmp_path: Path, capsys) -> None:
    columns = compare.pool(compare.trained(swept) or [])
    assert [column.label for column in columns] == ["beta=1", "beta=4"]
    for beta, column in zip((1, 4), columns, strict=True):
        runs = [json.loads((swept / f"runs/beta={beta},seed={s}/metrics.json").read_text())["best"] for s in (0, 1)]
        cell = next(cell for key, cell in column.cells.items() if key.name == "elbo")
        values = [run["test"]["elbo"]["value"] for run in runs]
        assert (cell.value, cell.runs) == (pytest.approx(np.mean(values)), 2)
        assert (cell.low, cell.high) == pytest.approx(compare.interval(values))
    one = {row.key.name: row for row in compare.rows(columns)}
    assert one["elbo"].differences[1] is not None  # the ELBO at beta 1 compares whatever was trained for
    assert all(row.alone for row in compare.rows(columns) if row.key.name == "loss")
    assert main(["compare", str(swept), "--save_dir", str(tmp_path / "c")]) == 0
    assert "0 of 4 runs have been evaluated" in capsys.readouterr().err
    for name in ("rate-distortion.png", "curves.png"):
        with Image.open(tmp_path / "c" / name) as picture:
            assert np.asarray(picture).std() > 5


def test_members_stand_in_the_order_of_their_numbers(swept: Path) -> None:
    for run in list((swept / "runs").glob("beta=4,*")):
        run.rename(run.with_name(run.name.replace("beta=4", "beta=16")))
    for run in list((swept / "runs").glob("beta=1,*")):
        run.rename(run.with_name(run.name.replace("beta=1", "beta=2.5")))
    assert [result.name.partition(",")[0] for result in compare.trained(swept) or []] == 2 * ["beta=2.5"] + 2 * [
        "beta=16"
    ]


def test_unfinished_runs_are_named_and_evaluated_ones_are_read_as_such(swept: Path) -> None:
    for run in (swept / "runs").iterdir():
        vaes.load(run).evaluate(["reconstruction"], budget={"n_images": 40})
    assert compare.trained(swept) is None
    assert len(compare.read_runs([swept])) == 4
    (swept / "runs/beta=1,seed=0/metrics.json").unlink()
    (swept / "runs/beta=1,seed=1/evaluation.json").unlink()
    results = compare.trained(swept) or []
    assert [result.name for result in results] == ["beta=1,seed=1", "beta=4,seed=0", "beta=4,seed=1"]
    assert results[0].warnings[1] == "left out, for they are not finished: beta=1,seed=0"
    (swept / "runs/beta=4,seed=0/metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics.json: not what training writes"):
        compare.trained(swept)


def test_a_band_is_the_interval_of_the_mean_at_the_steps_that_all_have() -> None:
    def lines(*values: float | None) -> list[dict[str, object]]:
        return [{"step": 10 * i, "split": "valid", "elbo": value} for i, value in enumerate(values)]

    other = [{"step": 0, "split": "train", "elbo": 99.0}]
    found = banded([lines(1.0, 2.0, 3.0) + other, lines(3.0, 2.0, None)], "elbo")
    assert [row[:2] for row in found] == [(0, 2.0), (10, 2.0)]
    assert found[0][2:] == pytest.approx(compare.interval([1.0, 3.0]))
    assert found[1][2:] == (2.0, 2.0)
