"""What happens beside the arithmetic of a training: lines, validation, pictures, checkpoints, and what a user adds.

The protocol is :class:`Listener`; the training calls its listeners in their order, the user's before the one that
saves.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from PIL import Image

from vaes.errors import UserError
from vaes.randomness import Use, draw

if TYPE_CHECKING:
    from vaes.train.fidelity import Fidelity
    from vaes.train.loop import Training

__all__ = ["Lines", "Listener", "Pictures", "Planes", "Saving", "Validation"]


class Listener:
    """A callback: subclass it, override what you need, and give it to ``Experiment.fit(..., callbacks=[...])``.

    ``training`` has ``state`` (``state.model``, ``state.step``, ``state.best``), ``settings``, ``splits``, ``folder``,
    ``runtime`` (``runtime.is_main``: every method runs in every process), and ``stop(reason)``, which ends the training
    after the step, saved and evaluated as if it had been the last. What a listener raises ends the training; a
    checkpoint that falls due at that step is saved first.
    """

    every: int = 0
    """Steps between two calls of :meth:`at`, which is called after the last step too; 0 for never."""

    def due(self, training: "Training", step: int) -> bool:
        """Whether :meth:`at` is called after this step."""
        return self.every > 0 and (step % self.every == 0 or training.last)

    def start(self, training: "Training") -> None:
        """Before the first step; the run folder is there."""

    def stepped(self, training: "Training", step: int) -> None:
        """After each of ``step`` steps: for what does not read a number off the device, which would wait for it."""

    def at(self, training: "Training", step: int) -> None:
        """After a step that is due."""

    def metrics(self, training: "Training", step: int, split: str, values: Mapping[str, float]) -> None:
        """Numbers were taken: means of the terms since the last time (``split`` train) or over all validation images
        (valid), nats per image, coefficients and the learning rate."""

    def picture(self, training: "Training", step: int, image: Image.Image) -> None:
        """A picture was drawn, in the first process."""

    def said(self, training: "Training", text: str) -> None:
        """A line for people."""

    def end(self, training: "Training") -> None:
        """After the last step, or an error, before the run folder is left."""


class Lines(Listener):
    """The means of all terms since the last line."""

    def __init__(self, every: int) -> None:
        self.every = every

    def start(self, training: "Training") -> None:
        """The first line's speed is from here on."""
        self._since = training.state.step, 0.0

    def at(self, training: "Training", step: int) -> None:
        """Read the sums off the device and publish their means."""
        seconds = training.clock.read("training")
        means, skipped = training.state.means()
        values: dict[str, float] = {}
        if means:
            stacked = training.runtime.mean(torch.stack(list(means.values())))
            values = dict(zip(means, stacked.tolist(), strict=True))
        if training.state.skips:
            values["skipped"] = skipped
        coefficients = training.weighting.coefficients(step - 1)
        values |= {name: value for name, value in coefficients.items() if value is not None}
        values["lr"] = training.settings.lr_schedule(step - 1)
        before, since = self._since
        speed = (step - before) * training.settings.batch_size / max(seconds - since, 1e-9)
        self._since = step, seconds
        training.publish(step, "train", values, speed)


class Validation(Listener):
    """Passes over the validation images: the best step is kept, and ``patience`` of them without a better one end the
    training. What ``fidelity`` measures stands beside the numbers of each."""

    def __init__(self, every: int, patience: int | None, fidelity: "Fidelity | None" = None) -> None:
        self.every, self._patience, self._fidelity = every, patience, fidelity

    def start(self, training: "Training") -> None:
        """A training that had ended is not taken up again."""
        self._judge(training)
        if self._fidelity is not None and not training.last:
            self._fidelity.start(training)

    def at(self, training: "Training", step: int) -> None:
        """Validate under the weights of the training's last step, whatever the schedules give now, so that losses
        compare."""
        found = training.validate(training.splits.valid)
        if "loss" in found and not training.state.objective.unranked:
            training.save_wanted |= training.state.judge(found["loss"].value)
        values = {name: estimate.value for name, estimate in found.items()}
        if self._fidelity is not None:
            values |= self._fidelity.measure(training)
        training.publish(step, "valid", values)
        if worry := training.state.model.posterior.worry():
            training.say(worry)
        self._judge(training)

    def _judge(self, training: "Training") -> None:
        best, stale = training.state.best, training.state.stale
        if self._patience is not None and stale >= self._patience:
            since = f"the best is that of step {best.step}" if best else "none of them gave a number"
            training.stop(f"{stale} validations brought no lower loss (train.patience {self._patience}); {since}")


class Pictures(Listener):
    """Reconstructions and samples, from the same images and noise every time."""

    def __init__(self, every: int) -> None:
        self.every = every

    def at(self, training: "Training", step: int) -> None:
        """Draw in the first process."""
        if not training.runtime.is_main:
            return
        from vaes.view import training_sheet  # matplotlib comes with it: not before the first step

        valid, state = training.splits.valid, training.state
        with training.clock.on("pictures"), state.averaged():
            originals = valid.read(torch.arange(min(16, len(valid))))
            noise = draw(state.model.prior.noise, (32,), training.seed, Use.PICTURES, 0)
            image = training_sheet(state.model, originals, noise, caption=f"step {step}")
            for listener in training.listeners:
                listener.picture(training, step, image)


class Planes(Listener):
    """The latent plane as it forms, from the beginning on, where codes are two real numbers."""

    def due(self, training: "Training", step: int) -> bool:
        """At intervals of its own."""
        return training.settings.shows_plane(step)

    def start(self, training: "Training") -> None:
        """What the plane is before anything is learned."""
        if not training.state.step and self.due(training, 0):
            self.at(training, 0)

    def at(self, training: "Training", step: int) -> None:
        """Keep it, in the first process."""
        from vaes.view import form, forms, write_plane

        valid, model = training.splits.valid, training.state.model
        if not training.runtime.is_main or not forms(model) or not len(valid):
            return
        with training.clock.on("pictures"), training.state.averaged():
            try:
                write_plane(form(model, valid), training.folder, step)
            except UserError as error:  # a place without an image is no reason to end a training
                training.say(f"step {step:,}: the latent plane is not kept: {error}")


class Saving(Listener):
    """Checkpoints: at intervals, after the last step, and where another listener wants one (the best)."""

    def __init__(self, every: int) -> None:
        self.every = every

    def due(self, training: "Training", step: int) -> bool:
        """The last step is always saved."""
        return training.save_wanted or training.last or super().due(training, step)

    def at(self, training: "Training", step: int) -> None:
        """Copy what is saved, and let the writer's thread write it."""
        training.save_wanted = False
        training.save()
