"""The benchmarks of a row's step and of its lines, at no length."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import Tensor

from vaes.config.registry import TERMS
from vaes.methods import METHODS
from vaes.model import Trace
from vaes.objectives import Context, Drawn, Term


def script(name: str, repo: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(repo / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    return importlib.import_module(name)


def test_a_row_is_timed_beside_the_plain_vae(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--rows", "iwae", "joint_vae", "--rounds", "2", "--steps", "1", "--batch", "4", "--network", "mlp"]
    script("steps", repo, monkeypatch, *arguments, "--size", "8", "--device", "cpu", "--out", str(tmp_path)).main()
    rows = json.loads((tmp_path / "benchmarks" / "results" / "steps.json").read_text())["rows"]
    assert list(rows) == ["vae", "iwae", "joint_vae", "vae, again"]
    assert rows["vae"]["ratios"] == [1, 1]
    assert all(len(row["ms"]) == 2 and min(row["ms"]) > 0 for row in rows.values())
    assert rows["iwae"]["ratios"][0] == pytest.approx(rows["iwae"]["ms"][0] / rows["vae"]["ms"][0], abs=2e-3)
    assert rows["iwae"]["largest"] == 5 * rows["vae"]["largest"]  # its codes an image
    assert capsys.readouterr().out.count("\n| `") == 4


class Pairs(Term):
    """What no term is to do."""

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> Tensor:
        return (trace.z[0][:, None] - drawn.prior_z[None]).square().sum(-1).mean()


def test_no_row_that_compares_codes_holds_them_pair_by_pair(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = script("steps", repo, monkeypatch)
    with steps.Runtime("cpu") as runtime:
        for row in ("mmd_vae", "wae_mmd", "beta_tcvae", "swae", "factor_vae", "vamp_vae", "gmm_vae"):
            assert steps.memory(row, runtime).pairs == [], row
        monkeypatch.setitem(TERMS, "mmd", Pairs)
        assert (steps.N, steps.N, steps.D) in steps.memory("mmd_vae", runtime).pairs


SOURCE = '''"""Doc
of two."""

import a  #

X = (1,  #
     # why
     2)  #
"""About X."""


class B:  #
    """Doc."""

    y: str = "not about"  #
    "about y"

    def f(self):  #
        # why
        """Doc
        of two."""
        return """#
of two"""  #
'''
"""Lines of code end with a #."""


def test_lines_are_those_of_code(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = script("lines", repo, monkeypatch)
    numbers = [i for i, line in enumerate(SOURCE.splitlines(), 1) if line.endswith("#")]
    assert sorted(lines.code_lines(SOURCE)) == numbers
    found = lines.count()
    assert found["row"].keys() - {"shared"} == METHODS.keys()
    assert all(count > 0 for parts in found.values() for count in parts.values())
    assert found["row"]["vae"] < 10
    wholes = {"posterior": "posteriors", "prior": "priors", "likelihood": "likelihoods", "network": "nn"}
    for kind, package in wholes.items():
        assert sum(found[kind].values()) <= found["package"][package]
