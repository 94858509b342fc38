"""The noise of a step and of a validation, as functions of (seed, step): nothing to save."""

import torch
from torch import Tensor

from vaes.objectives import Noise, Objective
from vaes.randomness import Use, draw

__all__ = ["of_block", "of_step", "parts", "rows"]

_TRAINING = (Use.POSTERIOR, Use.PRIOR, Use.TERM)
_VALIDATION = (Use.VALIDATION, Use.VALIDATION_PRIOR, Use.VALIDATION_TERM)


def of_step(objective: Objective, batch: int, seed: int, step: int, device: torch.device) -> Noise:
    """The noise of a whole batch, so that any number of processes meets the same numbers."""
    return _drawn(objective, batch, seed, _TRAINING, step, device)


def of_block(objective: Objective, size: int, seed: int, number: int) -> Noise:
    """The noise of a block of validation images, on the CPU."""
    return _drawn(objective, size, seed, _VALIDATION, number, torch.device("cpu"))


def rows(objective: Objective, noise: Noise, mine: slice, device: torch.device | None = None) -> Noise:
    """The noise of some of the images; what terms share they have whole."""

    def there(x: Tensor) -> Tensor:
        return x if device is None else x.to(device)

    shared = _shared(objective)
    terms = {name: there(x if name in shared else x[mine]) for name, x in noise.terms.items()}
    return Noise(there(noise.posterior[:, mine]), there(noise.prior[mine]), terms)


def parts(objective: Objective, noise: Noise, n: int, images: int) -> list[Noise]:
    """The noise of n equal parts of ``images`` images."""
    size = images // n
    return [rows(objective, noise, slice(i * size, (i + 1) * size)) for i in range(n)]


def _shared(objective: Objective) -> set[str]:
    wanted = {name: term.noise(objective.model.z_shape) for name, term in objective.named_terms.items()}
    return {name for name, one in wanted.items() if one is not None and one.shared}


def _drawn(
    objective: Objective, images: int, seed: int, uses: tuple[Use, Use, Use], index: int, device: torch.device
) -> Noise:
    model, terms = objective.model, {}
    for position, (name, term) in enumerate(objective.named_terms.items()):
        wanted = term.noise(model.z_shape)
        if wanted is not None:
            lead = () if wanted.shared else (images,)
            terms[name] = draw(wanted, lead, seed, uses[2], index, device, part=position)
    return Noise(
        draw(model.noise, (objective.bound.samples, images), seed, uses[0], index, device),
        draw(model.prior.noise, (images,), seed, uses[1], index, device),
        terms,
    )
