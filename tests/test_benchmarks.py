"""The benchmarks that go on where they were cut off: in their smallest form, and their arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vaes

PARTS = ("tests", "agree", "throughput", "profile", "together", "large", "study", "iwae")


def command(repo: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repo / "src"), "ACCELERATE_USE_CPU": "1"}
    words = [sys.executable, str(repo / "benchmarks" / "gpu.py"), *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)


def test_every_part_of_the_gpu_script_runs_dry_and_is_not_done_again(repo: Path, tmp_path: Path) -> None:
    done = command(repo, "--dry", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: json.loads((tmp_path / "gpu-dry" / f"{name}.json").read_text()) for name in PARTS}
    assert all(one["dry"] and one["seconds"] > 0 and one["torch"] for one in found.values())
    assert found["tests"]["found"]["status"] == 0
    assert found["agree"]["found"]["difference"]["again"] == found["agree"]["found"]["difference"]["resumed"] == 0
    assert found["agree"]["found"]["difference"]["bf16"] > 0
    assert min(found["throughput"]["found"]["images/s"].values()) > 0
    assert set(found["iwae"]["found"]) == {"vae k=1"}
    assert len(found["study"]["found"]["runs"]) == 2
    again = command(repo, "--dry", "--out", tmp_path)
    assert again.stdout.splitlines() == [f"{name}: there already" for name in PARTS]


def test_the_shares_of_a_score_s_variance_add_up(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(repo / "benchmarks")
    import study

    rng = np.random.default_rng(0)
    methods, cells = [], []
    for method in "abc":
        for coefficient in range(4):
            methods += [method] * 5
            cells += [f"{method}{coefficient}"] * 5
    between, within, noise = rng.normal(size=3), rng.normal(size=12), rng.normal(size=60)
    within -= within.reshape(3, 4).mean(1).repeat(4)
    noise -= noise.reshape(12, 5).mean(1).repeat(5)
    between -= between.mean()
    parts = {"method": between.repeat(20), "coefficient": within.repeat(5), "seed": noise}
    found = study.shares(sum(parts.values()).tolist(), methods, cells)
    whole = sum((part**2).sum() for part in parts.values())
    assert found == pytest.approx({name: (part**2).sum() / whole for name, part in parts.items()}, abs=1e-5)
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_the_study_s_tables_are_those_of_its_results(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(repo / "benchmarks")
    import study_table

    document = json.loads((repo / "benchmarks" / "results" / "study.json").read_text())
    page, copy = repo / "docs" / "results.md", tmp_path / "results.md"
    copy.write_text(page.read_text())
    study_table.write_tables(document, copy)
    assert copy.read_text() == page.read_text()
    document["runs"][0]["mig_chen"] += 1
    document["variance"]["sap"]["seed"] = 0.123
    study_table.write_tables(document, copy)
    assert len(set(copy.read_text().splitlines()) - set(page.read_text().splitlines())) == 2
    copy.write_text("no marks")
    with pytest.raises(vaes.UserError, match=r"study.py: begin"):
        study_table.write_tables(document, copy)
