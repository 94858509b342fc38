"""The table of tokenizers from a few steps on drawn pictures, and what becomes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_dry_table_has_all_members_and_keeps_what_is_done(tmp_path: Path, repo: Path) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "tokenizers.md"
    page.write_text("before\n<!-- tokenizers.py: begin -->\n<!-- tokenizers.py: end -->\nafter\n")
    command = [sys.executable, str(repo / "benchmarks" / "tokenizers.py"), "--seeds", "1"]
    command += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repo / "src")}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], env=environment, check=False, capture_output=True, text=True)

    first = run("--budget", "dry")
    assert first.returncode == 0, first.stderr
    path = tmp_path / "benchmarks" / "results" / "tokenizers.json"
    document = json.loads(path.read_text())
    assert {one["recipe"] for one in document["members"]} == {"plain", "both", "features", "critic", "vq"}
    assert document["failed"] == document["not_run"] == []
    assert document["data"]["32"]["n"] == {"test": 80, "train": 80}
    for one in document["members"]:
        assert f"| 4 | {one['recipe']} | 1 | {one['test']['psnr']:.2f} |" in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")

    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    assert run("--budget", "dry").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    missing = run("--budget", "small", "--data", str(tmp_path / "nowhere.zip"))
    assert missing.returncode == 0
    assert missing.stdout.startswith("skipped: ")
    assert json.loads(path.read_text())["members"] == document["members"]
