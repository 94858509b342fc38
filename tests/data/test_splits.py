import pytest
import torch

from vaes.data import TensorSet
from vaes.data.splits import divide, hold_out
from vaes.errors import UserError
from vaes.randomness import Use, permutation


def numbered(n: int) -> TensorSet:
    return TensorSet(torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1))


def numbers(images) -> list[int]:
    return images.read(torch.arange(len(images))).flatten().tolist()


def test_hold_out_parts_are_disjoint_complete_and_in_order() -> None:
    rest, held = hold_out(numbered(100), 30, 4, Use.VALID, "data.n_valid")
    assert len(held) == 30
    assert sorted(numbers(rest) + numbers(held)) == list(range(100))
    assert numbers(rest) == sorted(numbers(rest))
    assert numbers(held) == numbers(hold_out(numbered(100), 30, 4, Use.VALID, "")[1])
    assert numbers(held) != numbers(hold_out(numbered(100), 30, 5, Use.VALID, "")[1])


@pytest.mark.parametrize("n", [0, -1, 100, 1000])
def test_hold_out_refuses_to_empty_a_part(n: int) -> None:
    with pytest.raises(UserError, match=rf"data\.n_valid: {n} of 100"):
        hold_out(numbered(100), n, 0, Use.VALID, "data.n_valid")


def test_streams_and_indices_are_independent() -> None:
    orders = [permutation(50, 0, use, i) for use in Use for i in (0, 1)] + [permutation(50, 1, Use.EPOCH)]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


def test_divide_holds_out_what_is_missing() -> None:
    parts = divide(numbered(200), None, None, None, None, 0)
    assert [len(part) for part in parts] == [171, 9, 20]
    assert sorted(number for part in parts for number in numbers(part)) == list(range(200))
    given = numbered(7)
    assert divide(numbered(200), given, given, None, None, 0)[1:] == (given, given)
    assert len(divide(numbered(200), given, None, None, 50, 0).train) == 150


def test_divide_smallest() -> None:
    assert [len(part) for part in divide(numbered(3), None, None, None, None, 0)] == [1, 1, 1]
    with pytest.raises(UserError, match="2 training images cannot be divided into 3"):
        divide(numbered(2), None, None, None, None, 0)
