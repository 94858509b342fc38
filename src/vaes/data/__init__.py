"""Data: sources give sets of uint8 images, `Batches` gives the order of training."""

from vaes.data.batches import Batches, flip, to_float, to_uint8
from vaes.data.binary import BinarySet, Protocol, binarize
from vaes.data.images import Annotations, ImageSet, MemmapSet, Splits, TensorSet
from vaes.data.sources import arrays, celeba, digits, folder, mnist, sprites
from vaes.data.sprite_grid import SpriteSet

__all__ = [
    "Annotations",
    "Batches",
    "BinarySet",
    "ImageSet",
    "MemmapSet",
    "Protocol",
    "Splits",
    "SpriteSet",
    "TensorSet",
    "arrays",
    "binarize",
    "celeba",
    "digits",
    "flip",
    "folder",
    "mnist",
    "sprites",
    "to_float",
    "to_uint8",
]
