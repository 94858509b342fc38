"""A pass over held-out images."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data import ImageSet, to_float
from vaes.errors import Stopped
from vaes.objectives import Context, Objective
from vaes.train.noise import of_block, rows
from vaes.train.runtime import Runtime
from vaes.train.stop import Stop

__all__ = ["Estimate", "validate"]

BLOCK = 500
"""Images whose noise is drawn together."""


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    value: float
    stderr: float
    n: int


def validate(
    objective: Objective,
    images: ImageSet,
    context: Context,
    *,
    seed: int,
    batch_size: int = BLOCK,
    runtime: Runtime | None = None,
    stop: Stop | None = None,
) -> dict[str, Estimate]:
    """``elbo``, ``distortion``, ``rate`` and ``mse`` over all images, in evaluation mode, and the ``loss`` and terms
    that training reports.

    Nats per image, but for ``mse``, which is per pixel on the model's value range and taken at the central code. As
    many samples of q(z|x) per image as the bound takes, seeded; the standard error is over images. ``loss`` and terms
    are means over parts of about ``batch_size`` images, and have none; terms, and with them the loss, are left out
    where there are too few images to compare. The processes of ``runtime`` divide the parts; each gets all the numbers.

    Raises:
        Stopped: a signal that ``stop`` remembers came; nothing was measured.
    """
    with torch.inference_mode(not objective.needs_gradient):
        return _validated(objective, images, context, seed, batch_size, runtime, stop)


def _validated(
    objective: Objective,
    images: ImageSet,
    context: Context,
    seed: int,
    batch_size: int,
    runtime: Runtime | None,
    stop: Stop | None,
) -> dict[str, Estimate]:
    model, training = objective.model, objective.training
    device = next(model.parameters()).device
    rank, world = (0, 1) if runtime is None else (runtime.rank, runtime.world)
    objective.eval()
    mine = []
    for number, (block, index, within) in enumerate(_parts(len(images), batch_size)):
        if number % world != rank:
            continue
        if stop is not None and stop.signal:
            objective.train(training)
            raise Stopped("stopped in the last pass, all steps saved; --resume latest measures them", 128 + stop.signal)
        x = to_float(images.read(index), model.value_range).to(device)
        # Noise belongs to an image, whatever the parts: it is drawn for the block that the image lies in.
        noise = rows(objective, of_block(objective, block.size, seed, block.number), within, device)
        trace = model(x, noise.posterior, objective.wants, context.options.get("posterior"))
        centre = model.reconstruct(x) if trace.mean is None else model.decode(trace.mean)
        found = {"distortion": -trace.log_px.mean(0), "mse": (centre - x).square().flatten(1).mean(1)}
        if trace.rate is not None:
            found |= {"rate": trace.rate, "elbo": -found["distortion"] - trace.rate}
        if len(index) >= objective.least_images:
            out = objective.score(trace, noise, context)
            found |= {name: value.expand(len(x)) for name, value in out.items() if name not in found}
        if model.posterior.tells:  # of all images together, below
            found = {name: value for name, value in found.items() if name not in model.posterior.tells}
            found["indices"] = trace.aux["indices"]
        mine.append((number, {name: value.detach().cpu().double() for name, value in found.items()}))
    objective.train(training)
    parts = mine if runtime is None else [part for each in runtime.collected(mine) for part in each]
    columns: dict[str, list[Tensor]] = {}
    for _, found in sorted(parts, key=lambda part: part[0]):
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    indices = columns.pop("indices", None)
    estimates = {name: _estimate(torch.cat(parts), per_image=name in _PER_IMAGE) for name, parts in columns.items()}
    if indices is not None:
        every = torch.cat(indices).long().to(device)
        told = model.posterior.told(every).items()
        estimates |= {name: Estimate(value.item(), float("nan"), len(every)) for name, value in told}
    return estimates


class _Block(NamedTuple):
    number: int
    size: int


def _parts(n: int, batch_size: int) -> Iterator[tuple[_Block, Tensor, slice]]:
    """The images 0 .. n - 1 in parts of ``batch_size`` to twice that: so that none is left with a single image, because
    terms compare images. With each part its block, and where in it the part lies."""
    for number, block in enumerate(torch.arange(n).tensor_split(-(-n // BLOCK))):
        begin = 0
        for index in block.tensor_split(max(1, len(block) // batch_size)):
            yield _Block(number, len(block)), index, slice(begin, begin + len(index))
            begin += len(index)


_PER_IMAGE = frozenset({"elbo", "distortion", "rate", "mse"})


def _estimate(values: Tensor, per_image: bool) -> Estimate:
    spread = values.std().item() / len(values) ** 0.5 if per_image and len(values) > 1 else float("nan")
    return Estimate(values.mean().item(), spread, len(values))
