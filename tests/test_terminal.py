"""What reaches the terminal, and outputs that go away, in real processes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaes import terminal
from vaes.cli import guarded
from vaes.errors import UserError
from vaes.files import write_atomic

PRINTS = """
import sys
from vaes import terminal
from vaes.cli import guarded
def command():
    from tqdm import tqdm
    for i in tqdm(range(300), mininterval=0, disable=False):
        terminal.note(f"step {i} ± {'x' * 100}")
    print("lost", file=sys.stderr)
    for i in range(LINES):
        terminal.say(f"line {i} ± 1")
    with open("done", "w") as file:
        file.write("done")
sys.exit(guarded(command))
"""


def shell(command: str, code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in bash, where $PROGRAM is a Python program; the status is the program's, not its reader's."""
    (cwd / "program.py").write_text(code)
    program = f"{shlex.quote(sys.executable)} program.py"
    whole = f"set -o pipefail; {command.replace('PROGRAM', program)}"
    return subprocess.run(
        ["bash", "-c", whole],
        cwd=cwd,
        env=os.environ | {"PYTHONUNBUFFERED": ""} | env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "lines", "status", "error", "finished"),
    [
        ("PROGRAM 2>/dev/full", 3, 0, "", True),
        ("PROGRAM 2>&-", 3, 0, "", True),
        ("{ PROGRAM 2>&1 >&3 | true; } 3>&1", 3, 0, "", True),  # nobody reads standard error
        ("PROGRAM 2>err | head -1; exit ${PIPESTATUS[0]}", 100_000, 141, "", False),
        ("PROGRAM >/dev/full", 3, 2, "error: standard output: No space left on device", False),
        ("PROGRAM >&-", 3, 2, "error: standard output: it is closed", False),
        ("PROGRAM >&- 2>&-", 3, 2, "", False),
        ("PROGRAM >/dev/full 2>/dev/full", 3, 2, "", False),
    ],
)
def test_an_output_that_goes_away(
    command: str, lines: int, status: int, error: str, finished: bool, tmp_path: Path
) -> None:
    done = shell(command, PRINTS.replace("LINES", str(lines)), tmp_path)
    assert done.returncode == status, done.stderr
    said = done.stderr + ((tmp_path / "err").read_text() if (tmp_path / "err").is_file() else "")
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert "error" not in said if not error else error in said
    assert (tmp_path / "done").is_file() == finished


@pytest.mark.parametrize("coding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
def test_every_terminal_can_show_every_line(coding: str, tmp_path: Path) -> None:
    done = shell("PROGRAM", PRINTS.replace("LINES", "1"), tmp_path, PYTHONIOENCODING=coding)
    assert done.returncode == 0, done.stderr
    if coding.startswith("ascii"):
        assert done.stdout == "line 0 +- 1\n"
        assert "step 299 +- x" in done.stderr


@pytest.mark.parametrize("arguments", ["--help", "train --help", "--version", "compare nowhere"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-", "2>/dev/full", "2>&-", "| true", "2>&1 >/dev/null | true"])
def test_no_command_dies_in_the_last_flush(arguments: str, where: str, tmp_path: Path) -> None:
    code = "from vaes.cli import main\nraise SystemExit(main())"
    done = shell(f"PROGRAM {arguments} {where}", code, tmp_path)
    assert done.returncode != 120
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", "2>&1 >/dev/null | true", "| true"])
def test_a_training_that_nobody_listens_to_is_saved(where: str, tmp_path: Path) -> None:
    code = "from vaes.cli import main\nraise SystemExit(main())"
    options = "-e run --train.n_steps 20 --train.print_freq 1 --train.batch_size 8 --model.network.dim 4"
    done = shell(f"PROGRAM train {options} {where}", code, tmp_path)
    assert done.returncode in (0, 141), done.stderr
    assert (tmp_path / "run/ckpt/step000020/model.safetensors").is_file()
    assert (tmp_path / "run/metrics.json").is_file()


def test_a_closed_standard_error_is_no_place_for_the_next_file(tmp_path: Path) -> None:
    code = """
import os, sys
from vaes.cli import guarded
def command():
    with open("data", "w") as file:
        os.write(2, b"a warning of a C library")
        file.write("data")
sys.exit(guarded(command))
"""
    assert shell("PROGRAM 2>&- >&- <&-", code, tmp_path).returncode in (0, 2)
    assert (tmp_path / "data").read_text() == "data"


@given(st.text() | st.binary().map(os.fsdecode))
def test_an_escaped_text_is_one_line_that_can_be_written(text: str) -> None:
    shown = terminal.escape(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert terminal.escape(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("grün 猫 🐈 é – ±", "grün 猫 🐈 é – ±"),
        ("a\nerror: b\r\x1b[2J\x9b", "a\\x0aerror: b\\x0d\\x1b[2J\\x9b"),
        ("\u202egnp.\u200bx\u2028\ufeff", "\\u202egnp.\\u200bx\\u2028\\ufeff"),
        (os.fsdecode(b"\xff.png"), "\\xff.png"),
        ("\ud800\U000e0041", "\\ud800\\U000e0041"),
    ],
)
def test_what_is_made_visible_and_what_stays(text: str, shown: str) -> None:
    assert terminal.escape(text) == shown


@pytest.mark.parametrize("name", ["a", "my run", "it's", "a\nb", "$HOME `x`", "\x1b'\\", os.fsdecode(b"\xff"), "ü"])
def test_a_quoted_path_can_be_pasted_into_a_shell(name: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {terminal.quote(name)}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == name


def test_a_name_forges_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise UserError("runs/a\nerror: all is lost\x1b[2J: not a run")

    assert guarded(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == r"error: runs/a\x0aerror: all is lost\x1b[2J: not a run"


def test_a_message_that_quotes_a_file_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise UserError(f"x: {'y' * 10_000_000} is not right")

    assert guarded(command) == 2
    assert len(capsys.readouterr().err) < 5_000
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ("y" * 10_000_000, 10**5000, deep, list(range(10**6)), {"a\n": "\x1b"}):
        assert len(terminal.brief(value)) < 200


def test_an_error_without_a_path_says_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    assert guarded(full) == 2
    assert "make room on that disk" in capsys.readouterr().err


def test_a_full_disk_is_named_with_the_file_that_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(path: Path) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    assert guarded(lambda: write_atomic(tmp_path / "x.json", write)) == 2
    assert f"error: {tmp_path / 'x.json'}: No space left on device; make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
