import numpy as np
import pytest
import torch
from torch import Tensor

from vaes.data import Batches, BinarySet, ImageSet, MemmapSet, Splits, TensorSet, binarize
from vaes.data.binary import coin, splitmix64
from vaes.data.images import Annotations
from vaes.errors import UserError
from vaes.randomness import Use


def grey(n: int = 30, size: int = 6, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8))


def splits(protocol: str, seed: int = 0, n: int = 30) -> Splits:
    parts = Splits(*(TensorSet(grey(n), Annotations(torch.arange(n))) for _ in range(3)))
    return binarize(parts, protocol, seed=seed)  # type: ignore[arg-type]


def whole(images: ImageSet) -> Tensor:
    return images.read(torch.arange(len(images)))


def test_splitmix64_gives_the_published_numbers() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [int(x) % 2**64 for x in splitmix64(1234567, torch.arange(5))] == known


def test_white_has_the_probability_of_the_grey_value() -> None:
    n = 4000
    values = torch.arange(256, dtype=torch.uint8)
    drawn = coin(values.view(1, 1, 1, 256).expand(n, 1, 1, 256), torch.arange(n), 0, Use.STATIC, 0)
    assert set(drawn.unique().tolist()) == {0, 255}
    share = drawn.view(n, 256).double().mean(0) / 255
    p = values.double() / 255
    assert share[0] == 0
    assert share[255] == 1
    z = (share - p)[1:-1] / (p * (1 - p) / n).sqrt()[1:-1]
    # 254 independent standard normals: their squares' mean is 1 +- sqrt(2 / 254).
    assert z.abs().max() < 4.5
    assert abs(z.square().mean() - 1) < 4 * (2 / 254) ** 0.5


def test_draws_of_neighbours_images_steps_seeds_and_streams_are_independent() -> None:
    half = torch.full((500, 1, 8, 8), 128, dtype=torch.uint8)
    numbers = torch.arange(500)
    one = coin(half, numbers, 0, Use.STATIC, 0).flatten(1).double() / 255
    others = [
        coin(half, numbers, 1, Use.STATIC, 0),
        coin(half, numbers, 0, Use.DYNAMIC, 0),
        coin(half, numbers, 0, Use.STATIC, 1),
        coin(half, numbers + 1, 0, Use.STATIC, 0).roll(7, 0),
    ]
    pairs = [(one, other.flatten(1).double() / 255) for other in others]
    pairs += [(one[:, :-lag], one[:, lag:]) for lag in (1, 2, 3, 4, 8)] + [(one[:-1], one[1:])]
    for a, b in pairs:
        correlation = 4 * ((a - 128 / 255) * (b - 128 / 255)).mean()
        assert abs(correlation) < 4.5 / a.numel() ** 0.5


def test_a_static_image_is_the_same_in_whatever_company_it_is_read() -> None:
    images = splits("static").train
    drawn = whole(images)
    index = torch.tensor([7, 3, 3, 29, 0])
    assert torch.equal(images.read(index), drawn[index])
    part = images.subset(torch.tensor([20, 7, 9]))
    assert torch.equal(whole(part), drawn[[20, 7, 9]])
    assert torch.equal(part.subset(torch.tensor([1])).read(torch.tensor([0])), drawn[[7]])
    assert part.labels is not None
    assert part.labels.tolist() == [20, 7, 9]
    assert torch.equal(whole(images.to("cpu")), drawn)


def test_equal_images_of_different_splits_and_seeds_are_drawn_apart() -> None:
    train, valid, test = (whole(images) for images in splits("static"))
    assert not torch.equal(train, valid)
    assert not torch.equal(valid, test)
    assert not torch.equal(test, whole(splits("static", seed=1).test))
    assert torch.equal(test, whole(splits("dynamic").test))


def test_static_training_sees_the_same_draw_in_every_epoch_and_dynamic_another() -> None:
    for protocol in ("static", "dynamic"):
        images = splits(protocol).train
        batches = Batches(images, len(images), 0)
        first, second = (batches.read(step)[batches.index(step).argsort()] for step in (0, 1))
        assert torch.equal(first, second) == (protocol == "static")
        assert torch.equal(first, whole(images)) == (protocol == "static")
        assert set(first.unique().tolist()) == {0, 255}


def test_dynamic_draws_have_the_grey_images_for_their_mean() -> None:
    images = splits("dynamic", n=4).train
    batches = Batches(images, 4, 0)
    n = 2000
    mean = torch.stack([batches.read(s)[batches.index(s).argsort()].double() / 255 for s in range(n)]).mean(0)
    p = grey(4).double() / 255
    assert ((mean - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-12).all()


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_ranks_partition_a_dynamic_batch(world: int) -> None:
    images = splits("dynamic").train
    ranks = [Batches(images, 12, 5, rank, world) for rank in range(world)]
    for step in (0, 1, 7):
        assert torch.equal(
            torch.cat([rank.read(step, flips=True) for rank in ranks]), Batches(images, 12, 5).read(step, flips=True)
        )


def test_a_dynamic_batch_depends_on_nothing_but_seed_and_step() -> None:
    used, fresh = (Batches(splits("dynamic").train, 8, 1) for _ in range(2))
    forward = [used.read(step) for step in range(9)]
    for step in (8, 0, 5, 5, 2):
        assert torch.equal(fresh.read(step), forward[step])
    assert not torch.equal(Batches(splits("dynamic", seed=1).train, 8, 2).read(3), forward[3])


def test_mapped_images_are_drawn_alike() -> None:
    data = grey(300)
    mapped, resident = (
        binarize(Splits(images, images, images), "dynamic") for images in (MemmapSet(data.numpy()), TensorSet(data))
    )
    assert torch.equal(whole(mapped.test), whole(resident.test))
    a, b = Batches(mapped.train, 32, 0), Batches(resident.train, 32, 0)
    for step in (0, 1, 2, 10, 9):
        assert torch.equal(a.read(step), b.read(step))


def test_a_dynamic_set_stays_dynamic_when_it_is_moved_or_divided() -> None:
    images = splits("dynamic").train
    part = images.subset(torch.arange(10)).to("cpu")
    assert isinstance(part, BinarySet)
    assert not torch.equal(Batches(part, 10, 0).read(0).sum(0), Batches(part, 10, 0).read(1).sum(0))
    assert splits("dynamic").test.redrawn is None


def test_none_leaves_the_images_alone_and_a_negative_seed_is_refused() -> None:
    assert torch.equal(whole(splits("none").train), grey())
    with pytest.raises(UserError, match="seed: -1"):
        whole(splits("static", seed=-1).test)
