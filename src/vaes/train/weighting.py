"""The weights of an objective as a function of the step."""

from collections.abc import Callable, Mapping

from vaes.schedules import Schedule

__all__ = ["Weighting"]


class Weighting:
    """Coefficients, numbers or schedules, and how they become weights.

    Args:
        weights: ``weights(pixels, **coefficients) -> {name: weight}``, as in :class:`vaes.methods.Method`.
        coefficients: name -> number or schedule; an option that is no number is handed on as it is.
    """

    def __init__(
        self, weights: Callable[..., dict[str, float]], coefficients: Mapping[str, float | Schedule | None]
    ) -> None:
        self._weights, self._coefficients = weights, coefficients

    def coefficients(self, step: int) -> dict[str, float | None]:
        """The coefficients at a step."""
        return {name: c(step) if isinstance(c, Schedule) else c for name, c in self._coefficients.items()}

    def __call__(self, step: int, pixels: int) -> dict[str, float]:
        """The weights at a step, for images of C * H * W ``pixels``."""
        return self._weights(pixels, **self.coefficients(step))
