import json
from pathlib import Path

import pytest
from torch import Tensor

from vaes.cli import main
from vaes.config import load, parse
from vaes.config.registry import TERMS
from vaes.methods import METHODS, Method, table
from vaes.model import Trace
from vaes.objectives import Context, Drawn, Term
from vaes.schedules import Scheduled

SMALL = ["--model.network.dim", "4"]


def test_the_table_in_the_documentation_is_generated(repo: Path) -> None:
    assert table() in (repo / "docs" / "methods.md").read_text(encoding="utf-8"), (
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
        *(["--model.network.ch", "8"] if "network" in METHODS[name].defaults.get("model", {}) else SMALL),
        "--train.n_steps=3",
    ]
    assert main(arguments) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    assert ("elbo" in found) == (METHODS[name].bound != "reconstruction")
    assert set(METHODS[name].terms) <= found.keys()


def test_the_command_lists_the_methods_and_gives_a_configuration_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for name, row in METHODS.items():
        assert f"{name} " in listed
        assert main(["methods", name]) == 0
        page = capsys.readouterr().out
        assert row.url in page
        assert row.loss in page
        assert load(parse(page, name)) == load({"method": name, "data": {"image_size": 16}})
    assert main(["methods", "facter_vae"]) == 2
    assert "did you mean factor_vae?" in capsys.readouterr().err


# A method added from outside, from parts that are there: all that it takes.


def wae_weights(pixels: int, *, lambda_: float = 10.0) -> dict[str, float]:
    """``lambda_`` weighs the MMD, in nats per image."""
    return {"mmd": lambda_}


def test_a_method_is_added_in_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://arxiv.org/abs/1711.01558"
    parts = {"model": {"posterior": "point"}}
    row = Method("Mine", "Tolstikhin et al. 2018", url, wae_weights, "as WAE-MMD", "reconstruction", ("mmd",), parts)
    monkeypatch.setitem(METHODS, "mine", row)
    options = ["--model.network.kind", "mlp", "--model.network.hidden=[32]", "--train.n_steps=150"]
    options += ["--objective.mmd.kernel=imq", "--method", "mine"]
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


@pytest.mark.parametrize(
    ("method", "options", "path"),
    [
        ("info_vae", ["--objective.alpha=0.2", "--objective.lambda_=0.5"], "objective.lambda_: 0.5"),
        ("info_vae", ["--objective.alpha=1.5", "--objective.lambda_=1"], "objective.alpha: 1.5"),
        ("mmd_vae", ["--objective.lambda_=-0.1"], "objective.lambda_: -0.1"),
        ("mmd_vae", ["--objective.mmd_scale=-1"], "objective.mmd_scale: -1"),
        ("info_vae", ["--objective.lambda_.kind=linear", "--objective.lambda_.start=2", "--objective.lambda_.stop=0.5"],
         "objective.lambda_: 0.99"),
        ("info_vae", ["--objective.alpha.kind=one_cycle", "--objective.alpha.peak=1.0001"], "objective.alpha: 1.00004"),
    ],
)  # fmt: skip
def test_weights_that_would_reward_a_mismatch_are_refused(
    method: str, options: list[str], path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "-e", str(run), "--method", method, "--train.n_steps=3000", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert path in line
    assert not run.exists()


def test_schedules_that_meet_at_weight_zero_are_not_refused_for_their_rounding() -> None:
    weights = METHODS["info_vae"].weights
    for i in range(101):
        found = weights(10, alpha=i / 100, lambda_=1 - i / 100)
        assert found["rate"] >= 0
        assert 0 <= found["mmd"] < 1e-8


def test_a_part_of_one_s_own_is_a_class_and_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sparsity(Term):
        """``E |z|_1``."""

        compares = False

        def __init__(self, *, power: Scheduled = 1.0) -> None:
            super().__init__()
            self.power = power

        def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
            seen.append(context.own.get("power", self.power))
            return trace.z.abs().pow(seen[-1]).flatten(2).sum(-1).mean()

    def weights(pixels: int, *, gamma: Scheduled = 1.0) -> dict[str, float]:
        return {"sparsity": gamma}

    seen: list[float | Tensor] = []
    monkeypatch.setitem(TERMS, "sparsity", Sparsity)
    row = Method("Sparse VAE", "you 2026", "https://a.b", weights, "distortion + rate + |z|", terms=("sparsity",))
    monkeypatch.setitem(METHODS, "sparse_vae", row)
    schedule = ["--objective.sparsity.power.kind=linear", "--objective.sparsity.power.start=2"]
    arguments = [
        *schedule,
        "--objective.sparsity.power.stop=1",
        "--train.n_steps=4",
        "--model.network=mlp",
        "--train.eval_freq=0",
    ]
    assert main(["train", "-e", str(tmp_path / "run"), "--method=sparse_vae", *arguments]) == 0
    assert seen[:4] == [2.0, 1.75, 1.5, 1.25]
    assert seen[4] == 1.25  # validation: the last step's
