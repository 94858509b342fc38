import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vaes.data import Splits, array_file, arrays
from vaes.errors import UserError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (30, 4, 6), dtype=np.uint8)


def rows(parts: Splits) -> list[list[int]]:
    return sorted(torch.cat([part.read(torch.arange(len(part))) for part in parts]).flatten(1).tolist())


def by_hash(parts: Splits) -> dict[int, str]:
    """The label of each image."""
    found = {}
    for part in parts:
        assert part.labels is not None
        for key, label in zip(part.notes.hashes.tolist(), part.labels.tolist(), strict=True):
            found[key] = part.label_names[label]
    return found


VIEWS = {
    "flipped": BYTES[:, ::-1],
    "strided": np.repeat(BYTES, 2, 1)[:, ::2],
    "turned": BYTES.transpose(0, 2, 1),
    "columns first": np.asfortranarray(BYTES),
    "read only": np.frombuffer(BYTES.tobytes(), np.uint8).reshape(BYTES.shape),
    "of a tensor": torch.from_numpy(BYTES).transpose(1, 2),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(view: str) -> None:
    expected = torch.as_tensor(np.ascontiguousarray(VIEWS[view]) if view != "of a tensor" else VIEWS[view])
    assert rows(arrays(VIEWS[view])) == sorted(expected.reshape(30, -1).tolist())


@pytest.mark.parametrize(
    ("x", "value_range", "white"),
    [
        (RNG.random((30, 4, 6)).astype(np.float32), (0, 1), 1),
        (RNG.random((30, 4, 6)) * 7, (0.0, 7.0), 7),
        (RNG.integers(0, 17, (30, 4, 6)), (0, 16), 16),
        (BYTES.astype(np.int64), None, 255),
        (np.minimum(BYTES.astype(">u2") * 9, 1023), None, 1023),
        (BYTES.astype(np.uint16) * 15, None, 4095),
        (BYTES > 100, None, 1),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_types_and_ranges(tmp_path: Path, x: np.ndarray, value_range, white: float, stored: bool) -> None:
    if stored:
        np.save(tmp_path / "x.npy", x)
        parts = array_file(root=str(tmp_path / "x.npy"), value_range=value_range)
    else:
        parts = arrays(x, value_range=value_range)
    expected = np.floor(x.astype(np.float64) * 255 / white + 0.5)
    assert rows(parts) == sorted(expected.reshape(30, -1).astype(int).tolist())
    assert "256 levels" in parts.report.sentence or "white" in parts.report.sentence


def test_a_range_that_begins_below_zero() -> None:
    x = np.linspace(-1, 1, 9 * 16).reshape(9, 4, 4)
    assert rows(arrays(x, value_range=(-1, 1)))[0][0] == 0
    assert rows(arrays(x, value_range=(-1, 1)))[-1][-1] == 255


def test_vectors_become_images_of_one_row() -> None:
    parts = arrays(RNG.random((50, 7)), value_range=(0, 1))
    assert parts.train.shape == (1, 1, 7)
    assert parts.report.sentence.startswith("50 vectors of 7 numbers")


@pytest.mark.parametrize("kind", [list, np.array, lambda y: np.array(y, dtype=object), lambda y: np.array(y, "S6")])
def test_text_labels(kind) -> None:
    texts = [["cat", "ant", "dog"][i % 3] for i in range(30)]
    parts = arrays(BYTES, labels=kind(texts))
    assert parts.train.label_names == ("ant", "cat", "dog")
    one_by_one = {key: texts[i] for i, key in enumerate(arrays(BYTES, BYTES, valid=BYTES).train.notes.hashes.tolist())}
    assert by_hash(parts) == one_by_one


def test_the_names_are_those_of_all_splits_together() -> None:
    parts = arrays(
        BYTES[:20], BYTES[20:], valid=BYTES[:1], labels=["b"] * 20, test_labels=["a"] * 10, valid_labels=["c"]
    )
    assert {part.label_names for part in parts} == {("a", "b", "c")}
    assert [part.labels.unique().tolist() for part in parts] == [[1], [2], [0]]
    assert parts.report.warnings[0].startswith("train: no image of 2 of 3 labels (a, c)")
    numbers = arrays(BYTES[:20], BYTES[20:], valid=BYTES[:1], labels=[1] * 20, test_labels=[5] * 10)
    assert {part.label_names for part in (numbers.train, numbers.test)} == {tuple("012345")}
    with pytest.raises(UserError, match="text, the others numbers"):
        arrays(BYTES[:20], BYTES[20:], labels=["b"] * 20, test_labels=[5] * 10)
    with pytest.raises(UserError, match="go up to 1,000,000"):
        arrays(BYTES, labels=[10**6] * 30)


def test_a_file_gives_what_the_arrays_give(tmp_path: Path) -> None:
    labels = np.array(["x", "y"])[np.arange(30) % 2]
    np.savez_compressed(tmp_path / "x.npz", Images=BYTES, labels=labels, junk=np.array([{}], dtype=object))
    parts, expected = array_file(root=str(tmp_path / "x.npz")), arrays(BYTES, labels=labels)
    assert rows(parts) == rows(expected)
    assert by_hash(parts) == by_hash(expected)
    assert [len(part) for part in parts] == [len(part) for part in expected]
    assert "arrays not used: junk" in parts.report.sentence
    assert array_file(root=str(tmp_path / "x.npz"), image_size=(2, 3)).train.shape == (1, 2, 3)


def test_splits_of_a_file(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (30, 5, 5, 3), dtype=np.uint8)
    given = {"train_images": colour[:20], "val_images": colour[20:24], "test_images": colour[24:]}
    np.savez(
        tmp_path / "x.npz", **given, train_labels=np.arange(20)[:, None] % 4, test_labels=np.arange(6)[:, None] % 3
    )
    parts = array_file(root=str(tmp_path / "x.npz"))
    assert [len(part) for part in parts] == [20, 4, 6]
    assert parts.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert parts.valid.labels is None
    assert np.array_equal(parts.test.read(torch.arange(6)).numpy(), colour[24:].transpose(0, 3, 1, 2))


def wrong_names(path: Path) -> None:
    np.savez(path, a=BYTES, b=BYTES)


def objects(path: Path) -> None:
    np.savez(path, images=np.array([{}, 1], dtype=object))


def cut(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, BYTES)
    path.write_bytes(buffer.getvalue()[:-5])


def garbled(path: Path) -> None:
    cut(path)
    path.write_bytes(path.read_bytes().replace(b"{'descr'", b"\xff'descr'"))


def boastful(path: Path) -> None:
    """A header of a terabyte, and nothing after it."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**3, 10**3)}
        )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (wrong_names, r"has the arrays a, b; call that of the images `images`"),
        (objects, "never unpickled"),
        (cut, "cannot be read"),
        (garbled, "cannot be read"),
        (boastful, "cannot be read|decoded images"),
        (lambda path: path.write_bytes(b"hello"), r"neither a \.npy nor a \.npz"),
        (lambda path: path.write_bytes(b"PK\3\4xx"), "no whole .npz"),
        (lambda path: path.mkdir(), "no regular file"),
        (lambda path: np.savez(path, images=BYTES, labels=np.arange(3)), "labels of train are int64"),
        (lambda path: np.savez(path, images=BYTES, test=BYTES[:, :2]), "differ in shape"),
        (lambda path: np.savez(path, images=BYTES / 255), r"float64 from 0 to 1; .*data\.value_range, \[0, 1\] say"),
    ],
)
def test_files_refused(tmp_path: Path, make, says: str) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(UserError, match=says) as caught:
        array_file(root=str(tmp_path / "x.npz"))
    assert "\n" not in str(caught.value)
