"""Processes killed at their changes to the disk: a part of them, and all by ``python tests/kills.py``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("scene", "every", "least"), [("training", 17, 16), ("evaluation", 5, 8), ("sampling", 2, 4), ("encoding", 13, 4)]
)
def test_whatever_change_of_the_disk_a_process_is_killed_at_all_is_well_after(
    tmp_path: Path, repo: Path, scene: str, every: int, least: int
) -> None:
    script = [sys.executable, str(repo / "tests" / "kills.py"), str(tmp_path), "--every", str(every), "--scenes", scene]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["failed"] == []
    assert found["survived"] == found["kills"] >= least
    if scene == "training":
        assert found["with a checkpoint when killed"] > found["kills"] / 3, "kills at the start prove little"
