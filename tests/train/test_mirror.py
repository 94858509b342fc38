"""Copies of a run folder elsewhere: in memory, on a server that speaks S3, cut off anywhere, failing, gone on from."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from trainings import everything

import vaes
from vaes import Experiment, Listener
from vaes.data import arrays
from vaes.errors import Stopped, UserError
from vaes.train import checkpoint, mirror
from vaes.train.fetch import fetch
from vaes.train.loop import Training

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'vaes[remote]'")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

BIN = Path(sys.executable).parent


class Frail(MemoryFileSystem):  # type: ignore[misc]
    """A store that fails once as many of its changes have been made as are left."""

    protocol = "frail"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    left = 10**9

    def _spend(self) -> None:
        if Frail.left <= 0:
            raise OSError("the line is cut")
        Frail.left -= 1

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._spend()
        super().pipe_file(path, value, **options)

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if Frail.left == 1:  # a file of which a half arrives
            Frail.left = 0
            half = Path(lpath).read_bytes()
            super().pipe_file(rpath, half[: len(half) // 2])
            raise OSError("the line is cut")
        self._spend()
        super().put_file(lpath, rpath, **options)

    def rm_file(self, path: str) -> None:
        self._spend()
        super().rm_file(path)


@pytest.fixture(autouse=True)
def places() -> Iterator[None]:
    fsspec.register_implementation("frail", Frail, clobber=True)
    Frail.left = 10**9
    yield
    for system in (MemoryFileSystem, Frail):
        system.store.clear()
        system.pseudo_dirs[:] = [""]


class Ends(Listener):
    """Ends a training after a step, as a signal does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def stepped(self, training: Training, step: int) -> None:
        if step == self.after:
            raise Stopped("stopped", 143)


def experiment(url: str | None, **options: object) -> Experiment:
    train = {"n_steps": 8, "batch_size": 8, "print_freq": 2, "eval_freq": 4, "sample_freq": 4, "save_freq": 2}
    train |= {"trackers": [], "keep": 2, "mirror": url, **options}
    return Experiment.of({"model": {"z_dim": 2, "network": {"kind": "mlp", "hidden": [6]}}, "train": train})


def fit(run: Path, url: str | None, **options: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    given = {name: options.pop(name) for name in ("resume", "callbacks") if name in options}
    experiment(url, **options).fit(run, data=arrays(images[:40], images[40:50], valid=images[50:]), **given)


def tree(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("[!.]*") if path.is_file()}


def test_what_is_there_is_what_is_here_and_is_gone_on_from_exactly(tmp_path: Path) -> None:
    url = "memory://runs/one"
    with pytest.raises(Stopped):
        fit(tmp_path / "cut", url, callbacks=[Ends(5)])
    found = fetch(url)
    here, there = tree(tmp_path / "cut"), tree(found)
    assert {name for name in here if name.startswith("ckpt/")} == {
        f"ckpt/step{step:06}/{file}"
        for step in (2, 4)
        for file in ("model.safetensors", "training.safetensors", "state.json")
    }
    assert there == here
    assert vaes.load(url).step == 4

    fit(tmp_path / "on", url, resume=url)
    fit(tmp_path / "whole", None)
    on, whole = everything(tmp_path / "on"), everything(tmp_path / "whole")
    assert (on["weights"], on["training"]) == (whole["weights"], whole["training"])
    there, here = tree(fetch(url)), tree(tmp_path / "on")
    assert {name: there.get(name) for name in here} == here
    assert {name.split("/")[0] for name in set(there) - set(here)} == {"samples", "plane"}  # of the first four steps
    assert [path.name for path in checkpoint.checkpoints(fetch(url))] == ["step000008", "step000006"]


def test_a_copy_that_is_cut_off_anywhere_leaves_a_whole_checkpoint_and_is_healed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url, run = "frail://runs/one", tmp_path / "run"
    fit(run, url, n_steps=4)
    before = dict(Frail.store)
    fit(run, None, n_steps=8, resume="latest")  # without a copy
    cut, ended = 0, False
    while not ended:
        Frail.store.clear()
        Frail.store.update(before)
        Frail.left = cut
        ended = _copied(run, url)
        Frail.left = 10**9
        found = vaes.load(url)  # verified by its checksums
        assert found.step in (4, 8)
        assert found.step == 8 or not ended
        assert _copied(run, url)
        assert tree(fetch(url)) == tree(run)
        cut += 1
    assert cut > 12


def _copied(run: Path, url: str) -> bool:
    """Copy once; whether all got through."""
    one = mirror.Mirror(url)
    one._folder = run
    one._round()
    return not one._missing


def test_a_place_that_fails_is_said_once_and_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Cuts(Listener):
        def stepped(self, training: Training, step: int) -> None:
            Frail.left = 0

    with caplog.at_level(logging.WARNING):
        fit(tmp_path / "run", "frail://runs/two", callbacks=[Cuts()])
    said = [record.getMessage() for record in caplog.records if "train.mirror" in record.getMessage()]
    assert sum("failed" in text for text in said) <= 1
    assert "is not complete: it lacks" in said[-1]
    assert "the line is cut" in said[-1]
    assert vaes.load(tmp_path / "run").step == 8


def test_a_place_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mirror, "PATIENCE", 0.5)
    put = Frail.put_file

    def hangs(self: Frail, lpath: str, rpath: str, **options: Any) -> None:
        if "step000004" in rpath:
            time.sleep(3)
        put(self, lpath, rpath, **options)

    monkeypatch.setattr(Frail, "put_file", hangs)
    with caplog.at_level(logging.WARNING):
        fit(tmp_path / "run", "frail://runs/three", n_steps=4)
    assert "no file got through for 0.5 s" in caplog.text
    assert vaes.load(tmp_path / "run").step == 4


def test_places_that_are_another_s_are_refused(tmp_path: Path) -> None:
    fit(tmp_path / "run", "memory://runs/one", n_steps=4)
    before = dict(MemoryFileSystem.store)
    with pytest.raises(UserError, match="holds a run at step 4, and this training begins at 0; go on from there with"):
        fit(tmp_path / "new", "memory://runs/one", n_steps=4)
    images = np.zeros((20, 1, 8, 8), np.uint8)
    other = experiment("memory://runs/one").replace({"model.z_dim": 3})
    with pytest.raises(UserError, match=r"holds another run.*model\.z_dim"):
        other.fit(tmp_path / "new", data=arrays(images, images))
    with pytest.raises(UserError, match="lies in it"):
        fit(tmp_path / "run", str(tmp_path / "run" / "copy"), resume="latest")
    MemoryFileSystem().pipe("/mine/thesis.doc", b"x")
    with pytest.raises(UserError, match=r"holds what no training wrote \(thesis\.doc\)"):
        fit(tmp_path / "new", "memory://mine")
    assert not (tmp_path / "new").exists()
    assert {name: MemoryFileSystem.store[name] for name in before} == before
    with pytest.raises(UserError, match="memory://nothing/here: holds nothing"):
        vaes.load("memory://nothing/here")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://KEY:SECRET@bucket/x", "carries credentials"),
        ("ftp://me:SECRET@host/x", "carries credentials"),
        ("s3://bucket/x?key=SECRET", "has parameters"),
        ("nowhere://x/y", "nowhere is no protocol"),
        ("memroy://x/y", r"memroy is no protocol that fsspec knows; did you mean memory"),
        ("s3://", "must be one protocol and a place"),
        ("zip://a::s3://b/c", "must be one protocol and a place"),
    ],
)
def test_wrong_urls_are_one_sentence_that_keeps_secrets(url: str, said: str, tmp_path: Path) -> None:
    for attempt in (
        lambda: fit(tmp_path / "run", url),
        lambda: fit(tmp_path / "run", None, resume=url),
        lambda: vaes.load(url),
    ):
        with pytest.raises(UserError, match=said) as caught:
            attempt()
        assert "SECRET" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment in which ``s3://bucket`` is a server on loopback."""
    server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer("127.0.0.1", 0)
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'vaes[remote]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    own = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield {**os.environ, "OMP_NUM_THREADS": "1"}
    server.stop()


def test_a_killed_training_goes_on_on_another_machine(s3: dict[str, str], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    options = [
        "--data.kind=arrays", f"--data.root={tmp_path / 'images.npy'}", "--model.z_dim=2", "--model.network.kind=mlp",
        "--model.network.hidden=[6]", "--train.batch_size=8", "--train.n_steps=800", "--train.save_freq=40",
        "--train.print_freq=100", "--train.eval_freq=0", "--train.sample_freq=0", "--train.trackers=[]",
    ]  # fmt: skip

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "vaes"), *words], cwd=tmp_path, env=s3, capture_output=True, text=True, check=False
        )

    url = "s3://bucket/runs/a"
    train = [str(BIN / "vaes"), "train", *options, f"--train.mirror={url}", "-e", "a"]
    killed = subprocess.Popen(train, cwd=tmp_path, env=s3, stderr=subprocess.DEVNULL)
    there = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    while killed.poll() is None and not there.glob("bucket/runs/a/ckpt/*/state.json"):
        time.sleep(0.02)
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    on = command("train", "--resume", url, "-e", "b")
    assert on.returncode == 0, on.stderr
    assert f"the copy at {url} is complete" in on.stderr + on.stdout
    assert command("train", *options, "-e", "whole").returncode == 0
    one, other = (checkpoint.read(checkpoint.newest_folder(tmp_path / name)) for name in ("b", "whole"))
    assert one.step == other.step == 800
    assert all((one.weights[name] == other.weights[name]).all() for name in other.weights)
    drawn = command("sample", url, "--save_dir", "drawn")
    assert (drawn.returncode, len(list((tmp_path / "drawn").glob("*.png")))) == (0, 1), drawn.stderr
    wrong = command("train", "-e", "c", *options, "--train.mirror=s3://no-such-bucket/x")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "s3://no-such-bucket/x" in wrong.stderr
    assert not (tmp_path / "c").exists()
