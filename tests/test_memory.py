import subprocess
import sys

import pytest

from vaes.memory import keep_freed_memory

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
