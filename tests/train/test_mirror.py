"""The copy of a run elsewhere: whole or not taken for it, gone on from, and never in the way of the training."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trainings import everything, objective, settings, splits, weighting

import vaes
from vaes import Experiment
from vaes.errors import UserError
from vaes.remote import Store
from vaes.train import checkpoint, mirror
from vaes.train.fetch import fetch
from vaes.train.listeners import Listener
from vaes.train.loop import Training, fit
from vaes.train.mirror import COPIED, Mirror

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'vaes[remote]'")

EXPERIMENT: dict[str, Any] = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"network": {"kind": "mlp", "hidden": [4]}, "likelihood": "bernoulli"},
    "train": {
        "n_steps": 8, "batch_size": 16, "eval_freq": 3, "print_freq": 3, "save_freq": 2, "sample_freq": 4, "keep": 2,
        "ema": 0.9, "trackers": [],
    },
}  # fmt: skip


class Says(Listener):
    """What a training says, and one that is lost at a step."""

    def __init__(self, lost: int | None = None) -> None:
        self.lost, self.text = lost, ""

    def said(self, training: Training, text: str) -> None:
        self.text += text + "\n"

    def stepped(self, training: Training, step: int) -> None:
        if step == self.lost:
            raise ZeroDivisionError


class Waits(Says):
    """A training that is as slow as its copy."""

    def stepped(self, training: Training, step: int) -> None:
        training._writer.wait()
        (one,) = (x for x in training.listeners if isinstance(x, Mirror))
        one.stepped(training, step)
        one._wait(time.monotonic() + 60)


def copied(run: Path) -> dict[str, bytes]:
    """What of a run folder is to be found elsewhere."""
    paths = [path for name in COPIED for path in ((run / name).rglob("*") if (run / name).is_dir() else [run / name])]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.is_file()}


def there(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.read(name) for name in store.names()}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server on this machine that speaks S3's protocol."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'vaes[remote]'")
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
            patch.delenv(name)
        patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*running.get_host_and_port()))
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket/runs"
    running.stop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed and nothing copied."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    Experiment(**EXPERIMENT).fit(folder)
    return folder


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_lost_run_goes_on_elsewhere_as_if_it_had_not_been(
    where: str, whole: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = "memory://lost/run" if where == "memory" else f"{request.getfixturevalue('s3')}/lost"
    mirrored = Experiment(**EXPERIMENT).replace({"train.mirror": url})
    with pytest.raises(ZeroDivisionError):
        mirrored.fit(tmp_path / "lost", callbacks=[Says(lost=5)])
    assert there(url) == copied(tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost")

    heard = Says()
    run = mirrored.fit(tmp_path / "new", resume=url, callbacks=[heard])
    assert "training from step 4 to step 8" in heard.text
    assert f"train.mirror: the copy at {url} is complete" in heard.text
    got, wanted = everything(run.folder), everything(whole)
    assert {name for name in got if got[name] != wanted[name]} == set()
    assert there(url) == copied(run.folder)  # and what is not kept here is not there
    assert [path.name for path in checkpoint.checkpoints(run.folder)] == ["step000008", "step000006"]
    assert vaes.load(url).which == run.which
    with pytest.raises(UserError, match="this run folder exists"):
        mirrored.fit(run.folder, resume=url)
    if where == "s3":
        with pytest.raises(UserError, match=r"train\.mirror: s3://no-such-bucket/x: "):
            mirrored.replace({"train.mirror": "s3://no-such-bucket/x"}).fit(tmp_path / "none")
        assert not (tmp_path / "none").exists()


class Cut:
    """A file system that is there for so many changes, and tears the last of them."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int) -> None:
        self.left = after
        for name in ("put", "write", "delete"):
            patch.setattr(Store, name, self._changed(name, getattr(Store, name)))

    def _changed(self, name: str, real: Any) -> Any:
        def change(store: Store, *what: Any) -> None:
            self.left -= 1
            if self.left < -1:
                raise OSError("gone")
            if self.left == -1:  # half of it arrives
                if name != "delete":
                    content = what[0].read_bytes() if name == "put" else what[0]
                    store._fs.pipe_file(store._at(what[1]), content[: len(content) // 2])
                raise OSError("gone")
            real(store, *what)

        return change


def copy_once(run: Path, url: str) -> None:
    one = Mirror(url)
    training: Any = SimpleNamespace(folder=run, say=lambda text: None, runtime=SimpleNamespace(wait=lambda: None))
    one.start(training)
    one.end(training)


def test_a_copy_that_is_cut_off_anywhere_is_never_taken_for_a_whole_one_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "thin_out", lambda *what: None)
    fit(objective(), weighting(), splits(), settings(trackers=(), sample_freq=0), tmp_path / "run", config="seed: 0\n")
    monkeypatch.undo()
    late = tmp_path / "late"
    shutil.copytree(tmp_path / "run", late)
    for step in (2, 3):
        shutil.rmtree(late / "ckpt" / f"step{step:06d}")
    early = tmp_path / "run"
    for step in (4, 6):
        shutil.rmtree(early / "ckpt" / f"step{step:06d}")
    (early / "metrics.json").unlink()
    state, changes = f"ckpt/step000006/{checkpoint.STATE}", 0
    while True:
        url = f"memory://cut/{changes}"
        copy_once(early, url)
        before = there(url)
        assert before == copied(early)
        with pytest.MonkeyPatch.context() as patch:
            cut = Cut(patch, changes)
            copy_once(late, url)
        found = checkpoint.verify(checkpoint.newest_folder(fetch(url)))["step"]
        arrived = there(url).get(state) == (late / state).read_bytes()
        assert found == (6 if arrived else 3)
        if cut.left >= 0:
            break
        copy_once(late, url)
        assert there(url) == copied(late)
        changes += 1
    assert there(url) == copied(late)
    assert changes > 12


def test_a_kill_while_it_copies_leaves_the_copy_before_and_the_next_run_heals_it(tmp_path: Path) -> None:
    url, run = f"file://{tmp_path}/copy", tmp_path / "run"
    given = Experiment(**EXPERIMENT).replace({"train.mirror": url})
    (tmp_path / "given.yaml").write_text(given.to_yaml())
    script = (
        "import os, signal, sys; from vaes import Experiment; from vaes.remote import Store; real = Store.put\n"
        "def put(store, path, name):\n"
        "    if 'step000004/training' in name:\n"
        "        store.write(path.read_bytes()[:99], name); os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(store, path, name)\n"
        "Store.put = put\n"
        "sys.path[:0] = [sys.argv[3], sys.argv[3] + '/train']; from test_mirror import Waits\n"
        "Experiment.read(sys.argv[1]).fit(sys.argv[2], callbacks=[Waits()])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "given.yaml"), str(run), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert checkpoint.newest_folder(fetch(url)).name == "step000003"
    given.fit(run, resume="latest")
    assert there(url) == copied(run)


def test_a_file_system_that_fails_is_said_once_and_ends_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirrored = Experiment(**EXPERIMENT).replace({"train.mirror": "memory://fails/run", "train.save_freq": 1})
    real, at = Store.put, [0]

    def put(store: Store, path: Path, name: str) -> None:
        if at[0] in range(2, 5):
            raise OSError("the network is down")
        real(store, path, name)

    class Counts(Waits):
        def stepped(self, training: Training, step: int) -> None:
            at[0] = step
            super().stepped(training, step)

    monkeypatch.setattr(Store, "put", put)
    heard = Counts()
    run = mirrored.fit(tmp_path / "run", callbacks=[heard])
    warned = [record.getMessage() for record in caplog.records if "train.mirror" in record.getMessage()]
    assert len(warned) == 1
    assert "cannot be reached (the network is down); training goes on" in warned[0]
    assert heard.text.count("copies to memory://fails/run succeed again") == 1
    assert heard.text.count("is complete") == 1
    assert there("memory://fails/run") == copied(run.folder)
    assert everything(run.folder)["weights"] == everything(whole)["weights"]


def test_the_end_waits_for_so_long_and_says_what_did_not_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released, real = threading.Event(), Store.put

    def put(store: Store, path: Path, name: str) -> None:
        if "ckpt" in name:
            released.wait(30)
        real(store, path, name)

    monkeypatch.setattr(Store, "put", put)
    monkeypatch.setattr(mirror, "WAIT", 0.2)
    given = settings(trackers=(), mirror="memory://slow/run", keep=1, sample_freq=0, eval_freq=0)
    fit(objective(), weighting(), splits(), given, tmp_path / "run", config="seed: 0\n")
    released.set()
    (said,) = (record.getMessage() for record in caplog.records if "not complete" in record.getMessage())
    assert said.startswith(
        "train.mirror: the copy at memory://slow/run is not complete (there was no more time): it lacks"
    )
    assert "ckpt/step000006" in said
    assert f"{tmp_path / 'run'} has all" in said


def test_what_is_there_now_is_fetched_and_damage_is_not_taken(
    whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = "memory://changes/run"
    copy_once(whole, url)
    found = fetch(url)
    (found / "evaluation.json").write_text("{}")
    assert checkpoint.newest_folder(found).name == "step000008"
    store = Store(url)
    content = store.read("ckpt/step000008/model.safetensors")
    store.write(content[:-1] + bytes([content[-1] ^ 1]), "ckpt/step000008/model.safetensors")
    assert checkpoint.newest_folder(fetch(url)).name == "step000008"  # fetched before, and its state is the same
    shutil.rmtree(found / "ckpt")
    assert checkpoint.newest_folder(fetch(url)).name == "step000006"
    assert f"{url}: ckpt/step000008/model.safetensors: damaged" in caplog.text
    assert [path.name for path in checkpoint.checkpoints(found)] == ["step000006"]
    store.write(b"{}", "metrics.json")
    store.delete("metrics.txt")
    assert (fetch(url) / "metrics.json").read_bytes() == b"{}"
    assert not (found / "metrics.txt").exists()
    assert (found / "evaluation.json").exists()
    for name in store.names("ckpt"):
        store.delete(name)
    with pytest.raises(UserError, match="memory://changes/run: holds no whole checkpoint"):
        fetch(url)
    with pytest.raises(UserError, match="memory://nowhere/x: holds nothing"):
        fetch("memory://nowhere/x")
