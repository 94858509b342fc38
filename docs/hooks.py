"""What mkdocs does besides: pages made from the program, pages that lie beside this folder, links out of it."""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import notebooks
import reference

REPO = Path(__file__).resolve().parents[1]
BESIDE = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site that are read where they lie: file of the repository -> page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    pages = {page: (REPO / name).read_text(encoding="utf-8") for name, page in BESIDE.items()}
    for uri, text in {**pages, **reference.pages(), **notebooks.pages()}.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their target is on the site; of a file that is not on it, the words stay."""
    uri = page.file.src_uri
    home = "" if uri in BESIDE.values() else "docs"
    return reference.outside_code(markdown, lambda text: lead(text, uri, home))


def lead(text: str, uri: str, home: str) -> str:
    """A text whose relative links are those of the site, for a page that lay in ``home`` of the repository."""
    up = "../" * uri.count("/")

    def one(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or target.startswith("mailto:") or not target:
            return found[0]
        path = (REPO / home / Path(uri).parent / target).resolve()
        inside = path.relative_to(REPO).as_posix() if path.is_relative_to(REPO) else target
        if inside == "README.md":
            return f"{words}({up}index.md{anchor})"
        if inside in BESIDE:
            return f"{words}({up}{BESIDE[inside]}{anchor})"
        if inside.endswith(".ipynb"):
            return f"{words}({up}{inside.removeprefix('docs/').removesuffix('ipynb')}md)"
        if inside.startswith("docs/"):
            return f"{words}({up}{inside.removeprefix('docs/')}{anchor})" if home == "" else found[0]
        if not path.exists():
            return found[0]  # mkdocs says that it leads nowhere
        return words.removeprefix("[").removesuffix("]")

    return re.sub(r"(\[[^\]]*\])\(([^)#\s]*)(#[^)\s]*)?\)", one, text)
