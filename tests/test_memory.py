import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from vaes.memory import available, keep_freed_memory

PAGES_FAULTED = """
import resource, sys, torch
from vaes.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work(): return [torch.ones(size, dtype=torch.uint8) for size in (9 << 20, 40 << 20, 9 << 20)]
for _ in range(8): work()  # until the heap has found its shape
before = faults()
for _ in range(20): work()
print(faults() - before)
"""


def pages_faulted(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PAGES_FAULTED, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no such option")
def test_memory_that_was_freed_is_used_again_without_a_page_fault() -> None:
    kept, usual = pages_faulted("keep"), pages_faulted("as it is")
    assert kept < 100
    assert usual > 50 * max(kept, 1)


def group(folder: Path, version: int, limit: str, used: int, idle: int) -> None:
    """The files of a control group."""
    names = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}[version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{'total_' * (version == 1)}inactive_file {idle}\n")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def test_memory_is_what_the_machine_has_free_where_nothing_allows_less(root: Path) -> None:
    assert available(root) == 8000  # no control groups at all
    (root / "proc/self/cgroup").write_text("4:memory:/job\n0::/job\n")
    assert available(root) == 8000  # groups that are not shown
    group(root / "sys/fs/cgroup/job", 2, "max", 10, 0)
    group(root / "sys/fs/cgroup/memory/job", 1, str(2**63 - 4096), 10, 0)
    assert available(root) == 8000


@pytest.mark.parametrize(("version", "mounted"), [(1, "sys/fs/cgroup/memory"), (2, "sys/fs/cgroup")])
def test_memory_is_no_more_than_a_control_group_allows(root: Path, version: int, mounted: str) -> None:
    line = {1: "4:cpu,memory:/jobs/mine", 2: "0::/jobs/mine"}[version]
    (root / "proc/self/cgroup").write_text(f"7:pids:/other\n{line}\n")
    group(root / mounted / "jobs" / "mine", version, "5000", 3000, 200)
    assert available(root) == 5000 - 3000 + 200
    group(root / mounted / "jobs", version, "4000", 3500, 0)  # the outer one allows less
    assert available(root) == 500
    group(root / mounted / "jobs", version, "3000", 3500, 0)
    assert available(root) == 0


def test_inside_a_container_the_group_is_the_one_that_is_mounted(root: Path) -> None:
    (root / "proc/self/cgroup").write_text("0::/host/docker/1234\n")
    group(root / "sys/fs/cgroup", 2, "6000", 1000, 0)
    assert available(root) == 5000
