"""Imports point one way, and the other rules of ARCHITECTURE.md that a machine can hold."""

import ast
from pathlib import Path

import pytest

# A layer may import the layers before it, and itself.
LAYERS = [
    {"drawing", "errors", "functional", "memory", "schedules"},
    {"distributions"},
    {"estimators", "flows"},
    {"keys", "shipped", "terminal"},
    {"randomness"},
    {"files", "nn", "data", "remote"},
    {"posteriors", "priors", "likelihoods"},
    {"model"},
    {"encoding", "diffusers_folder", "tiles"},
    {"code_statistics"},
    {"fitting"},
    {"objectives", "view", "evaluate"},
    {"train", "coefficients", "methods"},
    {"config"},
    {"compare"},
    {"zoo", "start", "experiment", "weights", "initial", "sizes", "run", "choose"},
    {"share", "sklearn"},
    {"explore"},
    {"command_parts", "commands"},
    {"sweep"},
    {"cli"},
    {"__main__", "__init__"},
]
FORBIDDEN = {
    "data": {"model", "functional", "nn", "likelihoods"},
    "evaluate": {"view", "objectives"},
    "view": {"evaluate", "objectives"},
    "nn": {"data", "files"},
    "train": {"methods"},
    "compare": {"train", "model", "experiment"},
}
LAZY = {"cli": {"commands", "explore"}, "__init__": set()}  # imported inside functions, after the arguments are read


def imported(path: Path) -> set[str]:
    """The parts of vaes that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vaes":
            parts = node.module.split(".")
            found |= (
                {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name != "__version__"}
            )
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("vaes.")}
    return found


def modules(repo: Path) -> dict[str, set[str]]:
    root = repo / "src" / "vaes"
    found: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        part = path.relative_to(root).parts[0].removesuffix(".py")
        found.setdefault(part, set()).update(imported(path))
    return found


def test_imports_point_one_way(repo: Path) -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    found = modules(repo)
    assert found.keys() == level.keys(), "a new part: give it a layer"
    for part, uses in found.items():
        for used in uses - {part}:
            assert level[used] <= level[part], f"{part} imports {used}, which stands above it"
            assert used not in FORBIDDEN.get(part, set()), f"{part} must not import {used}"


def test_the_test_of_the_imports_can_fail(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def f():\n    from vaes.train import loop\nfrom vaes import nn\nimport vaes.cli\n")
    assert imported(tmp_path / "x.py") == {"train", "nn", "cli"}


def test_library_modules_do_not_know_the_names_of_papers(repo: Path) -> None:
    names = {"beta_vae", "mmd_vae", "info_vae"}
    for path in (repo / "src" / "vaes").rglob("*.py"):
        if path.name == "methods.py":
            continue
        strings = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not names & strings, path


@pytest.mark.parametrize("folder", ["src", "tests"])
def test_every_module_declares_what_it_offers_and_stays_short(repo: Path, folder: str) -> None:
    for path in (repo / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 450, f"{path}: more than one subject?"
        if folder == "src" and path.name != "__main__.py":
            assert "__all__" in text, path


def test_public_names_are_there_and_the_top_level_is_lazy() -> None:
    import vaes

    for name in vaes.__all__:
        assert getattr(vaes, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vaes.nothing
