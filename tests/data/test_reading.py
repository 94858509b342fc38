"""What a source says of how it read its files, and what it reads."""

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data import Splits, folder
from vaes.data.decode import formats
from vaes.errors import UserError

RNG = np.random.default_rng(0)


def noise(h: int = 4, w: int = 6, bits: int = 8, colour: bool = False) -> np.ndarray:
    values = RNG.integers(0, 2**bits, (h, w, 3) if colour else (h, w))
    values.flat[0] = 2**bits - 1
    return values.astype(np.uint16 if bits > 8 else np.uint8)


def save(path: Path, pixels: np.ndarray, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, kind)


def plain(root: Path, n: int = 30, **kind) -> Path:
    for i in range(n):
        save(root / f"{i:02}.png", noise(**kind))
    return root


def read(root: Path, **options) -> Splits:
    return folder(root=str(root), n_test=4, n_valid=2, **options)


def test_the_sentence(tmp_path: Path) -> None:
    root = plain(tmp_path / "x")
    for name in ("notes.txt", "more.TXT", "film.mov"):
        (root / name).write_text("P3 no picture")
    (root / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    heic = "" if "HEIF" in formats() else ".heic 1, "
    if not heic:
        (root / "phone.heic").unlink()
    found = read(root).report
    assert found.sentence == (
        "30 images 4x6 grey: 24 train, 2 valid, 4 test (held out by content); no labels;"
        f" {4 if heic else 3} files skipped (.txt 2, {heic}.mov 1)"
    )
    assert found.warnings == (("HEIC files were skipped; to read 1 HEIC: pip install pillow-heif",) if heic else ())


def test_files_are_tried_by_content(tmp_path: Path) -> None:
    root = plain(tmp_path, 10)
    kinds = {"a.jfif": "JPEG", "b.pgm": "PPM", "c.dat": "WEBP", "d": "PNG", "e.gif.bak": "GIF", "f.qoi": "QOI"}
    kinds |= {"g.avif": "AVIF"} if "AVIF" in formats() else {}
    for name, kind in kinds.items():
        save(root / name, noise(colour=kind == "QOI"), kind)
    parts = read(root)
    paths = [path for part in parts for path in part.notes.paths or ()]
    assert {*kinds} < {*paths}
    assert len(paths) == 10 + len(kinds)


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"%PDF-1.4\n", b"\xd7\xcd\xc6\x9a" + bytes(60)],
)
def test_nothing_is_decoded_outside_of_the_process(tmp_path: Path, content: bytes, monkeypatch) -> None:
    def start(*args: object, **kwargs: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", start)
    root = plain(tmp_path, 8)
    (root / "evil.png").write_bytes(content)
    with pytest.raises(UserError, match=r"evil\.png: cannot be decoded \(not an image of any format known\)"):
        read(root)
    (root / "evil.png").rename(root / "evil.ps")
    assert "1 file skipped (.ps 1)" in read(root).report.sentence


def stray(root: Path) -> Path:
    for c in "ab":
        plain(root / c, 8)
    save(root / "x.png", noise())
    return root


def empty_class(root: Path) -> Path:
    for c in "ab":
        plain(root / c, 8)
    (root / "c").mkdir()
    return root


def in_class_folders(root: Path) -> Path:
    for c in "ab":
        for split in ("Train", "TEST"):
            plain(root / c / split, 8)
    return root


def copies(root: Path) -> Path:
    plain(root / "train", 8)
    save(root / "test" / "x.png", noise())
    (root / "test" / "y.png").write_bytes((root / "train" / "03.png").read_bytes())
    return root


def frames(root: Path) -> Path:
    plain(root, 8)
    stack = [Image.fromarray(noise()) for _ in range(3)]
    stack[0].save(root / "stack.tif", save_all=True, append_images=stack[1:])
    return root


def deep_colour(root: Path) -> Path:
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + RNG.integers(0, 65536, (6, 3)).astype(">u2").tobytes() for _ in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0))
    plain(root, 8)
    (root / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return root


def transparent(root: Path) -> Path:
    plain(root, 8)
    save(root / "t.png", RNG.integers(0, 255, (4, 6, 4), dtype=np.uint8))
    return root


@pytest.mark.parametrize(
    ("make", "options", "says", "warns"),
    [
        (stray, {}, "no labels (1 image in no class folder: x.png)", "labels: dropped, because 1 image"),
        (empty_class, {}, "2 labels", "labels: folder c holds no images"),
        (in_class_folders, {}, "16 test (valid held out by content); 2 labels", ""),
        (copies, {}, "2 test (valid held out by content)", "1 of 2 images of test are in"),
        (frames, {}, "1 of several frames, the first taken", ""),
        (deep_colour, {}, "1 in colour of 16 bits, of which the upper 8 are read", ""),
        (transparent, {}, "1 transparent, laid on white", ""),
        (transparent, {"channels": 1}, "1 colour made grey", ""),
        (plain, {"image_size": (2, 3)}, "resized from 4x6", ""),
        (plain, {"image_size": (8, 12)}, "resized from 4x6; 30 enlarged", "data.image_size: 30 of 30 images"),
        (plain, {"image_size": 4, "fit": "crop"}, "30 cropped (up to 33% of an image cut away)", ""),
        (plain, {"image_size": 4, "fit": "pad"}, "30 padded with black", ""),
        (plain, {"image_size": 4, "fit": "stretch"}, "30 stretched", ""),
        (lambda root: plain(root, bits=12), {}, "30 of 16 bits, white is 4,095", ""),
        (lambda root: plain(root, bits=12), {"white": 65535}, "white is 65,535", "data.white: the brightest"),
        (lambda root: plain(root, bits=5), {}, "", "data.white: the brightest value is 31"),
    ],
)  # fmt: skip
def test_every_decision_is_said(tmp_path: Path, make: Callable[[Path], Path], options, says: str, warns: str) -> None:
    root = make(tmp_path)
    for _ in range(2):  # decoded, then from the cache
        found = folder(root=str(root), n_valid=2, **options).report
        assert says in found.sentence
        told = [text for text in found.warnings if "no image of" not in text]
        assert len(told) == bool(warns), told
        assert not warns or warns in told[0]
        assert "\n" not in found.sentence


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_files_have_the_depth_of_their_set(tmp_path: Path, bits: int) -> None:
    rows = {f"{i:02}.png": noise(bits=bits).astype(np.uint16) for i in range(9)}
    for name, pixels in rows.items():
        save(tmp_path / name, pixels)
    parts = read(tmp_path)
    assert parts.report.white == 2**bits - 1
    for part in parts:
        for path, image in zip(part.notes.paths or (), part.read(torch.arange(len(part))), strict=True):
            assert np.array_equal(image[0], np.floor(rows[path] * 255.0 / (2**bits - 1) + 0.5))


def test_fits_do_what_they_say(tmp_path: Path) -> None:
    """White in a black frame of 2:1, whose middle is grey."""
    pixels = np.full((20, 40), 255, np.uint8)
    pixels[:, 10:30] = 128
    for i in range(9):
        pixels[0, i] = i  # so that they differ
        save(tmp_path / f"{i}.png", pixels)

    def row(fit: str) -> list[int]:
        return read(tmp_path, image_size=10, fit=fit).train.read(torch.arange(1))[0, 0, 5].tolist()

    assert row("crop") == [128] * 10
    stretched = row("stretch")
    assert stretched[:2] == stretched[-2:] == [255] * 2
    assert stretched[4:6] == [128] * 2
    padded = read(tmp_path, image_size=10, fit="pad").train.read(torch.arange(1))[0, 0]
    assert padded[0].max() == padded[-1].max() == 0
    assert padded[5].tolist() == stretched


def tar(path: Path, tree: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        archive.add(tree, arcname="./top")
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.xz", "w:xz")]
)
def test_a_tar_is_read_as_the_folder_is(tmp_path: Path, name: str, mode: str) -> None:
    root = stray(tmp_path / "x")
    os.link(root / "x.png", root / "again.png")
    expected = read(root)
    for _ in range(2):
        found = read(tar(tmp_path / name, root, mode))
        assert found.report == expected.report
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a.read(torch.arange(len(a))), b.read(torch.arange(len(b))))
            assert a.notes.paths == tuple(f"top/{path}" for path in b.notes.paths or ())
    cache = Path(os.environ["VAES_CACHE"])
    assert not [path for path in cache.iterdir() if path.name.startswith(".tar")]


@pytest.mark.parametrize("damage", ["cut", "outside", "packed"])
def test_a_tar_that_is_not_to_be_read(tmp_path: Path, damage: str, monkeypatch) -> None:
    path = tmp_path / "x.tar"
    if damage == "outside":
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("a/../../x.png")
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    else:
        packed = damage == "packed"
        path = tar(tmp_path / ("x.tgz" if packed else "x.tar"), plain(tmp_path / "x"), "w:gz" if packed else "w")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    if damage == "packed":
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    says = {"cut": "not a tar that can be read", "outside": "points outside", "packed": "unpacks to more than half"}
    with pytest.raises(UserError, match=says[damage]):
        read(path)


def nested(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK")
    return tmp_path / "x.zip"


def picture(tmp_path: Path) -> Path:
    save(tmp_path / "x.png", noise())
    return tmp_path / "x.png"


def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "x")
    return tmp_path / "x"


def npy(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", noise())
    return tmp_path / "x.npy"


def npz(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", images=noise())
    return tmp_path / "x.npz"


def other(tmp_path: Path) -> Path:
    (tmp_path / "x.7z").write_bytes(b"7z\xbc\xaf" + bytes(50))
    return tmp_path / "x.7z"


def huge(tmp_path: Path) -> Path:
    """A zip whose end says that its list of members is 1 GB long."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"x")
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[-10:-6] = (2**30).to_bytes(4, "little")
    (tmp_path / "x.zip").write_bytes(content)
    return tmp_path / "x.zip"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (nested, r"holds no images but 1 archive \(inner\.zip\); unpack"),
        (picture, "is a single picture; give the folder"),
        (pipe, "no regular file"),
        (lambda _: Path("/dev/zero"), "no regular file"),
        (npy, "set data.kind to arrays"),
        (npz, "set data.kind to arrays"),
        (other, "neither a directory nor a zip or tar"),
        (huge, "lists its members in 1,073,741,824 bytes"),
    ],
)
def test_what_is_no_folder_of_images_is_told_what_to_do(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["training", "Training_Set", "train-set", "TRAIN SET", "trainset"])
@pytest.mark.parametrize("held", ["testing", "Test_set", "TEST"])
def test_splits_by_their_usual_names(tmp_path: Path, name: str, held: str) -> None:
    for c in "ab":
        plain(tmp_path / name / c, 6)
        plain(tmp_path / held / c, 3)
        plain(tmp_path / "val_set" / c, 2)
    parts = folder(root=str(tmp_path))
    assert [len(part) for part in parts] == [12, 4, 6]
    assert parts.train.label_names == ("a", "b")
    assert "(as given)" in parts.report.sentence


NAMES = ["new\nline", "esc\x1b[31m", os.fsdecode(b"\xff\xfe"), "ü" * 120, "-rf", " ", "a'b\"c", "\\", "CON"]


def test_any_name_works(tmp_path: Path) -> None:
    for name in NAMES:
        for i in range(4):
            save(tmp_path / name / f"{i}{name[:60]}.png", noise())
    for _ in range(2):
        parts = read(tmp_path)
        assert parts.train.label_names == tuple(sorted(NAMES))
        for part in parts:
            for path, label in zip(part.notes.paths or (), part.labels.tolist(), strict=True):
                assert path.split("/")[0] == part.label_names[label]


def test_memory_is_bounded_by_bytes_and_not_by_the_number_of_pictures(tmp_path: Path, monkeypatch) -> None:
    """Pictures are begun one at a time where two would exceed the limit."""
    from vaes.data import decoding

    active, most = 0, 0
    real = decoding.decode_image

    def counted(content: bytes, recipe):
        nonlocal active, most
        active += 1
        most = max(most, active)
        found = real(content, recipe)
        active -= 1
        return found

    monkeypatch.setattr(decoding, "decode_image", counted)
    monkeypatch.setattr(decoding, "SMALL_BYTES", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    plain(tmp_path, 40, h=100, w=100)
    pixels = 100 * 100 * decoding.BYTES_A_PIXEL
    monkeypatch.setattr(decoding, "memory_limit", lambda: pixels + 1000)
    read(tmp_path, image_size=(10, 10))
    assert most == 1


def test_a_set_that_the_disk_cannot_take_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("vaes.data.decoding.decode_image", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**6})())
    with pytest.raises(UserError, match=r"30 decoded images of 1x400x600 take 7\.2 MB, 1 MB are free"):
        read(plain(tmp_path), image_size=(400, 600))
