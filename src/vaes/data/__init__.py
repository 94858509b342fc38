"""Data: sources give sets of uint8 images, `Batches` gives the order of training."""

from vaes.data.array_sets import array_images
from vaes.data.batches import Batches, flip, to_float, to_uint8
from vaes.data.binary import BinarySet, Protocol, binarize
from vaes.data.cache import CacheSize, cache_size, empty_cache
from vaes.data.identity import Identity, identify
from vaes.data.images import Annotations, ImageSet, MemmapSet, TensorSet
from vaes.data.named_pictures import pictures
from vaes.data.progress import on_progress
from vaes.data.sources import (
    array_file,
    arrays,
    cars3d,
    celeba,
    cifar10,
    cifar100,
    digits,
    dsprites,
    emnist,
    fashion_mnist,
    folder,
    hub,
    kmnist,
    mnist,
    mpi3d,
    numerals,
    omniglot,
    shapes3d,
    smallnorb,
    sprites,
    svhn,
    webdataset,
)
from vaes.data.splits import Reading, Splits
from vaes.data.sprite_grid import SpriteSet

__all__ = [
    "Annotations",
    "Batches",
    "BinarySet",
    "CacheSize",
    "Identity",
    "ImageSet",
    "MemmapSet",
    "Protocol",
    "Reading",
    "Splits",
    "SpriteSet",
    "TensorSet",
    "array_file",
    "array_images",
    "arrays",
    "binarize",
    "cache_size",
    "cars3d",
    "celeba",
    "cifar10",
    "cifar100",
    "digits",
    "dsprites",
    "emnist",
    "empty_cache",
    "fashion_mnist",
    "flip",
    "folder",
    "hub",
    "identify",
    "kmnist",
    "mnist",
    "mpi3d",
    "numerals",
    "omniglot",
    "on_progress",
    "pictures",
    "shapes3d",
    "smallnorb",
    "sprites",
    "svhn",
    "to_float",
    "to_uint8",
    "webdataset",
]
