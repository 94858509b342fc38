import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data import array_file, array_images, pictures
from vaes.errors import UserError

SET = np.random.default_rng(0).integers(0, 256, (6, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for i, name in enumerate(["a.png", "b/1.png", "b/deep/2.data", "b/3.bmp"]):
        Image.fromarray(SET[i]).save(tmp_path / name, "BMP" if name.endswith("bmp") else "PNG")
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "in/zip.png")
    with tarfile.open(tmp_path / "t.tgz", "w:gz") as tar:
        tar.add(tmp_path / "b" / "1.png", arcname="in/tar.png")
    return tmp_path


def test_files_folders_and_archives_in_the_order_given(root: Path) -> None:
    for _ in range(2):
        images, reading = pictures([root / "z.zip", str(root / "b"), root / "a.png", root / "t.tgz"], (3, 4, 6))
        names = ["z.zip/in/zip.png", "b/1.png", "b/3.bmp", "b/deep/2.data", "a.png", "t.tgz/in/tar.png"]
        assert images.notes.paths == tuple(f"{root}/{name}" for name in names)
        expected = SET[[0, 1, 3, 2, 0, 1]].transpose(0, 3, 1, 2)
        assert np.array_equal(images.read(torch.arange(6)).numpy(), expected)
        assert reading.sentence == "6 images 4x6 colour; 1 file skipped (.txt 1)"
        assert reading.warnings == ()


def test_they_get_the_models_shape_or_a_sentence(root: Path) -> None:
    images, reading = pictures([root / "a.png"], (1, 2, 3))
    assert images.shape == (1, 2, 3)
    assert reading.sentence == "1 image 2x3 grey; resized from 4x6; 1 colour made grey"
    with pytest.raises(UserError, match=r"1 of 1 .* the model's images, 4 x 4 .*data\.fit: crop"):
        pictures([root / "a.png"], (3, 4, 4))
    assert pictures([root / "a.png"], (3, 4, 4), fit="pad")[0].shape == (3, 4, 4)


def test_eight_bits_are_not_scaled_by_the_white_of_a_deep_set(root: Path) -> None:
    images, _ = pictures([root / "a.png"], (3, 4, 6), white=4095)
    assert np.array_equal(images.read(torch.arange(1))[0].numpy(), SET[0].transpose(2, 0, 1))
    deep = np.full((4, 6), 2048, np.uint16)
    Image.fromarray(deep).save(root / "deep.png")
    assert pictures([root / "deep.png"], (1, 4, 6), white=4095)[0].read(torch.arange(1)).unique().tolist() == [128]


def test_bad_ones_are_named_or_left_out(root: Path) -> None:
    (root / "bad.jpg").write_bytes(b"no picture")
    (root / "b" / "gone.png").symlink_to(root / "nowhere")
    with pytest.raises(UserError, match=r"bad\.jpg: cannot be decoded .*; remove it, or give the others alone$"):
        pictures([root / "a.png", root / "bad.jpg"], (3, 4, 6))
    images, reading = pictures([root / "a.png", root / "bad.jpg", root / "b"], (3, 4, 6), skip_bad=True)
    assert len(images) == 4
    assert "2 that cannot be decoded left out" in reading.sentence


def test_paths_that_are_not_there(root: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.png cannot be opened"):
        pictures([root / "nowhere.png"], (3, 4, 6))
    with pytest.raises(UserError, match="no pictures are given"):
        pictures([], (3, 4, 6))
    with pytest.raises(UserError, match="no regular file"):
        pictures(["/dev/zero"], (3, 4, 6))


def test_all_images_of_an_array_file_are_read_as_training_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-2, 3, (30, 5)), np.array(["b", "a"] * 15)
    np.savez(tmp_path / "x.npz", x_train=x[:20], x_test=x[20:], y_train=y[:20], y_test=y[20:])
    images, reading = array_images(tmp_path / "x.npz", value_range=(-2, 3))
    expected = np.floor((x + 2) / 5 * 255 + 0.5)
    assert np.array_equal(images.read(torch.arange(30))[:, 0, 0].numpy(), expected)
    assert images.labels is not None
    assert [images.label_names[i] for i in images.labels] == y.tolist()
    assert images.notes.paths is not None
    assert [images.notes.paths[i] for i in (0, 19, 20)] == [
        f"{tmp_path / 'x.npz'}:{name}" for name in ("x_train[0]", "x_train[19]", "x_test[0]")
    ]
    assert reading.sentence == "30 vectors of 5 numbers; float64 from -2 to 3 as 256 levels"
    trained = array_file(root=str(tmp_path / "x.npz"), value_range=(-2, 3)).test
    assert torch.equal(trained.read(torch.arange(10)), images.read(torch.arange(20, 30)))
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(UserError, match=r"x\.npy is float64"):
        array_images(tmp_path / "x.npy")
    with pytest.raises(UserError, match="holds arrays, not pictures; give it alone"):
        pictures([tmp_path / "x.npy", tmp_path], (3, 4, 6))
