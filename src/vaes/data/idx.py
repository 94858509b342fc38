"""The IDX format of the MNIST family."""

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from vaes.errors import UserError

__all__ = ["read_idx", "read_packed", "unpack"]

MAX_BYTES = 2**31
"""No set of this family comes near it; a header that asks for more is damaged or hostile."""


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read a file of unsigned bytes with `ndim` dimensions, gzipped or not, as a uint8 array.

    The format: 0, 0, 8 (unsigned bytes), ndim, then each dimension as a big-endian 32-bit integer, then the bytes, last
    dimension fastest. Raises UserError, naming the file, for anything else: another magic number, too few bytes or too
    many, an empty or absurd dimension, a bad gzip stream.
    """
    content = unpack(path, ndim)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).reshape(_dimensions(path, content, ndim))


def unpack(path: Path, ndim: int) -> bytes:
    """The unpacked bytes of an IDX file, header included, checked as `read_idx` describes."""
    header = read_packed(path, 4 + 4 * ndim)
    size = len(header) + math.prod(_dimensions(path, header, ndim))
    # One byte more than announced: finding it is the error, and reaching the end is what makes gzip verify its
    # checksum.
    content = read_packed(path, size + 1)
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,}"
        raise UserError(
            f"{path}: the header announces {size:,} bytes but there are {found}; the file is damaged, replace it"
        )
    return content


def _dimensions(path: Path, header: bytes, ndim: int) -> tuple[int, ...]:
    if header[:4] != bytes((0, 0, 8, ndim)):
        raise UserError(
            f"{path}: not an IDX file of bytes with {ndim} dimensions:"
            f" it starts with {header[:4].hex() or 'nothing'}, not 000008{ndim:02x}"
        )
    if len(header) < 4 + 4 * ndim:
        raise UserError(f"{path}: truncated in its header after {len(header)} bytes; replace it")
    dimensions = tuple(int(d) for d in np.frombuffer(header, ">u4", count=ndim, offset=4))
    if min(dimensions) == 0 or math.prod(dimensions) > MAX_BYTES:
        raise UserError(
            f"{path}: the header announces {' x '.join(map(str, dimensions))} bytes, which no such file has; replace it"
        )
    return dimensions


def read_packed(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of the file, unpacked; never more in memory, whatever a gzip stream would expand to."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not packed:
                return _read_chunks(file, limit)
            with gzip.GzipFile(fileobj=file) as stream:
                return _read_chunks(stream, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); replace it") from error


def _read_chunks(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    content = bytearray()
    # In pieces, because a single read of `limit` bytes may reserve them all for a file that has ten.
    while len(content) < limit and (chunk := stream.read(min(limit - len(content), 2**20))):
        content += chunk
    return bytes(content)
