"""Places by URL (``s3://bucket/runs/x``), through fsspec. Credentials come from the environment, never from a URL."""

import contextlib
import difflib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vaes.errors import UserError
from vaes.terminal import escape

__all__ = ["Store", "fault", "is_url", "speaking", "why"]

S3, LOCAL = ("s3", "s3a"), ("file", "local")
OPTIONS: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
"""Of every file system: what others write there is seen."""


def is_url(where: object) -> bool:
    """Whether it is the text of a URL, not a path."""
    return isinstance(where, str) and "://" in where


def fault(url: str) -> str | None:
    """What is wrong with a URL as it is written; None if nothing is. A credential in it is not repeated."""
    protocol, _, rest = url.partition("://")
    shown = escape(re.sub(r"://.*@", "://...@", re.split("[?#]", url)[0]))
    if re.search(r":.*@", rest) or (protocol in S3 and re.match(r"[^/]*@", rest)):
        return f"{shown} carries credentials; take them out, and give them by the environment (AWS_ACCESS_KEY_ID, ...)"
    if re.search("[?#]", rest):
        return f"{shown}?... has parameters, which may be credentials; give them by the environment"
    if "::" in url or "\0" in url or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://.*[^/\s].*", url):
        return f"{shown} must be one protocol and a place, such as s3://bucket/runs/x or file:///disk/runs/x"
    return None


def why(error: BaseException) -> str:
    """What a file system says went wrong, in a few words."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return f"not permitted ({said}); check the credentials in the environment"
    if isinstance(error, FileNotFoundError):
        return f"not there ({said})"
    return f"cannot be reached ({said})"


@contextlib.contextmanager
def speaking(what: str) -> Iterator[None]:
    """Inside, what a file system raises is one sentence about ``what``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # as many kinds as there are file systems
        raise UserError(f"{what}: {why(error)}") from error


class Store:
    """The files below a URL, by names that are relative and use slashes.

    What its methods raise is the file system's own; see :func:`speaking`.

    Raises:
        UserError: credentials in it, a protocol that is not known, or one whose package is missing.
    """

    def __init__(self, url: str) -> None:
        if found := fault(url):
            raise UserError(found)
        protocol = url.partition("://")[0].lower()
        _refuse_unknown(protocol, url)
        from fsspec.core import url_to_fs

        self.url = url.rstrip("/")
        options = {**OPTIONS, "auto_mkdir": True} if protocol in LOCAL else OPTIONS
        try:
            self._fs, root = url_to_fs(url, **options)
        except ImportError as error:
            raise UserError(_install(protocol, url, error)) from error
        except Exception as error:
            raise UserError(f"{escape(url)}: {why(error)}") from error
        self._root = str(root).rstrip("/")
        self.path = Path(self._root) if protocol in LOCAL else None
        """Where it is, if that is on this machine."""

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self._root.rpartition("/")[2] or "root"

    def names(self, below: str = "") -> dict[str, int]:
        """All files, or those in a folder, with their sizes in bytes."""
        self._fs.invalidate_cache()
        begin = self._root.lstrip("/") + "/"
        try:
            found = self._fs.find(self._at(below) if below else self._root, detail=True)
        except FileNotFoundError:
            return {}
        sizes = {name.lstrip("/"): int(info.get("size") or 0) for name, info in found.items()}
        return {name.removeprefix(begin): size for name, size in sizes.items() if name.startswith(begin)}

    def top(self) -> set[str]:
        """The names of what lies in it, files and folders."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._root, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {str(name).rstrip("/").rpartition("/")[2] for name in found} - {""}

    def is_file(self) -> bool:
        """Whether the URL is that of a file."""
        return bool(self._fs.isfile(self._root))

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        return bytes(self._fs.cat_file(self._at(name)))

    def get(self, name: str, path: Path) -> None:
        """Copy a file from there; the URL's own with an empty name."""
        self._fs.get_file(self._at(name) if name else self._root, str(path))

    def put(self, path: Path, name: str) -> None:
        """Copy a file to there."""
        self._fs.put_file(str(path), self._at(name))

    def write(self, content: bytes, name: str) -> None:
        """Write a file there."""
        if self.path is not None:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        self._fs.pipe_file(self._at(name), content)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there, and on this machine its folder, if nothing else is in it."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))
        if self.path is not None and "/" in name:
            with contextlib.suppress(OSError):
                (self.path / name).parent.rmdir()

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _refuse_unknown(protocol: str, url: str) -> None:
    try:
        from fsspec.registry import known_implementations, registry
    except ImportError:
        raise UserError(f"{escape(url)}: needs a package more: pip install 'vaes[remote]'") from None
    if protocol not in known_implementations and protocol not in registry:
        near = difflib.get_close_matches(protocol[:30], sorted({*known_implementations, *registry}), n=1)
        meant = f"; did you mean {near[0]}://" if near else "; s3://, gs://, az://, sftp:// and file:// are some"
        raise UserError(f"{escape(url)}: {escape(protocol)} is no protocol that fsspec knows{meant}")
    package = str(known_implementations.get(protocol, {}).get("class", "fsspec")).partition(".")[0]
    if package != "fsspec" and importlib.util.find_spec(package) is None:
        raise UserError(_install(protocol, url, ImportError(name=package)))


def _install(protocol: str, url: str, error: ImportError) -> str:
    cause = error.__cause__ or error.__context__
    lacking = error.name or getattr(cause, "name", None) or protocol
    package = "'vaes[remote]'" if protocol in S3 else str(lacking).partition(".")[0]
    return f"{escape(url)}: {protocol}:// needs a package more: pip install {package}"
