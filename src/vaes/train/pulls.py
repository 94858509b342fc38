"""How hard each term pulls at the model, and a critic at itself: what the loss is made of, in numbers and words."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vaes.train.listeners import Listener
from vaes.train.noise import parts as parts_of

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Measured", "Pulls", "measured"]

WON = 0.1
"""A critic's doubt below which it has won."""
SILENT = 1e-3
"""A term's gradient as a share of the sum of all, below which it does nothing."""
PATIENCE = 2
"""How many times in a row either is seen before it is said."""


class Measured(NamedTuple):
    """Of a step, over all processes."""

    values: dict[str, float]  # of each part of the loss, with its weight
    norms: dict[str, float]  # of its gradient over all of the model's parameters
    critics: dict[str, float]  # term -> the norm of its critic's gradient over the critic's own
    doubts: dict[str, float]  # term -> its critic's judgement as a share of one's that cannot tell


class Pulls(Listener):
    """Of each part of the loss, with its weight: ``share.NAME``, its size as a share of the sum of all sizes, and
    ``gradient.NAME``, the norm of its gradient over all of the model's parameters (at the decoder's last layer alone,
    where others look, a rate would have none). Of each critic: ``gradient.NAME_loss`` over its own parameters, and
    ``doubt.NAME``, its loss, but for what regularises it, over that of one that cannot tell.

    They are of the step before, taken by another pass under the weights after it, which leaves no trace in the
    training. No pass is made in other steps.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._seen: dict[str, int] = {}

    def at(self, training: "Training", step: int) -> None:
        """Measure, publish, and say what is wrong, once."""
        with training.clock.on("gradients"), training.memory():
            found = measured(training, step - 1)
        total = sum(abs(value) for value in found.values.values())
        training.publish(step, "train", {
            **{f"share.{name}": abs(value) / total if total else 0.0 for name, value in found.values.items()},
            **{f"gradient.{name}": norm for name, norm in found.norms.items()},
            **{f"gradient.{name}_loss": norm for name, norm in found.critics.items()},
            **{f"doubt.{name}": doubt for name, doubt in found.doubts.items()},
        })  # fmt: skip
        for name, text in self._faults(training, step - 1, found):
            self._seen[name] = self._seen.get(name, 0) + 1 if text or self._seen.get(name, 0) >= PATIENCE else 0
            if self._seen[name] == PATIENCE:
                training.say(f"{name}: {text}")

    def _faults(self, training: "Training", step: int, found: Measured) -> Iterator[tuple[str, str]]:
        """Each term, and what is wrong with it, empty where nothing is. One that does not count yet can do no wrong."""
        whole = sum(found.norms.values())
        weights = training.context(step).weights
        for name, term in training.state.objective.named_terms.items():
            path, keys = training.weighting.keys_of(name, step, training.pixels)
            text = ""
            if term.has_critic and weights[name] > 0 and found.doubts[name] < WON:
                text = (
                    f"its critic has won (its loss is {found.doubts[name]:.2g} of that of one that cannot tell), and "
                    f"teaches little any more; a lower {path}.lr may help"
                    + f", or {path}.lecam"
                    * (getattr(term, "lecam", None) == 0)
                )
            if term.silence and weights[name] > 0 and found.norms[name] <= SILENT * whole:
                text = (
                    f"{found.norms[name] / whole if whole else 0:.2g} of all gradients is its own: {term.silence}; "
                    f"raise {' or '.join(keys) or 'its weight'}"
                )
            yield name, text


def measured(training: "Training", step: int) -> Measured:
    """On the images and noise of a step."""
    objective, count = training.state.objective, training.settings.accumulate
    x, noise = training.batch(step)
    context = training.context(step)._replace(model_plays=True, critics_play=True)
    shares = [*zip(x.chunk(count), parts_of(objective, noise, count, len(x)), strict=True)]
    told: dict[tuple[str, str], Tensor] = {}
    sums: dict[tuple[str, str], Tensor] = {}
    norms: dict[tuple[str, str], Tensor] = {}
    with _restored(objective):
        for number, (x_share, noise_share) in enumerate(shares, 1):
            with training.runtime.autocast():
                out = objective.contributions(x_share, noise_share, context)
            players: dict[tuple[str, str], tuple[Tensor, nn.Module]] = {
                ("parts", name): (value, objective.model) for name, value in out.parts.items()
            }
            players |= {("critics", name): (value, objective.terms[name]) for name, value in out.critics.items()}
            for key, (value, player) in players.items():
                sums[key] = sums.get(key, 0) + _gradient(value, player) / count
                if number == count:  # one part's gradient at a time is as large as the model
                    norms[key] = training.runtime.mean(sums.pop(key)).norm()
            values = {("values", name): value for name, value in out.parts.items()}
            for key, value in (values | {("doubts", name): value for name, value in out.doubts.items()}).items():
                told[key] = told.get(key, 0) + value.detach().float() / count
    numbers = torch.stack([*norms.values(), *training.runtime.mean(torch.stack([*told.values()]))]).tolist()
    flat = dict(zip([*norms, *told], numbers, strict=True))
    fields = ("values", "parts", "critics", "doubts")
    return Measured(*({name: value for (kind, name), value in flat.items() if kind == field} for field in fields))


@contextlib.contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Inside, a forward pass may move buffers; afterwards they are as they were."""
    held = [buffer.clone() for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(module.buffers(), held, strict=True):
                buffer.copy_(before)


def _gradient(value: Tensor, player: nn.Module) -> Tensor:
    """With respect to the parameters of a player, flat; 0 where it has none."""
    wanted = [p for p in player.parameters() if p.requires_grad]
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in wanted), device=value.device)
    found = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(wanted, found, strict=True)])
