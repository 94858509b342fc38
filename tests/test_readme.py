"""The snippets of the README and of the page of usage run."""

import re
from pathlib import Path

import pytest

from vaes.config.own import OWN
from vaes.config.registry import NETWORKS
from vaes.methods import METHODS


def test_the_python_snippets_run(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (repo / "docs" / "usage.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 3
    names: dict[str, object] = {}
    try:
        for snippet in snippets:
            exec(compile(snippet, "usage.md", "exec"), names)
    finally:
        OWN.discard("two_layers")
        NETWORKS.pop("two_layers", None)
    assert tuple(names["path"].shape) == (4, 10, 1, 16, 16)  # type: ignore[attr-defined]
    assert (tmp_path / "runs/mine/metrics.json").is_file()


def test_the_five_lines_of_the_readme_run(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(snippet.replace('"n_steps": 200', '"n_steps": 4'), "README.md", "exec"), names)
    assert tuple(names["pictures"].shape) == (64, 1, 8, 8)  # type: ignore[attr-defined]


def test_the_number_of_methods_is_right(repo: Path) -> None:
    assert f"| methods | {len(METHODS)} rows" in (repo / "README.md").read_text(encoding="utf-8")
