"""The wheel and the sdist, built, installed apart from the repository, and used as users do."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"
ENV = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
ENV |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1", "TQDM_DISABLE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=ENV, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(kind: str, tree: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    return out / run(sys.executable, "-c", BUILD, kind, out, cwd=tree).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist alone, which is built from the files that the repository holds."""
    folder = tmp_path_factory.mktemp("packaging")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo / name, tree)
    shutil.copytree(repo / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    sdist = built("sdist", tree, folder / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return built("wheel", unpacked, folder / "wheel")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and what it needs from the environment of these tests."""
    home = tmp_path_factory.mktemp("env") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=wheel.parent)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=wheel.parent)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")  # behind its own packages
    return python


def test_the_wheel_holds_all_that_the_package_has(wheel: Path, repo: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = [path for path in (repo / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {
        path.relative_to(repo / "src").as_posix()
        for path in there
        if ".egg-info" not in str(path) and path.name[0] != "."
    }
    assert found == wanted
    assert {"vaes/py.typed", "vaes/keys.json", "vaes/configs/vae-digits.yaml"} <= found


def test_it_works_outside_of_the_repository(python: Path, tmp_path: Path) -> None:
    vaes = python.parent / "vaes"
    where = run(python, "-c", "import vaes; print(vaes.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(python.parents[1])
    assert run(vaes, "--version", cwd=tmp_path).startswith("vaes ")
    short = ["--train.n_steps", "4", "--train.batch_size", "8", "--model.network.dim", "4"]
    run(vaes, "train", "-c", "vae-digits", "-e", "run", *short, cwd=tmp_path)
    run(vaes, "sample", "run", "--mode", "sample", "--n_samples", "4", cwd=tmp_path)
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_the_version_is_the_tags(repo: Path, tmp_path: Path) -> None:
    shutil.copy(repo / "pyproject.toml", tmp_path)
    name = "-c user.name=n -c user.email=e@localhost"

    def version(*commands: str) -> str:
        for command in commands:
            run("git", *command.split(), cwd=tmp_path)
        return run(sys.executable, "-m", "setuptools_scm", cwd=tmp_path).strip()

    assert version() == "0.1.0"  # no repository
    (tmp_path / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: vaes\nVersion: 7.1\n")
    assert version() == "7.1"  # an sdist
    (tmp_path / "PKG-INFO").unlink()
    assert re.fullmatch(r"0\.1\.1\.dev1\+g\w+", version("init -q", "add pyproject.toml", f"{name} commit -qm one"))
    assert version("tag v9.8.7") == "9.8.7"
    assert version(f"{name} commit -qm two --allow-empty").startswith("9.8.8.dev1+g")


PROGRAM = """
from vaes import Experiment, Run, load
from vaes.sklearn import VAETransformer

def use(path: str) -> int:
    run: Run = load(path)
    made = Experiment(method="vae", train={{"n_steps": 4}}).fit("folder")
    VAETransformer({wrong}, n_steps=5).sample(3)
    return run.step + made.step
"""
SETTINGS = "[mypy]\nstrict = True\nfollow_imports = skip\n[mypy-vaes.*]\nfollow_imports = silent\n"


def test_its_types_hold_for_users(python: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: pip install 'vaes[dev]'")
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    for name, wrong in (("right", "2"), ("wrong", "'two'")):
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(wrong=wrong))
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=300)
    (error, total) = done.stdout.splitlines()
    assert error.startswith('wrong.py:8: error: Argument 1 to "VAETransformer" has incompatible type "str"')
    assert total.startswith("Found 1 error in 1 file")
