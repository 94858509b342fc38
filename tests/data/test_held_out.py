import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vaes.data import Annotations, Splits, TensorSet, arrays, folder
from vaes.data.hashing import content_hashes
from vaes.data.held_out import TEST, VALID, divide, hold_out, hold_out_by_content, keys
from vaes.errors import UserError
from vaes.randomness import Use, permutation


def numbered(n: int, values: np.ndarray | None = None) -> TensorSet:
    """One pixel each, whose hashes are those of two bytes."""
    wide = np.arange(n, dtype=np.uint16) if values is None else values.astype(np.uint16)
    hashes = torch.from_numpy(content_hashes(wide[:, None, None, None]))
    data = torch.from_numpy((wide % 256).astype(np.uint8))
    return TensorSet(data.view(-1, 1, 1, 1), Annotations(hashes=hashes))


def numbers(images) -> list[int]:
    return images.read(torch.arange(len(images))).flatten().tolist()


def test_hold_out_parts_are_disjoint_complete_and_in_order() -> None:
    rest, held = hold_out(numbered(100), 30, 4, Use.VALID, "data.n_valid")
    assert len(held) == 30
    assert sorted(numbers(rest) + numbers(held)) == list(range(100))
    assert numbers(rest) == sorted(numbers(rest))
    assert numbers(held) == numbers(hold_out(numbered(100), 30, 4, Use.VALID, "")[1])
    assert numbers(held) != numbers(hold_out(numbered(100), 30, 5, Use.VALID, "")[1])


@pytest.mark.parametrize("by", ["content", "order"])
@pytest.mark.parametrize("n", [0, -1, 100, 1000])
def test_a_hold_out_that_would_empty_a_part_is_refused(n: int, by: str) -> None:
    with pytest.raises(UserError, match=rf"data\.n_valid: {n} of 100"):
        divide(numbered(100), None, numbered(3), n, None, 0, by)  # type: ignore[arg-type]


def test_streams_and_indices_are_independent() -> None:
    orders = [permutation(50, 0, use, i) for use in Use for i in (0, 1)] + [permutation(50, 1, Use.EPOCH)]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


def test_by_order_is_the_rule_of_the_first_version() -> None:
    parts = divide(numbered(200), None, None, None, None, 0, "order")
    assert [len(part) for part in parts[:3]] == [171, 9, 20]
    order = permutation(200, 0, Use.TEST).tolist()
    assert numbers(parts.test) == sorted(order[:20])
    rest = sorted(order[20:])
    assert numbers(parts.valid) == sorted(rest[i] for i in permutation(180, 0, Use.VALID).tolist()[:9])
    assert len(divide(numbered(101), None, numbered(2), None, None, 0, "order").valid) == 5


def test_by_content_an_image_is_held_out_where_its_key_is_small() -> None:
    """Membership restated, one image at a time; and the keys are uniform."""
    images = numbered(4000)
    parts = divide(images, None, None, None, None, 7)
    assert images.notes.hashes is not None
    test, valid = (keys(images.notes.hashes, 7, use).astype(float) / 2**64 for use in (Use.TEST, Use.VALID))
    place = np.where(test < TEST, 2, np.where(valid < VALID, 1, 0))
    assert [len(part) for part in parts[:3]] == np.bincount(place).tolist()
    for i, part in enumerate(parts[:3]):
        assert numbers(part) == (np.flatnonzero(place == i) % 256).tolist()
    # Kolmogorov's 0.1% point for 4,000 uniform numbers; the two streams are not the same.
    for u in (test, valid):
        assert np.abs(np.sort(u) - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / 4000**0.5
    assert abs(np.corrcoef(test, valid)[0, 1]) < 0.06


def membership(parts: Splits) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in ("train", "valid", "test"):
        for key in getattr(parts, name).notes.hashes.tolist():
            assert found.setdefault(key, name) == name, "a copy lies in another split"
    return found


SET = np.random.default_rng(5).integers(0, 256, (300, 3, 4), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(0, 199), min_size=40, max_size=120),
    more=st.lists(st.integers(0, 299), max_size=120),
    seed=st.integers(0, 2**40),
    order=st.randoms(use_true_random=False),
)
def test_growing_and_reordering_moves_no_image_and_copies_stay_together(
    first: list[int], more: list[int], seed: int, order
) -> None:
    before = arrays(SET[first], seed=seed)
    if "too few" in before.report.sentence or "by order" in before.report.sentence:
        return  # said, and then it may
    grown = first + more
    order.shuffle(grown)
    after = membership(arrays(SET[grown], seed=seed))
    for key, split in membership(before).items():
        assert after[key] == split


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(["PNG", "BMP", "TIFF", "PPM", "RGB"]), min_size=40, max_size=40),
    seed=st.integers(0, 99),
)
def test_renaming_and_encoding_anew_moves_no_image(tmp_path: Path, kinds: list[str], seed: int) -> None:
    found = []
    for prefix, formats in (("a", ["PNG"] * 40), ("b", kinds)):
        root = tmp_path / f"{prefix}{os.urandom(4).hex()}"
        root.mkdir()
        for i, kind in enumerate(formats):
            picture = Image.fromarray(SET[i])
            if kind == "RGB":
                picture, kind = picture.convert("RGB"), "PNG"
            picture.save(root / (f"{i:03}.png" if prefix == "a" else f"{99 - i}.{kind.lower()}"), kind)
        found.append(folder(root=str(root), channels=1, seed=seed))
    assert membership(found[0]) == membership(found[1])
    assert membership(found[0]) == membership(arrays(SET[:40], seed=seed))


def test_a_number_takes_the_smallest_keys_and_copies_stay_together() -> None:
    parts = divide(numbered(60), None, None, 5, 7, 3)
    assert [len(part) for part in parts[:3]] == [48, 5, 7]
    images = numbered(60)
    assert images.notes.hashes is not None
    assert numbers(parts.test) == sorted(np.argsort(keys(images.notes.hashes, 3, Use.TEST))[:7].tolist())
    twins = numbered(0, np.repeat(np.arange(30), 2))
    rest, held, note = hold_out_by_content(twins, 7, 0, 3, Use.TEST, "data.n_test")
    assert len(held) == 6
    assert "6 instead of 7" in note
    assert not set(numbers(rest)) & set(numbers(held))
    # One single among twins fills an odd number.
    mixed = numbered(0, np.concatenate([np.repeat(np.arange(30), 2), [99]]))
    assert len(hold_out_by_content(mixed, 7, 0, 3, Use.TEST, "data.n_test").held) == 7


def test_splits_that_are_given_stay() -> None:
    given = numbered(7)
    assert divide(numbered(200), given, given, None, None, 0)[1:3] == (given, given)


@pytest.mark.parametrize("by", ["content", "order"])
def test_the_smallest(by) -> None:
    for seed in range(20):
        parts = divide(numbered(3), None, None, None, None, seed, by)
        assert [len(part) for part in parts[:3]] == [1, 1, 1]
    with pytest.raises(UserError, match="2 images cannot be divided into 3"):
        divide(numbered(2), None, None, None, None, 0, by)


def test_a_tiny_set_says_that_the_share_was_not_kept() -> None:
    images = numbered(3)
    assert images.notes.hashes is not None
    for seed in range(10):
        small = (keys(images.notes.hashes, seed, Use.TEST).astype(float) / 2**64 < TEST).sum()
        sentence = divide(images, None, None, None, None, seed).splits().report.sentence
        assert ("data.n_test: too few images for a share, 1 taken" in sentence) == (small != 1)


def test_only_copies_are_divided_by_order_and_that_is_said() -> None:
    parts = divide(numbered(0, np.zeros(20)), None, None, None, None, 0).splits()
    assert [len(part) for part in parts] == [17, 1, 2]
    assert "by order and not by content, because all 20 images are copies of 1" in parts.report.sentence
    assert len(parts.report.warnings) == 3


def test_images_in_two_given_splits_are_said() -> None:
    x = SET[:60]
    parts = arrays(x, x[55:60], valid=SET[80:90])
    assert parts.report.warnings == (
        "5 of 5 images of test are in train as well, pixel for pixel; remove them from one",
    )
    assert arrays(x).report.warnings == ()
