"""Run folders in which something is not what it should be."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts import small_vae

from vaes import Experiment, cli, files
from vaes.train.folder import WRITTEN
from vaes.view import Options, draw


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    network = {"kind": "mlp", "hidden": [4]}
    train = {"n_steps": 4, "batch_size": 16, "eval_freq": 2, "print_freq": 2, "save_freq": 2, "sample_freq": 0}
    for seed, name in enumerate(("run", "other")):
        experiment = Experiment(seed=seed, data={"image_size": 8}, model={"network": network}, train=train)
        run = experiment.fit(home / name, device="cpu")
        run.evaluate(["latent", "likelihood"], budget={"n_images": 20, "iw_samples": 2, "iw_images": 2})
    return home


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name in ("run", "other"):
        shutil.copytree(trained / name, tmp_path / name)
    usual = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a pipe"))
    signal.alarm(30)
    yield tmp_path / "run"
    signal.alarm(0)
    signal.signal(signal.SIGALRM, usual)


COMMANDS = {
    "train": ["train", "-e", "run", "--resume", "latest", "--train.n_steps=4"],
    "sample": ["sample", "run", "--n_samples", "2"],
    "evaluate": ["evaluate", "run", "--only", "latent", "--n_images", "20"],
    "compare": ["compare", "run", "other"],
}


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("metrics.jsonl", ["train"]),
        ("history.jsonl", ["train"]),
        ("data.safetensors", ["train", "evaluate"]),
        ("ckpt/step000004/state.json", ["train", "sample"]),
        ("ckpt/step000004/model.safetensors", ["train", "sample"]),
        ("evaluation-*.safetensors", ["evaluate", "compare"]),
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_pipe_or_a_folder_for_a_file_of_a_run_is_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, name: str, readers: list[str],
    kind: str,
) -> None:  # fmt: skip
    (path,) = run.glob(name)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    for reader in readers:
        status = cli.main(COMMANDS[reader])
        said = capsys.readouterr().err + caplog.text
        assert status in (0, 2)
        assert path.name in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "reader"),
    [("history.jsonl", "train"), ("metrics.json", "compare"), ("ckpt/step000004/state.json", "train")],
)
def test_a_document_of_absurd_size_is_not_read(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, name: str, reader: str
) -> None:
    with (run / name).open("wb") as file:
        file.truncate(2**40)
    assert cli.main(COMMANDS[reader]) in (0, 2)
    assert "1,099,511,627,776 bytes" in capsys.readouterr().err + caplog.text


@pytest.mark.parametrize("changes", [{"step": 104}, {"best": [2, 1.0]}, {"checksum": None}])
def test_compare_believes_no_state_that_was_edited(
    run: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object]
) -> None:
    path = run / "ckpt/step000004/state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert cli.main(COMMANDS["compare"]) == 0
    assert "warning: run: a state.json of its checkpoints is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "value"), [("features", [1]), ("interval", [1]), ("note", {"a": 1}), ("seed", "x"), ("chosen", [1])]
)
def test_an_evaluation_of_other_types_is_a_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], place: str, value: object
) -> None:
    document = json.loads((run / "evaluation.json").read_text())
    group = document["groups"]["latent"]
    (group if place == "chosen" else group["metrics"][0])[place] = value
    sealed = document | {"sha256": files.digest(document, "sha256")}
    (run / "evaluation.json").write_text(json.dumps(sealed))
    assert cli.main(COMMANDS["compare"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run/evaluation.json: not an evaluation (")


def test_a_line_that_is_too_long_for_a_log_is_passed_over_unheld(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_bytes()
    path.write_bytes(b"x" * 3_000_000 + b"\n" + lines)
    assert cli.main(COMMANDS["train"]) == 0
    assert "line 1 cannot be read (too long)" in capsys.readouterr().err
    assert path.read_bytes() == lines


def test_pictures_of_two_commands_at_once_are_those_of_one(tmp_path: Path) -> None:
    holder = """
import sys, time
from pathlib import Path
from vaes import files
folder = Path(sys.argv[1])
with files.locked(folder / ".pictures.lock"):
    print("held", flush=True)
    time.sleep(1.5)
    (folder / "left").touch()
"""
    with subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        began = time.monotonic()
        draw("sample", small_vae(), tmp_path, Options(n_samples=2))
        assert (tmp_path / "left").exists(), f"it wrote after {time.monotonic() - began:.1f} s"


@pytest.mark.parametrize("command", ["compare", "sample"])
def test_a_backend_of_matplotlib_s_that_does_not_exist_is_none_of_ours(run: Path, command: str) -> None:
    extra = ["--save_dir", "drawn"]
    environment = {**os.environ, "MPLBACKEND": "nonsense"}
    arguments = [sys.executable, "-m", "vaes", *COMMANDS[command], *extra]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(Path("drawn").glob("*.png"))


def test_a_run_folder_whose_name_is_no_text_is_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"r\xff\n")
    assert cli.main(["train", "-e", name]) == 2
    assert capsys.readouterr().err == (
        "error: r\\xff\\x0a: a path with bytes that are no UTF-8; give another with -e, or rename it\n"
    )
    assert not Path(name).exists()
    run.rename(name)
    for command, status in (("sample", 0), ("compare", 0), ("evaluate", 2)):  # safetensors opens no such path
        words = [name if word == "run" else word for word in COMMANDS[command]]
        assert cli.main(words) == status
        assert "not valid UTF-8" in (said := capsys.readouterr().err) or not status
        assert "Traceback" not in said


@pytest.mark.parametrize("key", ["model.z_dim", "train.n_steps", "train.batch_size", "seed", "model.network.hidden"])
def test_a_whole_number_that_no_machine_holds_is_a_sentence(capsys: pytest.CaptureFixture[str], key: str) -> None:
    value = f"[{10**400}]" if key.endswith("hidden") else str(10**400)
    assert cli.main(["train", "-e", "never", "--model.network.kind=mlp", f"--{key}={value}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {key}: ")


@pytest.mark.parametrize("name", [*WRITTEN, "ckpt/step000004", "samples/step000004.png"])
def test_a_link_in_a_run_is_refused_and_what_it_leads_to_is_as_it_was(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, elsewhere = run / name, tmp_path / "elsewhere"
    if path.is_dir():
        path.rename(elsewhere)
    else:
        elsewhere.write_bytes(b"precious")
        path.unlink(missing_ok=True)
    path.symlink_to(elsewhere)
    before = {p: p.read_bytes() for p in (elsewhere, *elsewhere.rglob("*")) if p.is_file()}
    assert cli.main(["train", "-e", "run", "--resume", "latest", "--train.n_steps=6", "--train.keep=1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: run/{name}: is a symbolic link, ")
    assert {p: p.read_bytes() for p in (elsewhere, *elsewhere.rglob("*")) if p.is_file()} == before
