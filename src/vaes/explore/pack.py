"""Arrays and what is said of them as one run of bytes, which the page reads without copying."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaes import files

__all__ = ["pack", "unpack"]

MAGIC = b"VAES"
ALIGNED = 8
"""Every array begins at a multiple of this many bytes, as typed arrays of a browser want it."""


def pack(arrays: Mapping[str, NDArray[Any]], **said: Any) -> bytes:
    """``VAES``, the header's length (uint32, little-endian), the header as JSON, then the arrays (little-endian).

    The header is ``said`` and ``arrays``: name -> [dtype, shape, where it begins after the header].
    """
    places, parts, at = {}, [], 0
    for name, array in arrays.items():
        content = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        places[name] = [array.dtype.name, list(array.shape), at]
        content += bytes(-len(content) % ALIGNED)
        parts.append(content)
        at += len(content)
    header = json.dumps(files.finite({**said, "arrays": places}), allow_nan=False).encode()
    header += b" " * (-(len(MAGIC) + 4 + len(header)) % ALIGNED)
    return b"".join([MAGIC, struct.pack("<I", len(header)), header, *parts])


def unpack(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What :func:`pack` was given: arrays and the rest of the header."""
    (length,) = struct.unpack_from("<I", content, len(MAGIC))
    begin = len(MAGIC) + 4 + length
    said = json.loads(content[len(MAGIC) + 4 : begin])
    arrays = {}
    for name, (dtype, shape, at) in said.pop("arrays").items():
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(content, np.dtype(dtype), count, begin + at).reshape(shape)
    return arrays, said
