import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from vaes.data import cache
from vaes.data.cache import RowWriter, cached
from vaes.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 1, 3, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Build:
    """Counts how often it builds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, writer: RowWriter) -> dict[str, list[str]]:
        self.calls += 1
        for part in (IMAGES[:4], IMAGES[4:9], IMAGES[9:]):
            writer.append(part)
        return {"bad": ["x"]}


def test_builds_once_and_maps_afterwards(folder: Path) -> None:
    build = Build()
    first, second = cached("t", {"a": 1}, build), cached("t", {"a": 1}, build)
    assert build.calls == 1
    for entry in (first, second):
        assert np.array_equal(entry.images, IMAGES)
        assert isinstance(entry.images, np.memmap)
        assert entry.info == {"bad": ["x"]}
    names = sorted(path.suffix for path in folder.iterdir())
    assert names == [".json", ".npy"]


def test_another_key_name_or_version_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Build()
    cached("t", {"a": 1}, build)
    cached("t", {"a": 2}, build)
    cached("u", {"a": 1}, build)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    cached("t", {"a": 1}, build)
    assert build.calls == 4


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"(10, 1, 3, 4)", b"(10, 1, 4, 3)"))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npy", flip_byte),
        (".npy", cut),
        (".npy", other_header),
        (".npy", lambda p: p.write_bytes(b"")),
        (".npy", Path.unlink),
        (".json", cut),
        (".json", lambda p: p.write_text("[]")),
        (".json", lambda p: p.write_bytes(b"\xff\xfe\0")),
        (".json", lambda p: p.write_text("{}")),
        (".json", Path.unlink),
    ],
)
def test_a_damaged_entry_is_built_again(folder: Path, suffix: str, damage) -> None:
    build = Build()
    cached("t", {}, build)
    damage(next(folder.glob(f"*{suffix}")))
    again = cached("t", {}, build)
    assert build.calls == 2
    assert np.array_equal(again.images, IMAGES)


def test_a_failing_build_leaves_nothing(folder: Path) -> None:
    def build(writer: RowWriter) -> dict[str, str]:
        writer.append(IMAGES)
        raise UserError("bad image")

    with pytest.raises(UserError, match="bad image"):
        cached("t", {}, build)
    assert list(folder.iterdir()) == []


ENDLESS = """
import sys, time
import numpy as np
from pathlib import Path
from vaes import cli
from vaes.data.cache import cached
def build(writer):
    writer.append(np.zeros((1, 1, 8, 8), np.uint8))
    Path(sys.argv[1]).touch()
    time.sleep(120)
sys.exit(cli.guarded(lambda: cached("t", {}, build)))
"""


@pytest.mark.parametrize("setting", ["cache", "off"])
def test_a_build_that_is_asked_to_stop_leaves_nothing(tmp_path: Path, setting: str) -> None:
    (tmp_path / "tmp").mkdir()
    cache = str(tmp_path / "cache") if setting == "cache" else "off"
    env = os.environ | {"VAES_CACHE": cache, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "building")]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "building").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == "stopped by SIGTERM\n"
    assert process.returncode == 143
    assert not [path for name in ("cache", "tmp") for path in (tmp_path / name).glob("*")]


def test_what_killed_builds_left_is_swept_after_a_day(folder: Path) -> None:
    folder.mkdir()
    for name, hours in ((".t-old-x", 25), (".t-new-x", 1), ("t-entry.npy", 99)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - hours * 3600,) * 2)
    cached("t", {}, Build())
    assert {path.name for path in folder.iterdir()} >= {".t-new-x", "t-entry.npy"}
    assert not (folder / ".t-old-x").exists()


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"disk is full.*VAES_CACHE"):
        cached("t", {}, Build())
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAES_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="file/below: cannot store"):
        cached("t", {}, Build())


def test_off_builds_once_a_process_and_stores_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAES_CACHE", "off")
    build = Build()
    entries = [cached("t", {}, build) for _ in range(2)]
    assert build.calls == 1
    assert all(np.array_equal(entry.images, IMAGES) for entry in entries)
    assert not folder.exists()


def test_rows_of_another_shape_are_refused(folder: Path) -> None:
    def build(writer: RowWriter) -> dict[str, str]:
        writer.append(IMAGES)
        writer.append(IMAGES[:, :, :2])
        return {}

    with pytest.raises(ValueError, match="rows are uint8"):
        cached("t", {}, build)


def work(queue: "multiprocessing.Queue[tuple[bool, int, int]]", barrier, locked: bool) -> None:
    calls = 0

    def build(writer: RowWriter) -> dict[str, str]:
        nonlocal calls
        calls += 1
        time.sleep(0.5)  # so that the others come meanwhile
        writer.append(IMAGES)
        return {}

    if not locked:
        filelock.FileLock = NoLock  # type: ignore[assignment, misc]
    barrier.wait(30)
    entry = cached("t", {}, build)
    queue.put((np.array_equal(entry.images, IMAGES), calls, len(entry.warnings)))


class NoLock:
    """A lock on a file system that has none."""

    def __init__(self, path: object) -> None: ...

    def acquire(self, poll_interval: float) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("locked", [True, False])
def test_of_several_processes_at_once_one_builds_where_there_are_locks(folder: Path, locked: bool) -> None:
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(3)
    processes = [context.Process(target=work, args=(queue, barrier, locked)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(found) == ([(True, 0, 0), (True, 0, 0), (True, 1, 0)] if locked else [(True, 1, 1)] * 3)
    assert len(list(folder.iterdir())) == 2
    assert json.loads(next(folder.glob("*.json")).read_text())["shape"] == list(IMAGES.shape)
