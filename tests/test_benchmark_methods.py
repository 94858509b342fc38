"""The table of methods goes on after a kill, as its command says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def test_a_killed_table_goes_on_keeps_what_is_done_and_lists_what_fails(tmp_path: Path, repo: Path) -> None:
    command = [sys.executable, str(repo / "benchmarks" / "methods.py"), "--parts", "sprites", "--seeds", "1"]
    command += ["--methods", "vae", "beta_vae", "--steps", "60", "--n-train", "200", "--n-images", "60", "--jobs", "1"]
    command += ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(repo / "src")}

    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    path = tmp_path / "benchmarks" / "results" / "methods.json"
    while not (path.is_file() and json.loads(path.read_text())["members"]) and time.monotonic() < deadline:
        assert first.poll() is None  # the second has a second to go when the first is written down
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = json.loads(path.read_text())
    assert [one["method"] for one in before["members"]] == ["vae"]
    assert before["not_run"] == ["sprites beta_vae seed 0"]
    (kept,) = (tmp_path / "runs").glob("sprites-vae-*/result.json")
    written = kept.stat().st_mtime_ns

    assert subprocess.run(command, env=environment, check=False).returncode == 0
    after = json.loads(path.read_text())
    assert [one["method"] for one in after["members"]] == ["vae", "beta_vae"]
    assert after["failed"] == after["not_run"] == []
    assert kept.stat().st_mtime_ns == written
    assert after["members"][0] == before["members"][0]
    table = (tmp_path / "docs" / "results.md").read_text()
    assert table.count("| `beta_vae` |") == 1
    assert f"{after['members'][1]['mse']:.4f}" in table

    other = subprocess.run([*command, "--steps", "61"], env=environment, check=False, capture_output=True, text=True)
    assert other.returncode == 2  # its numbers would be of another budget
    assert other.stderr.count("\n") == 1
    assert "sprites.train" in other.stderr or "mnist.train" in other.stderr
