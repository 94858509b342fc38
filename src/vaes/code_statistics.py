"""Mean and spread of a model's codes over its training images, channel by channel: what a model of the codes wants them
normalised by."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from vaes import files
from vaes.data import ImageSet, to_float
from vaes.encoding import refuse_other_shape
from vaes.errors import UserError
from vaes.model import VAE, evaluation

__all__ = ["FILE", "Statistics", "measure", "read"]

FILE = "code-statistics.json"
"""In the run folder."""


class Statistics(NamedTuple):
    """Of draws from q(z|x) over all pixels of a grid and all images; of a flat code, each dimension is a channel."""

    mean: tuple[float, ...]  # (C,)
    std: tuple[float, ...]  # (C,)
    overall_mean: float
    overall_std: float
    images: int
    weights: str
    """SHA-256 of the weights that they belong to."""
    step: int

    def to_diffusers(self) -> dict[str, Any]:
        """As diffusers' configurations call them: ``(z - latents_mean) / latents_std`` has mean 0 and variance 1 in
        every channel, ``(z - shift_factor) * scaling_factor`` over all."""
        return {
            "scaling_factor": 1 / self.overall_std,
            "shift_factor": self.overall_mean,
            "latents_mean": list(self.mean),
            "latents_std": list(self.std),
        }

    def normalise(self, z: Tensor) -> Tensor:
        """Codes (N, C, ...) -> the same, of mean 0 and variance 1 in every channel."""
        return (z - _column(self.mean, z)) / _column(self.std, z)

    def normalise_logvar(self, logvar: Tensor) -> Tensor:
        """Log-variances (N, C, ...) of codes -> those of the normalised ones."""
        return logvar - 2 * _column(self.std, logvar).log()

    def write(self, folder: Path) -> Path:
        """Put them into a run folder; returns the path.

        Raises:
            UserError: it cannot be written.
        """
        files.refuse_links(folder, [FILE])
        try:
            files.write_json(folder / FILE, self._asdict())
        except OSError as error:
            raise UserError(f"{folder / FILE}: cannot be written ({error.strerror or error})") from None
        return folder / FILE


def read(path: Path, weights: str) -> Statistics:
    """Statistics from a file, which must be those of these weights.

    Raises:
        UserError: it is missing or damaged, or belongs to other weights.
    """
    try:
        said = json.loads(files.read_bytes(path, files.MAX_JSON).decode("utf-8"))
        mean, std = (tuple(float(value) for value in said[name]) for name in ("mean", "std"))
        found = Statistics(
            mean, std, float(said["overall_mean"]), float(said["overall_std"]), int(said["images"]),
            str(said["weights"]), int(said["step"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "no statistics of codes"
        raise UserError(f"{path}: cannot be read ({why})") from None
    if len(found.mean) != len(found.std) or not all(value > 0 for value in (*found.std, found.overall_std)):
        raise UserError(f"{path}: cannot be read (no statistics of codes)")
    if found.weights != weights:
        raise UserError(
            f"{path}: statistics of other weights ({found.weights[:8]}, step {found.step:,}) than these "
            f"({weights[:8]}); delete it, and they are computed anew from the training images"
        )
    return found


def measure(
    model: VAE, images: ImageSet, *, weights: str, step: int, batch_size: int = 256, progress: bool = False
) -> Statistics:
    """Over all images: ``E[mean]`` and ``E[mean^2 + exp(logvar)] - E[mean]^2`` of a Gaussian q(z|x), exactly, without a
    draw; of another posterior, of its most typical codes.

    Raises:
        UserError: images of another shape, or a channel that does not vary.
    """
    like = next(model.parameters())
    first = torch.zeros(model.z_shape[0], dtype=torch.float64)
    second, count = torch.zeros_like(first), 0
    with evaluation(model), tqdm(total=len(images), desc="codes", unit="image", disable=not progress or None) as bar:
        refuse_other_shape(model, images)
        for index in torch.arange(len(images)).split(batch_size):
            x = to_float(images.read(index.to(images.index_device)), model.value_range).to(like)
            latent = model.encode(x)
            gaussian = latent.mean is not None and latent.logvar is not None
            mean = latent.mean if gaussian else latent.z[0]
            assert mean is not None
            square = mean.double().cpu().square()
            if gaussian:
                assert latent.logvar is not None
                square = square + latent.logvar.double().cpu().exp()
            first += _by_channel(mean.double().cpu())
            second += _by_channel(square)
            count += mean[:, 0].numel()
            bar.update(len(index))
    mean, square = first / count, second / count
    variance, overall = square - mean.square(), square.mean() - mean.mean().square()
    if not variance.isfinite().all() or (variance <= 0).any():
        raise UserError(f"channel {int((~(variance > 0)).int().argmax())} of the codes does not vary: no statistics")
    return Statistics(
        tuple(mean.tolist()), tuple(variance.sqrt().tolist()), mean.mean().item(), overall.sqrt().item(),
        len(images), weights, step,
    )  # fmt: skip


def _column(values: tuple[float, ...], z: Tensor) -> Tensor:
    return torch.tensor(values, dtype=z.dtype, device=z.device).reshape(-1, *[1] * (z.dim() - 2))


def _by_channel(codes: Tensor) -> Tensor:
    """(N, C, ...) -> sums (C,)."""
    return codes.reshape(len(codes), codes.shape[1], -1).sum((0, 2))
