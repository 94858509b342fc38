import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaes.data import Batches, MemmapSet, TensorSet, flip, to_float, to_uint8
from vaes.errors import UserError


def numbered(n: int) -> TensorSet:
    """Images whose two pixels spell their number."""
    i = torch.arange(n)
    return TensorSet(torch.stack([i // 256, i % 256], 1).to(torch.uint8).view(n, 1, 1, 2))


def line(images: TensorSet, batch_size: int, seed: int, steps: int) -> torch.Tensor:
    batches = Batches(images, batch_size, seed)
    return torch.cat([batches.index(step) for step in range(steps)])


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), batch=st.integers(1, 40), seed=st.integers(0, 2**63))
def test_every_epoch_is_a_permutation_and_nothing_is_dropped(n: int, batch: int, seed: int) -> None:
    batch = min(n, batch)
    # n steps of a batch are exactly `batch` epochs, wherever the batches' borders fall.
    epochs = line(numbered(n), batch, seed, n).view(batch, n)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(n).expand(batch, n))


def test_visits_never_differ_by_more_than_one() -> None:
    visits = torch.zeros(10, dtype=torch.int64)
    batches = Batches(numbered(10), 4, 3)
    for step in range(50):
        visits += torch.bincount(batches.index(step), minlength=10)
        assert visits.max() - visits.min() <= 1 + (4 * (step + 1) % 10 != 0)


def test_epochs_and_seeds_differ() -> None:
    first, second = line(numbered(100), 100, 0, 2).view(2, 100)
    assert not torch.equal(first, second)
    assert not torch.equal(first, line(numbered(100), 100, 1, 1))
    assert not torch.equal(first, line(numbered(100), 100, 2**32, 1))


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_partition_the_global_batch(world: int) -> None:
    whole = Batches(numbered(17), 12, 5)
    ranks = [Batches(numbered(17), 12, 5, rank, world) for rank in range(world)]
    for step in range(20):
        assert torch.equal(torch.cat([r.index(step) for r in ranks]), whole.index(step))
        assert torch.equal(torch.cat([r.read(step, flips=True) for r in ranks]), whole.read(step, flips=True))


def test_a_batch_depends_on_nothing_but_the_step() -> None:
    used, fresh = Batches(numbered(23), 7, 1), Batches(numbered(23), 7, 1)
    forward = [used.index(step) for step in range(12)]
    for step in (11, 0, 5, 5, 2):
        assert torch.equal(fresh.index(step), forward[step])


def test_mapped_sets_give_the_same_batches_read_ahead_or_not() -> None:
    images = numbered(300)
    mapped = MemmapSet(images.read(torch.arange(300)).numpy())
    resident, streamed = Batches(images, 32, 0), Batches(mapped, 32, 0)
    for step in [0, 1, 2, 3, 10, 11, 10, 9]:
        assert torch.equal(streamed.read(step), resident.read(step))


def test_read_gives_the_images_at_index() -> None:
    batches = Batches(numbered(300), 64, 0)
    pixels = batches.read(4).long().view(64, 2)
    assert torch.equal(256 * pixels[:, 0] + pixels[:, 1], batches.index(4))
    assert batches.steps_per_epoch == 5


@pytest.mark.parametrize(
    ("n", "batch", "world", "says"), [(10, 11, 1, "11 of 10"), (10, 0, 1, "0 of 10"), (10, 5, 2, "multiple of 2")]
)
def test_impossible_batch_sizes_are_the_users_errors(n: int, batch: int, world: int, says: str) -> None:
    with pytest.raises(UserError, match=f"train.batch_size: .*{says}"):
        Batches(numbered(n), batch, 0, 0, world)


def test_negative_seed() -> None:
    with pytest.raises(UserError, match="seed: -1"):
        Batches(numbered(4), 2, -1).index(0)


def test_flip_flips_half_left_to_right_and_nothing_else() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4000, 1, 2, 3), dtype=np.uint8))
    y = flip(x, 0, 0)
    flipped = (y == x.flip(-1)).flatten(1).all(1)
    assert ((y == x).flatten(1).all(1) | flipped).all()
    # Four standard deviations of a fair coin; a palindromic row has no part in this many random ones.
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / 4000**0.5
    assert torch.equal(flip(x, 0, 0), y)
    for other in (flip(x, 0, 1), flip(x, 1, 0)):
        agree = (other == y).flatten(1).all(1).float().mean()
        assert abs(agree - 0.5) < 4 * 0.5 / 4000**0.5


def test_flip_of_a_slice_is_the_slice_of_the_flip() -> None:
    x = torch.arange(60, dtype=torch.uint8).view(10, 1, 2, 3)
    assert torch.equal(flip(x[4:9], 3, 8, start=4), flip(x, 3, 8)[4:9])


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (-0.5, 0.5), (-3.0, 11.0)])
def test_to_uint8_inverts_to_float(value_range: tuple[float, float]) -> None:
    u = torch.arange(256, dtype=torch.uint8)
    x = to_float(u, value_range)
    assert x.dtype == torch.float32
    assert (x[0].item(), x[255].item()) == value_range
    assert torch.allclose(x.double().diff(), torch.tensor((value_range[1] - value_range[0]) / 255).double(), atol=2e-6)
    assert torch.equal(to_uint8(x, value_range), u)


def test_to_uint8_clamps_and_rounds() -> None:
    x = torch.tensor([-9.0, -1e-9, 0.49 / 255, 0.51 / 255, 1.1, float("inf")])
    assert to_uint8(x, (0, 1)).tolist() == [0, 0, 0, 1, 255, 255]
    assert to_uint8(torch.tensor([1.0], dtype=torch.bfloat16), (-1, 1)).tolist() == [255]
