"""Features without labels."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vaes import evaluate, files
from vaes.data import Splits, TensorSet, digits
from vaes.evaluate import NotApplicable
from vaes.evaluate.features import find_features, pretext_features
from vaes.evaluate.pretext import ORDERS, beats_chance, tasks, train_on_tasks


def bare(splits: Splits) -> Splits:
    return Splits(*(TensorSet(part.read(torch.arange(len(part)))) for part in splits))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return bare(digits(image_size=8))


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (4, 9)])
def test_every_change_is_another_one_and_loses_nothing(shape: tuple[int, int]) -> None:
    x = torch.arange(shape[0] * shape[1]).reshape(1, 1, *shape).float()
    for task in tasks(*shape):
        changed = [task.change(x, label) for label in range(task.classes)]
        assert {tuple(one.flatten().tolist()) for one in changed} == {
            tuple(one.flatten().tolist()) for one in changed if one.shape == x.shape
        }
        assert len({tuple(one.flatten().tolist()) for one in changed}) == task.classes
        assert all(torch.equal(one.flatten().sort().values, x.flatten()) for one in changed)
        assert torch.equal(changed[0], x)
        which = torch.arange(task.classes).flip(0)
        mixed = task.apply(x.expand(task.classes, -1, -1, -1), which)
        assert torch.equal(mixed, torch.cat([changed[label] for label in which.tolist()]))


def test_turns_and_quarters_by_hand() -> None:
    turns, tiles = tasks(4, 4)
    x = torch.zeros(1, 1, 4, 4)
    x[..., 0, 1] = 1  # in the first quarter
    assert turns.change(x, 1)[0, 0, 2, 0] == 1  # a quarter turn against the clock
    assert turns.change(x, 4)[0, 0, 0, 2] == 1
    order = ORDERS.index((2, 0, 3, 1))  # the second quarter shows what the first did
    assert tiles.change(x, order)[0, 0, 0, 3] == 1
    assert {task.name for task in tasks(4, 6)} == {"mirrors", "tiles"}
    assert tasks(1, 30) == tasks(3, 8) == []


def test_luck_and_trifles_do_not_beat_chance() -> None:
    assert not beats_chance(4 / 16, 16, 8)  # as many by luck in one of eight
    assert beats_chance(0.25, 400, 8)
    assert not beats_chance(0.14, 100_000, 8)  # no luck, but a trifle
    assert not beats_chance(0.5, 2, 4)


def test_it_learns_is_kept_and_is_the_same_again(splits: Splits, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = pretext_features(splits, tmp_path, steps=150)
    path = tmp_path / "pretext.safetensors"
    _, metadata = files.read_tensors(path)
    assert metadata["tasks"].keys() == {"orientations", "tiles"}
    accuracy, classes = metadata["tasks"]["orientations"]
    assert accuracy > 0.4
    assert classes == 8
    assert first.name.startswith("pretext-")
    assert f"orientations {accuracy:.4f} of 8, tiles " in first.name
    written = path.stat().st_mtime_ns
    torch.manual_seed(2)
    kept, named = pretext_features(splits, tmp_path, steps=150), find_features(str(path), splits, None)
    again = pretext_features(splits, steps=150)
    assert path.stat().st_mtime_ns == written
    images = splits.test.read(torch.arange(20))
    for other in (kept, named, again):
        assert other.name == first.name
        assert torch.equal(other.extract(images), first.extract(images))
    assert 0.9 < first.extract(splits.train.read(torch.arange(1_000))).square().mean() < 1.1


def test_the_farther_from_the_images_the_larger_the_distance(splits: Splits) -> None:
    features = pretext_features(splits, steps=150)
    real, other = splits.test.read(torch.arange(170)), splits.train.read(torch.arange(170))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, real.shape, generator=generator)
    mixed = [((1 - share) * other + share * noise).to(torch.uint8) for share in (0.0, 0.15, 0.4, 1.0)]
    found = [
        evaluate.fid(features.extract(real), features.extract(images), features=features.name).value for images in mixed
    ]
    assert found == sorted(found)
    assert found[1] > 1.2 * found[0]
    assert found[3] > 10 * found[0]


def discs(n: int, seed: int, size: int = 12) -> Tensor:
    """Centred, of one radius: turned or mirrored they are themselves, and their quarters have places."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.tensor(list(product(range(size), repeat=2))).double() - (size - 1) / 2
    radius = grid.square().sum(1).sqrt().reshape(1, 1, size, size)
    grey = torch.randint(128, 256, (n, 1, 1, 1), generator=generator)
    return (grey * (radius < 3 + 2 * torch.rand(n, 1, 1, 1, generator=generator))).to(torch.uint8)


def three(images: Tensor) -> Splits:
    n = len(images) // 3
    return Splits(*(TensorSet(part) for part in images[: 3 * n].split(n)))


def test_what_looks_alike_from_all_sides_is_learned_from_its_quarters() -> None:
    _, solved = train_on_tasks(three(discs(900, 0)), steps=60)
    assert solved.keys() == {"tiles"}
    assert solved["tiles"].accuracy > 0.2


def test_where_no_task_beats_chance_there_is_a_reason_and_no_number() -> None:
    noise = torch.randint(0, 256, (600, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with pytest.raises(NotApplicable, match=r"beats chance on 200 held-out ones \(orientations 0\.\d+ against 0\.125"):
        pretext_features(three(noise), steps=20)
    with pytest.raises(NotApplicable, match="1x30 have neither orientation nor quarters"):
        pretext_features(three(torch.zeros(30, 1, 1, 30, dtype=torch.uint8)))


def test_auto_takes_labels_where_there_are_any(monkeypatch: pytest.MonkeyPatch, splits: Splits) -> None:
    for module in ("classifier_features", "pretext_features"):
        monkeypatch.setattr(f"vaes.evaluate.features.{module}", lambda *_, module=module, **__: module)
    assert find_features("auto", digits(image_size=8), None) == "classifier_features"
    assert find_features("auto", splits, None) == "pretext_features"
