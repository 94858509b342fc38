"""The documentation: every link, anchor and picture is there, and the site builds and loads nothing from elsewhere."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import vaes
from vaes.evaluate.groups import GROUPS
from vaes.keys import groups
from vaes.methods import METHODS

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md"), *(REPO / "tests").glob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", REPO / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prose(text: str) -> str:
    """Without blocks and words of code, which may look like links."""
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    found = set(re.findall(r'id="([^"]+)"', text))
    for heading in re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.MULTILINE):
        found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-"))
    return found


def broken(page: Path, made: set[str]) -> Iterator[str]:
    """Links that lead nowhere; ``made`` are the pages that the site has besides."""
    text = page.read_text(encoding="utf-8")
    for target, anchor in LINK.findall(prose(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        there = (page.parent / target).resolve() if target else page
        if there.is_relative_to(REPO / "docs") and there.relative_to(REPO / "docs").as_posix() in made:
            continue
        if not there.exists():
            yield f"{target} is not there"
        elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text(encoding="utf-8")):
            yield f"{target}#{anchor}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    made = {f"reference/{name}.md" for name in ("commands", "keys", "methods", "metrics", "python")}
    assert not list(broken(page, made | {"architecture.md", "contributing.md", "changelog.md"}))


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](page.md#one-thing) [b](gone.md) [c](#two) ![d](gone.png) `[e](code)`\n")
    assert list(broken(page, set())) == ["gone.md is not there", "#two: no such heading", "gone.png is not there"]


def test_every_page_is_in_the_navigation() -> None:
    said = set(re.findall(r"[\w/]+\.md", (REPO / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")}
    assert there <= said


def test_the_reference_has_all_that_there_is(reference: ModuleType) -> None:
    pages = reference.pages()
    for group in groups():
        for key in group.keys:
            assert f"| `{key.name}` |" in pages["reference/keys.md"]
    for name, row in METHODS.items():
        assert f"## {name}\n" in pages["reference/methods.md"]
        assert f"loss = {row.loss}\n" in pages["reference/methods.md"]
    for name in GROUPS:
        assert f"## {name}\n" in pages["reference/metrics.md"]
    for name in ("vaes.Experiment", "vaes.load", "vaes.likelihoods.Bernoulli", "vaes.sklearn.VAETransformer"):
        assert f"### {name}\n" in pages["reference/python.md"]
    for name in ("train", "sample", "fit-prior", "push", "cache"):
        assert f"## vaes {name}\n" in pages["reference/commands.md"]
    assert not any(re.search(r" at 0x[0-9a-f]+|:\w+:`|<class", text) for text in pages.values())


def test_every_metric_of_an_evaluation_is_in_the_reference(reference: ModuleType) -> None:
    found = vaes.load("zoo:digits").evaluate(["latent", "likelihood", "reconstruction", "predictive"], write=False)
    page = reference.metric_page()
    names = {reference.general(metric.name) for group in found.groups.values() for metric in group.metrics}
    assert not [name for name in names if f"| `{name}` |" not in page], "evaluate a run; python docs/reference.py RUN"


class Loads(HTMLParser):
    """What a page loads from elsewhere when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        source = given.get("href") if tag == "link" and given.get("rel") != "canonical" else given.get("src")
        if source and "://" in source:
            self.found.append(source)


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'vaes[docs]'")
    env = {**os.environ, "PYTHONPATH": str(REPO / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not loads.found, page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text(encoding="utf-8")), sheet.name


def test_issue_forms_and_the_citation_are_whole() -> None:
    forms = list((REPO / ".github").rglob("*.yml"))
    assert forms
    for path in [*forms, REPO / "CITATION.cff"]:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path.name
