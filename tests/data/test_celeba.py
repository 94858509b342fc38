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
