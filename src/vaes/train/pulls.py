"""How hard each term pulls at the model, and a critic at itself: what the loss is made of, in numbers and words."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaes.objectives import Objective
from vaes.train.listeners import Listener
from vaes.train.noise import parts as parts_of

if TYPE_CHECKING:
    from vaes.train.loop import Training

__all__ = ["Pulls", "measured"]

WON = 0.1
"""A critic's loss as a share of that of one that cannot tell, below which it has won."""
SILENT = 1e-3
"""A term's gradient as a share of the sum of all, below which it does nothing."""
PATIENCE = 2
"""How many times in a row either is seen before it is said."""


class Pulls(Listener):
    """Of each part of the loss, with its weight: ``share.NAME``, its size as a share of the sum of all sizes, and
    ``gradient.NAME``, the norm of its gradient over all of the model's parameters (at the decoder's last layer alone,
    where others look, a rate would have none); of a critic's loss the latter, over the critic's own.

    They are of the step before, taken by another pass under the weights after it, which leaves no trace in the
    training. No pass is made in other steps.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._seen: dict[str, int] = {}

    def at(self, training: "Training", step: int) -> None:
        """Measure, publish, and say what is wrong, once."""
        with training.clock.on("gradients"):
            values, norms = measured(training, step - 1)
        pulling = {name: value for name, value in values.items() if not name.endswith("_loss")}
        total = sum(abs(value) for value in pulling.values())
        found = {f"share.{name}": abs(value) / total if total else 0.0 for name, value in pulling.items()}
        training.publish(step, "train", {**found, **{f"gradient.{name}": norm for name, norm in norms.items()}})
        whole = sum(norms[name] for name in pulling)
        for name, term in training.state.objective.named_terms.items():
            weight = float(training.context(step - 1).weights[name])
            path, keys = training.weighting.keys_of(name, step - 1, training.pixels)
            if term.has_critic:
                low = values[f"{name}_loss"] < WON * term.chance
                self._say(training, f"{name}_loss", low and step > getattr(term, "start", 0), (
                    f"{name}: its critic has won (a loss of {values[f'{name}_loss']:.2g}, where one that cannot tell "
                    f"has {term.chance:.2g}), and teaches little any more; a lower {path}.lr may help"
                    + f", or {path}.lecam" * (getattr(term, "lecam", None) == 0)
                ))  # fmt: skip
            if term.silence:
                self._say(training, name, weight > 0 and norms[name] < SILENT * whole, (
                    f"{name}: {norms[name] / max(whole, 1e-30):.2g} of all gradients is its own: {term.silence}; raise "
                    f"{' or '.join(keys) or 'its weight'}"
                ))  # fmt: skip

    def _say(self, training: "Training", what: str, wrong: bool, text: str) -> None:
        self._seen[what] = self._seen.get(what, 0) + 1 if wrong or self._seen.get(what, 0) >= PATIENCE else 0
        if self._seen[what] == PATIENCE:
            training.say(text)


def measured(training: "Training", step: int) -> tuple[dict[str, float], dict[str, float]]:
    """Of each part of the loss and each critic's: its value, and the norm of its gradient, on the images and noise of a
    step, over all processes."""
    objective, count = training.state.objective, training.settings.accumulate
    x, noise = training.batch(step)
    context = training.context(step)._replace(model_plays=True, critics_play=True)
    held = [buffer.clone() for buffer in objective.buffers()]
    values: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for x_part, noise_part in zip(x.chunk(count), parts_of(objective, noise, count, len(x)), strict=True):
        with training.runtime.autocast():
            out = objective.contributions(x_part, noise_part, context)
        for name, value in out.items():
            own = _gradient(objective, name, value) / count
            values[name] = values.get(name, 0) + value.detach().float() / count
            gradients[name] = gradients[name] + own if name in gradients else own
    with torch.no_grad():
        for buffer, before in zip(objective.buffers(), held, strict=True):
            buffer.copy_(before)
    mean = training.runtime.mean
    norms = torch.stack([mean(gradient).norm() for gradient in gradients.values()])
    told = mean(torch.stack([*values.values()]))
    return dict(zip(values, told.tolist(), strict=True)), dict(zip(gradients, norms.tolist(), strict=True))


def _gradient(objective: Objective, name: str, value: Tensor) -> Tensor:
    """Of one part, with respect to the parameters of its player, flat; 0 where it has none."""
    player = objective.terms[name.removesuffix("_loss")] if name.endswith("_loss") else objective.model
    wanted = [p for p in player.parameters() if p.requires_grad]
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in wanted), device=value.device)
    found = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(wanted, found, strict=True)])
