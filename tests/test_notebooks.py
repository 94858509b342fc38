"""The notebooks run from top to bottom, and hold what came out."""

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'vaes[dev]'")
pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'vaes[dev]'")

REPO = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("notebooks", REPO / "docs" / "notebooks.py")
assert spec is not None
assert spec.loader is not None
notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(notebooks)


def kinds(book: object) -> list[list[str]]:
    """Of each cell of code, what came out: text, pictures."""
    cells = [cell for cell in book.cells if cell.cell_type == "code"]  # type: ignore[attr-defined]
    return [["picture" if "image/png" in out.get("data", {}) else "text" for out in cell.outputs] for cell in cells]


@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_it_runs_and_holds_what_comes_out(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPO / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    there = nbformat.read(path, as_version=4)
    short = nbformat.read(path, as_version=4)
    for cell in short.cells:
        cell.source = cell.source.replace('"n_steps": 200', '"n_steps": 20')
    assert [cell.source for cell in short.cells] != [cell.source for cell in there.cells]
    assert kinds(notebooks.executed(short, tmp_path)) == kinds(there)
    assert "picture" in str(kinds(there))
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 200_000
    assert not list((REPO / "docs").rglob("runs"))


def test_a_cell_that_fails_fails(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.executed(book, tmp_path)
