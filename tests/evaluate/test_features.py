import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from vaes import files
from vaes.data import Annotations, Splits, TensorSet, digits
from vaes.errors import UserError
from vaes.evaluate import NotApplicable
from vaes.evaluate.features import Classifier, classifier_features, find_features, pixel_features


@pytest.fixture(scope="module")
def splits() -> Splits:
    return digits(image_size=8)


def test_the_classifier_learns_is_kept_and_is_the_same_again(splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    torch.manual_seed(1)
    first = classifier_features(splits, path, steps=60)
    _, metadata = files.read_tensors(path)
    assert metadata["accuracy"] > 0.8
    written = path.stat().st_mtime_ns
    torch.manual_seed(2)
    kept, again = classifier_features(splits, path, steps=60), classifier_features(splits, steps=60)
    assert path.stat().st_mtime_ns == written
    named = find_features(str(path), splits, None)
    assert first.name == kept.name == again.name == named.name
    images = splits.test.read(torch.arange(20))
    assert first.extract(images).shape == (20, 64)
    for other in (kept, again, named):
        assert torch.equal(first.extract(images), other.extract(images))
    scale = first.extract(splits.train.read(torch.arange(1_000))).square().mean()
    assert 0.9 < scale < 1.1


def test_features_of_a_class_lie_together(splits: Splits) -> None:
    features = classifier_features(splits, steps=60).extract(splits.test.read(torch.arange(len(splits.test))))
    assert splits.test.labels is not None
    same = splits.test.labels[:, None] == splits.test.labels[None]
    distance = torch.cdist(features, features)
    assert distance[same].mean() < 0.6 * distance[~same].mean()


def test_a_classifier_of_other_data_is_trained_anew(splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    first = classifier_features(splits, path, steps=60)
    assert splits.train.labels is not None
    inverted = TensorSet(255 - splits.train.read(torch.arange(200)), Annotations(splits.train.labels[:200]))
    second = classifier_features(Splits(inverted, splits.valid, splits.test), path, steps=20)
    assert first.name != second.name
    assert classifier_features(Splits(inverted, splits.valid, splits.test), path, steps=20).name == second.name


@pytest.mark.parametrize("harm", ["cut", "accuracy", "weights"])
def test_a_damaged_classifier_is_named_and_trained_anew(
    harm: str, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "classifier.safetensors"
    first = classifier_features(splits, path, steps=20)
    tensors, metadata = files.read_tensors(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "accuracy":
        files.write_tensors(path, tensors, {key: value for key, value in metadata.items() if key != "accuracy"})
    else:
        files.write_tensors(path, {"head.bias": tensors["head.bias"]}, metadata)
    assert classifier_features(splits, path, steps=20).name == first.name
    assert f"{path}: not " in caplog.text
    assert "trained anew" in caplog.text
    caplog.clear()
    assert classifier_features(splits, path, steps=20).name == first.name
    assert not caplog.text


def test_data_without_labels_or_with_one_class_have_no_classifier() -> None:
    images = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    bare = TensorSet(images)
    with pytest.raises(NotApplicable, match="without labels"):
        classifier_features(Splits(bare, bare, bare))
    one = TensorSet(images, Annotations(torch.zeros(30, dtype=torch.int64)))
    with pytest.raises(NotApplicable, match="of one class"):
        classifier_features(Splits(one, one, one))


def test_pixels_are_pixels() -> None:
    images = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    np.testing.assert_allclose(pixel_features().extract(images), [[0, 1, 0.2, 0.4]], rtol=1e-6)


def test_files_that_are_no_classifier_and_unknown_names_are_refused(splits: Splits, tmp_path: Path) -> None:
    plain, other, torn = (tmp_path / f"{name}.safetensors" for name in ("plain", "other", "torn"))
    files.write_tensors(plain, {"a": torch.zeros(2)})
    files.write_tensors(other, Classifier(3, 10).state_dict(), {"accuracy": 0.9})
    torn.write_bytes(other.read_bytes()[:-10])
    for path, message in (
        (plain, "not a classifier that vaes evaluate trained"),
        (other, "images with 1 channel"),
        (torn, "not a whole safetensors file"),
        (tmp_path / "none.safetensors", "there is no such weights file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            find_features(str(path), splits, None)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="'vgg' is none of classifier, inception, pixels"):
        find_features("vgg", splits, None)


def test_inception_says_what_to_install(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match="pip install torch-fidelity"):
        find_features("inception", splits, None)


def test_inception_is_handed_three_channels_of_bytes(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """The glue alone: the package's network is fetched on a user's machine."""

    class Stub:
        def __init__(self, name: str, features: list[str]) -> None:
            assert features == ["2048"]

        def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.dtype == torch.uint8
            assert x.shape[1] == 3
            return (x.flatten(1)[:, :2048].double(),)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    found = find_features("inception", splits, None)
    assert found.name == "inception-v3-compat-2048"
    assert found.extract(splits.test.read(torch.arange(70))).shape == (70, 192)


def test_a_fetch_that_fails_is_a_sentence(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, features: list[str]) -> None:
        raise OSError("no route to host")

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    with pytest.raises(UserError, match="could not be fetched"):
        find_features("inception", splits, None)
