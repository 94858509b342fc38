"""Trackers: each for real, without a network, and none that can end a training."""

import json
import logging
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trainings import objective, settings, splits, weighting

from vaes.errors import UserError
from vaes.train import trackers
from vaes.train.folder import WRITTEN
from vaes.train.loop import fit
from vaes.train.trackers import Tracker

CONFIG = "seed: 0\nmodel: {z_dim: 3}\n"


def train(run: Path, name: str, **options: Any) -> dict[str, Any]:
    return fit(objective(), weighting(), splits(), settings(trackers=(name,), **options), run, config=CONFIG)


def lines(run: Path) -> dict[tuple[int, str], float]:
    """The numbers of ``metrics.jsonl`` as trackers call them."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = [(line, name) for line in found for name in line if name not in ("step", "split")]
    return {(line["step"], f"{line['split']}/{name}"): line[name] for line, name in names}


def test_mlflow_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'vaes[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    metrics = train(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("vaes").experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["model.z_dim"] == "3"
    assert found.data.params["units.mse"] == "pixels [-1, 1]"
    for name in ("train/loss", "valid/elbo"):
        wanted = {step: value for (step, key), value in lines(tmp_path / "run").items() if key == name}
        history = client.get_metric_history(found.info.run_id, name)
        assert {point.step: point.value for point in history} == pytest.approx(wanted)
    assert found.data.metrics["test/elbo"] == pytest.approx(metrics["test"]["elbo"]["value"])
    assert found.data.metrics["test/elbo_stderr"] == pytest.approx(metrics["test"]["elbo"]["stderr"])
    pictures = [file.path for file in client.list_artifacts(found.info.run_id, "samples")]
    assert pictures == ["samples/step000003.png", "samples/step000006.png"]
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_resumed_training_goes_on_in_the_tracker_s_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'vaes[mlflow]'")
    from vaes.train import checkpoint

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(tmp_path / "run", "mlflow", n_steps=4)
    saved = checkpoint.read(checkpoint.newest_folder(tmp_path / "run"))
    longer = settings(trackers=("mlflow",), n_steps=6)
    fit(objective(), weighting(), splits(), longer, tmp_path / "run", config=CONFIG, resume=saved, within=True)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("vaes").experiment_id])
    assert [p.step for p in client.get_metric_history(found.info.run_id, "train/loss")] == [2, 4, 6]


def records(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log after its header of 7 bytes: blocks of 32 KiB, fragments with crc, length, type."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield parts
            parts = b""


def test_wandb_offline_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'vaes[wandb]'")
    from wandb.proto import wandb_internal_pb2 as pb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    metrics = train(tmp_path / "run", "wandb")
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    history: dict[Any, Any] = {}
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    patience = time.monotonic() + 20
    found = [pb.Record.FromString(data) for data in records(path.read_bytes())]
    while not any(record.HasField("exit") for record in found) and time.monotonic() < patience:
        time.sleep(0.1)  # its own process writes
        found = [pb.Record.FromString(data) for data in records(path.read_bytes())]
    for record in found:
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        history |= {(row["_step"], name): value for name, value in row.items()} if row else {}
        summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    assert config["model"] == {"z_dim": 3}
    assert config["units"]["mse"] == "pixels [-1, 1]"
    wanted = lines(tmp_path / "run")
    assert {key: history[key] for key in wanted} == pytest.approx(wanted)
    assert history[6, "samples/_type"] == "image-file"
    assert summary["test/elbo"] == pytest.approx(metrics["test"]["elbo"]["value"])


def test_trackio_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    trackio = pytest.importorskip("trackio", reason="trackio is not installed: pip install 'vaes[trackio]'")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    for module in (utils, __import__("trackio.sqlite_storage", fromlist=["x"])):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    metrics = train(tmp_path / "run", "trackio")
    assert not capfd.readouterr().out
    logs = SQLiteStorage.get_logs("vaes", "run")
    found = {(log["step"], name): value for log in logs for name, value in log.items()}
    wanted = lines(tmp_path / "run")
    assert {key: found[key] for key in wanted} == pytest.approx(wanted)
    assert found[6, "test/elbo"] == pytest.approx(metrics["test"]["elbo"]["value"])
    assert found[6, "samples"]["_type"] == "trackio.image"
    assert SQLiteStorage.get_run_config("vaes", "run")["model"] == {"z_dim": 3}
    assert trackio.__version__


class Broken(Tracker):
    module = "nothing"
    calls: list[str]

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, []

    def _do(self, name: str) -> None:
        self.calls.append(name)
        if name == self.at:
            raise ConnectionError("the server\nis gone")

    def begin(self, folder: Path, config: Any, known: Any) -> str:
        self._do("begin")
        return "1"

    def numbers(self, step: int, values: Any) -> None:
        self._do("numbers")

    def picture(self, step: int, image: Any) -> None:
        self._do("picture")

    def end(self, final: Any) -> None:
        self._do("end")


@pytest.mark.parametrize("at", ["begin", "numbers", "picture", "end"])
def test_a_tracker_that_fails_is_a_warning_and_called_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    broken = Broken(at)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", lambda: broken)
    with caplog.at_level(logging.WARNING, "vaes"):
        fit(objective(), weighting(), splits(), settings(trackers=("wandb",)), tmp_path / "run")
    assert broken.calls.count(at) == 1
    assert broken.calls[-1] == at
    text = "train.trackers: wandb failed and is left out from here on (ConnectionError: the server is gone)"
    assert text in caplog.text
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_server_that_is_gone_holds_a_training_for_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'vaes[mlflow]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    train(tmp_path / "run", "mlflow")
    assert "train.trackers: mlflow failed and is left out from here on" in caplog.text
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


def test_a_missing_package_is_a_sentence_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"train.trackers: trackio needs a package more: pip install 'vaes\[trackio\]'"):
        train(tmp_path / "run", "trackio")
    assert not (tmp_path / "run").exists()


def test_the_run_folder_knows_what_trackers_write() -> None:
    assert {"wandb", trackers.IDS} <= set(WRITTEN)
