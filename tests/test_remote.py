"""Places by URL: which are refused, and how; and runs that the commands are given by one."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from vaes import Experiment
from vaes.cli import main
from vaes.cli.arguments import _parsers
from vaes.cli.parser import path_or_url
from vaes.errors import UserError
from vaes.remote import Store, fault

pytest.importorskip("fsspec", reason="fsspec is not installed: pip install 'vaes[remote]'")

EXPERIMENT: dict[str, Any] = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"network": {"kind": "mlp", "hidden": [4]}, "likelihood": "bernoulli"},
    "train": {"n_steps": 2, "batch_size": 16, "sample_freq": 0, "trackers": [], "mirror": "memory://taken/run"},
}

SECRET = [
    "s3://key:hunter2@bucket/x", "s3://hunter2@bucket/x", "sftp://me:hunter2@host/x", "https://host/x?key=hunter2",
    "https://me:hunter2@host/x?a=b", "az://box/x?sv=1&sig=hunter2", "s3://bucket/x#hunter2", "ftp://a:b/c:hunter2@h/x",
]  # fmt: skip


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake is."""
    out, err = capsys.readouterr()
    (line,) = (out + err).strip().splitlines()
    return line


@pytest.mark.parametrize("url", SECRET)
def test_credentials_in_a_url_are_refused_and_not_repeated(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.yaml").write_text(f"train: {{mirror: '{url}'}}\n")
    for words in (
        ["train", "-e", "r", "--train.mirror", url],
        ["train", "-e", "r", "-c", "given.yaml"],
        ["train", "-e", "r", "--resume", url],
        ["train", "-e", "r", "--init", url],
        ["sample", url],
        ["plot", url],
    ):
        assert main(words) == 2
        line = said(capsys)
        assert "by the environment" in line, line
        assert "hunter2" not in line
    assert [path.name for path in tmp_path.iterdir()] == ["given.yaml"]


@pytest.mark.parametrize(
    "url", ["s3://bucket/x", "sftp://me@host/x", "abfs://box@account.dfs.core.windows.net/x", "file:///disk/@x"]
)
def test_a_url_without_any_is_right(url: str) -> None:
    assert fault(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:///", "one protocol and a place"),
        ("memory://", "one protocol and a place"),
        ("backup/runs", "such as s3://bucket/runs/x"),
        ("simplecache::s3://bucket/x", "one protocol"),
        ("s33://bucket/x", "s33 is no protocol that fsspec knows; did you mean s3://"),
        ("nonsense://x", "no protocol that fsspec knows"),
    ],
)
def test_what_is_no_place_is_a_sentence_before_anything_is_done(
    url: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-e", "r", "--train.mirror", url]) == 2
    line = said(capsys)
    assert line.startswith("error: train")
    assert words in line
    assert not list(tmp_path.iterdir())


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "gcsfs" else find(name, *more))
    with pytest.raises(UserError, match=r"gs://b/x: gs:// needs a package more: pip install gcsfs"):
        Store("gs://b/x")
    monkeypatch.setitem(sys.modules, "fsspec.registry", None)
    with pytest.raises(UserError, match=r"memory://b/x: needs a package more: pip install 'vaes\[remote\]'"):
        Store("memory://b/x")


def test_the_place_of_another_run_is_not_taken(tmp_path: Path) -> None:
    one = Experiment(**EXPERIMENT)
    one.fit(tmp_path / "one")
    before = {name: Store("memory://taken/run").read(name) for name in Store("memory://taken/run").names()}
    with pytest.raises(UserError, match=r"holds a run at step 2; go on with it by --resume memory://taken/run and a"):
        one.fit(tmp_path / "two")
    elsewhere = one.replace({"train.mirror": "memory://taken/other"})
    elsewhere.fit(tmp_path / "two")
    with pytest.raises(UserError, match=r"train\.mirror: memory://taken/run: holds another run than "):
        one.fit(tmp_path / "two", resume="latest")
    Store("memory://taken/strange").write(b"", "thesis.tex")
    with pytest.raises(UserError, match=r"holds what no training wrote \(thesis.tex\)"):
        one.replace({"train.mirror": "memory://taken/strange"}).fit(tmp_path / "three")
    with pytest.raises(UserError, match="is not apart from the run folder"):
        one.replace({"train.mirror": f"file://{tmp_path}/three/copy"}).fit(tmp_path / "three")
    assert not (tmp_path / "three").exists()
    one.replace({"train.n_steps": 4}).fit(tmp_path / "four", resume="memory://taken/run")
    with pytest.raises(UserError, match=r"is at step 4, and .*one at step 2; go on with it by --resume"):
        one.fit(tmp_path / "one", resume="latest")
    assert before["config.yaml"] == Store("memory://taken/run").read("config.yaml")
    with pytest.raises(UserError, match="--resume memory://taken/run: give -e too"):
        one.fit(resume="memory://taken/run")


def test_whoever_takes_a_run_takes_its_url() -> None:
    takes = {
        prog: [action.type for action in parser._actions if action.dest in ("run", "runs", "weights")]
        for prog, parser in _parsers().items()
    }
    assert {kind for kinds in takes.values() for kind in kinds} == {path_or_url}
    named = {prog.split()[-1] for prog, kinds in takes.items() if kinds}
    assert named == {
        "sample", "fit-prior", "encode", "evaluate", "compare", "explore", "report", "export", "plot", "push",
    }  # fmt: skip


def test_commands_look_at_a_run_by_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "memory://looked/run"
    Experiment(**EXPERIMENT).replace({"train.mirror": url}).fit("trained")
    assert main(["encode", url, "--split", "test", "-o", "codes.csv", "--device", "cpu"]) == 0
    assert (tmp_path / "codes.csv").is_file()
    assert f"{url}: fetched to " in capsys.readouterr().err
    assert main(["sample", f"{url}/ckpt/step000002", "--save_dir", "pictures", "--device", "cpu"]) == 0
    assert (tmp_path / "pictures" / "sample-sheet.png").is_file()
    assert main(["evaluate", url, "--only", "latent", "--n_images", "40", "--device", "cpu"]) == 0
    assert main(["plot", url, "-o", "curves.svg"]) == 0
    capsys.readouterr()
    for words in (
        "sample {}", "sample --weights {}", "fit-prior {}", "encode {} -o c.csv --split test", "evaluate {}",
        "compare trained {}", "explore {}", "report {}", "export {} --to torch", "plot {}", "push {} me/it",
        "train -e x --init {}", "train -e x --resume {}",
    ):  # fmt: skip
        assert main(words.format("memory://looked/nothing").split()) == 2
        assert said(capsys).startswith("error: memory://looked/nothing: holds nothing"), words
    assert main(["train", url, "-e", "x"]) == 2
    assert "a URL, where a path on this machine is needed" in said(capsys)
