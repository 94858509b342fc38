"""The training loop: one for all methods."""

import contextlib
import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaes import files
from vaes.data import ImageSet, Splits, to_float
from vaes.errors import Stopped, UserError
from vaes.memory import keep_freed_memory
from vaes.model import refuse_device
from vaes.objectives import Context, Noise, Objective
from vaes.train import checkpoint
from vaes.train.fits import UNRANKED, enough_memory, left_out, refuse_misfit
from vaes.train.folder import open_run
from vaes.train.listeners import Listener, Saving
from vaes.train.mirror import refuse_other
from vaes.train.noise import of_step, rows
from vaes.train.own_listeners import own_listeners
from vaes.train.record import Clock, Record, metrics_document, metrics_table
from vaes.train.runtime import Runtime
from vaes.train.settings import Settings
from vaes.train.source import Source
from vaes.train.state import TrainState
from vaes.train.step import Asked, advance
from vaes.train.stop import Stop
from vaes.train.trackers import refuse_missing, tracked
from vaes.train.validate import Estimate, validate
from vaes.train.weighting import Weighting
from vaes.train.writer import Writer

__all__ = ["Training", "begun", "fit"]

AGREE_EVERY = 10
"""Over several processes with accelerators, the steps between two agreements on whether one of them was asked to stop,
for which the host waits; on CPUs they agree at every step."""


def fit(
    objective: Objective,
    weighting: Weighting,
    splits: Splits,
    settings: Settings,
    run: Path | str,
    *,
    seed: int = 0,
    flip: bool = False,
    config: str = "",
    resume: checkpoint.Checkpoint | None = None,
    within: bool = False,
    init: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
    callbacks: Sequence[Listener] = (),
) -> dict[str, Any]:
    """Train, and leave checkpoints, metrics and pictures in the folder ``run``.

    :meth:`vaes.Experiment.fit` makes all the arguments, and a run that can be loaded again; this is for parts that no
    experiment can name.

    Args:
        objective: model, bound and terms; trained in place.
        weighting: the weights of bound and terms at each step.
        splits: images to train on, to validate on while training, and to test on at the end.
        settings: lengths, intervals and the optimiser's options.
        run: the run folder; it is made here, once everything else is known to fit, and must not hold another run.
        seed: of the order of images and of all noise.
        flip: mirror each training image with probability 1/2.
        config: the configuration as text, for ``config.yaml`` and the metadata of the weights.
        resume: go on from this checkpoint.
        within: enter a run folder that is there already, to go on in it.
        init: the model comes with weights that its seed does not draw, and this is said of where they are from.
        runtime: where to; by default the accelerator that there is, or the CPU.
        callbacks: see :class:`vaes.Listener`.

    Returns:
        What ``metrics.json`` holds: the test numbers, in nats per image, of the last step and of the best.

    Raises:
        UserError: a batch that does not divide, a run folder that exists, a loss that is no number, no memory left.
        Stopped: SIGTERM or Ctrl-C came; the training was saved first.
    """
    with begun(
        objective, weighting, splits, settings, run,
        seed=seed, flip=flip, config=config, resume=resume, within=within, init=init, runtime=runtime,
    ) as training:  # fmt: skip
        return training.run(callbacks)


@contextlib.contextmanager
def begun(
    objective: Objective,
    weighting: Weighting,
    splits: Splits,
    settings: Settings,
    run: Path | str,
    *,
    seed: int = 0,
    flip: bool = False,
    config: str = "",
    resume: checkpoint.Checkpoint | None = None,
    within: bool = False,
    init: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
) -> Iterator["Training"]:
    """What :func:`fit` runs, inside its run folder and before its first step."""
    with runtime or Runtime(precision=settings.precision) as runtime:
        refuse_device(objective.model, runtime.device)
        state = TrainState(objective.to(runtime.device), settings)
        training = Training(state, weighting, splits, Path(run), seed, runtime, flip=flip, config=config)
        if resume is not None:
            state.load_state_dict(resume, branch=not within)
        if (mirror := settings.mirror) is not None:
            runtime.from_first(lambda: refuse_other(mirror, training.folder, state.step if within else None))
        with training.source:
            training.source.begin(resume, branch=not within)
            given = not within and (resume is not None or init is not None)
            carried = training.source.state() if given else {}
            entered = open_run(
                training.folder,
                config,
                resume=state.step if within else None,
                first=(lambda: checkpoint.write(training.folder, training.taken(carried, init))) if given else None,
            )
            with entered if runtime.is_main else contextlib.nullcontext():
                yield training


class Training:
    """A training that is under way: what listeners see of it.

    Attributes:
        state: what is trained.
        splits, settings, weighting, seed, folder, runtime: as they were given.
        pixels: C * H * W of an image.
        clock: seconds spent, by activity.
        save_wanted: set it for a checkpoint of the present step.
        listeners: all of them, in the order in which they are called.
        config: the configuration as text.
        source: where its batches come from.
        begun: the step that it began with.
        final: what ``metrics.json`` holds, once the training has come to its end.
    """

    def __init__(
        self,
        state: TrainState,
        weighting: Weighting,
        splits: Splits,
        folder: Path,
        seed: int,
        runtime: Runtime,
        *,
        flip: bool,
        config: str,
    ) -> None:
        self.state, self.settings, self.weighting, self.folder = state, state.settings, weighting, folder
        self.seed, self.runtime, self._flip, self.config = seed, runtime, flip, config
        self._freed_memory_kept = keep_freed_memory()
        self.splits = dataclasses.replace(splits, train=splits.train.to(runtime.device))
        self.source = Source(self.splits, self.settings.batch_size, seed, runtime)
        self._micro = self.source.size // self.settings.accumulate
        if self.source.size % self.settings.accumulate:
            raise UserError(
                f"train.accumulate: {self.settings.accumulate} does not divide the {self.source.size} images of a step"
            )
        refuse_misfit(state.objective, self.settings, splits, self._micro)
        refuse_missing(self.settings.trackers)
        self._left_out = left_out(state.objective, splits)
        if state.objective.unranked and self.settings.patience is not None:
            raise UserError(f"train.patience: {UNRANKED.format(', '.join(state.objective.unranked))}; leave it out")
        if self._left_out and self.settings.patience is not None and len(splits.valid) < state.objective.least_images:
            raise UserError(f"train.patience: {self._left_out}; take more validation images, or leave patience out")
        self.pixels = math.prod(splits.train.shape)
        self.clock, self._writer = Clock(), Writer()
        self.save_wanted, self.begun = False, 0
        self.speed: float | None = None
        self.final: dict[str, Any] | None = None
        self._why: str | None = None
        self.listeners: list[Listener] = []

    @property
    def last(self) -> bool:
        """Whether the present step is the last."""
        return self._why is not None or self.state.step >= self.settings.n_steps

    @property
    def units(self) -> dict[str, str]:
        """The units of ``mse`` and of terms; other numbers are in nats per image."""
        low, high = self.state.model.value_range
        terms = {name: str(term.unit) for name, term in self.state.objective.named_terms.items()}
        return {"mse": f"pixels [{low:g}, {high:g}]", **terms, **self.state.model.posterior.tells}

    def stop(self, reason: str) -> None:
        """End the training after this step, as if it had been the last."""
        self._why = self._why or reason

    def run(self, callbacks: Sequence[Listener] = ()) -> dict[str, Any]:
        """Train to the end; returns what ``metrics.json`` holds."""
        s, state = self.settings, self.state
        if s.compile:
            state.objective.compile(mode="reduce-overhead" if self.runtime.device.type == "cuda" else "default")
        spread = self.runtime.spread(state.objective, by_turns=s.play == "alternate")
        steps = self.steps(Stop(), callbacks)
        for asked in steps:
            try:
                advance(state, spread, *asked, self.runtime)
            except BaseException as error:
                steps.throw(error)
        assert self.final is not None
        return self.final

    def steps(
        self, stop: AbstractContextManager[Stop], callbacks: Sequence[Listener] = ()
    ) -> Generator[Asked, None, None]:
        """The training without its arithmetic: what is asked of each step, which is to be taken before the next is
        asked for. What goes wrong in it is to be thrown in."""
        s, state = self.settings, self.state
        written: list[Listener] = []
        if self.runtime.is_main:
            written = [Record(self.folder, state.step, board="tensorboard" in s.trackers), *tracked(s.trackers)]
        self.listeners = [*written, *own_listeners(self), *callbacks, Saving(s.save_freq)]
        self.begun = state.step
        if self.begun and self.runtime.is_main:  # a training that was killed may have left one too many
            checkpoint.thin_out(self.folder, s.keep, self._best)
        try:
            self._tell("start")
            self.say(self._introduction())
            for note in self.source.notes:
                self.say(note)
            for name, term in state.objective.named_terms.items():
                if term.note:
                    self.say(f"{name}: {term.note}")
            if self._left_out:
                self.say(self._left_out)
            if state.objective.unranked and self.settings.eval_freq:
                self.say(f"{UNRANKED.format(', '.join(state.objective.unranked))}; the last checkpoint counts")
            with stop as signals, self._writer:
                while not self.last:
                    with self.memory():
                        yield self.asked(state.step, signals)
                    self._after(signals)
                self._finish(signals)
        finally:
            self._tell("end")

    def asked(self, step: int, stop: Stop | None = None) -> Asked:
        """This process's images of a step, their noise, and its context."""
        return Asked(*self.batch(step, stop), self.context(step))

    def publish(self, step: int, split: str, values: Mapping[str, float], speed: float | None = None) -> None:
        """Give numbers to all listeners; ``speed`` is in images per second."""
        self.speed = speed
        self._tell("metrics", step, split, values)

    def say(self, text: str) -> None:
        """Give a line for people to all listeners."""
        self._tell("said", text)

    def validate(self, images: ImageSet, stop: Stop | None = None) -> dict[str, Estimate]:
        """All images of a split, under the weights that the last step of the training has, by all processes."""
        with self.clock.on("validation"), self.state.averaged(), self.memory():
            context = self.context(self.settings.n_steps - 1)
            objective, size, runtime = self.state.objective, self._micro, self.runtime
            return validate(objective, images, context, seed=self.seed, batch_size=size, runtime=runtime, stop=stop)

    def save(self) -> None:
        """Write a checkpoint of this step, in a thread, once the one before it is written."""
        carried = self.source.state()  # by all processes
        if not self.runtime.is_main:
            return
        with self.clock.on("saving"):
            taken = self.taken(carried)
            for listener in self.listeners:
                if isinstance(listener, Record):
                    listener.sync()
            best = self._best
            self._writer.start(lambda: self._write(taken, best))

    def taken(self, carried: Mapping[str, Tensor], init: Mapping[str, Any] | None = None) -> checkpoint.Checkpoint:
        """The training as it stands, and what its source carries; ``init`` says where its first weights are from."""
        about = {"config": self.config, "image_shape": list(self.splits.train.shape)}
        taken = self.state.state_dict(about if init is None else {**about, "init": dict(init)})
        taken.training.update(carried)
        return taken

    @property
    def _best(self) -> int | None:
        return self.state.best.step if self.state.best else None

    def _write(self, taken: checkpoint.Checkpoint, best: int | None) -> None:
        checkpoint.write(self.folder, taken)
        checkpoint.thin_out(self.folder, self.settings.keep, best)

    def _tell(self, event: str, *what: Any) -> None:
        for listener in self.listeners:
            getattr(listener, event)(self, *what)

    def batch(self, step: int, stop: Stop | None = None) -> tuple[Tensor, Noise]:
        """This process's images of a step (B, C, H, W), in the model's value range, and the noise for them."""
        mine = slice(self.source.start, self.source.start + self.source.size)
        whole = of_step(self.state.objective, self.settings.batch_size, self.seed, step, self.runtime.device)
        x = to_float(self.source.read(self, step, self._flip, stop), self.state.model.value_range)
        return x, rows(self.state.objective, whole, mine)

    def context(self, step: int) -> Context:
        """What the objective is told of a step."""
        context = self.weighting.context(step, self.pixels, self.splits.count, self.settings.n_steps)
        model, critics = self.settings.plays(step)
        return context._replace(model_plays=model, critics_play=critics)

    def _after(self, stop: Stop) -> None:
        """What falls due after a step."""
        done = self.state.step
        signal = self._agreed(stop, done)
        self._writer.check()
        self._tell("stepped", done)
        if signal or any(listener.due(self, done) for listener in self.listeners):
            self.refuse_non_finite(done)
            *others, saving = self.listeners
            try:
                for listener in others:
                    if listener.due(self, done):
                        listener.at(self, done)
            except Exception:
                if signal or saving.due(self, done):
                    self.save()
                raise
            if signal or saving.due(self, done):
                saving.at(self, done)
        if signal or self.last:
            self.saved()
        if signal and not self.last:
            raise Stopped(f"stopped after step {done} and saved; go on with --resume latest", 128 + signal)

    def _agreed(self, stop: Stop, done: int) -> int:
        if self.runtime.world > 1 and done % AGREE_EVERY and self.runtime.device.type != "cpu":
            return 0
        mine = stop.signal or 0
        if self.runtime.world == 1:
            return mine
        return int(self.runtime.greatest(torch.tensor(mine, device=self.runtime.device)))

    def refuse_non_finite(self, done: int) -> None:
        """UserError where a loss or a parameter is no number, before anything of it is saved."""
        state = self.state
        bad = int(self.runtime.greatest(state.bad_step))
        # A finite loss can have a gradient that is not.
        spoilt = [n for n, p in state.objective.named_parameters() if not torch.isfinite(p).all()]
        if bad < 0 and not spoilt:
            return
        terms = ", ".join(f"{name} {value.item():.4g}" for name, value in state.sums.items())
        self._writer.wait()
        kept = checkpoint.checkpoints(self.folder)
        raise UserError(
            f"step {bad + 1 if bad >= 0 else done}: the loss or a parameter is not a number (sums since the last line: "
            f"{terms}; first parameter affected: {spoilt[0] if spoilt else 'none yet'}); "
            f"{f'the last good checkpoint is {kept[0]}' if kept else 'no checkpoint was saved yet'}; "
            "a lower train.lr or train.clip_grad may help"
        )

    def memory(self) -> AbstractContextManager[None]:
        """Inside, having no memory left is a sentence."""
        return enough_memory(self.runtime.device, self._micro, self.settings.accumulate)

    def saved(self) -> None:
        """Wait, all processes, until the last checkpoint is on the disk: a launcher ends the others with the first."""
        with self.clock.on("saving"):
            self._writer.wait()
            self._writer.check()
        self.runtime.wait()

    def _finish(self, stop: Stop) -> None:
        """The numbers of the last step, which is saved, and of the best."""
        state = self.state
        if self._why:
            self.say(f"ended after step {state.step}: {self._why}")
        found = {"last": (state.step, self._numbers(stop))}
        if state.best is not None and state.best.step != state.step:
            with self._best_weights(state.best.step) as there:
                if there:
                    found["best"] = (state.best.step, self._numbers(stop))
        elif state.best is not None:
            found["best"] = found["last"]
        metrics = self.final = metrics_document(found, self.seed, self.units)
        if self.runtime.is_main:
            files.write_json(self.folder / "metrics.json", metrics)
            files.write_text(self.folder / "metrics.txt", metrics_table(metrics) + "\n")
        self.say(self._accounts())
        self.runtime.wait()

    def _numbers(self, stop: Stop) -> dict[str, dict[str, Estimate]]:
        return {split: self.validate(getattr(self.splits, split), stop) for split in ("valid", "test")}

    @contextlib.contextmanager
    def _best_weights(self, step: int) -> Any:
        """Inside, the model has the weights of another checkpoint of this run, if it is whole."""
        model, average = self.state.model, self.state.average
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.state.average = None  # what is in the checkpoint is the average
        there = torch.zeros((), device=self.runtime.device)
        try:
            if self.runtime.is_main and (taken := checkpoint.whole(self.folder, step)) is not None:
                checkpoint.load_weights(model, taken, f"checkpoint of step {step}")
                there += 1
            there = self.runtime.greatest(there)
            self.runtime.copy_from_first(model.state_dict().values())
            yield bool(there)
        finally:
            model.load_state_dict(own)
            self.state.average = average

    def _introduction(self) -> str:
        s, device, world, threads = self.settings, self.runtime.device, self.runtime.world, torch.get_num_threads()
        parameters = sum(p.numel() for p in self.state.model.parameters())
        choices = [
            s.optimizer,
            self.runtime.precision,
            f"images on {self.splits.train.device}",
            *(["compiled"] if s.compile else []),
            *([f"{threads} thread{'s' * (threads > 1)}"] if device.type == "cpu" else []),
            *(["freed memory kept"] if self._freed_memory_kept and device.type == "cpu" else []),
            *(["training images mirrored at random (data.flip)"] if self._flip else []),
        ]
        return (
            f"training{f' from step {self.state.step}' if self.state.step else ''} to step {s.n_steps}: "
            f"{self.source.words} of {'x'.join(map(str, self.splits.train.shape))}, {parameters:,} "
            f"parameters, {world} process{'es' * (world > 1)} on {device}; {', '.join(choices)}"
        )

    def _accounts(self) -> str:
        training = self.clock.read("training")
        images = (self.state.step - self.begun) * self.settings.batch_size
        rest = ", ".join(f"{name} {took:.1f} s" for name, took in self.clock.seconds.items() if name != "training")
        skipped = int(self.state.skips.counts[2]) if self.state.skips else 0
        return (
            f"{images:,} images in {training:.1f} s of training: {images / max(training, 1e-9):,.0f} images/s; {rest}"
            + f"; {skipped} steps whose loss or gradient was no number were skipped" * bool(skipped)
        )
