"""Every command line of the README through the real entry points."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vaes.cli import MODES, guarded, main
from vaes.view import MODES as VIEW_MODES

BIN = Path(sys.executable).parent
TINY = ["--train.n_steps", "4", "--train.batch_size=8", "--model.network.dim", "4", "--data.image_size=8"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "TQDM_DISABLE": "1"}


def run(*command: object, cwd: Path, env: dict[str, str] = ENV) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )


def said(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit status and stderr of ``vaes`` in this process, without what libraries warn of."""
    status = main([str(part) for part in arguments])
    return status, capsys.readouterr().err


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """A folder with the origin's scripts, in which train_vae.py was run."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("train_vae.py", "train_mmd_vae.py", "sample.py"):
        shutil.copy(repo / name, folder)
    (folder / "tiny.yaml").write_text(
        "method: vae\ndata: {kind: digits, image_size: 8}\n"
        "model: {z_dim: 2, network: {kind: conv, dim: 4}, likelihood: {kind: bernoulli}}\n"
        "train: {n_steps: 4, batch_size: 8}\n"
    )
    done = run(BIN / "python", "train_vae.py", "-c", "tiny.yaml", "-e", "runs/a", "--train.coef_kl", "3", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "test numbers after step 4" in done.stdout
    return folder


def test_train_vae_trains_with_its_coefficient(work: Path) -> None:
    run_folder = work / "runs" / "a"
    assert "beta: 3" in (run_folder / "config.yaml").read_text()
    assert json.loads((run_folder / "metrics.json").read_text())["step"] == 4
    assert (run_folder / "ckpt" / "step000004" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("script", "extra"),
    [
        ("train_vae.py", []),
        ("train_mmd_vae.py", ["--train.coef_alpha", "0.5", "--train.coef_lambda", "2"]),
    ],
)
def test_the_origin_s_scripts_run_under_accelerate_launch_without_a_config(
    work: Path, tmp_path: Path, script: str, extra: list[str]
) -> None:
    done = run(BIN / "accelerate-launch", "--cpu", "--num_processes", "1", script, *TINY, *extra, cwd=work)
    assert done.returncode == 0, done.stderr
    (made,) = (work / "runs").glob("mmd_vae-digits-*" if "mmd" in script else "vae-digits-*")
    assert (made / "metrics.json").is_file()
    if extra:
        config = (made / "config.yaml").read_text()
        assert "alpha: 0.5" in config
        assert "lambda_: 2" in config


def test_sample_under_python_and_accelerate_launch(work: Path, tmp_path: Path) -> None:
    weights = work / "runs/a/ckpt/step000004/model.safetensors"
    options = ["-c", "tiny.yaml", "--weights", weights, "--n_samples", "3", "--seed", "1"]
    for launcher, name in (
        ([BIN / "python"], "a"),
        ([BIN / "accelerate-launch", "--cpu", "--num_processes", "1"], "b"),
    ):
        done = run(*launcher, "sample.py", *options, "--save_dir", tmp_path / name, cwd=work)
        assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "a").glob("[!.]*"))
    assert names == ["sample-000.png", "sample-001.png", "sample-002.png", "sample-sheet.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_installed_command_and_the_module(work: Path, tmp_path: Path) -> None:
    done = run(BIN / "vaes", "--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("vaes ")
    done = run(BIN / "python", "-m", "vaes", "sample", work / "runs/a", "--n_samples", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (work / "runs/a/pictures/sample-sheet.png").is_file()


def test_help_comes_without_torch(tmp_path: Path) -> None:
    for arguments in (["--help"], ["train", "--help"], ["sample", "--help"], ["fit-prior", "--help"]):
        code = (
            "import sys; from vaes.cli import main\n"
            f"try: main({arguments!r})\n"
            "except SystemExit as e: assert e.code == 0\n"
            "assert not {'torch', 'numpy', 'accelerate', 'pydantic'} & sys.modules.keys()"
        )
        done = run(BIN / "python", "-c", code, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "usage: vaes" in done.stdout


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", ["run", "checkpoint", "file"])
def test_every_mode_from_a_run_a_checkpoint_folder_and_a_file(
    work: Path, tmp_path: Path, mode: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"run": "runs/a", "checkpoint": "runs/a/ckpt/step000004", "file": "runs/a/ckpt/step000004/model.safetensors"}
    options = ["--n_samples", 4, "--n_interpolate", 3, "--n_traverse", 3, "--traverse_range", 2.0, "--batch_size", 2]
    options += ["--z", "0,-1"] if mode == "decode" else []
    status, error = said("sample", work / path[where], "--mode", mode, *options, "--save_dir", tmp_path, capsys=capsys)
    assert status == 0, error
    with Image.open(tmp_path / f"{mode}-sheet.png") as sheet:
        assert min(sheet.size) > 100


def test_an_option_that_the_mode_does_not_read_is_named_and_the_picture_is_drawn(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--n_samples", 2, "--save_dir", tmp_path]
    status, error = said("sample", work / "runs/a", *options, "--traverse_dim", 1, capsys=capsys)
    assert status == 0
    assert "warning: --traverse_dim is for --mode traverse; sample ignores it\n" in error
    for mode, extra in (("sample", []), ("traverse", ["--traverse_dim", 1]), ("interpolate", ["--path", "spherical"])):
        status, error = said("sample", work / "runs/a", "--mode", mode, *options, *extra, capsys=capsys)
        assert (status, "warning" in error) == (0, False), error


def test_pictures_of_a_checkpoint_named_from_inside_the_run_go_to_the_run(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(work / "runs/a", tmp_path / "a")
    before = sorted((run / "ckpt").rglob("*"))
    for here, name in (("ckpt", "step000004"), ("ckpt/step000004", "model.safetensors"), ("ckpt/step000004", ".")):
        monkeypatch.chdir(run / here)
        status, error = said("sample", name, "--n_samples", 2, capsys=capsys)
        assert status == 0, error
        (run / "pictures" / "sample-sheet.png").unlink()
    assert sorted((run / "ckpt").rglob("*")) == before


def test_the_cli_s_modes_are_the_view_s() -> None:
    assert tuple(VIEW_MODES) == MODES


def test_traverse_one_dimension_and_interpolate_between_test_images(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (
        ["--mode", "traverse", "--traverse_dim", 1, "--singles"],
        ["--mode", "interpolate", "--between", "test", "--path", "spherical", "--singles"],
    ):
        status, error = said(
            "sample", work / "runs/a", *options, "--n_samples", 3, "--save_dir", tmp_path, capsys=capsys
        )
        assert status == 0, error
    assert {"traverse-002.png", "interpolate-002.png"} <= {path.name for path in tmp_path.iterdir()}


def test_resume_latest_goes_on_and_equals_a_run_never_stopped(work: Path, tmp_path: Path, capsys) -> None:
    base = ["train", "-c", work / "tiny.yaml", "--train.save_freq", 2, "--train.print_freq", 2, "--train.lr=1e-3"]
    assert said(*base, "-e", tmp_path / "whole", "--train.n_steps=6", capsys=capsys)[0] == 0
    assert said(*base, "-e", tmp_path / "cut", "--train.n_steps=2", capsys=capsys)[0] == 0
    status, error = said("train", "-e", tmp_path / "cut", "--resume", "latest", "--train.n_steps=6", capsys=capsys)
    assert status == 0, error
    assert "training from step 2 to step 6" in error
    whole, cut = (tmp_path / name / "ckpt/step000006/model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()
    # From a checkpoint into a new folder, with another objective.
    status, error = said(
        "train", "--resume", tmp_path / "cut/ckpt/step000006", "-e", tmp_path / "branch", "--train.n_steps=8",
        "--objective.beta=2", capsys=capsys,
    )  # fmt: skip
    assert status == 0, error
    assert "beta: 2" in (tmp_path / "branch/config.yaml").read_text()


def test_shipped_coefficients_are_overridden_by_the_origin_s_spelling(
    work: Path, tmp_path: Path, capsys, repo: Path
) -> None:
    (tmp_path / "c.yaml").write_text((work / "tiny.yaml").read_text() + "objective: {beta: 20.0}\n")
    status, error = said(
        "train", "-c", tmp_path / "c.yaml", "-e", tmp_path / "run", "--train.coef_kl", 4, capsys=capsys
    )
    assert status == 0, error
    assert "beta: 4" in (tmp_path / "run/config.yaml").read_text()


def test_a_data_key_may_stand_anywhere_on_the_command_line(work: Path, tmp_path: Path, capsys) -> None:
    weights = work / "runs/a/ckpt/step000004/model.safetensors"
    for command in (["--weights", weights, "--data.seed", 0], ["--data.seed", 0, work / "runs/a"]):
        status, error = said("sample", *command, "--n_samples", 1, "--save_dir", tmp_path, capsys=capsys)
        assert status == 0, error


def write_image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 80).save(path)


def test_an_unknown_folder_of_images_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(60):
        Image.effect_noise((13, 9), 80).convert("RGB").save(tmp_path / f"{i}.jpg")
    status, error = said(
        "train", "-e", tmp_path / "run", "--data.kind", "folder", "--data.root", tmp_path, "--model.network.dim=4",
        "--train.n_steps=2", "--train.batch_size=8", capsys=capsys,
    )  # fmt: skip
    assert status == 0, error
    assert "images of 3x9x13" in error


def bad_commands(work: Path, tmp: Path) -> dict[str, tuple[list[object], str]]:
    """name -> arguments, and what the one line of the answer holds."""
    train, a = ["train", "-e", tmp / "new", *TINY], work / "runs/a"
    weights = a / "ckpt/step000004/model.safetensors"
    (tmp / "empty").mkdir()
    for i in range(4):
        write_image(tmp / "sizes" / f"{i}.png", (8 + i % 2, 8))
        write_image(tmp / "broken" / f"{i}.png")
    (tmp / "broken" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    (tmp / "idx").mkdir()
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp / "idx" / name).write_bytes(b"\x00\x00\x08\x03\x00\x00")
    (tmp / "other.yaml").write_text(
        "method: vae\nmodel: {z_dim: 3, network: {kind: conv, dim: 4}, likelihood: bernoulli}\n"
    )
    (tmp / "torn.safetensors").write_bytes(weights.read_bytes()[:-100])
    folder = [*train[:-1], "--data.kind", "folder", "--data.root"]
    return {
        "no command": ([], "the following arguments are required: command"),
        "unknown command": (["tarin"], "invalid choice: 'tarin'"),
        "unknown key": ([*train, "--objective.bta", 4], "objective.bta: unknown key: did you mean beta?"),
        "wrong type": ([*train, "--train.n_steps", "many"], "train.n_steps: 'many' is not right"),
        "unknown kind": ([*train, "--data.kind", "mnits"], "data.kind: unknown kind 'mnits': did you mean mnist?"),
        "leftover": ([*train, "beta", "4"], "4: a leftover argument beside beta"),
        "no such config": ([*train, "-c", tmp / "none.yaml"], "none.yaml: there is no such configuration file"),
        "truncated data": ([*train[:-1], "--data.kind", "mnist", "--data.root", tmp / "idx"], "idx"),
        "missing data": ([*folder, tmp / "nowhere"], "nowhere"),
        "empty folder": ([*folder, tmp / "empty"], "holds no images"),
        "sizes differ": ([*folder, tmp / "sizes"], "data.image_size"),
        "broken image": ([*folder, tmp / "broken"], "0.png"),
        "batch too large": ([*train, "--train.batch_size", 5000], "train.batch_size: 5000 of 1350 training images"),
        "run exists": (["train", "-e", a, *TINY], "this run folder exists"),
        "resume nothing": (["train", "-e", tmp / "new", "--resume", "latest"], "is no run folder"),
        "resume other": (["train", "-e", a, "--resume", "latest", "--model.z_dim", 5], "model.z_dim is 5"),
        "decoder range": ([*train, "--model.value_range=[-1.0, 1.0]"], "likelihood needs pixels in (0, 1)"),
        "ambiguous": (["sample", a, "--weights", weights], "give one of RUN and --weights"),
        "no weights": (["sample", tmp / "nothing"], "nothing: does not exist"),
        "torn weights": (["sample", tmp / "torn.safetensors"], "not a whole safetensors file"),
        "other config": (["sample", "-c", tmp / "other.yaml", "--weights", weights], "model.z_dim is 3"),
        "dimension": (["sample", a, "--mode", "traverse", "--traverse_dim", 2], "--traverse_dim"),
        "bad mode": (["sample", a, "--mode", "sampel"], "invalid choice: 'sampel'"),
        "model key in sample": (["sample", a, "--model.z_dim", 3], "only keys of data can be given"),
    }  # fmt: skip


def test_bad_input_is_answered_in_one_line_with_status_2_and_leaves_nothing(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = bad_commands(work, tmp_path)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    for name, (arguments, message) in commands.items():
        status, error = said(*arguments, capsys=capsys)
        assert status == 2, f"{name}: {error}"
        (line,) = [line for line in error.splitlines() if line]
        assert line.startswith("error: "), f"{name}: {error}"
        assert message in line, f"{name}: {line}"
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before, name


def test_a_broken_image_is_left_out_when_asked(tmp_path: Path, capsys) -> None:
    for i in range(60):
        write_image(tmp_path / "images" / f"{i:02d}.png")
    (tmp_path / "images" / "07.png").write_bytes(b"no image")
    options = ["--data.kind=folder", "--data.root", tmp_path / "images", "--model.network.dim=4", "--train.n_steps=1"]
    status, error = said(
        "train", "-e", tmp_path / "run", *options, "--train.batch_size=4", "--data.skip_bad=true", capsys=capsys
    )
    assert status == 0, error
    assert "59 images" in error
    assert "07.png" in error


def test_a_full_disk_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "runs/a/ckpt")

    assert guarded(full) == 2
    assert "runs/a/ckpt: No space left on device" in capsys.readouterr().err


def test_a_process_that_lost_its_partner_leaves_what_it_printed_and_takes_nothing_down(tmp_path: Path) -> None:
    # Threads of gloo may be at work still: they would abort the process if the interpreter were finalised.
    script = tmp_path / "lost.py"
    script.write_text(
        "import atexit\nfrom torch import distributed\nfrom vaes.cli import guarded\n"
        "from vaes.errors import UserError\n"
        "atexit.register(print, 'finalised')\n"
        "def command():\n    print('printed')\n"
        "    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)\n"
        "    raise UserError('the other is gone')\n"
        "raise SystemExit(guarded(command))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "printed\n", "error: the other is gone\n")


def test_faults_of_ours_keep_their_traceback() -> None:
    def fault() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        guarded(fault)
