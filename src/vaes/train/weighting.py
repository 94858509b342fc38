"""The weights of an objective as a function of the step."""

from collections.abc import Callable, Mapping

from vaes.objectives import Context
from vaes.schedules import Schedule

__all__ = ["Weighting"]


class Weighting:
    """Coefficients, numbers or schedules, and how they become weights.

    Args:
        weights: ``weights(pixels, **coefficients) -> {name: weight}``, as in :class:`vaes.methods.Method`.
        coefficients: name -> number or schedule; an option that is no number is handed on as it is.
        options: part -> option -> schedule, of the parts whose own options follow one.
    """

    def __init__(
        self,
        weights: Callable[..., dict[str, float]],
        coefficients: Mapping[str, float | Schedule | None],
        options: Mapping[str, Mapping[str, Schedule]] | None = None,
    ) -> None:
        self._weights, self._coefficients, self.options = weights, coefficients, options or {}

    @property
    def names(self) -> list[str]:
        """Of the coefficients."""
        return list(self._coefficients)

    def coefficients(self, step: int) -> dict[str, float | None]:
        """The coefficients and scheduled options at a step."""
        found = {name: c(step) if isinstance(c, Schedule) else c for name, c in self._coefficients.items()}
        return found | {f"{part}.{name}": s(step) for part, own in self.options.items() for name, s in own.items()}

    def __call__(self, step: int, pixels: int) -> dict[str, float]:
        """The weights at a step, for images of C * H * W ``pixels``."""
        return self._weights(pixels, **{name: self.coefficients(step)[name] for name in self._coefficients})

    def context(self, step: int, pixels: int, n: int, n_steps: int) -> Context:
        """All that the objective is told of a step, of a training on n images."""
        options = {part: {name: s(step) for name, s in own.items()} for part, own in self.options.items()}
        return Context(self(step, pixels), n, step, n_steps, options)

    def keys_of(self, term: str, step: int, pixels: int) -> tuple[str, list[str]]:
        """Where a term's own keys are, and the keys that its weight grows with."""
        now = {name: self.coefficients(step)[name] for name in self._coefficients}
        found, weight = [], self._weights(pixels, **now)[term]
        for name, value in now.items():
            try:
                more = self._weights(pixels, **{**now, name: 2 * (value or 0) + 1e-3})[term]
            except (TypeError, ValueError):
                continue  # it is no number, or has no larger value
            if more > weight:
                found.append(f"objective.{name}")
        beside = f"terms.{term}.weight" in now
        return f"objective.{'terms.' * beside}{term}", found
