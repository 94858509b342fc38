"""Lines of code per part: what a posterior, a prior, a likelihood, a bound, a term, a network and a row cost.

    python benchmarks/lines.py [--out .] [--beside FOLDER/pythae]

``--beside`` counts another package in the same way, an unpacked wheel of it, by its folders and their folders.

Code lines alone: no blanks, comments or docstrings. A part is the class that its registry names; a network, its encoder
and decoder. What parts of a kind share (their base classes, the functions beside them) is on the line ``shared``: all
of their packages less the classes. A row is its entry of the table of methods; the functions that make its coefficients
weights are shared, because rows have them in common.
"""

import argparse
import ast
import inspect
import io
import json
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from common import ROOT, machine

import vaes
from vaes import coefficients, likelihoods, methods, nn, objectives, posteriors, priors
from vaes.config import registry
from vaes.config.own import OWN

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
PACKAGE = Path(str(vaes.__file__)).parent


def code_lines(source: str) -> set[int]:
    """The numbers of lines that hold code, from 1."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            documented = node.body and ast.get_docstring(node, clean=False) is not None
            strings = node.body[:1] if documented else []
        else:
            continue
        # A string below an attribute documents it.
        strings += [s for s in node.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)]
        for string in strings:
            if isinstance(getattr(string, "value", None), ast.Constant) and isinstance(string.value.value, str):  # type: ignore[attr-defined]
                found.difference_update(range(string.lineno, (string.end_lineno or string.lineno) + 1))
    return found


def of_file(path: Path) -> int:
    """Code lines of a file."""
    return len(code_lines(path.read_text(encoding="utf-8")))


def of_class(kind: type) -> int:
    """Code lines of a class."""
    path = Path(str(inspect.getsourcefile(kind)))
    source = path.read_text(encoding="utf-8")
    (node,) = (n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return len(code_lines(source) & set(range(first, (node.end_lineno or first) + 1)))


def of_package(package: ModuleType) -> int:
    """Code lines of a package or module, without the list of what it offers."""
    home = Path(str(package.__file__))
    paths = home.parent.rglob("*.py") if home.name == "__init__.py" else [home]
    return sum(of_file(path) for path in paths if path.name != "__init__.py")


def of_rows() -> dict[str, int]:
    """Code lines of each entry of the table of methods."""
    source = inspect.getsource(methods)
    code = code_lines(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "METHODS":
            assert isinstance(node.value, ast.Dict)
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {
                str(key.value): len(code & set(range(key.lineno, (value.end_lineno or key.lineno) + 1)))
                for key, value in pairs
                if isinstance(key, ast.Constant)
            }
    raise LookupError("the table of methods is no dict any more")


def of_kinds(kinds: Mapping[str, Iterable[type]], whole: int) -> dict[str, int]:
    """Lines of each kind of part, and what is left of the whole."""
    each = {name: sum(of_class(kind) for kind in classes) for name, classes in kinds.items()}
    distinct = {kind for classes in kinds.values() for kind in classes}
    return {**each, "shared": whole - sum(of_class(kind) for kind in distinct)}


def count() -> dict[str, dict[str, int]]:
    """Lines per part, by its kind."""

    def single(parts: Mapping[str, object]) -> dict[str, list[type]]:
        return {name: [part] for name, part in parts.items() if isinstance(part, type)}

    networks = {
        name: [kind for kind in pair if isinstance(kind, type)]
        for name, pair in registry.NETWORKS.items()
        if name not in OWN
    }
    rows = of_rows()
    return {
        "posterior": of_kinds(single(registry.POSTERIORS), of_package(posteriors)),
        "prior": of_kinds(single(registry.PRIORS), of_package(priors)),
        "likelihood": of_kinds(single(registry.LIKELIHOODS), of_package(likelihoods)),
        "bound": of_kinds(single(registry.BOUNDS), of_package(objectives.bounds)),
        "term": of_kinds(single(registry.TERMS), of_package(objectives.terms)),
        "network": of_kinds(networks, of_package(nn)),
        "row": {**rows, "shared": of_package(methods) + of_package(coefficients) - sum(rows.values())},
        "package": {
            path.name.removesuffix(".py"): of_file(path) if path.is_file() else sum(map(of_file, path.rglob("*.py")))
            for path in sorted(PACKAGE.iterdir())
            if path.suffix == ".py" or (path / "__init__.py").is_file()
        },
    }


def beside(package: Path) -> dict[str, int]:
    """Code lines of each folder of another package, and of their folders."""
    folders = sorted(path for path in (*package.glob("*/"), *package.glob("*/*/")) if any(path.rglob("*.py")))
    return {path.relative_to(package).as_posix(): sum(map(of_file, path.rglob("*.py"))) for path in folders}


def name_of(package: Path) -> str:
    """With its version, where the wheel says it."""
    said = sorted(package.parent.glob(f"{package.name}-*.dist-info"))
    return said[0].name.removesuffix(".dist-info").replace("-", " ") if said else package.name


def main() -> None:
    """Count, write, print."""
    parser = argparse.ArgumentParser(description="Lines of code per part.")
    parser.add_argument("--out", type=Path, default=ROOT, help="benchmarks/results is made below it")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], help="folders of other packages")
    chosen = parser.parse_args()
    found, others = count(), {name_of(package): beside(package) for package in chosen.beside}
    path = chosen.out / "benchmarks" / "results" / "lines.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": "lines", "lines": found, "beside": others, "machine": machine()}
    path.write_text(json.dumps(document, indent=1) + "\n")
    print("| | | lines of code |\n|---|---|---|")
    for kind, parts in found.items():
        for name, lines in sorted(parts.items(), key=lambda part: (part[0] == "shared", -part[1])):
            print(f"| {kind} | `{name}` | {lines} |")
        print(f"| {kind} | all {len(parts.keys() - {'shared'})} | {sum(parts.values())} |")
    for name, folders in others.items():
        for folder, lines in folders.items():
            print(f"| {name} | `{folder}` | {lines} |")


if __name__ == "__main__":
    main()
