"""Lines for people, on standard output and standard error: what is foreign in them is made visible, every terminal can
show them, and an output that has gone away is survived or said."""

import contextlib
import errno
import os
import reprlib
import shlex
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from vaes.errors import UserError

__all__ = ["ReaderGone", "Unbreakable", "brief", "escape", "line", "note", "outputs", "quote", "say"]

LONGEST = 4_000
"""Characters of an error line at most: the middle of one that quotes a whole file is left out."""

# Plain spellings for terminals that cannot show these; whatever else they cannot show becomes \N.
PLAIN = str.maketrans(
    {"±": "+-", "×": "x", "–": "-", "—": "-", "…": "...", "→": "->", "↑": "^", "↓": "v", "≥": ">=", "≤": "<="}
)

GONE = {errno.EPIPE, errno.EBADF, errno.EIO}  # for good; a full disk may have room again


class ReaderGone(BrokenPipeError):  # noqa: N818 - not an error
    """Whoever read standard output has closed it: the command ends quietly, as by SIGPIPE."""


def escape(text: object) -> str:
    """A foreign text (the name of a file, class, key, tensor) on one line: control characters, line breaks, invisible
    and direction-changing characters and undecodable bytes are shown as ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``; all
    other Unicode stays.

    >>> escape("a\\nerror: b")
    'a\\\\x0aerror: b'
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    if unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte of a file's name that is no text
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Brief(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlong = 30

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 200 else f"a number of {x.bit_length():,} bits"


def brief(value: object) -> str:
    """A foreign value as Python writes it, escaped and short, however long or deep it is."""
    return escape(_Brief().repr(value))


def line(text: object) -> str:
    """A message that foreign texts may be in, as one line of bounded length."""
    text = str(text)
    return escape(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}")


def quote(path: object) -> str:
    """A path as a word of a command that can be pasted into a shell; what cannot be shown is written ``$'\\n'``.

    >>> quote("my runs/a")
    "'my runs/a'"
    """
    text = str(path)
    if escape(text) == text:
        return shlex.quote(text)
    shown = "".join(_for_shell(letter) for letter in text)
    return f"$'{shown}'"


def _for_shell(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    return letter if _visible(letter) == letter else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def say(text: str = "") -> None:
    """One line or several on standard output; a foreign text in them is escaped by the caller, so that its line breaks
    forge no line.

    Raises:
        ReaderGone: nobody reads it any more.
        UserError: it cannot be written, because a disk is full or it is closed.
    """
    out = sys.stdout if isinstance(sys.stdout, _Checked) else _Checked(sys.stdout)
    out.write("\n".join(map(escape, text.split("\n"))) + "\n")
    out.flush()


def note(text: str) -> None:
    """As :func:`say`, on standard error; where that is closed, full or read by nobody, nothing happens."""
    stream = sys.stderr if isinstance(sys.stderr, Unbreakable) else Unbreakable(sys.stderr)
    stream.write("\n".join(map(escape, text.split("\n"))) + "\n")
    stream.flush()


class _Stream:
    """A text stream, or None where it was closed before the program began, that can be given any character."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def finish(self) -> None:
        """At the end: what cannot be flushed now is dropped."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._mute()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:
        """The stream's."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._stream is not None and self._stream.isatty()

    def _encodable(self, text: str) -> str:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.translate(PLAIN).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return text

    def _mute(self) -> None:
        """What is still in the buffer, and all that comes, goes nowhere: Python's own flush at the end cannot fail."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # type: ignore[union-attr]
            os.close(null)


class Unbreakable(_Stream):
    """A stream for what may be lost (progress), where writing never raises: ``tqdm(file=Unbreakable(sys.stderr))``.

    What a full disk does not take is tried again with the next line.
    """

    def write(self, text: str) -> int:
        """Write it, if that can be done."""
        self._try("write", self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that can be done."""
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> None:
        if self._stream is None:
            return
        try:
            getattr(self._stream, method)(*arguments)
        except OSError as error:
            if error.errno in GONE:
                self._mute()
        except ValueError:  # it was closed meanwhile
            self._stream = None


class _Checked(_Stream):
    """Standard output: what cannot be written there is an error that says so, once."""

    def write(self, text: str) -> int:
        """Write it; errors as in :func:`say`."""
        self._do("write", self._encodable(text))
        return len(text)

    def flush(self) -> None:
        """Flush; errors as in :func:`say`."""
        if self._stream is not None:
            self._do("flush")

    def _do(self, method: str, *arguments: str) -> None:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            getattr(self._stream, method)(*arguments)
        except BrokenPipeError as error:
            self._mute()
            raise ReaderGone(*error.args) from None
        except OSError as error:
            self._mute()
            raise UserError(f"standard output: {error.strerror}; what this command prints is lost") from None


@contextlib.contextmanager
def outputs() -> Iterator[None]:
    """Inside, whatever is printed on standard error may be lost, and nothing on standard output is lost unsaid."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the next file opened would get all that C prints
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    out, err = _Checked(sys.stdout), Unbreakable(sys.stderr)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        out.finish()
        err.finish()
