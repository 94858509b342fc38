"""The snippets of the README and of the page of usage run, and every command of the documentation is one."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaes import config as configuration
from vaes import shipped
from vaes.cli.arguments import _parsers
from vaes.config.own import OWN
from vaes.config.registry import NETWORKS
from vaes.errors import UserError
from vaes.experiment import Experiment
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


PAGES = sorted([*Path(__file__).parents[1].glob("*.md"), *(Path(__file__).parents[1] / "docs").rglob("*.md")])


def lines(page: Path) -> Iterator[str]:
    """The command lines in the blocks of a page."""
    for kind, block in re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M):
        if kind not in ("", "text", "sh", "bash"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(accelerate launch -m )?vaes [a-z-]+( |$)", line):
                yield line.removeprefix("accelerate launch -m ")


@pytest.mark.parametrize(
    ("page", "line"), [(page.name, line) for page in PAGES for line in lines(page)], ids=lambda text: text[:60]
)
def test_every_command_of_the_documentation_is_taken(page: str, line: str) -> None:
    command, *words = shlex.split(line, comments=True)[1:]
    if "..." in words:
        words.remove("...")  # RUN RUN ...
    read = _parsers()[f"vaes {command}"].read(words)
    if command in ("train", "sweep"):
        named = read.options.config
        raw = dict(configuration.DEFAULTS) if named is None else configuration.read_file(shipped.find(named))
        Experiment.of({k: v for k, v in raw.items() if k != "sweep"}, read.keys)
        for pair in getattr(read.options, "grid", []):
            key, values = pair.split("=")
            for value in values.split(","):
                Experiment.of(raw, [f"--{key}={value}"])


@pytest.mark.parametrize("line", ["train --objective.betta 4", "train -c vae-nist", "sample RUN --mod sample"])
def test_a_command_with_a_slip_is_not(line: str) -> None:
    with pytest.raises(UserError):
        test_every_command_of_the_documentation_is_taken("", f"vaes {line}")
