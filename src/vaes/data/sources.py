"""Where images come from: each source is a function of plain keywords that returns the three splits."""

import numpy as np
import torch
from torch import Tensor

from vaes.data.celeba_files import celeba
from vaes.data.images import Annotations, Splits, TensorSet
from vaes.data.mnist_files import mnist
from vaes.data.picture_folder import folder
from vaes.data.resize import resize
from vaes.data.splits import divide, hold_out
from vaes.data.sprite_grid import sprites
from vaes.errors import UserError
from vaes.randomness import Use

__all__ = ["arrays", "celeba", "digits", "folder", "mnist", "sprites"]


def digits(
    *, image_size: int | tuple[int, int] | None = None, n_valid: int = 150, n_test: int = 297, seed: int = 0
) -> Splits:
    """The 1,797 handwritten digits, 8x8 and grey, that ship with scikit-learn: real data without a download.

    `n_test` images are the test split, stratified over the ten labels; `n_valid` of the rest are held out; `seed`
    chooses both. `image_size` resizes bilinearly, None keeps 8x8.

    "Optical recognition of handwritten digits", Alpaydin and Kaynak, 1998, https://doi.org/10.24432/C50P49.
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
    whole = TensorSet(resize(images, image_size), Annotations(labels, tuple(str(i) for i in range(10))))
    rest, test = train_test_split(np.arange(len(labels)), test_size=n_test, stratify=bunch.target, random_state=seed)
    train, valid = hold_out(whole.subset(torch.from_numpy(np.sort(rest))), n_valid, seed, Use.VALID, "data.n_valid")
    return Splits(train, valid, whole.subset(torch.from_numpy(np.sort(test))))


def arrays(
    train: np.ndarray | Tensor,
    test: np.ndarray | Tensor | None = None,
    *,
    valid: np.ndarray | Tensor | None = None,
    labels: np.ndarray | Tensor | None = None,
    test_labels: np.ndarray | Tensor | None = None,
    valid_labels: np.ndarray | Tensor | None = None,
    label_names: tuple[str, ...] = (),
    n_valid: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Splits:
    """Images in memory: uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3; from Python alone.

    `labels` (N,) are whole numbers from 0 on, for `train`; the other splits have their own. A split that is not given
    is held out of `train` by `seed`: `n_test` images (None: a tenth), then `n_valid` of the rest (None: a twentieth,
    5,000 at most).
    """
    given = {"train": (train, labels), "valid": (valid, valid_labels), "test": (test, test_labels)}
    sets = {name: _array_set(name, x, y, label_names) for name, (x, y) in given.items() if x is not None}
    if len({images.shape for images in sets.values()}) > 1:
        raise UserError("arrays: the splits differ in shape: " + ", ".join(f"{k} {v.shape}" for k, v in sets.items()))
    return divide(sets["train"], sets.get("valid"), sets.get("test"), n_valid, n_test, seed)


def _array_set(
    name: str, x: np.ndarray | Tensor, y: np.ndarray | Tensor | None, label_names: tuple[str, ...]
) -> TensorSet:
    images = torch.as_tensor(x)
    if images.dtype != torch.uint8:
        raise UserError(
            f"arrays: {name} is {images.dtype}, not uint8; for values in [0, 1] give (255 * x).round() as uint8"
        )
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise UserError(
            f"arrays: {name} is {tuple(torch.as_tensor(x).shape)}, not"
            " (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3"
        )
    if y is None:
        return TensorSet(images)
    labels = torch.as_tensor(y).cpu()
    if labels.shape != images.shape[:1] or labels.is_floating_point() or int(labels.min()) < 0:
        raise UserError(
            f"arrays: labels of {name} are {labels.dtype} {tuple(labels.shape)}, not"
            f" {len(images)} whole numbers from 0 on"
        )
    names = label_names or tuple(str(i) for i in range(int(labels.max()) + 1))
    if int(labels.max()) >= len(names):
        raise UserError(f"arrays: {name} has the label {int(labels.max())}, but label_names has {len(names)} names")
    return TensorSet(images, Annotations(labels.long(), names))
