"""The files of the page, and what of others it can do with."""

import re
from functools import cache
from importlib import resources

from vaes.errors import UserError

__all__ = ["TYPES", "advice", "bundled", "page", "runtime"]

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "mjs": "text/javascript"}

RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""Of ONNX Runtime Web, as ``make page`` puts them into page/vendor."""

IMPORT = re.compile(r"^import \{[^}]*\} from \"\./([a-z]+\.js)\";\n", re.MULTILINE)
EXPORT = re.compile(r"^export (?=(async )?(function|const|let|class) )", re.MULTILINE)


@cache
def page() -> dict[str, str]:
    """The page's own files by name: these, and no others, are ever handed out."""
    home = resources.files("vaes.explore") / "page"
    return {
        item.name: item.read_text(encoding="utf-8")
        for item in home.iterdir()
        if item.name.rpartition(".")[2] in TYPES and item.is_file()
    }


@cache
def bundled(first: str = "main.js") -> str:
    """The modules that the first one needs, itself last, as one module: their imports and exports are taken out, which
    works because no two of them declare the same name."""
    files, done, parts = page(), set[str](), list[str]()

    def add(name: str) -> None:
        if name in done:
            return
        done.add(name)
        for other in IMPORT.findall(files[name]):
            add(other)
        parts.append(EXPORT.sub("", IMPORT.sub("", files[name])))

    add(first)
    return "\n".join(parts)


def runtime() -> tuple[bytes, bytes] | None:
    """ONNX Runtime Web's module and its WebAssembly; None where they were not fetched."""
    home = resources.files("vaes.explore") / "page" / "vendor"
    found = [home / name for name in RUNTIME]
    if not all(item.is_file() for item in found):
        return None
    return found[0].read_bytes(), found[1].read_bytes()


def advice() -> UserError:
    """What is missing for a live decoder, and how it is had."""
    return UserError(
        "ONNX Runtime Web, which decodes inside of the report, is not installed: run `make page` in the repository, or "
        "add --static for a report without it"
    )
