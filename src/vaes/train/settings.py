"""The options of training."""

import dataclasses
import math
from typing import Literal

from vaes.remote import fault
from vaes.schedules import Constant, OneCycle, Schedule, sampled

__all__ = ["Settings"]

PLANES = 40
"""Pictures of the latent plane that a training keeps, beside that of its beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of one training; lengths and intervals are in optimiser steps, and an interval of 0 means never.

    Args:
        n_steps: optimiser steps.
        batch_size: images per optimiser step, over all processes and accumulated micro-batches together.
        accumulate: micro-batches that a process divides its share of the batch into; their gradients are averaged.
        play: who moves in a step where a term has a critic: ``together`` is model and critics at once, ``alternate``
            the critics in the first step, the model in the second, and so on by turns; the others do not move at all.
        encoder_after: the first steps in which the encoder does not learn yet, a tenth of all at most. Meanwhile the
            decoder finds the mean image, for which it else moves all codes one way: to the last word, or where a tanh
            is flat.
        optimizer: ``muon``, or ``adam`` as in most papers; see :class:`vaes.train.muon.Muon`.
        lr: learning rate, a number or a schedule; null is one cycle up to 4e-3 and down to nothing, over the whole
            training.
        momentum: decay of Muon's momentum.
        betas: decay rates of Adam's moments.
        eps: added to the root of Adam's second moment.
        weight_decay: decoupled weight decay (as in AdamW) where it is not zero.
        decoder_weight_decay: the same of the decoder alone; null is weight_decay.
        ema: decay of an exponential moving average of the weights, which then is what is validated, drawn and shared;
            null for none.
        clip_grad: the gradient's largest Euclidean norm; null leaves it alone.
        skip_non_finite: how many steps in a row whose loss or gradient is no number are skipped, as if they had not
            been (parameters, moments, running statistics and printed means stay as they were), before training stops;
            0 stops at the first.
        precision: ``auto`` takes what ``accelerate launch`` says, else float32; ``tf32`` is float32 whose products a
            GPU may round to 10 bits.
        compile: run the step compiled, on a GPU as captured graphs; it takes a compiler and a minute at the start.
        print_freq: between two lines of metrics.
        eval_freq: between two passes over the validation images; null is a tenth of the training.
        monitor: how many validation images, and as many training images, are reconstructed at each validation for PSNR,
            SSIM, rFID and a perceptual distance, whose names tell that number and the features; 0 for none.
        monitor_features: those of rFID: ``auto``, ``classifier``, ``pretext``, ``inception``, ``pixels``, or the path
            of a network that ``vaes evaluate`` left; see :func:`vaes.evaluate.features.find_features`.
        monitor_perceptual: in which features of places the perceptual distance is: ``auto``, those of monitor_features
            where it has some (``classifier``, ``pretext`` and files do), ``lpips`` (an extra, vaes[lpips]),
            ``timm:NAME`` (vaes[timm]), ``classifier``, ``pretext``, or a path as above.
        patience: how many validations in a row may bring no lower loss before the training ends; null for any number.
        pulls_freq: between two measurements of how hard each term pulls at the model and a critic at itself; null is
            eval_freq where a term has a critic or looks at features, else never.
        sample_freq: between two pictures.
        plane_freq: between two pictures of the latent plane as it forms, where codes are two real numbers; null is 40
            in all, more of them early, where most of it happens, or none where sample_freq is 0.
        save_freq: between two checkpoints; the last step is always saved.
        keep: how many of the newest checkpoints stay, beside the one with the best validation loss.
        trackers: where numbers and pictures go beside the run folder's own files: ``tensorboard`` (in the run folder),
            ``wandb``, ``mlflow``, ``trackio``, each set up by its own environment variables; one that fails is left
            out with a warning.
        mirror: a URL that fsspec opens (``s3://bucket/runs/x``, with ``vaes[remote]``; ``file:///disk/x``), to which
            the run is copied after each save, in the background, with credentials of the environment; null for no copy.
    """

    n_steps: int = 3000
    batch_size: int = 128
    accumulate: int = 1
    play: Literal["together", "alternate"] = "together"
    encoder_after: int = 0
    optimizer: Literal["muon", "adam"] = "muon"
    lr: float | Schedule | None = None
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoder_weight_decay: float | None = None
    ema: float | None = None
    clip_grad: float | None = None
    skip_non_finite: int = 0
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    compile: bool = False
    print_freq: int = 100
    eval_freq: int | None = None
    monitor: int = 0
    monitor_features: str = "auto"
    monitor_perceptual: str = "auto"
    patience: int | None = None
    pulls_freq: int | None = None
    sample_freq: int = 1000
    plane_freq: int | None = None
    save_freq: int = 1000
    keep: int = 2
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)
    mirror: str | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("n_steps", 1),
            ("batch_size", 1),
            ("accumulate", 1),
            ("encoder_after", 0),
            ("keep", 1),
            ("print_freq", 0),
            ("eval_freq", 0),
            ("monitor", 0),
            ("patience", 1),
            ("pulls_freq", 0),
            ("sample_freq", 0),
            ("plane_freq", 0),
            ("save_freq", 0),
            ("skip_non_finite", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.patience is not None and self.eval_every == 0:
            raise ValueError("patience counts validations, and eval_freq 0 makes none; leave one of them out")
        if self.monitor and self.eval_every == 0:
            raise ValueError("monitor measures at each validation, and eval_freq 0 makes none; leave one of them out")
        if self.mirror is not None and (wrong := fault(self.mirror)):
            raise ValueError(f"mirror {wrong}")
        for name in ("momentum", "ema"):
            decay = getattr(self, name)
            if decay is not None and not 0 <= decay < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {list(self.betas)}")
        ends = [self.lr_schedule(step) for step in sampled(self.n_steps, 1000)]
        if not all(0 <= lr < math.inf for lr in ends) or not max(ends) > 0:
            raise ValueError(
                f"lr must be above 0 and finite, and a schedule never below 0; got {min(ends)} to {max(ends)}"
            )
        if self.eps <= 0:
            raise ValueError(f"eps must be above 0, got {self.eps}")
        if min(self.weight_decay, self.decoder_weight_decay or 0.0) < 0 or (
            self.clip_grad is not None and not self.clip_grad > 0
        ):
            raise ValueError("weight decays must not be negative, and clip_grad must be above 0 or null")

    def plays(self, step: int) -> tuple[bool, bool]:
        """Whether it is the model's turn at a step (from 0 on), and the critics'."""
        return (True, True) if self.play == "together" else (step % 2 == 1, step % 2 == 0)

    def encoder_waits(self, step: int) -> bool:
        """Whether the encoder does not learn in a step (from 0 on)."""
        return step < min(self.encoder_after, self.n_steps // 10)

    @property
    def eval_every(self) -> int:
        """``eval_freq`` as a number."""
        return max(1, self.n_steps // 10) if self.eval_freq is None else self.eval_freq

    def shows_plane(self, step: int) -> bool:
        """Whether the latent plane is kept after so many steps."""
        if self.plane_freq is not None:
            return self.plane_freq > 0 and (step % self.plane_freq == 0 or step == self.n_steps)
        part = round(PLANES * math.sqrt(step / self.n_steps))
        return self.sample_freq > 0 and step == round(self.n_steps * (part / PLANES) ** 2)

    @property
    def lr_schedule(self) -> Schedule:
        """``lr`` as a schedule."""
        if self.lr is None:
            return OneCycle(self.n_steps, peak=4e-3)
        return self.lr if isinstance(self.lr, Schedule) else Constant(value=self.lr)
