"""The training loop: one for all methods."""

import contextlib
import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from vaes import files
from vaes.data import Batches, Splits, to_float
from vaes.errors import Stopped, UserError
from vaes.memory import keep_freed_memory
from vaes.objectives import Noise, Objective
from vaes.randomness import Use, normal
from vaes.train import checkpoint
from vaes.train.average import Average
from vaes.train.folder import open_run
from vaes.train.muon import Muon
from vaes.train.processes import join
from vaes.train.record import Clock, Record, Silent
from vaes.train.settings import Settings
from vaes.train.skips import Skips, restored
from vaes.train.stop import Stop
from vaes.train.validate import Estimate, validate
from vaes.train.weighting import Weighting
from vaes.train.writer import Writer

__all__ = ["fit"]

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
) -> dict[str, Any]:
    """Train, and leave checkpoints, metrics and pictures in the folder ``run``.

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

    Returns:
        What ``metrics.json`` holds: the test numbers, in nats per image.

    Raises:
        UserError: a batch that does not divide, a run folder that exists, a loss that is no number.
        Stopped: SIGTERM or Ctrl-C came; the training was saved first.
    """
    return _Training(objective, weighting, splits, settings, Path(run), seed, flip, config, resume, within).run()


class _Training:
    def __init__(
        self,
        objective: Objective,
        weighting: Weighting,
        splits: Splits,
        settings: Settings,
        run: Path,
        seed: int,
        flip: bool,
        config: str,
        resume: checkpoint.Checkpoint | None,
        within: bool,
    ) -> None:
        self.settings, self.weighting, self.folder = settings, weighting, run
        self.seed, self.flip, self.config = seed, flip, config
        kept = keep_freed_memory()
        join()
        precision = _precision(settings)
        # Accelerate keeps the first precision of a process for all that follow, so it is told none.
        self.accelerator = Accelerator(mixed_precision="no")
        device = self.accelerator.device
        self.autocast = functools.partial(
            torch.autocast, device.type, dtype=torch.bfloat16, enabled=precision == "bf16"
        )
        self.objective = objective.to(device)
        self.model = objective.model
        self.splits = Splits(splits.train.to(device), splits.valid, splits.test)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.batches = Batches(self.splits.train, settings.batch_size, seed, rank, world)
        if self.batches.size % settings.accumulate:
            raise UserError(
                f"train.accumulate: {settings.accumulate} does not divide the {self.batches.size} images of a step"
            )
        _refuse_lone_images(objective, self.batches.size // settings.accumulate)
        self.pixels = math.prod(splits.train.shape)
        self.start = resume.step if resume else 0
        self.within = within
        optimizer = _optimizer(objective, settings)
        self.sums: dict[str, Tensor] = {}
        self.summed = 0
        self.best: tuple[int, float] | None = None
        self.average = Average(self.model, settings.ema) if settings.ema is not None else None
        self.skips = Skips(settings.skip_non_finite, objective, optimizer, device) if settings.skip_non_finite else None
        if resume:
            self._restore(resume, optimizer)
        self.optimizer = optimizer
        # Both ways, because cuDNN's own default is to round, and an earlier training may have asked for the other.
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        if settings.compile:
            objective.compile(mode="reduce-overhead" if device.type == "cuda" else "default")
        self.choices = [
            settings.optimizer,
            precision,
            f"images on {self.splits.train.device}",
            *(["compiled"] if settings.compile else []),
            *([f"{torch.get_num_threads()} threads"] if device.type == "cpu" else []),
            *(["freed memory kept"] if kept and device.type == "cpu" else []),
        ]
        self.prepared, self.stepper = self.accelerator.prepare(objective, optimizer)
        self.bad_step = torch.full((), -1, device=device)
        self.clock = Clock()
        self.printed = (self.start, 0.0)
        self.writer = Writer()

    def run(self) -> dict[str, Any]:
        main = self.accelerator.is_main_process
        entered = open_run(self.folder, self.config, resume=self.start if self.within else None)
        with entered if main else contextlib.nullcontext():
            self.record: Record | Silent = Record(self.folder, self.start, self.settings.n_steps) if main else Silent()
            try:
                self.record.say(self._introduction())
                with Stop() as stop, self.writer:
                    for step in range(self.start, self.settings.n_steps):
                        self._step(step)
                        self._after(step + 1, stop)
                return self._finish()
            finally:
                self.record.close()

    def _step(self, step: int) -> None:
        """The optimiser step with index ``step``: nothing in it waits for the device."""
        lr = self.settings.lr_schedule(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        weights = self.weighting(step, self.pixels)
        x = to_float(self.batches.read(step, self.flip), self.model.value_range)
        noise = self._noise(step)
        before = dict(self.sums)
        if self.skips:
            self.skips.begin()
        parts, finite = self.settings.accumulate, torch.ones_like(self.bad_step, dtype=torch.bool)
        for part, (x_part, z_part, prior_part) in enumerate(
            zip(x.chunk(parts), noise.posterior.chunk(parts, 1), noise.prior.chunk(parts), strict=True)
        ):
            with self._gradients_meet(part == parts - 1):
                with self.autocast():
                    out = self.prepared(x_part, Noise(z_part, prior_part), weights)
                self.accelerator.backward(out["loss"] / parts)
            finite &= torch.isfinite(out["loss"].detach())
            for name, value in out.items():
                value = value.detach() / parts
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.summed += 1
        bad, skipped = ~finite, None
        if self.skips:
            skipped, bad = self.skips.decide(finite, self.accelerator.reduce)
            self.sums = {name: torch.where(skipped, before.get(name, 0.0), sum_) for name, sum_ in self.sums.items()}
        self.bad_step = torch.where((self.bad_step < 0) & bad, step, self.bad_step)
        if self.settings.clip_grad is not None:
            self.accelerator.clip_grad_norm_(self.objective.parameters(), self.settings.clip_grad)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step, skipped)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model has the weights that are validated, drawn and shared."""
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def _noise(self, step: int) -> Noise:
        # Drawn for the whole batch, so that any number of processes meets the same numbers.
        mine = slice(self.batches.start, self.batches.start + self.batches.size)
        batch, d, device = self.settings.batch_size, self.model.z_dim, self.accelerator.device
        posterior = normal((self.objective.bound.samples, batch, d), self.seed, Use.POSTERIOR, step, device)
        return Noise(posterior[:, mine], normal((batch, d), self.seed, Use.PRIOR, step, device)[mine])

    def _gradients_meet(self, last: bool) -> Any:
        return self.accelerator.no_sync(self.prepared) if not last else contextlib.nullcontext()

    def _after(self, done: int, stop: Stop) -> None:
        """What falls due after ``done`` steps."""
        s = self.settings
        due = {
            name: every > 0 and (done % every == 0 or done == s.n_steps)
            for name, every in (("print", s.print_freq), ("eval", s.eval_freq), ("sample", s.sample_freq))
        }
        save = done == s.n_steps or (s.save_freq > 0 and done % s.save_freq == 0)
        signal = self._agreed(stop, done)
        self.writer.check()
        if any(due.values()) or save or signal:
            self._refuse_non_finite(done, save or due["eval"] or bool(signal))
        if due["print"]:
            self._print(done)
        if due["eval"]:
            save |= self._validate(done)  # the best is kept, so it is saved
        if due["sample"]:
            self._picture(done)
        if save or signal:
            self._save(done)
        self.record.advance(done)
        if signal or done == s.n_steps:
            self._saved()
        if signal and done < s.n_steps:
            raise Stopped(f"stopped after step {done} and saved; go on with --resume latest", 128 + signal)

    def _agreed(self, stop: Stop, done: int) -> int:
        if self.accelerator.num_processes == 1:
            return stop.signal or 0
        if done % AGREE_EVERY and self.accelerator.device.type != "cpu":
            return 0
        mine = torch.tensor(stop.signal or 0, device=self.accelerator.device)
        return int(self.accelerator.gather(mine).max())

    def _refuse_non_finite(self, done: int, saving: bool) -> None:
        bad = int(self.accelerator.gather(self.bad_step).max())
        # A finite loss can have a gradient that is not: before saving, the parameters are looked at as well.
        spoilt = [n for n, p in self.objective.named_parameters() if saving or bad >= 0 if not torch.isfinite(p).all()]
        if bad < 0 and not spoilt:
            return
        terms = ", ".join(f"{name} {value.item():.4g}" for name, value in self.sums.items())
        self.writer.wait()
        kept = checkpoint.checkpoints(self.folder)
        raise UserError(
            f"step {bad + 1 if bad >= 0 else done}: the loss or a parameter is not a number (sums since the last line: "
            f"{terms}; first parameter affected: {spoilt[0] if spoilt else 'none yet'}); "
            f"{f'the last good checkpoint is {kept[0]}' if kept else 'no checkpoint was saved yet'}; "
            "a lower train.lr or train.clip_grad may help"
        )

    def _print(self, done: int) -> None:
        seconds = self.clock.read("training")
        skipped = int(self.skips.counts[1]) if self.skips else 0
        sums = torch.stack(list(self.sums.values())) / max(self.summed - skipped, 1)
        values = dict(zip(self.sums, self.accelerator.reduce(sums, "mean").tolist(), strict=True))
        if self.skips:
            values = (values if skipped < self.summed else {}) | {"skipped": skipped}
            self.skips.counts[1] = 0
        coefficients = {name: c for name, c in self.weighting.coefficients(done - 1).items() if c is not None}
        values |= {**coefficients, "lr": self.settings.lr_schedule(done - 1)}
        before, since = self.printed
        speed = (done - before) * self.settings.batch_size / max(seconds - since, 1e-9)
        self.record.scalars(done, "train", values, speed)
        self.sums, self.summed, self.printed = {}, 0, (done, seconds)

    def _validate(self, done: int) -> bool:
        """Whether this is the best step so far: by the loss under the weights of the last step, whatever the schedules
        give now."""
        with self.clock.on("validation"), self._averaged():
            weights = self.weighting(self.settings.n_steps - 1, self.pixels)
            found = validate(self.objective, self.splits.valid, weights, seed=self.seed)
            better = "loss" in found and (self.best is None or found["loss"].value < self.best[1])
            if better:
                self.best = (done, found["loss"].value)
            self.record.scalars(done, "valid", {name: estimate.value for name, estimate in found.items()})
        return better

    def _picture(self, done: int) -> None:
        if not self.accelerator.is_main_process:
            return
        from vaes.view import training_sheet  # matplotlib comes with it: not before the first step

        with self.clock.on("pictures"), self._averaged():
            originals = self.splits.valid.read(torch.arange(min(16, len(self.splits.valid))))
            noise = normal((32, self.model.z_dim), self.seed, Use.PICTURES, 0)
            self.record.picture(done, training_sheet(self.model, originals, noise, caption=f"step {done}"))

    def _save(self, done: int) -> None:
        """Copy what is saved; the writer's thread writes it, once it has written what came before."""
        if not self.accelerator.is_main_process:
            return
        with self.clock.on("saving"):
            state = {
                "optimizer": self.settings.optimizer,
                "best": self.best,
                "summed": self.summed,
                "terms": list(self.sums),
            }
            metadata = {"config": self.config, "image_shape": list(self.splits.train.shape)}
            extra = {f"sum.{name}": value for name, value in self.sums.items()}
            extra |= {f"terms.{name}": value for name, value in self.objective.terms.state_dict().items()}
            if self.skips:
                extra["skips"] = self.skips.counts
            weights = self.model.state_dict()
            if self.average is not None:
                extra |= {f"raw.{name}": weights[name] for name in self.average.state}
                weights |= self.average.state
            taken = checkpoint.snapshot(done, weights, self.optimizer, extra, state, metadata)
            best = self.best[0] if self.best else None
            self.writer.start(lambda: self._write(taken, best))

    def _write(self, taken: checkpoint.Checkpoint, best: int | None) -> None:
        checkpoint.write(self.folder, taken)
        checkpoint.thin_out(self.folder, self.settings.keep, best)

    def _saved(self) -> None:
        """Wait, all processes, until the last checkpoint is on the disk: a launcher ends the others with the first."""
        with self.clock.on("saving"):
            self.writer.wait()
            self.writer.check()
        self.accelerator.wait_for_everyone()

    def _restore(self, resume: checkpoint.Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        where = f"checkpoint of step {resume.step}"
        if resume.step > self.settings.n_steps:
            raise UserError(
                f"train.n_steps: {self.settings.n_steps} is less than the {resume.step} steps of the {where}"
            )
        saved = resume.state.get("optimizer", "adam")
        if saved != self.settings.optimizer:
            raise UserError(f"train.optimizer: {self.settings.optimizer} where the {where} was trained with {saved}")
        # Where the shared weights are an average, training goes on from those that it had.
        checkpoint.load_weights(self.model, resume.weights | _below("raw.", resume.training), where)
        checkpoint.load_weights(self.objective.terms, _below("terms.", resume.training), where)
        if self.average is not None:
            self.average.load(resume.weights)
        checkpoint.restore_optimizer(optimizer, resume)
        device = self.accelerator.device
        sums, summed, best = checkpoint.progress(resume)
        if not self.within:  # a branch: neither the other run's best loss nor the line that it had begun are its own
            return
        self.summed, self.best = summed, best
        self.sums = {name: tensor.to(device) for name, tensor in sums.items()}
        if "skips" in resume.training:
            counts = restored(resume.training["skips"], device)
            if self.skips:
                self.skips.counts = counts
            else:
                self.summed -= int(counts[1])  # of the line that has begun, the steps that count

    def _introduction(self) -> str:
        device, world = self.accelerator.device, self.accelerator.num_processes
        parameters = sum(p.numel() for p in self.model.parameters())
        going_on = f" from step {self.start}" if self.start else ""
        return (
            f"training{going_on} to step {self.settings.n_steps}: {len(self.splits.train):,} images of "
            f"{'x'.join(map(str, self.splits.train.shape))}, {parameters:,} parameters, "
            f"{world} process{'es' * (world > 1)} on {device}; {', '.join(self.choices)}"
        )

    def _finish(self) -> dict[str, Any]:
        """The test numbers, of the weights of the last step."""
        done = self.settings.n_steps
        with self.clock.on("validation"), self._averaged():
            weights = self.weighting(done - 1, self.pixels)
            found = {
                split: validate(self.objective, images, weights, seed=self.seed)
                for split, images in (("valid", self.splits.valid), ("test", self.splits.test))
            }
        units = {"mse": "per pixel"} | {name: str(term.unit) for name, term in self.objective.terms.items()}
        metrics = {"step": done, "seed": self.seed} | {
            split: {name: _plain(e, units.get(name, "nats per image")) for name, e in estimates.items()}
            for split, estimates in found.items()
        }
        if self.accelerator.is_main_process:
            text = json.dumps(metrics, indent=1) + "\n"
            files.write_atomic(self.folder / "metrics.json", lambda path: path.write_text(text))
        self.record.say(self._accounts())
        self.accelerator.wait_for_everyone()
        return metrics

    def _accounts(self) -> str:
        training = self.clock.read("training")
        images = (self.settings.n_steps - self.start) * self.settings.batch_size
        rest = ", ".join(
            f"{name} {seconds:.1f} s" for name, seconds in self.clock.seconds.items() if name != "training"
        )
        skipped = int(self.skips.counts[2]) if self.skips else 0
        return (
            f"{images:,} images in {training:.1f} s of training: {images / max(training, 1e-9):,.0f} images/s; {rest}"
            + f"; {skipped} steps whose loss or gradient was no number were skipped" * bool(skipped)
        )


def _precision(settings: Settings) -> str:
    """``fp32``, ``tf32`` or ``bf16``: what the settings say, or the launcher where they leave it to that.

    Raises:
        UserError: the launcher asks for another one.
    """
    if settings.precision != "auto":
        return settings.precision
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "bf16"):
        raise UserError(f"train.precision: accelerate launch asks for {asked}; give it --mixed_precision no or bf16")
    return asked.replace("no", "fp32")


def _optimizer(objective: Objective, settings: Settings) -> torch.optim.Optimizer:
    s, lr, parameters = settings, settings.lr_schedule(0), objective.parameters()
    if s.optimizer == "muon":
        return Muon(parameters, lr=lr, momentum=s.momentum, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay, fused=True)


def _refuse_lone_images(objective: Objective, images: int) -> None:
    """Batch statistics of one image are none."""
    if images > 1:
        return
    if objective.terms or any(isinstance(layer, _BatchNorm) for layer in objective.modules()):
        raise UserError(
            "train.batch_size: batch norm and terms that compare images need 2 images or more per process and "
            "micro-batch; raise it or lower train.accumulate (or use model.network.norm none)"
        )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _plain(estimate: Estimate, unit: str) -> Mapping[str, float | int | str | None]:
    stderr = None if math.isnan(estimate.stderr) else estimate.stderr
    return {"value": estimate.value, "stderr": stderr, "n": estimate.n, "unit": unit}
