"""Published sets, from small files in their official layouts."""

import gzip
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaes import data
from vaes.cli import main
from vaes.data import cifar_files, factor_sets, idx_sets
from vaes.errors import UserError

from .test_idx import idx

numbers = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return numbers.integers(0, 256, shape, dtype=np.uint8)


def everything(images: Any) -> np.ndarray:
    return images.read(torch.arange(len(images))).numpy()


def original(splits: data.Splits, images: np.ndarray, labels: np.ndarray) -> bool:
    """Whether training and validation images together are these with these labels, in whatever order."""
    parts = (splits.train, splits.valid)
    found = {(everything(p)[i].tobytes(), int(p.labels[i])) for p in parts for i in range(len(p))}
    return found == {(images[i].tobytes(), int(labels[i])) for i in range(len(images))}


def write_idx(folder: Path, names: tuple[str, ...], most: int, first: int = 0) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    found = {}
    for name in names:
        found[name] = pixels(30, 28, 28) if "images" in name else numbers.integers(first, most, 30).astype(np.uint8)
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(found[name])))
    return found


@pytest.mark.parametrize(("kind", "place", "name"), [("fashion_mnist", "", "Sneaker"), ("kmnist", "KMNIST/raw", "ya")])
def test_sets_in_the_files_of_mnist(tmp_path: Path, kind: str, place: str, name: str) -> None:
    found = write_idx(tmp_path / "set" / place, idx_sets.NAMES, 10)
    splits = getattr(data, kind)(root=str(tmp_path / "set"))
    assert original(splits, found[idx_sets.NAMES[0]][:, None], found[idx_sets.NAMES[1]])
    assert (everything(splits.test)[:, 0] == found[idx_sets.NAMES[2]]).all()
    assert splits.test.label_names[7] == name
    # They are in the official layout, and not the official files.
    assert sum("its MD5 is" in text for text in splits.report.warnings) == 4


def test_the_letters_of_emnist_are_upright_and_counted_from_0(tmp_path: Path) -> None:
    parts = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
    names = tuple(f"emnist-letters-{part}-ubyte" for part in parts)
    found = write_idx(tmp_path / "gzip", names, 27, 1)
    splits = data.emnist(root=str(tmp_path), subset="letters", image_size=28)
    assert (everything(splits.test)[:, 0] == found[names[2]].transpose(0, 2, 1)).all()
    assert (splits.test.labels.numpy() == found[names[3]] - 1).all()
    assert splits.test.label_names[0] == "a"
    with pytest.raises(
        UserError, match=r"lacks emnist-balanced-train-images-idx3-ubyte, .* published at https://www.ni"
    ):
        data.emnist(root=str(tmp_path))
    assert [len(idx_sets.LETTERS[s]) for s in ("balanced", "byclass", "letters", "digits")] == [47, 62, 26, 10]


def cifar(n: int, classes: int, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    return pixels(n, 3, 32, 32), numbers.integers(0, classes, (n, label_bytes))


def binary(images: np.ndarray, labels: np.ndarray) -> bytes:
    return b"".join(bytes(y.tolist()) + x.tobytes() for x, y in zip(images, labels, strict=True))


def batch(images: np.ndarray, protocol: int, **labels: list[int]) -> bytes:
    content = {b"data": images.reshape(len(images), -1), b"batch_label": b"training batch 1 of 5"}
    return pickle.dumps({**content, **{k.encode(): v for k, v in labels.items()}}, protocol)


def write_cifar10(folder: Path, form: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    folder.mkdir(parents=True)
    parts = [cifar(8, 10, 1) for _ in range(6)]
    for name, (x, y) in zip((*cifar_files.BATCHES, "test_batch"), parts, strict=True):
        if form == "binary":
            (folder / f"{name}.bin").write_bytes(binary(x, y))
        else:
            (folder / name).write_bytes(batch(x, int(form), labels=y[:, 0].tolist()))
    train = [np.concatenate([part[i] for part in parts[:5]]) for i in (0, 1)]
    return train[0], train[1][:, 0], parts[5][0]


@pytest.mark.parametrize("form", ["binary", "2", "4", "5"])
def test_cifar10_in_both_releases(tmp_path: Path, form: str) -> None:
    images, labels, test = write_cifar10(tmp_path / "x", form)
    splits = data.cifar10(root=str(tmp_path / "x"))
    assert original(splits, images, labels)
    assert (everything(splits.test) == test).all()
    assert splits.train.label_names[0] == "airplane"


def test_cifar10_in_its_archive(tmp_path: Path) -> None:
    images, labels, _ = write_cifar10(tmp_path / "cifar-10-batches-bin", "binary")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (tmp_path / "only").mkdir()
    archive = (tmp_path / "cifar-10-binary.tar.gz").rename(tmp_path / "only" / "cifar-10-binary.tar.gz")
    for root in (archive, archive.parent):
        assert original(data.cifar10(root=str(root)), images, labels)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_cifar100_has_two_kinds_of_labels(tmp_path: Path, form: str) -> None:
    names = cifar_files.HUNDRED[form == "python"]
    folder = tmp_path / names.folder
    folder.mkdir()
    for name, n in ((names.train[0], 30), (names.test, 10)):
        x, y = pixels(n, 3, 32, 32), np.stack([numbers.integers(0, 20, n), numbers.integers(0, 100, n)], 1)
        packed = batch(x, 2, coarse_labels=y[:, 0].tolist(), fine_labels=y[:, 1].tolist())
        (folder / name).write_bytes(binary(x, y) if form == "binary" else packed)
        if n == 30:
            images, labels = x, y
    assert original(data.cifar100(root=str(tmp_path)), images, labels[:, 1])
    coarse = data.cifar100(root=str(tmp_path), labels="coarse")
    assert original(coarse, images, labels[:, 0])
    assert coarse.train.label_names[13] == "non-insect_invertebrates"


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "x", "2")
    evil = tmp_path / "written"
    (tmp_path / "x" / "test_batch").write_bytes(pickle.dumps({b"data": Harmful(evil), b"labels": [1]}))
    with pytest.raises(UserError, match=r"test_batch: no batch of the Python release \(it names (io|_io).open"):
        data.cifar10(root=str(tmp_path / "x"))
    assert not evil.exists()
    global_call, objects = b"cos\nsystem\n(S'x'\ntR.", pickle.dumps({b"data": np.array([object()])})
    for hostile in (b"", b"\x80\x04", pickle.dumps([1]), objects, global_call):
        with pytest.raises(UserError, match="no batch of the Python release"):
            cifar_files.load_batch(Path("x"), hostile, "labels")


def test_house_numbers(tmp_path: Path) -> None:
    from scipy.io import savemat

    written = {}
    for name, n in (("train", 30), ("extra", 12), ("test", 9)):
        written[name] = pixels(n, 3, 32, 32), numbers.integers(1, 11, n)
        x = written[name][0].transpose(2, 3, 1, 0)
        savemat(tmp_path / f"{name}_32x32.mat", {"X": x, "y": written[name][1][:, None].astype(np.uint8)})
    assert original(data.svhn(root=str(tmp_path)), written["train"][0], written["train"][1] % 10)
    more = data.svhn(root=str(tmp_path), extra=True)
    both = [np.concatenate([written["train"][i], written["extra"][i]]) for i in (0, 1)]
    assert original(more, both[0], both[1] % 10)
    (tmp_path / "test_32x32.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(UserError, match=r"test_32x32\.mat: "):
        data.svhn(root=str(tmp_path))


def facts(splits: data.Splits) -> dict[bytes, tuple[int, ...]]:
    """The factors of each image of a set."""
    return {
        everything(p)[i].tobytes(): tuple(p.factors[i].tolist())  # type: ignore[index]
        for p in splits
        for i in range(len(p))
    }


def test_dsprites(tmp_path: Path) -> None:
    images = numbers.integers(0, 2, (40, 64, 64), dtype=np.uint8)
    classes = np.concatenate([np.zeros((40, 1), int), numbers.integers(0, (3, 6, 40, 32, 32), (40, 5))], 1)
    path = tmp_path / factor_sets.DSPRITES_FILE
    metadata = np.array({"a": Harmful(tmp_path / "written")}, dtype=object)
    np.savez_compressed(path, imgs=images, latents_classes=classes, latents_values=classes.astype(float))
    splits = data.dsprites(root=str(tmp_path))
    wanted = {(255 * x[None]).tobytes(): tuple(y[1:].tolist()) for x, y in zip(images, classes, strict=True)}
    assert facts(splits) == wanted
    assert splits.train.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert splits.train.factor_sizes == (3, 6, 40, 32, 32)
    assert (splits.train.labels == splits.train.factors[:, 0]).all()  # type: ignore[index]
    # The official file's metadata are a pickle.
    np.savez(path, imgs=images, latents_classes=classes, metadata=metadata)
    assert facts(data.dsprites(root=str(path))) == wanted
    assert not (tmp_path / "written").exists()
    np.savez(path, imgs=images, latents_classes=classes + 40)
    with pytest.raises(UserError, match="factors have more values than the release's"):
        data.dsprites(root=str(path))
    np.savez(path, imgs=images[:39], latents_classes=classes)
    with pytest.raises(UserError, match="39 images with the factors of 40"):
        data.dsprites(root=str(path))


def test_shapes3d(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'vaes[h5]'")
    images, classes = pixels(60, 16, 16, 3), numbers.integers(0, (10, 10, 10, 8, 4, 15), (60, 6))
    values = classes * np.array([0.1, 0.1, 0.1, 0.5 / 7, 1, 60 / 14]) + np.array([0, 0, 0, 0.75, 0, -30])
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file["images"], file["labels"] = images, values
    splits = data.shapes3d(root=str(tmp_path))
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in classes.T], 1)
    chw = images.transpose(0, 3, 1, 2)
    assert facts(splits) == {x.tobytes(): tuple(y.tolist()) for x, y in zip(chw, ranks, strict=True)}
    (tmp_path / "3dshapes.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"3dshapes\.h5: no whole HDF5 file"):
        data.shapes3d(root=str(tmp_path))


def test_mpi3d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {name: min(2, n) for name, n in factor_sets.MPI_FACTORS.items()}
    monkeypatch.setattr(factor_sets, "MPI_FACTORS", table)
    images = pixels(2**7, 8, 8, 3)
    np.savez(tmp_path / "mpi3d_toy.npz", images=images)
    found = facts(data.mpi3d(root=str(tmp_path)))
    for i, image in enumerate(images.transpose(0, 3, 1, 2)):
        assert found[image.tobytes()] == tuple(int(bit) for bit in f"{i:07b}")  # the last factor changes fastest
    np.savez(tmp_path / "mpi3d_toy.npz", images=images[:100])
    with pytest.raises(UserError, match="N one of 128, 460,800"):
        data.mpi3d(root=str(tmp_path))


def norb(array: np.ndarray) -> bytes:
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    shape = (*array.shape, *[1] * max(0, 3 - array.ndim))
    return np.array([magic, array.ndim, *shape], "<u4").tobytes() + array.tobytes()


def test_smallnorb(tmp_path: Path) -> None:
    written = {}
    for split, pattern in factor_sets.NORB_FILES.items():
        x, of = pixels(30, 2, 96, 96), numbers.integers(0, 5, 30).astype(np.int32)
        info = (numbers.integers(0, (10, 9, 18, 6), (30, 4)) * (1, 1, 2, 1)).astype(np.int32)
        for part, array in (("dat", x), ("cat", of), ("info", info)):
            (tmp_path / f"{pattern.format(part)}.gz").write_bytes(gzip.compress(norb(array)))
        written[split] = x, of, info
    splits = data.smallnorb(root=str(tmp_path), image_size=None)
    x, of, info = written["test"]
    assert (everything(splits.test)[:, 0] == x[:, 0]).all()
    assert (splits.test.factors.numpy() == np.column_stack([of, info // (1, 1, 2, 1)])).all()  # type: ignore[union-attr]
    (tmp_path / f"{factor_sets.NORB_FILES['test'].format('cat')}.gz").write_bytes(gzip.compress(norb(of[:29])))
    with pytest.raises(UserError, match="30 images, 29 categories"):
        data.smallnorb(root=str(tmp_path))


def test_cars3d(tmp_path: Path) -> None:
    from scipy.io import savemat

    images = pixels(2, 24, 4, 16, 16, 3)
    for name, car in (("car_2_mesh.mat", images[0]), ("car_10_mesh.mat", images[1])):
        savemat(tmp_path / name, {"im": car.transpose(2, 3, 4, 0, 1)})
    found = facts(data.cars3d(root=str(tmp_path), image_size=None))
    for model, azimuth, elevation in ((0, 0, 0), (0, 3, 2), (1, 23, 1)):
        image = images[model, azimuth, elevation].transpose(2, 0, 1)
        assert found[image.tobytes()] == (elevation, azimuth, model)


def test_omniglot(tmp_path: Path) -> None:
    written: dict[str, dict[bytes, int]] = {}
    for part, alphabets in (("background", ("Greek", "Latin")), ("evaluation", ("Tibetan",))):
        written[part] = {}
        with zipfile.ZipFile(tmp_path / f"images_{part}.zip", "w") as archive:
            for alphabet in alphabets:
                for drawer in range(12):
                    image = np.where(numbers.random((105, 105)) < 0.1, 0, 255).astype(np.uint8)
                    with archive.open(f"images_{part}/{alphabet}/character01/0001_{drawer:02}.png", "w") as file:
                        Image.fromarray(image).convert("1").save(file, "PNG")
                    written[part][(255 - image)[None].tobytes()] = ["Greek", "Latin", "Tibetan"].index(alphabet)
    splits = data.omniglot(root=str(tmp_path), image_size=None)
    for part, sets in (("background", (splits.train, splits.valid)), ("evaluation", (splits.test,))):
        found = {everything(p)[i].tobytes(): int(p.labels[i]) for p in sets for i in range(len(p))}
        assert found == written[part]
    assert splits.test.label_names == ("Greek", "Latin", "Tibetan")


KINDS = ["fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100", "svhn", "dsprites", "shapes3d", "mpi3d"]


@pytest.mark.parametrize("kind", [*KINDS, "smallnorb", "cars3d", "omniglot"])
def test_missing_files_are_named_with_where_they_are_published(tmp_path: Path, kind: str) -> None:
    for root in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match=r"data.root: .* lacks .*published at http") as caught:
            getattr(data, kind)(root=str(root))
        assert "\n" not in str(caught.value)


def test_the_command_line_trains_on_them(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "x", "binary")
    run = tmp_path / "run"
    arguments = ["train", "-e", str(run), "--data.kind", "cifar10", "--data.root", str(tmp_path / "x")]
    arguments += ["--model.network.kind", "mlp", "--train.n_steps", "2", "--train.batch_size", "4"]
    assert main(arguments) in (None, 0)
    assert (run / "metrics.json").is_file()
