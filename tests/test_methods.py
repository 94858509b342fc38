import json
from pathlib import Path

import pytest

from vaes.cli import main
from vaes.methods import METHODS, Method, table
from vaes.objectives import MMD, Reconstruction
from vaes.posteriors import Point


def test_the_table_in_the_readme_is_generated(repo: Path) -> None:
    assert table() in (repo / "README.md").read_text(encoding="utf-8"), (
        "python -c 'from vaes.methods import table; print(table())'"
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_from_the_command_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "train",
        "-e",
        str(tmp_path / "run"),
        "--method",
        name,
        "--model.network.dim",
        "4",
        "--train.n_steps=3",
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert ("elbo" in found) == (name != "ae")
    assert ("mmd" in found) == (name in ("info_vae", "mmd_vae"))


# A method added from outside, from parts that are there: all that it takes.


def wae_weights(pixels: int, *, lambda_: float = 10.0) -> dict[str, float]:
    """``lambda_`` weighs the MMD, in nats per image."""
    return {"mmd": lambda_}


def test_a_method_is_added_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://arxiv.org/abs/1711.01558"
    row = Method("WAE-MMD", "Tolstikhin et al. 2018", url, Point, Reconstruction, wae_weights, {"mmd": MMD})
    monkeypatch.setitem(METHODS, "wae_mmd", row)
    options = ["--model.network.kind", "mlp", "--model.network.hidden=[32]", "--train.n_steps=150"]
    options += ["--objective.mmd.kernel=imq", "--method", "wae_mmd"]
    mmd = {}
    for weight in (0, 1000):
        run = tmp_path / str(weight)
        assert main(["train", "-e", str(run), *options, f"--objective.lambda_={weight}"]) == 0
        mmd[weight] = json.loads((run / "metrics.json").read_text())["test"]["mmd"]["value"]
    assert mmd[1000] < mmd[0] / 2  # the term pulls the codes to the prior


def test_more_importance_samples_give_a_tighter_bound_than_the_elbo(tmp_path: Path) -> None:
    options = ["--method=iwae", "--model.network.kind=mlp", "--model.network.hidden=[32]", "--train.n_steps=400"]
    gap = {}
    for k in (1, 20):
        run = tmp_path / str(k)
        assert main(["train", "-e", str(run), *options, f"--objective.samples={k}"]) == 0
        found = json.loads((run / "metrics.json").read_text())["test"]
        gap[k] = -found["elbo"]["value"] - found["loss"]["value"]
    assert gap[20] > 1 > abs(gap[1])
