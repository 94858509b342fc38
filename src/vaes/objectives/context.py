"""What bounds and terms are told beside the trace."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from vaes.model import VAE

__all__ = ["Context", "Drawn", "Noise"]


class Noise(NamedTuple):
    """All the randomness of one step, each of the law that its part wants."""

    posterior: Tensor  # (K, B, ...) for q(z|x)
    prior: Tensor  # (B, ...) for p(z)
    terms: Mapping[str, Tensor] = {}  # (B, ...), or (...) where it is shared; of the terms that want some


class Drawn(NamedTuple):
    """What was drawn for one term."""

    prior_z: Tensor  # (B, Z...) codes from the prior
    noise: Tensor | None = None  # its own, as Term.noise wants it
    images: Tensor | None = None  # (2, B, C, H, W), as Term.draws_images says
    model: VAE | None = None  # as Term.reads_model says


class Context(NamedTuple):
    """What a step is part of. Tensors and numbers alone, so that it goes through DDP, compile and vmap."""

    weights: Mapping[str, float | Tensor]
    """Of the bound (``rate``) and of the terms, by name."""
    n: int = 0
    """Training images; 0 where they are not known, which a term that needs them refuses."""
    step: int = 0
    n_steps: int = 1
    options: Mapping[str, Mapping[str, float | Tensor]] = {}
    """Scheduled options of parts that have another value now than their constructor was given (the last step's): part
    (``posterior``, ``bound``, a term's name) -> option -> value."""
    own: Mapping[str, float | Tensor] = {}
    """Those of the bound or term that is called."""
    model_plays: bool = True
    """Whether the model's loss is descended in this step, or only told."""
    critics_play: bool = True
    """Whether critics' losses are."""

    def of(self, part: str) -> "Context":
        """The context as a bound or term of this name sees it."""
        return self._replace(own=self.options[part]) if part in self.options else self
