import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest

from vaes.data import cache
from vaes.data.cache import RowWriter, cache_size, cached, empty_cache
from vaes.data.temporary import owner, temporary_name
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


NESTED = "[" * 100_000 + "]" * 100_000


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes a description, its checksum set right where that is possible."""

    def damage(path: Path) -> None:
        meta = json.loads(path.read_text())
        change(meta)
        path.write_text(json.dumps(meta))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: p.write_text(NESTED),
        lambda p: p.write_text('{"a": ' * 50_000 + "1" + "}" * 50_000),
        lambda p: p.write_text('{"bytes": ' + "9" * 10_000 + "}"),
        lambda p: p.write_text('{"bytes": 1e999}'),
        edited(lambda meta: meta.update(bytes="x")),
        edited(lambda meta: meta.update(shape=[10**30])),
        edited(lambda meta: meta.update(info=[])),
        edited(lambda meta: meta["info"].update(bad=7)),
        edited(lambda meta: meta.update(crc=None)),
        edited(lambda meta: meta.update(check=None)),
    ],
)
def test_any_damage_of_a_description_is_built_again(folder: Path, damage) -> None:
    build = Build()
    cached("t", {}, build)
    damage(next(folder.glob("*.json")))
    assert cached("t", {}, build).info == {"bad": ["x"]}
    assert build.calls == 2


def test_an_entry_that_is_anothers_is_built_again(folder: Path) -> None:
    def other(writer: RowWriter) -> dict[str, str]:
        writer.append(255 - IMAGES)
        return {}

    build = Build()
    cached("t", {"a": 1}, build)
    ours = {path.suffix: path for path in folder.iterdir()}
    cached("t", {"a": 2}, other)
    for path in set(folder.iterdir()) - set(ours.values()):
        path.replace(ours[path.suffix])
    assert np.array_equal(cached("t", {"a": 1}, build).images, IMAGES)
    assert build.calls == 2


def test_a_large_entry_is_checked_by_its_first_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHECKED_BYTES", 10)
    monkeypatch.setattr(cache, "HEAD", 50)  # of 120
    build = Build()
    cached("t", {}, build)
    path = next(folder.glob("*.npy"))
    for at, calls in ((-1, 1), (-80, 2)):
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        cached("t", {}, build)
        assert build.calls == calls


def test_size_and_emptying(folder: Path) -> None:
    assert cache_size() == (folder, 0, 0)
    cached("t", {"a": 1}, Build())
    cached("t", {"a": 2}, Build())
    for name in ("mine.npy", "notes.json", "t-0123.npy"):
        (folder / name).write_text("a stranger's")
    found = cache_size()
    assert found.entries == 2
    assert found.bytes == sum(path.stat().st_size for path in folder.glob("t-" + "?" * 24 + ".*"))
    assert empty_cache() == found
    assert sorted(path.name for path in folder.iterdir()) == ["mine.npy", "notes.json", "t-0123.npy"]


HOST = """
import os, sys, time
import numpy as np
from pathlib import Path
from vaes.data.cache import cached
folder = Path(sys.argv[1])
def build(writer):
    (folder / f"built-{os.getpid()}").touch()
    writer.append(np.zeros((1, 1, 8, 8), np.uint8))
    return {}
assert cached("t", {}, build).images.shape == (1, 1, 8, 8)
# As a training does, they go on together.
(folder / f"done-{os.getpid()}").touch()
while len(list(folder.glob("done-*"))) < int(os.environ["LOCAL_WORLD_SIZE"]):
    time.sleep(0.05)
"""


def test_off_decodes_once_a_host_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("seen", "tmp"):
        (tmp_path / name).mkdir()
    env = os.environ | {"VAES_CACHE": "off", "TMPDIR": str(tmp_path / "tmp"), "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-c", HOST, str(tmp_path / "seen")]
    started = [subprocess.Popen(command, env=env | {"LOCAL_RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(60) for process in started] == [0, 0]
    assert len(list((tmp_path / "seen").glob("built-*"))) == 1
    assert not list((tmp_path / "tmp").iterdir())


def die(folder: Path) -> None:
    def build(writer: RowWriter) -> dict[str, str]:
        writer.append(IMAGES)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    cached("t", {}, build)


@pytest.mark.parametrize("setting", ["cache", "off"])
def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path, monkeypatch, setting: str) -> None:
    place = tmp_path / setting
    place.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(place))
    monkeypatch.setattr(cache, "_temporary", {})
    monkeypatch.setenv("VAES_CACHE", "off" if setting == "off" else str(place))
    process = multiprocessing.get_context("fork").Process(target=die, args=(place,))
    process.start()
    process.join()
    assert list(place.iterdir())
    alive = place / temporary_name("t")
    alive.touch()
    cached("t", {}, Build())
    left = [path for path in place.iterdir() if path != alive]
    if setting == "off":
        assert [path.name.split("-")[3] for path in left] == [str(os.getpid())]
    else:
        assert sorted(path.suffix for path in left) == [".json", ".npy"]
    assert alive.exists()


def test_a_folder_that_another_has_laid_out_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("VAES_CACHE", "off")
    (tmp_path / f"vaes-{os.getuid()}-{owner()}-").symlink_to(tmp_path)
    monkeypatch.setattr(cache, "_temporary", {})
    with pytest.raises(UserError, match="belongs to another"):
        cached("t", {}, Build())
