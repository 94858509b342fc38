import numpy as np
import pytest
import torch
from torch import Tensor

from vaes.data import images as images_module
from vaes.data.images import READERS, Annotations, ImageSet, MemmapSet, TensorSet, image_set
from vaes.errors import UserError

N = 50


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, 3, 5, 4), dtype=np.uint8)


@pytest.fixture
def notes() -> Annotations:
    return Annotations(torch.arange(N) % 7, tuple("abcdefg"), torch.arange(2 * N).view(N, 2), ("f", "g"), (N, N))


@pytest.fixture(params=["tensor", "array", "memmap"])
def images(request: pytest.FixtureRequest, data: np.ndarray, notes: Annotations, tmp_path) -> ImageSet:
    if request.param == "tensor":
        return TensorSet(torch.from_numpy(data.copy()), notes)
    if request.param == "array":
        return MemmapSet(data, notes)
    np.save(tmp_path / "x.npy", data)
    return MemmapSet(np.load(tmp_path / "x.npy", mmap_mode="r"), notes)


def test_reads_any_order_with_repeats(images: ImageSet, data: np.ndarray) -> None:
    index = torch.tensor([49, 0, 7, 7, 3])
    found = images.read(index)
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    assert torch.equal(found, torch.from_numpy(data)[index])
    assert images.shape == (3, 5, 4)
    assert len(images) == N


def test_subset_of_subset_keeps_images_labels_and_factors_together(images: ImageSet, data: np.ndarray) -> None:
    outer = torch.randperm(N, generator=torch.Generator().manual_seed(1))[:20]
    inner = torch.tensor([19, 0, 4])
    part = images.subset(outer).subset(inner)
    rows = outer[inner]
    assert len(part) == 3
    assert torch.equal(part.read(torch.arange(3)), torch.from_numpy(data)[rows])
    assert part.labels is not None
    assert torch.equal(part.labels, rows % 7)
    assert part.factors is not None
    assert torch.equal(part.factors[:, 0], 2 * rows)
    assert (part.label_names, part.factor_names, part.factor_sizes) == (tuple("abcdefg"), ("f", "g"), (N, N))


def test_subset_of_a_tensor_shares_its_memory() -> None:
    tensor = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    part = TensorSet(tensor).subset(torch.tensor([2]))
    tensor[2] = 9
    assert part.read(torch.tensor([0])).eq(9).all()


def test_to_the_same_device_is_the_set_itself(images: ImageSet) -> None:
    assert images.to("cpu") is images


def test_a_set_moved_has_the_subset_only() -> None:
    part = TensorSet(torch.zeros(4, 1, 2, 2, dtype=torch.uint8)).subset(torch.tensor([1, 3]))
    moved = part.to("meta")
    assert len(moved) == 2
    assert moved.device == torch.device("meta")
    assert moved.read(torch.zeros(5, dtype=torch.int64, device="meta")).shape == (5, 1, 2, 2)


def test_what_does_not_fit_stays_mapped(data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(image_set(data), TensorSet)
    monkeypatch.setattr(images_module, "RAM_SHARE", 0.0)
    mapped = image_set(data)
    assert isinstance(mapped, MemmapSet)
    assert torch.equal(mapped.read(torch.arange(N)), torch.from_numpy(data))


def test_processes_of_one_host_divide_its_memory(data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        images_module, "available", lambda: 3 * data.nbytes
    )  # of which a share of 0.4 is enough for one
    assert isinstance(image_set(data), TensorSet)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert isinstance(image_set(data), MemmapSet)


@pytest.mark.parametrize("count", [0, 1, READERS - 1, READERS, 5 * READERS + 3])
def test_rows_of_a_file_are_those_of_the_array(data: np.ndarray, tmp_path, count: int) -> None:
    np.save(tmp_path / "x.npy", data)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    index = torch.randint(N, (count,), generator=torch.Generator().manual_seed(count))
    # A part of a mapped array begins elsewhere in the file; it is read through the mapping.
    for array, of in ((mapped, data), (mapped[7:], data[7:]), (mapped[:, :1], data[:, :1])):
        wanted = index % len(of)
        assert torch.equal(MemmapSet(array).read(wanted), torch.from_numpy(of[wanted.numpy()]))


def test_a_file_that_was_cut_short_is_a_sentence_and_no_bus_error(data: np.ndarray, tmp_path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, data)
    images = MemmapSet(np.load(path, mmap_mode="r"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - data[0].size - 1)
    assert torch.equal(images.read(torch.tensor([N - 3])), torch.from_numpy(data[N - 3 : N - 2]))
    for row in (N - 2, N - 1):
        with pytest.raises(UserError, match=r"x\.npy: was cut short"):
            images.read(torch.tensor([0, row, 1]))
    with pytest.raises(IndexError):
        images.read(torch.tensor([N]))


def test_a_file_that_was_deleted_is_read_on(data: np.ndarray, tmp_path) -> None:
    np.save(tmp_path / "x.npy", data)
    images = MemmapSet(np.load(tmp_path / "x.npy", mmap_mode="r"))
    (tmp_path / "x.npy").unlink()
    assert torch.equal(images.subset(torch.tensor([3])).read(torch.tensor([0])), torch.from_numpy(data[3:4]))


@pytest.mark.parametrize("bad", [torch.zeros(2, 1, 2, 2), torch.zeros(2, 2, 2, dtype=torch.uint8)])
def test_images_are_uint8_with_four_dimensions(bad: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        TensorSet(bad)
    with pytest.raises(ValueError, match="uint8"):
        MemmapSet(bad.numpy())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_kinds_agree_on_cuda(images: ImageSet, data: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.tensor([4, 1, 1])
    resident = images.to("cuda")
    assert isinstance(resident, TensorSet)
    monkeypatch.setattr(images_module, "RAM_SHARE", 0.0)
    streamed = images.to("cuda")
    assert isinstance(streamed, MemmapSet)
    for moved in (resident, streamed):
        found = moved.read(index.to(moved.index_device))
        assert found.device.type == "cuda"
        assert torch.equal(found.cpu(), torch.from_numpy(data)[index])
