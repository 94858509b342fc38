import json
from pathlib import Path

import pytest

from vaes.cli import main
from vaes.functional import log_mean_exp
from vaes.methods import METHODS, Method, table
from vaes.objectives import Bound
from vaes.posteriors import Gaussian


def test_the_table_in_the_readme_is_generated(repo: Path) -> None:
    assert table() in (repo / "README.md").read_text(encoding="utf-8"), (
        "python -c 'import vaes; print(vaes.methods.table())'"
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


# A method added from outside, with a bound of its own: all that it takes.


class ImportanceWeighted(Bound):
    """-log mean_k p(x, z_k) / q(z_k | x): Burda et al., 2016, https://arxiv.org/abs/1509.00519, equation 8."""

    needs = frozenset({"log_q"})
    weights: frozenset[str] = frozenset()
    samples = 5

    def __call__(self, trace, weights):
        return -log_mean_exp(trace.log_px + trace.log_pz - trace.log_q, 0)


def test_a_method_is_added_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://arxiv.org/abs/1509.00519"
    row = Method("IWAE", "Burda et al. 2016", url, Gaussian, ImportanceWeighted, lambda pixels: {})
    monkeypatch.setitem(METHODS, "iwae", row)
    network = ["--model.network.kind", "mlp", "--model.network.hidden=[32]", "--train.n_steps=150"]
    assert main(["train", "-e", str(tmp_path / "run"), "--method", "iwae", *network]) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert found["loss"]["value"] < -found["elbo"]["value"]  # a tighter bound than the ELBO
