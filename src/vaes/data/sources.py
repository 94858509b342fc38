"""Where images come from: each source is a function of plain keywords that returns the three splits."""

import numpy as np
import torch

from vaes.data.array_sets import array_file, arrays
from vaes.data.celeba_files import celeba
from vaes.data.cifar_files import cifar10, cifar100
from vaes.data.factor_sets import dsprites, mpi3d, shapes3d, smallnorb
from vaes.data.hashing import content_hashes
from vaes.data.held_out import hold_out
from vaes.data.hub_rows import hub
from vaes.data.idx_sets import emnist, fashion_mnist, kmnist
from vaes.data.images import Annotations, TensorSet
from vaes.data.mat_files import cars3d, svhn
from vaes.data.mnist_files import mnist
from vaes.data.omniglot_files import omniglot
from vaes.data.picture_folder import folder
from vaes.data.resize import resize, resizing
from vaes.data.splits import Splits, report
from vaes.data.sprite_grid import sprites
from vaes.data.tar_shards import webdataset
from vaes.data.typefaces import numerals
from vaes.errors import UserError
from vaes.randomness import Use

__all__ = [
    "array_file",
    "arrays",
    "cars3d",
    "celeba",
    "cifar10",
    "cifar100",
    "digits",
    "dsprites",
    "emnist",
    "fashion_mnist",
    "folder",
    "hub",
    "kmnist",
    "mnist",
    "mpi3d",
    "numerals",
    "omniglot",
    "shapes3d",
    "smallnorb",
    "sprites",
    "svhn",
    "webdataset",
]


def digits(
    *, image_size: int | tuple[int, int] | None = None, n_valid: int = 150, n_test: int = 297, seed: int = 0
) -> Splits:
    """The 1,797 handwritten digits, 8x8 and grey, that ship with scikit-learn: real data without a download.

    `n_test` images are the test split, stratified over the ten labels; `n_valid` of the rest are held out; `seed`
    chooses both. `image_size` resizes bilinearly, None keeps 8x8.

    "Optical recognition of handwritten digits", Alpaydin and Kaynak, 1998, https://doi.org/10.24432/C50P49.

    Args:
        image_size: a side, or height and width, that images are resized to; null keeps 8x8.
        n_valid: how many are held out for validation.
        n_test: how many are held out for testing, as many of each label as there are in proportion.
        seed: chooses the images that are held out.
    """
    # scikit-learn takes a second to import, and no other source needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    if not 10 <= n_test <= len(bunch.target) - 10:
        raise UserError(
            f"data.n_test: {n_test}; it must be 10 to {len(bunch.target) - 10}, so that every split has every label"
        )
    # The values are 0 .. 16.
    images = torch.from_numpy(np.round(bunch.images * 255 / 16).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    hashes = torch.from_numpy(content_hashes(images.numpy()))
    whole = TensorSet(resize(images, image_size), Annotations(labels, tuple(map(str, range(10))), hashes=hashes))
    rest, test = train_test_split(np.arange(len(labels)), test_size=n_test, stratify=bunch.target, random_state=seed)
    train, valid = hold_out(whole.subset(torch.from_numpy(np.sort(rest))), n_valid, seed, Use.VALID, "data.n_valid")
    parts = (train, valid, whole.subset(torch.from_numpy(np.sort(test))))
    return Splits(*parts, report(*parts, "held out by order, test stratified", more=resizing((8, 8), image_size)))
