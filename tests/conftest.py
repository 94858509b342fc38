"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples at every run, so that a change is judged by what it changes; VAES_FUZZ=1 looks for new ones.
settings.register_profile("vaes", derandomize=os.environ.get("VAES_FUZZ") != "1")
settings.load_profile("vaes")

# The tests run in as many processes as there are cores: one thread each, and none that spins while it waits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets that lie beside the repository; skips where they are missing."""
    root = REPO.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip("the real data sets are not beside this repository (../shared/data)")
    return root


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker of the test run decodes into a cache of its own, never into the user's."""
    monkeypatch.setenv("VAES_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
