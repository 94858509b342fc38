"""Posteriors over classes, and over classes beside numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor

from vaes.distributions import gumbel_of_normal, log_categorical, relaxed
from vaes.posteriors.base import Latent, Posterior
from vaes.posteriors.gaussian import Gaussian
from vaes.randomness import Draw
from vaes.schedules import Scheduled

__all__ = ["Joint", "RelaxedCategorical", "corners", "equal_variables", "unequal_variables", "words"]


def equal_variables(z_shape: tuple[int, ...], classes: int | None) -> tuple[int, ...]:
    """The classes of each variable of a flat code that is all of one-hot vectors: where ``classes`` is None the most up
    to 10 that divide it, or else one variable of all."""
    d = Draw(z_shape).size
    c = next((c for c in range(min(10, d), 1, -1) if d % c == 0), d) if classes is None else classes
    if len(z_shape) != 1 or c < 2 or d % c:
        raise ValueError(
            f"z_dim must be a multiple of the {c} classes of a variable, 2 or more, and codes are {z_shape}"
            if classes is not None
            else f"one variable takes flat codes of 2 classes or more, and these are {z_shape}"
        )
    return (c,) * (d // c)


def unequal_variables(z_shape: tuple[int, ...], classes: tuple[int, ...] | None) -> tuple[int, ...]:
    """The classes of each variable beside at least one number: of one that takes half the code where None."""
    d = Draw(z_shape).size
    variables = ((d + 1) // 2,) if classes is None else tuple(classes)
    if len(z_shape) != 1 or not variables or min(variables) < 2 or sum(variables) >= d:
        raise ValueError(
            f"z_dim must hold variables of 2 classes or more and a number beside them: z_dim 3 at least, and "
            f"{sum(variables) + 1} for classes {list(variables)}; codes are {z_shape}"
        )
    return variables


def words(variables: tuple[int, ...], numbers: int = 0) -> str:
    """The support of such codes."""
    beside = f"{numbers} numbers and " if numbers else ""
    return f"{beside}one-hot vectors of {', '.join(map(str, variables))} classes"


def corners(scores: Tensor, variables: tuple[int, ...]) -> Tensor:
    """Scores (..., S), S the sum of the variables' classes -> one-hot vectors of the largest of each (..., S)."""
    parts = scores.split(variables, -1)
    return torch.cat([torch.zeros_like(s).scatter(-1, s.argmax(-1, keepdim=True), 1.0) for s in parts], -1)


def _log_q(z: Tensor, logits: Tensor, variables: tuple[int, ...]) -> Tensor:
    pairs = zip(z.split(variables, -1), logits.split(variables, -1), strict=True)
    return torch.stack([log_categorical(w, of) for w, of in pairs]).sum(0)


class _Relaxing(Posterior):
    """What both share: in training mode draws are relaxed, in evaluation they are corners."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def _draw(
        self, logits: Tensor, gumbel: Tensor, variables: tuple[int, ...], options: Mapping[str, float] | None
    ) -> Tensor:
        if not self.training:
            return corners(logits + gumbel, variables)
        temperature = (options or {}).get("temperature", self.temperature)
        pairs = zip(logits.split(variables, -1), gumbel.split(variables, -1), strict=True)
        return torch.cat([relaxed(of, g, temperature).exp() for of, g in pairs], -1)


class RelaxedCategorical(_Relaxing):
    """q(z|x) of independent categoricals, whose draws are one-hot vectors; relaxed while training, so that gradients
    pass.

    Jang, Gu & Poole, Categorical Reparameterization with Gumbel-Softmax, 2017, https://arxiv.org/abs/1611.01144,
    equation 2. The rate is the categoricals' own, in training too; log q(z|x) of a relaxed draw is ``sum_c z_c log
    q_c``. So training's loss is a bound only at a temperature of 0, and evaluation, which draws corners, gives bounds.
    ``aux["logits"]`` is (B, D).

    Args:
        z_shape: of a code.
        classes: of each variable, of which there are z_dim / classes; null is the most up to 10 that divide z_dim.
        temperature: of the relaxation; draws are one-hot vectors at 0.
    """

    gives = frozenset({"log_q", "logits"})
    partner = "categorical of the same classes"

    def __init__(self, z_shape: tuple[int, ...], *, classes: int | None = None, temperature: Scheduled = 0.5) -> None:
        super().__init__(temperature)
        self.variables = equal_variables(z_shape, classes)

    def support(self, z_shape: tuple[int, ...]) -> str:
        """One-hot vectors."""
        return words(self.variables)

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """A logit for each class."""
        return sum(self.variables)

    def noise(self, z_shape: tuple[int, ...]) -> Draw:
        """Gumbel's."""
        return Draw(z_shape, "gumbel")

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D) and Gumbel noise (K, B, D) -> Latent."""
        z = self._draw(h, noise, self.variables, options)
        return Latent(z, _log_q(z, h, self.variables), None, None, {"logits": h})

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The likeliest class of each variable."""
        z = corners(h, self.variables)[None]
        return Latent(z, _log_q(z, h, self.variables), None, None, {"logits": h})


class Joint(_Relaxing):
    """q(z|x) of a diagonal Gaussian beside independent categoricals, relaxed while training; numbers come first.

    Dupont, Learning Disentangled Joint Continuous and Discrete Representations, 2018,
    https://arxiv.org/abs/1804.00104, section 3. What :class:`RelaxedCategorical` says of bounds holds here.
    ``aux["gaussian"]`` is (B, 2 N), means and log-variances of N numbers; ``aux["logits"]`` (B, D - N).

    Args:
        z_shape: of a code.
        classes: of each variable; null is one variable that takes half of z_dim.
        temperature: of the relaxation; draws are one-hot vectors at 0.
    """

    gives = frozenset({"log_q", "gaussian", "logits"})
    partner = "joint of the same classes"

    def __init__(
        self, z_shape: tuple[int, ...], *, classes: tuple[int, ...] | None = None, temperature: Scheduled = 0.67
    ) -> None:
        super().__init__(temperature)
        self.variables = unequal_variables(z_shape, classes)
        self.numbers, self.start = z_shape[0] - sum(self.variables), Gaussian()

    def support(self, z_shape: tuple[int, ...]) -> str:
        """Numbers, then one-hot vectors."""
        return words(self.variables, self.numbers)

    def outputs(self, z_shape: tuple[int, ...]) -> int:
        """Means, log-variances, logits."""
        return sum(self.heads(z_shape))

    def heads(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Means, log-variances, logits."""
        return self.numbers, self.numbers, sum(self.variables)

    def forward(self, h: Tensor, noise: Tensor, options: Mapping[str, float] | None = None) -> Latent:
        """h (B, D + N) and standard normal noise (K, B, D) -> Latent."""
        of_numbers, of_classes = noise.tensor_split([self.numbers], -1)
        gaussian, logits = h.tensor_split([2 * self.numbers], -1)
        classes = self._draw(logits, gumbel_of_normal(of_classes), self.variables, options)
        return self._both(self.start(gaussian, of_numbers), classes, gaussian, logits)

    def centre(self, h: Tensor, z_shape: tuple[int, ...]) -> Latent:
        """The mean, and the likeliest class of each variable."""
        gaussian, logits = h.tensor_split([2 * self.numbers], -1)
        classes = corners(logits, self.variables)[None]
        return self._both(self.start.centre(gaussian, (self.numbers,)), classes, gaussian, logits)

    def _both(self, start: Latent, classes: Tensor, gaussian: Tensor, logits: Tensor) -> Latent:
        assert start.log_q is not None
        log_q = start.log_q + _log_q(classes, logits, self.variables)
        return Latent(torch.cat([start.z, classes], -1), log_q, None, None, {"gaussian": gaussian, "logits": logits})
