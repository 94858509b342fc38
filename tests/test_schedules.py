import math
from itertools import pairwise

import pytest

from vaes.schedules import Constant, Cosine, Cyclical, Linear, OneCycle, Ramp, Sigmoid


def test_constant_is_constant() -> None:
    assert {Constant(value=3.0)(step) for step in (0, 1, 10**9)} == {3.0}


def test_linear_is_a_line_and_then_flat() -> None:
    schedule = Linear(100, start=1.0, stop=3.0, steps=10)
    assert [schedule(step) for step in (0, 5, 10, 99)] == [1.0, 2.0, 3.0, 3.0]
    assert Linear(100, start=0.0, stop=1.0)(50) == 0.5


def test_cosine_has_its_ends_its_middle_and_its_slope() -> None:
    schedule = Cosine(8, start=2.0, stop=1.0)
    assert [schedule(step) for step in (0, 4, 8, 50)] == pytest.approx([2.0, 1.5, 1.0, 1.0])
    assert schedule(2) == pytest.approx(1.5 + 0.5 * math.cos(math.pi / 4))


def test_one_cycle_rises_to_its_peak_and_falls_without_a_jump() -> None:
    schedule = OneCycle(1000, peak=1.0, warmup=0.3, start_div=10.0, end_div=100.0)
    values = [schedule(step) for step in range(1001)]
    assert values[0] == pytest.approx(0.1)
    assert max(values) == values[300] == pytest.approx(1.0)
    assert values[1000] == pytest.approx(0.01)
    assert values[:301] == sorted(values[:301])
    assert values[300:] == sorted(values[300:], reverse=True)
    assert max(abs(a - b) for a, b in pairwise(values)) < 0.006


def test_cyclical_repeats_its_ramp_and_stays_up_afterwards() -> None:
    schedule = Cyclical(100, start=0.0, stop=1.0, cycles=2, ramp=0.5, steps=40)
    assert [schedule(step) for step in (0, 5, 10, 19, 20, 25, 39, 40, 99)] == [
        0.0,
        0.5,
        1.0,
        1.0,
        0.0,
        0.5,
        1.0,
        1.0,
        1.0,
    ]


def test_cycles_begin_at_the_start_though_their_length_is_no_whole_number() -> None:
    schedule = Cyclical(24, start=0.0, stop=1.0, cycles=10)
    assert schedule(12) == 0.0  # 5 cycles of 2.4 steps
    assert schedule(13) == pytest.approx(1 / 1.2)


def test_sigmoid_is_one_between_its_ends() -> None:
    schedule = Sigmoid(200, start=3.0, stop=-1.0, middle=0.25, sharpness=8.0, steps=100)

    def plain(share: float) -> float:
        return 1 / (1 + math.exp(-8 * (share - 0.25)))

    for step in range(101):
        expected = 3.0 - 4.0 * (plain(step / 100) - plain(0)) / (plain(1) - plain(0))
        assert schedule(step) == pytest.approx(expected, abs=1e-12)
    assert (schedule(0), schedule(100), schedule(199)) == (3.0, -1.0, -1.0)
    assert Sigmoid(10, start=0.0, stop=1.0)(5) == pytest.approx(0.5)
    assert Sigmoid(10, start=0.0, stop=1.0, sharpness=1000.0)(4) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Linear(0, start=0.0, stop=1.0),
        lambda: Cosine(5, start=1.0, steps=-1),
        lambda: OneCycle(5, peak=1.0, warmup=1.0),
        lambda: Cyclical(5, ramp=0.0),
        lambda: Cyclical(5, cycles=0),
        lambda: Sigmoid(5, start=0.0, stop=1.0, middle=1.5),
        lambda: Sigmoid(5, start=0.0, stop=1.0, sharpness=0.0),
    ],
)
def test_senseless_options_are_refused(build) -> None:
    with pytest.raises(ValueError, match="must"):
        build()


def test_a_ramp_waits_and_rises() -> None:
    line = Ramp(100, stop=0.5, steps=10, after=20)
    assert [line(step) for step in (0, 20, 25, 30, 99)] == [0, 0, 0.25, 0.5, 0.5]
    assert Ramp(100, stop=1.0, after=20)(60) == 0.5
    with pytest.raises(ValueError, match="after must be 0 or more"):
        Ramp(100, stop=1.0, after=-1)
