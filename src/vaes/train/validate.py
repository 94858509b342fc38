"""A pass over held-out images."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from vaes.data import ImageSet, to_float
from vaes.objectives import Objective
from vaes.randomness import Use, normal

__all__ = ["Estimate", "validate"]


class Estimate(NamedTuple):
    """A mean over images and its standard error."""

    value: float
    stderr: float
    n: int


@torch.inference_mode()
def validate(
    objective: Objective,
    images: ImageSet,
    weights: Mapping[str, float],
    *,
    seed: int,
    batch_size: int = 500,
) -> dict[str, Estimate]:
    """``elbo``, ``distortion``, ``rate`` and ``mse`` over all images, in evaluation mode, and the ``loss`` and terms
    that training reports.

    Nats per image, but for ``mse``, which is per pixel on the model's value range and taken at the central code. As
    many samples of q(z|x) per image as the bound takes, seeded; the standard error is over images. ``loss`` and terms
    are means over batches, and have none; terms, and with them the loss, are left out where there is one image in all.
    """
    model, training = objective.model, objective.training
    device = next(model.parameters()).device
    objective.eval()
    columns: dict[str, list[Tensor]] = {}
    # Batches of nearly one size, so that none is left with a single image: terms compare images.
    for batch, index in enumerate(torch.arange(len(images)).tensor_split(-(-len(images) // batch_size))):
        x = to_float(images.read(index), model.value_range).to(device)
        samples = objective.bound.samples
        noise = normal((samples + 1, len(index), model.z_dim), seed, Use.VALIDATION, batch).to(device)
        trace = model(x, noise[:samples])
        centre = model.reconstruct(x) if trace.mean is None else model.decode(trace.mean)
        found = {"distortion": -trace.log_px.mean(0), "mse": (centre - x).square().flatten(1).mean(1)}
        if trace.rate is not None:
            found |= {"rate": trace.rate, "elbo": -found["distortion"] - trace.rate}
        if len(index) > 1 or not objective.terms:
            out = objective.score(trace, noise[samples], weights)
            found |= {name: value.expand(len(x)) for name, value in out.items() if name not in found}
        for name, value in found.items():
            columns.setdefault(name, []).append(value.cpu().double())
    objective.train(training)
    return {name: _estimate(torch.cat(parts), per_image=name in _PER_IMAGE) for name, parts in columns.items()}


_PER_IMAGE = frozenset({"elbo", "distortion", "rate", "mse"})


def _estimate(values: Tensor, per_image: bool) -> Estimate:
    spread = values.std().item() / len(values) ** 0.5 if per_image and len(values) > 1 else float("nan")
    return Estimate(values.mean().item(), spread, len(values))
