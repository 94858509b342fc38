"""Resizing: the one rule that all sources follow."""

import torch.nn.functional as F
from torch import Tensor

from vaes.errors import UserError

__all__ = ["Box", "Size", "crop_box", "height_width", "resize", "resizing"]

Size = int | tuple[int, int] | None
"""A side, (height, width), or None for images as they are."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


def height_width(image_size: Size) -> tuple[int, int] | None:
    """(H, W) of an `image_size` option; UserError unless both are 1 to 4096."""
    if image_size is None:
        return None
    h, w = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not (1 <= h <= 4096 and 1 <= w <= 4096):
        raise UserError(
            f"data.image_size: {image_size} is not a size; use a side, or a height and a width, of 1 to 4096 pixels"
        )
    return h, w


def crop_box(from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Box:
    """The largest centred box in an image of `from_hw` that has the aspect of `to_hw`, to the nearest whole pixels."""
    (h, w), (th, tw) = from_hw, to_hw
    side = min(h / th, w / tw)
    height, width = max(1, round(side * th)), max(1, round(side * tw))
    left, top = (w - width) // 2, (h - height) // 2
    return left, top, left + width, top + height


def resize(images: Tensor, image_size: Size) -> Tensor:
    """Crop `images` (N, C, h, w) uint8 centrally to the aspect of `image_size`, and resize them
    bilinearly with antialiasing."""
    to_hw = height_width(image_size)
    if to_hw is None or to_hw == tuple(images.shape[-2:]):
        return images
    left, top, right, bottom = crop_box((images.shape[-2], images.shape[-1]), to_hw)
    cropped = images[..., top:bottom, left:right]
    return F.interpolate(cropped, size=to_hw, mode="bilinear", antialias=True, align_corners=False)


def resizing(was: tuple[int, int], image_size: Size) -> list[str]:
    """What `resize` does to images of (h, w), in words."""
    size = height_width(image_size)
    if size is None or size == was:
        return []
    left, top, right, bottom = crop_box(was, size)
    cut = (bottom - top, right - left)
    said = [f"resized from {was[0]}x{was[1]}"]
    said += [f"cropped to their middle {cut[0]}x{cut[1]}"] if cut != was else []
    return said + (["enlarged"] if size[0] > cut[0] or size[1] > cut[1] else [])
