import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data import Splits, celeba
from vaes.errors import UserError

ATTRIBUTES = ["Bald", "Male", "Smiling", "Young"]
SPLIT = [0, 0, 0, 1, 1, 2, 2, 2, 0, 0]


def face(i: int) -> Image.Image:
    """178 x 218: the 128 x 128 around (89, 121) is green, but for a red top left quarter; the rest is a bright blue."""
    x = np.zeros((218, 178, 3), np.uint8)
    x[..., 2] = 255
    x[57:185, 25:153] = (0, 20 * i, 0)
    x[57:121, 25:89] = (200, 0, 0)
    return Image.fromarray(x)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "img_align_celeba").mkdir()
    for i in range(10):
        face(i).save(tmp_path / "img_align_celeba" / f"{i + 1:06}.jpg", quality=95, subsampling=0)
    lines = [f"{i + 1:06}.jpg {split}" for i, split in enumerate(SPLIT)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{i + 1:06}.jpg " + " ".join(f"{1 if i % (k + 2) == 0 else -1:2}" for k in range(4)) for i in range(10)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(["10", " ".join(ATTRIBUTES) + " ", *rows]) + "\n")
    return tmp_path


def everything(parts: Splits) -> torch.Tensor:
    return torch.cat([part.read(torch.arange(len(part))) for part in parts])


def test_splits_crop_and_order(root: Path) -> None:
    parts = celeba(root=str(root))
    assert [len(part) for part in parts] == [5, 2, 3]
    assert parts.train.shape == (3, 64, 64)
    assert parts.train.labels is None
    order = [i for split in range(3) for i in range(10) if SPLIT[i] == split]
    for image, i in zip(everything(parts).long(), order, strict=True):
        # Nothing of the blue frame came in, and the quarters meet in the middle; JPEG blurs a pixel or two.
        assert image[2].max() < 30
        assert (image[1, 34:, 34:] - 20 * i).abs().max() <= 4
        assert (image[0, :30, :30] - 200).abs().max() <= 6
        assert image[0, 36:, :].max() <= 6
        assert image[0, :, 36:].max() <= 6


def test_labels_are_one_attribute(root: Path) -> None:
    parts = celeba(root=str(root), attribute="Smiling", image_size=(8, 8))
    assert parts.train.label_names == ("not Smiling", "Smiling")
    assert [part.labels.tolist() for part in parts] == [[1, 0, 0, 1, 0], [0, 1], [0, 0, 0]]


def test_a_zip_of_the_images_will_do(root: Path) -> None:
    whole = everything(celeba(root=str(root), image_size=16))
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        for path in sorted((root / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
    shutil.rmtree(root / "img_align_celeba")
    assert torch.equal(everything(celeba(root=str(root), image_size=16)), whole)


def replace(name: str, old: str, new: str):
    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return edit


def remove(name: str):
    return lambda root: (root / name).unlink()


SMALL = Image.new("RGB", (64, 64))
PARTITION, ATTR = "list_eval_partition.txt", "list_attr_celeba.txt"


@pytest.mark.parametrize(
    ("damage", "attribute", "says"),
    [
        (lambda root: None, "Smilin", "no 'Smilin'; did you mean 'Smiling'"),
        (remove(PARTITION), None, f"{PARTITION} does not exist"),
        (remove(ATTR), "Male", f"{ATTR} does not exist"),
        (lambda root: shutil.rmtree(root / "img_align_celeba"), None, "img_align_celeba cannot be opened"),
        (remove("img_align_celeba/000004.jpg"), None, "lacks 1 of 10 images.* 000004.jpg"),
        (replace(PARTITION, "000003.jpg 0", "000003.jpg 5"), None, "line 3 is '000003.jpg 5'"),
        (replace(PARTITION, "000003.jpg 0", "000003.jpg"), None, "line 3"),
        (replace(PARTITION, " 1\n", " 0\n"), None, "the valid split"),
        (replace(ATTR, "10\n", "11\n"), "Male", "line 1 is '11'"),
        (replace(ATTR, "000010.jpg", "000011.jpg"), "Male", "no line for 000010.jpg"),
        (replace(ATTR, "000002.jpg -1 -1", "000002.jpg -1  7"), "Male", "line 4 is not"),
        (replace(ATTR, "000002.jpg -1", "000002.jpg"), "Male", "line 4 is not"),
        (lambda root: (root / ATTR).write_text(""), "Male", "line 1 is ''"),
        (lambda root: (root / PARTITION).write_bytes(b"\xff\xfe"), None, "cannot be read"),
        (lambda root: (root / PARTITION).write_text(""), None, "line 1 is ''"),
        (lambda root: SMALL.save(root / "img_align_celeba/000002.jpg"), None, "64 x 64 pixels, not 178 x 218"),
        (
            lambda root: (root / "img_align_celeba/000002.jpg").write_bytes(b"x"),
            None,
            "000002.jpg: cannot be decoded .*; replace it$",
        ),
    ],
)
def test_refused(root: Path, damage, attribute: str | None, says: str) -> None:
    damage(root)
    with pytest.raises(UserError, match=says) as caught:
        celeba(root=str(root), attribute=attribute)
    assert "\n" not in str(caught.value)


def as_csv(root: Path, keep: bool = False) -> Path:
    """The lists as the CSV files of the site that ships them."""
    for name, begin, header in ((PARTITION, 0, ["image_id", "partition"]), (ATTR, 2, ["image_id", *ATTRIBUTES])):
        lines = (root / name).read_text().splitlines()[begin:]
        rows = [",".join(header), *(",".join(line.split()) for line in lines)]
        (root / name).with_suffix(".csv").write_text("\r\n".join(rows) + "\r\n")
        if not keep:
            (root / name).unlink()
    return root


def doubled(root: Path) -> Path:
    (root / "img_align_celeba").rename(root / "x")
    (root / "img_align_celeba").mkdir()
    (root / "x").rename(root / "img_align_celeba" / "img_align_celeba")
    return root


def as_png(root: Path) -> Path:
    (root / "img_align_celeba_png").mkdir()
    for path in (root / "img_align_celeba").iterdir():
        Image.open(path).save(root / "img_align_celeba_png" / f"{path.stem}.png")
    shutil.rmtree(root / "img_align_celeba")
    return root


def zipped(root: Path, *names: str) -> Path:
    """The things named, in a zip of the first one's name."""
    with zipfile.ZipFile(root / f"{names[0]}.zip", "w") as archive:
        for path in sorted(path for name in names for path in [root / name, *(root / name).rglob("*")]):
            archive.write(path, path.relative_to(root))
    for name in names:
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    return root


def in_one_zip(root: Path) -> Path:
    names = [path.name for path in sorted(root.iterdir())]
    return zipped(root, *names) / f"{names[0]}.zip"


@pytest.mark.parametrize(
    "layout",
    [
        as_csv,
        lambda root: as_csv(root, keep=True),
        lambda root: doubled(as_csv(root)),
        as_png,
        lambda root: zipped(as_png(as_csv(root)), "img_align_celeba_png"),
        lambda root: zipped(doubled(as_csv(root)), "img_align_celeba"),
        lambda root: in_one_zip(doubled(as_csv(root))),
        lambda root: in_one_zip(as_png(root)),
    ],
)
def test_the_newer_layouts_are_the_same_set(root: Path, layout) -> None:
    old = celeba(root=str(root), attribute="Smiling", image_size=16)
    new = celeba(root=str(layout(root)), attribute="Smiling", image_size=16)
    assert torch.equal(everything(new), everything(old))
    assert [part.labels.tolist() for part in new] == [part.labels.tolist() for part in old]
    assert new.train.label_names == old.train.label_names


def test_two_sets_of_pictures_are_said(root: Path) -> None:
    (root / "img_align_celeba_png").mkdir()
    assert any("img_align_celeba_png is there too" in text for text in celeba(root=str(root)).report.warnings)


CSV_PARTITION, CSV_ATTR = "list_eval_partition.csv", "list_attr_celeba.csv"


def duplicate(root: Path) -> None:
    (root / "img_align_celeba/more").mkdir()
    face(0).save(root / "img_align_celeba/more/000003.png")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            replace(PARTITION, "000004.jpg 1", "000004.jpg 2"),
            f"{PARTITION}: contradicts {CSV_PARTITION} about 1 .*000004",
        ),
        (replace(CSV_PARTITION, "000004.jpg,1\n", ""), f"contradicts {CSV_PARTITION} about 1 images, 000004"),
        (replace(CSV_ATTR, "Male,", ""), "line 2 is not a file name and 3 values"),
        (replace(CSV_ATTR, "Male", "Female"), f"{ATTR}: contradicts {CSV_ATTR}: 4 columns"),
        (replace(CSV_ATTR, "000003.jpg,1", "000003.jpg,-1"), f"{ATTR}: contradicts {CSV_ATTR} about 1 images"),
        (replace(CSV_ATTR, "image_id", "picture"), "line 1 is 'picture,"),
        (replace(CSV_ATTR, "000003.jpg,1", "000003.jpg,1,-1"), "line 4 is not a file name and 4 values"),
        (replace(CSV_PARTITION, "image_id,partition", "image_id,split"), "line 1 is 'image_id,split'"),
        (replace(CSV_PARTITION, "000002.jpg", "000001.jpg"), "line 3 names 000001.jpg again"),
        (lambda root: (root / CSV_PARTITION).write_text(""), f"{CSV_PARTITION}: line 1 is ''"),
        (lambda root: (root / CSV_ATTR).write_text('"'), f"{CSV_ATTR}: line 1 is"),
        (lambda root: face(0).save(root / "img_align_celeba/000011.jpg"), "no line for 1 of 11 images .* 000011.jpg"),
        (duplicate, "000003.jpg is there twice"),
    ],
)
def test_newer_layouts_refused(root: Path, damage, says: str) -> None:
    damage(as_csv(root, keep=True))
    with pytest.raises(UserError, match=says) as caught:
        celeba(root=str(root), attribute="Smiling")
    assert "\n" not in str(caught.value)


def test_a_zip_without_pictures_is_refused(root: Path) -> None:
    shutil.rmtree(root / "img_align_celeba")
    with pytest.raises(UserError, match="holds no folder img_align_celeba or img_align_celeba_png"):
        celeba(root=str(in_one_zip(root)))
