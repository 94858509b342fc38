"""Trainings on streams: killed, stalled, in two processes, and in two network namespaces."""

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trainings import everything

from vaes import Experiment
from vaes.data.stream import Sample
from vaes.data.tar_shards import TarShards
from vaes.errors import Stopped, UserError
from vaes.train import checkpoint

BIN = Path(sys.executable).parent
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(30):
                file = io.BytesIO()
                pixels = np.random.default_rng(30 * shard + i).integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(file, "PNG")
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(file.getvalue())
                archive.addfile(info, io.BytesIO(file.getvalue()))
    return folder


def options(shards: Path, n_steps: int) -> list[str]:
    return [
        "--data.kind=webdataset", f"--data.root={shards}", "--data.streaming=true", "--data.first=40",
        "--data.shuffle_buffer=20", "--model.network.dim=4", "--model.network.norm=none", "--train.batch_size=8",
        f"--train.n_steps={n_steps}", "--train.save_freq=4", "--train.print_freq=2", "--train.eval_freq=8",
        "--train.sample_freq=0", "--train.trackers=[]",
    ]  # fmt: skip


def test_a_killed_training_ends_as_one_that_was_not(shards: Path, tmp_path: Path) -> None:
    command = [str(BIN / "vaes"), "train", *options(shards, 200), "-e"]
    subprocess.run([*command, "whole"], cwd=tmp_path, env=ENV, check=True, capture_output=True)
    killed = subprocess.Popen([*command, "killed"], cwd=tmp_path, env=ENV, stderr=subprocess.DEVNULL)
    run = tmp_path / "killed"
    while killed.poll() is None and not checkpoint.checkpoints(run):
        time.sleep(0.01)
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 0 < checkpoint.read(checkpoint.newest_folder(run)).step < 200
    again = [str(BIN / "vaes"), "train", "-e", "killed", "--resume", "latest"]
    subprocess.run(again, cwd=tmp_path, env=ENV, check=True, capture_output=True)
    assert everything(run) == everything(tmp_path / "whole")


def test_a_stall_is_said_and_the_training_saved(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {
        "kind": "webdataset", "root": str(shards), "streaming": True, "first": 40, "shuffle_buffer": 20
    }  # fmt: skip
    train = {"n_steps": 30, "batch_size": 8, "save_freq": 100, "sample_freq": 0, "trackers": []}
    model = {"network": {"kind": "conv", "dim": 4}}
    experiment = Experiment(data=data, model=model, train=train)
    experiment.fit(tmp_path / "whole", device="cpu")
    stuck, read, samples = threading.Event(), [0], TarShards.samples

    def stalling(self: TarShards, shard: int) -> Iterator[Sample]:
        for sample in samples(self, shard):
            read[0] += 1
            if read[0] > 200:
                stuck.wait()
            yield sample

    monkeypatch.setattr(TarShards, "samples", stalling)
    with pytest.raises(UserError, match=r"nothing came for 3 s .*; saved after step \d+; go on with --resume latest"):
        Experiment(data={**data, "timeout": 3.0}, model=model, train=train).fit(tmp_path / "stalled", device="cpu")
    monkeypatch.undo()
    assert checkpoint.read(checkpoint.newest_folder(tmp_path / "stalled")).step > 0
    experiment.fit(tmp_path / "stalled", resume="latest", device="cpu")
    stuck.set()
    a, b = (checkpoint.read(checkpoint.newest_folder(tmp_path / name)) for name in ("whole", "stalled"))
    assert all((a.weights[name] == b.weights[name]).all() for name in a.weights)


def test_a_signal_while_a_stream_stalls_saves_at_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"kind": "webdataset", "root": str(shards), "streaming": True, "first": 40, "shuffle_buffer": 20}
    train = {"n_steps": 30, "batch_size": 8, "save_freq": 100, "sample_freq": 0, "trackers": []}
    experiment = Experiment(data=data, model={"network": {"kind": "mlp", "hidden": [4]}}, train=train)
    whole = experiment.fit(tmp_path / "whole", device="cpu")
    stuck, read, samples = threading.Event(), [0], TarShards.samples

    def stalling(self: TarShards, shard: int) -> Iterator[Sample]:
        for sample in samples(self, shard):
            read[0] += 1
            if read[0] == 200:
                threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()  # the training waits by then
                stuck.wait()
            yield sample

    monkeypatch.setattr(TarShards, "samples", stalling)
    with pytest.raises(Stopped, match=r"--resume latest") as caught:
        experiment.fit(tmp_path / "stopped", device="cpu")  # data.timeout is 60 s
    assert caught.value.status == 128 + signal.SIGTERM
    monkeypatch.undo()
    stuck.set()
    assert 0 < checkpoint.read(checkpoint.newest_folder(tmp_path / "stopped")).step < 30
    again = experiment.fit(tmp_path / "stopped", resume="latest", device="cpu")
    assert all((again.model.state_dict()[name] == x).all() for name, x in whole.model.state_dict().items())


def test_a_branch_can_be_gone_on_in_from_its_first_checkpoint(shards: Path, tmp_path: Path) -> None:
    data = {"kind": "webdataset", "root": str(shards), "streaming": True, "first": 40, "shuffle_buffer": 20}
    train = {"n_steps": 4, "batch_size": 8, "save_freq": 2, "sample_freq": 0, "trackers": []}
    experiment = Experiment(data=data, model={"network": {"kind": "mlp", "hidden": [4]}}, train=train)
    experiment.fit(tmp_path / "run", device="cpu")
    first = checkpoint.checkpoints(tmp_path / "run")[-1]
    with experiment.begun_in(tmp_path / "same", resume=first, device="cpu") as (training, _):
        assert not training.source.notes
    with experiment.replace({"data.shuffle_buffer": 30}).begun_in(tmp_path / "other", resume=first, device="cpu") as (
        training,
        _,
    ):
        assert "begins anew" in training.source.notes[0]
    with experiment.begun_in(tmp_path / "given", init=tmp_path / "run", device="cpu"):
        pass
    for name in ("same", "given"):
        experiment.fit(tmp_path / name, resume="latest", device="cpu")
    a, b = (checkpoint.read(checkpoint.newest_folder(tmp_path / name)) for name in ("run", "same"))
    assert all((a.weights[name] == b.weights[name]).all() for name in a.weights)


def ranks(arguments: list[str], cwd: Path, places: list[list[str]], address: str) -> None:
    """One process of a training in each place."""
    port = str(random.randint(20_000, 40_000))
    started = []
    for rank, place in enumerate(places):
        env = {**ENV, "MASTER_ADDR": address, "MASTER_PORT": port, "WORLD_SIZE": "2", "RANK": str(rank)}
        own = env | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        command = [*place, str(BIN / "vaes"), *arguments]
        started.append(subprocess.Popen(command, cwd=cwd, env=own, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said


def test_two_processes_go_on_exactly_and_one_alone_is_refused(shards: Path, tmp_path: Path) -> None:
    here: list[list[str]] = [[], []]
    ranks(["train", *options(shards, 16), "-e", "whole", "--train.lr=1e-3"], tmp_path, here, "127.0.0.1")
    ranks(["train", *options(shards, 8), "-e", "parts", "--train.lr=1e-3"], tmp_path, here, "127.0.0.1")
    alone = [str(BIN / "vaes"), "train", "-e", "parts", "--resume", "latest", "--train.n_steps=16"]
    done = subprocess.run(alone, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert done.returncode == 2
    assert "streamed to 2 processes and now to 1" in done.stderr
    ranks(alone[1:], tmp_path, here, "127.0.0.1")
    whole, parts = everything(tmp_path / "whole"), everything(tmp_path / "parts")
    assert whole["weights"] == parts["weights"]
    assert whole["training"] == parts["training"]


@pytest.fixture
def namespaces() -> Iterator[list[list[str]]]:
    """Two network namespaces with a wire between them: what starts a process in each."""
    name = f"vaes{os.getpid()}"
    names, wires = [f"{name}a", f"{name}b"], [f"v{os.getpid()}a", f"v{os.getpid()}b"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)

    try:
        try:
            for each in names:
                ip("netns", "add", each)
            ip("link", "add", wires[0], "type", "veth", "peer", "name", wires[1])
            for i, (each, wire) in enumerate(zip(names, wires, strict=True), start=1):
                ip("link", "set", wire, "netns", each)
                ip("-n", each, "addr", "add", f"10.99.0.{i}/24", "dev", wire)
                ip("-n", each, "link", "set", wire, "up")
                ip("-n", each, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here ({getattr(error, 'stderr', None) or error})")
        prefix = ["ip", "netns", "exec"]
        yield [[*prefix, each, "env", f"GLOO_SOCKET_IFNAME={wire}"] for each, wire in zip(names, wires, strict=True)]
    finally:
        for each in names:
            subprocess.run(["ip", "netns", "del", each], capture_output=True)


def test_two_hosts_equal_two_processes(namespaces: list[list[str]], shards: Path, tmp_path: Path) -> None:
    ranks(["train", *options(shards, 8), "-e", "here"], tmp_path, [[], []], "127.0.0.1")
    ranks(["train", *options(shards, 8), "-e", "apart"], tmp_path, namespaces, "10.99.0.1")
    assert everything(tmp_path / "apart") == everything(tmp_path / "here")
    saved = checkpoint.read(checkpoint.newest_folder(tmp_path / "apart")).training
    seen = [set(saved[f"stream.{rank}.slots"][:, 0].tolist()) for rank in range(2)]
    assert all(seen)
    assert not seen[0] & seen[1]  # shards
