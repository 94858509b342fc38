"""The picture that training leaves at intervals."""

import torch
from PIL import Image
from torch import Tensor

from vaes.data.batches import to_float, to_uint8
from vaes.model import VAE, evaluation
from vaes.view.layout import PAGE, sheet

__all__ = ["training_sheet"]

COLUMNS = 8


def training_sheet(
    model: VAE, originals: Tensor, noise: Tensor, scale: int | None = None, *, caption: str = ""
) -> Image.Image:
    """Reconstructions below their inputs, and samples from the prior below those.

    Args:
        model: on any device; each of its modules keeps the mode (training or evaluation) that it came in.
        originals: (n, C, H, W) uint8.
        noise: (m, D) standard normal; the same at every call, so that the pictures can be followed.
        scale: how many pixels wide each pixel is drawn; by default what makes the page a pleasant size.
        caption: set below: the step, say.
    """
    like = next(model.parameters())
    with evaluation(model):
        outputs = model.reconstruct(to_float(originals, model.value_range).to(like))
        samples = model.sample(noise.to(like))
    pictures = [originals.cpu(), *(to_uint8(x, model.value_range).cpu() for x in (outputs, samples))]
    columns = min(COLUMNS, max(len(originals), len(noise)))
    rows: list[Tensor] = []
    labels: list[str] = []
    breaks: list[int] = []
    for part in zip(pictures[0].split(columns), pictures[1].split(columns), strict=True):
        breaks.append(len(rows))
        rows += part
        labels += ["input", "output"]
    breaks.append(len(rows))
    rows += pictures[2].split(columns)
    labels += ["sample"] * (len(rows) - len(labels))
    return sheet(
        torch.cat([_filled(row, columns) for row in rows]),
        columns,
        caption=caption,
        row_labels=labels,
        row_breaks=breaks[1:],
        scale=scale,
    )


def _filled(row: Tensor, columns: int) -> Tensor:
    # A short last row is padded with the page's own grey, which on a sheet is nothing.
    return torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), PAGE[0])])
