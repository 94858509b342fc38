"""The README's snippets run, and what it links to is there."""

import re
from pathlib import Path

import pytest

from vaes.config.own import OWN
from vaes.config.registry import NETWORKS


def test_the_python_snippets_run(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 3
    names: dict[str, object] = {}
    try:
        for snippet in snippets:
            exec(compile(snippet, "README.md", "exec"), names)
    finally:
        OWN.discard("two_layers")
        NETWORKS.pop("two_layers", None)
    assert tuple(names["path"].shape) == (4, 10, 1, 16, 16)  # type: ignore[attr-defined]
    assert (tmp_path / "runs/mine/metrics.json").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/evaluation.md",
        "docs/results.md",
        "docs/performance.md",
        "docs/methods.md",
        "docs/codes.md",
        "docs/explore.md",
        "docs/reliability.md",
        "docs/sweeps.md",
        "docs/tokenizers.md",
        "docs/data.md",
    ],
)
def test_links_lead_somewhere(repo: Path, name: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)", (repo / name).read_text(encoding="utf-8")):
        if "://" not in link:
            assert ((repo / name).parent / link).exists(), link
