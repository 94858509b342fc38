import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaes.data.idx import read_idx
from vaes.errors import UserError


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("array", [IMAGES, np.arange(7, dtype=np.uint8)], ids=["images", "labels"])
def test_round_trip(tmp_path: Path, pack, array: np.ndarray) -> None:
    path = tmp_path / "x"
    path.write_bytes(pack(idx(array)))
    assert np.array_equal(read_idx(path, array.ndim), array)


GOOD = idx(IMAGES)
HEADS = [b"", b"\0\0\x08\3", b"\x1f\x8b\x08\0", b"\0\0\x08\3\0\0\0\1\0\0\0\1\0\0\0\2"]
# Without the time of day, which gzip would write into its header, every worker of a test run has the same cases.
ZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "nothing"),
        (GOOD[:3], "not an IDX"),
        (GOOD[:11], "truncated in its header"),
        (GOOD[:-1], "announces 76 bytes but there are 75"),
        (GOOD + b"\0", "more"),
        (idx(np.arange(7, dtype=np.uint8)), "not an IDX file of bytes with 3"),
        (b"\0\0\x0d\3" + GOOD[4:], "0000 ?0d03"),
        (b"\0\0\x08\3" + struct.pack(">3I", 0, 4, 3), "0 x 4 x 3"),
        (b"\0\0\x08\3" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x", "no such file"),
        (b"\0\0\x08\3" + struct.pack(">3I", 2**11, 2**10, 2**10) + b"x", "there are 17"),
        (ZIPPED[:-20], "cannot be read"),
        (ZIPPED[:-6] + b"\0\0" + ZIPPED[-4:], "cannot be read"),
        (ZIPPED + b"junk", "cannot be read"),
        (gzip.compress(GOOD + b"\0" * 10, mtime=0), "more"),
        (b"\x1f\x8b", "cannot be read"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad-idx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A hundred times what the header announces: only a byte more than announced may be asked of gzip."""
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(GOOD + bytes(100_000_000)))
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(UserError, match="more"):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        read_idx(tmp_path / "nowhere", 1)


@settings(max_examples=300, deadline=None)
@given(
    packed=st.booleans(),
    edits=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 120),
    tail=st.binary(max_size=5),
)
def test_fuzz_mutations(tmp_path_factory: pytest.TempPathFactory, packed, edits, cut, tail) -> None:
    content = bytearray(ZIPPED if packed else GOOD)
    for position, value in edits:
        content[position % len(content)] = value
    check(tmp_path_factory, bytes(content[: max(0, len(content) - cut % 7)]) + tail)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from(HEADS))
def test_fuzz_anything(tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes) -> None:
    check(tmp_path_factory, head + content)


def check(factory: pytest.TempPathFactory, content: bytes) -> None:
    path = factory.getbasetemp() / "fuzz-idx"
    path.write_bytes(content)
    message = ""
    try:
        found = read_idx(path, 3)
        assert (found.ndim, found.dtype) == (3, np.uint8)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
