import io
import os
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vaes.data import ImageSet, Splits, folder
from vaes.errors import UserError


def picture(value: int, size: tuple[int, int] = (4, 6), kind: str = "PNG", mode: str = "L") -> bytes:
    """One colour, of height and width `size`."""
    buffer = io.BytesIO()
    colour = value if mode == "L" else (value, 255 - value, 7)
    Image.new(mode, size[::-1], colour).save(buffer, kind)
    return buffer.getvalue()


KINDS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]
Tree = dict[str, bytes]
Make = Callable[[Tree], str]


def write_directory(root: Path, tree: Tree) -> str:
    for name, content in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def write_zip(path: Path, tree: Tree) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return str(path)


@pytest.fixture(params=["directory", "zip", "zip with a top folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "directory":
        return lambda tree: write_directory(tmp_path / "pictures", tree)
    top = "" if request.param == "zip" else "top/"
    return lambda tree: write_zip(tmp_path / "pictures.zip", {top + name: content for name, content in tree.items()})


def values(images: ImageSet) -> list[int]:
    return images.read(torch.arange(len(images)))[:, 0, 0, 0].tolist()


def all_values(parts: Splits) -> list[int]:
    return sorted(value for part in parts for value in values(part))


def test_flat(make: Make) -> None:
    root = make({f"{i:02}.png": picture(i) for i in range(40)})
    assert [len(part) for part in folder(root=root, held_out="order")] == [35, 1, 4]
    parts = folder(root=root)
    assert parts.train.shape == (1, 4, 6)
    assert parts.train.labels is None
    assert all_values(parts) == list(range(40))


def test_hold_outs_are_seeded_and_sized(make: Make) -> None:
    root = make({f"{i:02}.png": picture(i) for i in range(40)})
    parts = folder(root=root, n_valid=3, n_test=7, seed=1)
    assert [len(part) for part in parts] == [30, 3, 7]
    assert values(parts.test) == values(folder(root=root, n_test=7, seed=1).test)
    assert values(parts.test) != values(folder(root=root, n_test=7, seed=2).test)


def test_classes_are_the_subfolders_sorted(make: Make) -> None:
    tree = {f"{name}/{i}.png": picture(50 * k + i) for k, name in enumerate(["wolf", "ant", "bee"]) for i in range(9)}
    tree["ant/deep/er/x.png"] = picture(99)
    parts = folder(root=make(tree))
    assert parts.train.label_names == ("ant", "bee", "wolf")
    for part in parts:
        assert part.labels is not None
        assert part.labels.dtype == torch.int64
        expected = [{0: "wolf", 1: "ant", 2: "bee"}[v // 50] for v in values(part)]
        assert [part.label_names[label] for label in part.labels] == expected
    assert len(all_values(parts)) == 28


def test_a_number_beside_a_split_of_the_set_s_own_is_said_to_have_no_use(make: Make) -> None:
    root = make({f"{part}/{i}.png": picture(i + 50 * (part == "test")) for part in ("train", "test") for i in range(9)})
    said = "data.n_test: 2 is not used, because the set has its own 9 images"
    assert said in str(folder(root=root, n_test=2).report)
    assert "not used" not in str(folder(root=root, n_test=9, n_valid=2).report)


def test_splits_with_classes(make: Make) -> None:
    tree = {f"train/{c}/{i}.png": picture(i + 20 * (c == "b")) for c in "ab" for i in range(10)}
    tree |= {f"test/{c}/{i}.png": picture(100 + i) for c in "bc" for i in range(3)}
    tree |= {f"Val/a/{i}.png": picture(200 + i) for i in range(2)}
    parts = folder(root=make(tree))
    assert [len(part) for part in parts] == [20, 2, 6]
    assert parts.train.label_names == parts.test.label_names == ("a", "b", "c")
    assert values(parts.valid) == [200, 201]
    assert parts.test.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert [v >= 20 for v in values(parts.train)] == parts.train.labels.bool().tolist()


def test_only_train_or_train_and_test(make: Make) -> None:
    tree = {f"train/{i}.png": picture(i) for i in range(30)}
    assert [len(part) for part in folder(root=make(tree), held_out="order")] == [26, 1, 3]
    tree |= {f"test/{i}.png": picture(100 + i) for i in range(2)}
    parts = folder(root=make(tree))
    assert [len(part) for part in parts] == [29, 1, 2]
    assert values(parts.test) == [100, 101]
    assert parts.train.labels is None


def test_mixed_depths_have_no_labels(make: Make) -> None:
    tree = {f"a/{i}.png": picture(i) for i in range(5)} | {f"b/{i}.png": picture(i) for i in range(5)}
    assert folder(root=make(tree | {"x.png": picture(7)})).train.labels is None


def test_all_formats_and_nothing_else(make: Make) -> None:
    kinds = {"a.JPG": "JPEG", "b.jpeg": "JPEG", "c.Png": "PNG", "d.webp": "WEBP", "e.bmp": "BMP", "f.gif": "GIF"}
    kinds |= {"g.TIFF": "TIFF", "h.tif": "TIFF"}
    tree = {name: picture(96 + i, kind=kind) for i, (name, kind) in enumerate(kinds.items())}
    tree |= {".hidden.png": b"", "__MACOSX/._a.png": b"", ".git/x.png": b"", "notes.txt": b"hello", "Thumbs.db": b""}
    parts = folder(root=make(tree))
    assert sum(len(part) for part in parts) == 8
    assert all(abs(v - 100) <= 5 for v in all_values(parts))


def test_channels(make: Make) -> None:
    grey = {f"{i}.png": picture(i) for i in range(80)}
    root = make(grey)
    assert folder(root=root).train.shape == (1, 4, 6)
    assert folder(root=root, channels=3).train.shape == (3, 4, 6)
    mixed = make(grey | {"z.png": picture(9, mode="RGB")})
    parts = folder(root=mixed)
    assert parts.train.shape == (3, 4, 6)
    assert all_values(parts) == sorted([*range(80), 9])
    assert folder(root=mixed, channels=1).train.shape == (1, 4, 6)


def test_differing_sizes_need_a_size(make: Make) -> None:
    root = make({"a.png": picture(1), "b.png": picture(2), "c.png": picture(3, (5, 6)), "d.png": picture(4)})
    with pytest.raises(UserError, match=r"a\.png is 4 x 6 .*c\.png is 5 x 6; set data\.image_size"):
        folder(root=root)
    with pytest.raises(UserError, match=r"4 of 4 .*image_size 3 x 2 \(.*a\.png is 4 x 6 .*fit: crop .*pad.*stretch"):
        folder(root=root, image_size=(3, 2))
    parts = folder(root=root, image_size=(3, 2), fit="crop")
    assert parts.train.shape == (1, 3, 2)
    assert all_values(parts) == [1, 2, 3, 4]


def test_a_bad_image_is_named_or_left_out(make: Make) -> None:
    tree = {f"{c}/{i:02}.png": picture(i + 20 * (c == "b")) for c in "ab" for i in range(20)}
    tree["a/05.png"], tree["b/07.png"] = tree["a/05.png"][:50], b"no image"
    root = make(tree)
    with pytest.raises(UserError, match=r"b/07\.png: cannot be decoded .* data\.skip_bad") as caught:
        folder(root=root)
    assert "\n" not in str(caught.value)
    for _ in range(2):  # built, then from the cache
        parts = folder(root=root, skip_bad=True)
        assert "2 that cannot be decoded left out" in parts.report.sentence
        (message,) = [text for text in parts.report.warnings if text.startswith("data.skip_bad")]
        assert "2 images" in message
        assert "a/05.png" in message
        assert "b/07.png" in message
        assert all_values(parts) == sorted(set(range(40)) - {5, 27})
        for part in parts:
            assert [v >= 20 for v in values(part)] == part.labels.bool().tolist()


def test_all_bad(make: Make) -> None:
    root = make({"a.png": b"x", "b.png": b"y"})
    with pytest.raises(UserError, match="none of its 2 images"):
        folder(root=root, skip_bad=True)


def test_stray_images_beside_splits(make: Make) -> None:
    tree = {f"train/{i}.png": picture(i) for i in range(5)}
    with pytest.raises(UserError, match=r"x\.png lies beside the folder of train; move it"):
        folder(root=make(tree | {"x.png": picture(1)}))
    tree |= {f"valid/{i}.png": picture(i) for i in range(5)}
    with pytest.raises(UserError, match=r"folder dev holds images beside the folders of train and valid.* call it"):
        folder(root=make(tree | {"dev/cats/x.png": picture(1)}))


def test_test_without_train(make: Make) -> None:
    tree = {f"{s}/{i}.png": picture(i) for s in ("test", "valid") for i in range(5)}
    with pytest.raises(UserError, match="no folder train"):
        folder(root=make(tree))


def test_too_few_images(make: Make) -> None:
    with pytest.raises(UserError, match="2 images"):
        folder(root=make({"a.png": picture(1), "b.png": picture(2)}))


def test_a_changed_folder_is_decoded_again(tmp_path: Path) -> None:
    tree = {f"{i}.png": picture(i) for i in range(5)}
    root = write_directory(tmp_path / "x", tree)
    folder(root=root)
    path = tmp_path / "x" / "3.png"
    before = path.stat()
    path.write_bytes(picture(33))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    assert all_values(folder(root=root)) == [0, 1, 2, 4, 33]


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_directory(tmp_path / "far", {f"{i}.png": picture(i) for i in range(5)})
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "near").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(tmp_path / "x")
    assert all_values(folder(root=str(tmp_path / "x"))) == [0, 1, 2, 3, 4]


def test_what_has_a_name_and_cannot_be_read(tmp_path: Path) -> None:
    root = write_directory(tmp_path / "x", {f"{i}.png": picture(i) for i in range(5)})
    (tmp_path / "x" / "notes").symlink_to("nowhere")
    assert "1 file skipped (no suffix 1)" in folder(root=root).report.sentence
    os.mkfifo(tmp_path / "x" / "pipe.png")
    (tmp_path / "x" / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "x" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "x" / "loop.png").symlink_to("loop.png")
    with pytest.raises(UserError, match=r"dangling\.jpg: cannot be decoded \(a link to nothing\), and 3 more;"):
        folder(root=root)
    parts = folder(root=root, skip_bad=True)
    assert len(all_values(parts)) == 5
    assert "4 that cannot be decoded left out" in parts.report.sentence


def test_missing_empty_and_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be opened \(No such file"):
        folder(root=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no images"):
        folder(root=write_directory(tmp_path / "x", {"notes.txt": b""}))
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    real = os.scandir

    def scandir(path):
        # root may read what has no permissions, and tests may run as root.
        if not stat.S_IMODE(os.stat(path).st_mode):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"closed: cannot be read .*Permission denied"):
        folder(root=str(tmp_path / "closed"))


def test_not_a_zip(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"x\.zip: not a zip"):
        folder(root=str(tmp_path / "x.zip"))
    whole = write_zip(tmp_path / "y.zip", {"a.png": picture(1)})
    Path(whole).write_bytes(Path(whole).read_bytes()[:-10])
    with pytest.raises(UserError, match=r"y\.zip: not a zip"):
        folder(root=whole)


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a/../../x.png", "..\\x.png", "a/../x.txt"])
def test_paths_out_of_a_zip(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="points outside"):
        folder(root=write_zip(tmp_path / "x.zip", {"a.png": picture(1), name: b"evil"}))


def test_encrypted_and_oversized_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(write_zip(tmp_path / "x.zip", {f"{i}.png": picture(i) for i in range(4)}))
    content = bytearray(root.read_bytes())
    # The flag bits of the first local and the first central header: encrypted.
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    root.write_bytes(content)
    with pytest.raises(UserError, match=r"0\.png: cannot be decoded .*encrypted"):
        folder(root=str(root))
    monkeypatch.setattr("vaes.data.picture_files.MAX_FILE_BYTES", 10)
    with pytest.raises(UserError, match="more than 10"):
        folder(root=write_zip(tmp_path / "y.zip", {f"{i}.png": picture(i) for i in range(4)}))


def test_a_bomb_is_named(make: Make) -> None:
    from .test_decode import png

    with pytest.raises(UserError, match=r"big\.png: cannot be decoded .*pixels"):
        folder(root=make({f"{i}.png": picture(i) for i in range(4)} | {"big.png": png(50_000, 50_000)}))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS), packed=st.booleans())
def test_fuzz(tmp_path: Path, seed: int, kind: str, packed: bool) -> None:
    """Whatever is changed in a zip or in an image of a folder: a set, or a UserError of one line."""
    rng = random.Random(seed)
    tree = {f"{i}.{kind.lower()}": picture(40 * i, (8, 8), kind, "RGB") for i in range(4)}
    root = write_zip(tmp_path / "x.zip", tree)
    if not packed:
        name = next(iter(tree))
        tree[name] = mutated(tree[name], rng)
        root = write_directory(tmp_path / kind, tree)
    else:
        Path(root).write_bytes(mutated(Path(root).read_bytes(), rng))
    for skip_bad in (False, True):
        message = ""
        try:
            parts = folder(root=root, skip_bad=skip_bad)
            assert parts.train.read(torch.arange(1)).shape == (1, *parts.train.shape)
        except UserError as error:
            message = str(error)
        assert "\n" not in message


def mutated(content: bytes, rng: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        out[rng.randrange(len(out))] = rng.choice([0, 255, rng.randrange(256)])
    return bytes(out[: rng.randint(1, len(out))] if rng.random() < 0.3 else out)


def test_the_real_faces(shared_data: Path) -> None:
    parts = folder(root=str(shared_data / "faces" / "faces.zip"), image_size=16)
    assert [len(part) for part in parts] == [11_259, 590, 1316]
    assert parts.train.shape == (1, 16, 16)
    assert parts.test.label_names == ("not_smiling", "smiling")
    assert torch.bincount(parts.test.labels).tolist() == [947, 369]
    mean = np.mean([part.read(torch.arange(len(part))).float().mean().item() for part in parts])
    assert 60 < mean < 190


def test_a_member_without_a_name_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"")
    # The name's length stands at byte 26 of the local header and at byte 28 of the central one.
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    local = data[:26] + b"\0\0" + data[28:30] + data[31:central]
    entry = data[central : central + 28] + b"\0\0" + data[central + 30 : central + 46] + data[central + 47 :]
    end = entry.index(b"PK\x05\x06")
    size, offset = len(entry[:end]), len(local)
    tail = entry[end : end + 12] + size.to_bytes(4, "little") + offset.to_bytes(4, "little") + entry[end + 20 :]
    path.write_bytes(local + entry[:end] + tail)
    assert zipfile.ZipFile(path).namelist() == [""]
    with pytest.raises(UserError, match="holds no images"):
        folder(root=str(path))
