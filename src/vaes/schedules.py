"""Schedules: step -> value, for coefficients and learning rates alike.

Step s is the value used by the s-th optimiser step, counted from 0. ``total_steps`` is the length of the training; a
schedule that is not given its own ``steps`` spans all of it.
"""

import abc
import math
from typing import Annotated

__all__ = [
    "Constant",
    "Cosine",
    "Cyclical",
    "Linear",
    "OneCycle",
    "Ramp",
    "Schedule",
    "Scheduled",
    "Sigmoid",
    "sampled",
]


class Schedule(abc.ABC):
    """A pure function of the step."""

    @abc.abstractmethod
    def __call__(self, step: int) -> float:
        """The value at a step >= 0."""


Scheduled = Annotated[float, Schedule]
"""A parameter that is called with a number at every step, and configured with a number or a schedule."""


def sampled(n_steps: int, most: int = 10_000) -> list[int]:
    """Steps of a training at which a schedule shows what values it takes: all, or evenly spaced ones and the last."""
    return sorted({*range(0, n_steps, -(-n_steps // most)), n_steps - 1})


class Constant(Schedule):
    """``value`` at every step.

    Args:
        total_steps: of the training.
        value: at every step.
    """

    def __init__(self, total_steps: int = 1, *, value: float) -> None:
        self.value = value

    def __call__(self, step: int) -> float:
        """The value."""
        return self.value


class Linear(Schedule):
    """From ``start`` to ``stop`` in a straight line over ``steps`` steps, then ``stop``.

    As a warm-up of the rate: Bowman et al., Generating Sentences from a Continuous Space, 2016,
    https://arxiv.org/abs/1511.06349, section 3.1.

    Args:
        total_steps: of the training.
        start: at the first step.
        stop: at the end.
        steps: how many it takes; null is the whole training.
    """

    def __init__(self, total_steps: int, *, start: float, stop: float, steps: int | None = None) -> None:
        self.start, self.stop, self.steps = start, stop, _positive("steps", total_steps if steps is None else steps)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.start + (self.stop - self.start) * min(step / self.steps, 1.0)


class Ramp(Schedule):
    """``start`` for ``after`` steps, from there to ``stop`` in a straight line over ``steps`` steps, then ``stop``.

    Args:
        total_steps: of the training.
        start: until the ramp.
        stop: after it.
        after: how many steps come before it.
        steps: how many it takes; null is what is left of the training, and 1 a jump.
    """

    def __init__(
        self, total_steps: int, *, start: float = 0.0, stop: float, after: int, steps: int | None = None
    ) -> None:
        if after < 0:
            raise ValueError(f"after must be 0 or more, got {after}")
        steps = max(1, total_steps - after) if steps is None else steps
        self.after, self.line = after, Linear(total_steps, start=start, stop=stop, steps=steps)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return self.line(max(step - self.after, 0))


class Cosine(Schedule):
    """From ``start`` to ``stop`` along half a cosine over ``steps`` steps, then ``stop``.

    Loshchilov & Hutter, SGDR, 2017, https://arxiv.org/abs/1608.03983, equation 5, without restarts.

    Args:
        total_steps: of the training.
        start: at the first step.
        stop: at the end.
        steps: how many it takes; null is the whole training.
    """

    def __init__(self, total_steps: int, *, start: float, stop: float = 0.0, steps: int | None = None) -> None:
        self.start, self.stop, self.steps = start, stop, _positive("steps", total_steps if steps is None else steps)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        return _half_cosine(self.start, self.stop, step / self.steps)


class Sigmoid(Schedule):
    """From ``start`` to ``stop`` along a sigmoid over ``steps`` steps, then ``stop``.

    ``sigmoid(sharpness (share - middle))`` of the share of the steps, brought to 0 at the first step and to 1 at the
    end, which the plain sigmoid only nears. As a warm-up of the rate: Bowman et al., Generating Sentences from a
    Continuous Space, 2016, https://arxiv.org/abs/1511.06349, section 3.1 and figure 2.

    Args:
        total_steps: of the training.
        start: at the first step.
        stop: at the end.
        middle: the share of the steps at which it is steepest.
        sharpness: how steep; near 0 it is a line.
        steps: how many it takes; null is the whole training.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start: float,
        stop: float,
        middle: float = 0.5,
        sharpness: float = 12.0,
        steps: int | None = None,
    ) -> None:
        if not 0 <= middle <= 1:
            raise ValueError(f"middle must lie between 0 and 1, got {middle}")
        if not 1e-3 <= sharpness <= 1e3:
            raise ValueError(f"sharpness must lie between 0.001 and 1000, got {sharpness}")
        self.start, self.stop, self.middle, self.sharpness = start, stop, middle, sharpness
        self.steps = _positive("steps", total_steps if steps is None else steps)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        first, now, last = (self._tanh(share) for share in (0.0, min(step / self.steps, 1.0), 1.0))
        return self.start + (self.stop - self.start) * (now - first) / (last - first)

    def _tanh(self, share: float) -> float:
        return math.tanh(self.sharpness * (share - self.middle) / 2)  # 2 sigmoid - 1, which cannot overflow


class OneCycle(Schedule):
    """Up from ``peak / start_div`` to ``peak`` over the first ``warmup`` of the steps, and down to ``peak / end_div``,
    both along half a cosine.

    Smith & Topin, Super-Convergence, 2018, https://arxiv.org/abs/1708.07120; theirs is piecewise linear.

    Args:
        total_steps: of the training.
        peak: the largest value.
        warmup: the share of the steps that goes up.
        start_div: the first value is the peak divided by this.
        end_div: the last value is the peak divided by this.
        steps: how many it takes; null is the whole training.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        peak: float,
        warmup: float = 0.2,
        start_div: float = 25.0,
        end_div: float = 1000.0,
        steps: int | None = None,
    ) -> None:
        if not 0 < warmup < 1:
            raise ValueError(f"warmup must lie between 0 and 1, got {warmup}")
        if start_div <= 0 or end_div <= 0:
            raise ValueError(f"start_div and end_div must be above 0, got {start_div} and {end_div}")
        steps = _positive("steps", total_steps if steps is None else steps)
        self.low, self.peak, self.end = peak / start_div, peak, peak / end_div
        self.rise, self.fall = warmup * steps, (1 - warmup) * steps

    def __call__(self, step: int) -> float:
        """The value at a step."""
        if step < self.rise:
            return _half_cosine(self.low, self.peak, step / self.rise)
        return _half_cosine(self.peak, self.end, (step - self.rise) / self.fall)


class Cyclical(Schedule):
    """``cycles`` times from ``start`` to ``stop``: a straight line over the first ``ramp`` of each cycle, then
    ``stop``.

    Fu et al., Cyclical Annealing Schedule, 2019, https://arxiv.org/abs/1903.10145, section 3.2.

    Args:
        total_steps: of the training.
        start: at the beginning of each cycle.
        stop: at its end.
        cycles: how many.
        ramp: the share of a cycle that goes up.
        steps: how many all cycles take; null is the whole training.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        start: float = 0.0,
        stop: float = 1.0,
        cycles: int = 4,
        ramp: float = 0.5,
        steps: int | None = None,
    ) -> None:
        if not 0 < ramp <= 1:
            raise ValueError(f"ramp must lie between 0 and 1, got {ramp}")
        self.start, self.stop, self.ramp = start, stop, ramp
        self.steps = _positive("steps", total_steps if steps is None else steps)
        self.cycles = _positive("cycles", cycles)

    def __call__(self, step: int) -> float:
        """The value at a step."""
        if step >= self.steps:
            return self.stop
        share = step * self.cycles % self.steps / self.steps  # of a cycle, in whole numbers: 12 % 2.4 is not 0
        return self.start + (self.stop - self.start) * min(share / self.ramp, 1.0)


def _half_cosine(start: float, stop: float, fraction: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value
