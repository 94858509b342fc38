"""The configurations that come with the package, by name."""

import difflib
from pathlib import Path

from vaes.errors import UserError
from vaes.keys import methods

__all__ = ["find", "names"]

FOLDER = Path(__file__).with_name("configs")


def names() -> dict[str, str]:
    """Name -> what its first comment says."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml"))}
    return {name: text.partition("\n")[0].removeprefix("#").strip() for name, text in texts.items()}


def find(name: str) -> Path:
    """The file that a name or a path stands for: a file where there is one, else a shipped configuration.

    Raises:
        UserError: neither; with the nearest name.
    """
    path, shipped = Path(name).expanduser(), FOLDER / f"{name}.yaml"
    try:
        if path.is_file() or (path.exists() and name not in names()):  # the latter is refused where it is read
            return path
    except (OSError, ValueError):  # not a name that a file can have
        pass
    if name in names():
        return shipped
    if name in methods():
        raise UserError(
            f"{name}: a method, not a configuration; --method {name} trains it, vaes config {name} prints one"
        )
    near = difflib.get_close_matches(path.stem[:100], names(), n=1, cutoff=0.5)
    meant = f"did you mean -c {near[0]}? " if near else ""
    raise UserError(f"{name}: there is no such configuration file; {meant}shipped ones: {', '.join(names())}")
