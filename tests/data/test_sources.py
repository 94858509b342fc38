import inspect

import numpy as np
import pytest
import torch

from vaes.data import arrays, celeba, digits, folder, mnist, sprites
from vaes.errors import UserError


@pytest.mark.parametrize("source", [celeba, digits, folder, mnist, sprites])
def test_signatures_can_be_schemas(source) -> None:
    """Keywords only, annotated with real types (no strings), with defaults but for the root."""
    for name, parameter in inspect.signature(source).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert not isinstance(parameter.annotation, str)
        assert parameter.annotation is not inspect.Parameter.empty
        assert name == "root" or parameter.default is not inspect.Parameter.empty


def test_digits() -> None:
    parts = digits()
    assert [len(part) for part in parts] == [1350, 150, 297]
    assert parts.train.shape == (1, 8, 8)
    assert parts.train.label_names == tuple("0123456789")
    every = torch.cat([part.read(torch.arange(len(part))) for part in parts])
    labels = torch.cat([part.labels for part in parts])
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # The three parts are the whole set, each image with its own label.
    ours = sorted((label, *image) for label, image in zip(labels.tolist(), every.flatten(1).tolist(), strict=True))
    whole = np.concatenate([bunch.target[:, None], np.round(bunch.data * 255 / 16)], 1).astype(int)
    assert ours == sorted(map(tuple, whole.tolist()))


def test_digits_test_split_is_stratified_and_seeded() -> None:
    counts = torch.bincount(digits().test.labels)
    assert counts.min() >= 28
    assert counts.max() <= 31
    assert torch.equal(digits(seed=3).test.labels, digits(seed=3).test.labels)
    assert not torch.equal(digits(seed=3).test.labels, digits(seed=4).test.labels)


def test_digits_resized_and_refused() -> None:
    assert digits(image_size=(16, 12)).valid.shape == (1, 16, 12)
    with pytest.raises(UserError, match=r"data\.n_test"):
        digits(n_test=1797)
    with pytest.raises(UserError, match=r"data\.n_valid: 1500 of 1500"):
        digits(n_valid=1500)


@pytest.mark.parametrize("shape", [(20, 6, 5), (20, 1, 6, 5), (20, 3, 6, 5), (20, 6, 5, 3), (20, 6, 5, 1)])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_arrays_of_every_layout(shape: tuple[int, ...], kind) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    parts = arrays(kind(x), labels=np.arange(20) % 3, held_out="order")
    channels = 3 if 3 in (shape[1], shape[-1]) else 1
    assert parts.train.shape == (channels, 6, 5)
    assert [len(part) for part in parts] == [17, 1, 2]
    assert parts.train.label_names == ("0", "1", "2")
    chw = x if x.ndim == 4 and x.shape[1] in (1, 3) else (x[..., None] if x.ndim == 3 else x).transpose(0, 3, 1, 2)
    every = torch.cat([part.read(torch.arange(len(part))) for part in parts])
    assert sorted(every.flatten(1).tolist()) == sorted(chw.reshape(20, -1).tolist())


def test_arrays_with_splits_of_their_own() -> None:
    x = np.zeros((9, 4, 4), np.uint8)
    parts = arrays(x, x[:3], valid=x[:2], labels=range(9), test_labels=[1, 2, 8], label_names=tuple("abcdefghi"))
    assert [len(part) for part in parts] == [9, 2, 3]
    assert parts.test.labels.tolist() == [1, 2, 8]
    assert parts.valid.labels is None


@pytest.mark.parametrize(
    ("x", "more", "says"),
    [
        (np.zeros((9, 4, 4)), {}, r"float64 from 0 to 0; .*data\.value_range, \[0, 1\] say"),
        (np.full((9, 4, 4), np.nan), {"value_range": (0, 1)}, "not finite"),
        (np.full((9, 4, 4), 1.5), {"value_range": (0, 1)}, r"from 1\.5 to 1\.5, outside of data\.value_range"),
        (np.full((9, 4, 4), 70_000), {}, "int64 from 70000"),
        (np.full((9, 4, 4), "a"), {}, "not numbers"),
        (np.zeros((9, 2, 4, 4), np.uint8), {}, r"\(9, 2, 4, 4\)"),
        (np.zeros(9, np.uint8), {}, r"\(9,\)"),
        (np.zeros((0, 4, 4), np.uint8), {}, r"\(0, 4, 4\)"),
        (np.zeros((9, 4, 4), np.uint8), {"labels": [1, 2]}, "not 9 whole numbers"),
        (np.zeros((9, 4, 4), np.uint8), {"labels": [0.5] * 9}, "not 9 whole numbers"),
        (np.zeros((9, 4, 4), np.uint8), {"labels": [-1] * 9}, "not 9 whole numbers"),
        (np.zeros((9, 4, 4), np.uint8), {"labels": [2] * 9, "label_names": ("a", "b")}, "has 2 names"),
        (np.zeros((9, 4, 4), np.uint8), {"test": np.zeros((9, 5, 4), np.uint8)}, "differ in shape"),
    ],
)
def test_arrays_refused(x: np.ndarray, more: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        arrays(x, **more)
