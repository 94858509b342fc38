import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from vaes.cli import main
from vaes.explore import assets, report


def test_explore_prints_its_address_on_a_line_and_ends_quietly(trained: Path) -> None:
    pytest.importorskip("uvicorn", reason="vaes[explore] is not installed")
    words = [sys.executable, "-m", "vaes", "explore", str(trained), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/[\w-]{20,}/)\n", process.stdout.readline())
            assert address
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            assert b"page/main.js" in direct.open(address[1], timeout=20).read()
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, rest, said) == (130, "", "stopped\n")


def test_where_there_is_nothing_both_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for words in (["explore", "--no-browser"], ["report"]):
        for name in ("gone", "empty"):
            assert main([*words, str(tmp_path / name)]) == 2
            said = capsys.readouterr().err
            assert said.startswith("error: ")
            assert said.count("\n") == 1
            assert name in said


def test_report_writes_one_file_that_nothing_from_the_run_can_break_out_of(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "there" / "report.html"
    assert main(["report", str(trained), "-o", str(path), "--static"]) == 0
    assert str(path) in capsys.readouterr().out
    text = path.read_text(encoding="utf-8")
    assert "<script>document" not in text
    assert "<img" not in text
    assert "Content-Security-Policy" in text
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)", re.sub(r'<script type="text/plain".*?</script>', "", text)
    )
    assert list(path.parent.iterdir()) == [path]


def test_a_live_report_without_what_it_takes_says_what_to_do(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets, "runtime", lambda: None)
    assert main(["report", str(trained), "-o", str(tmp_path / "report.html")]) == 2
    said = capsys.readouterr().err
    assert "make page" in said
    assert "--static" in said
    assert not list(tmp_path.iterdir())


def test_where_the_report_lies_is_said_from_here_and_that_it_is_large(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "MOST", {True: 1000, False: 1000})
    assert main(["report", str(trained), "-o", str(tmp_path / "there" / "a.html"), "--static"]) == 0
    found = capsys.readouterr()
    assert found.out.startswith("there/a.html (")
    assert re.fullmatch(r"note: the file is \d\.\d MB, more than the 0 MB .* makes? it smaller\n", found.err)


def test_the_report_of_several_runs_wants_a_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(trained), str(trained), "--static"]) == 2
    assert "-o: missing" in capsys.readouterr().err
    assert main(["report", str(trained), str(tmp_path / "gone"), "--static", "-o", str(tmp_path / "x.html")]) == 2
    assert "gone" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()
