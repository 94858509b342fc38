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
from vaes.evaluate.feature_network import Classifier, seen
from vaes.evaluate.features import classifier_features, find_features, pixel_features


@pytest.fixture(scope="module")
def splits() -> Splits:
    return digits(image_size=8)


def test_the_classifier_learns_is_kept_and_is_the_same_again(splits: Splits, tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    torch.manual_seed(1)
    first = classifier_features(splits, tmp_path, steps=60)
    _, metadata = files.read_tensors(path)
    assert metadata["accuracy"] > 0.8
    written = path.stat().st_mtime_ns
    torch.manual_seed(2)
    kept, again = classifier_features(splits, tmp_path, steps=60), classifier_features(splits, steps=60)
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
    first = classifier_features(splits, tmp_path, steps=60)
    assert splits.train.labels is not None
    inverted = TensorSet(255 - splits.train.read(torch.arange(200)), Annotations(splits.train.labels[:200]))
    second = classifier_features(Splits(inverted, splits.valid, splits.test), tmp_path, steps=20)
    assert first.name != second.name
    assert classifier_features(Splits(inverted, splits.valid, splits.test), tmp_path, steps=20).name == second.name


@pytest.mark.parametrize("harm", ["cut", "accuracy", "weights", "one weight"])
def test_a_damaged_classifier_is_named_and_trained_anew(
    harm: str, splits: Splits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "classifier.safetensors"
    first = classifier_features(splits, tmp_path, steps=20)
    tensors, metadata = files.read_tensors(path)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "accuracy":
        files.write_tensors(path, tensors, {key: value for key, value in metadata.items() if key != "accuracy"})
    elif harm == "weights":
        files.write_tensors(path, {"head.bias": tensors["head.bias"]}, metadata)
    else:
        files.write_tensors(path, {**tensors, "head.bias": tensors["head.bias"] + 1}, metadata)
    assert classifier_features(splits, tmp_path, steps=20).name == first.name
    assert f"{path}: " + ("damaged" if harm == "one weight" else "not ") in caplog.text
    assert "trained anew" in caplog.text
    caplog.clear()
    assert classifier_features(splits, tmp_path, steps=20).name == first.name
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
        (plain, "not a network that vaes evaluate trained"),
        (other, "images with 1 channel"),
        (torn, "not a whole safetensors file"),
        (tmp_path / "none.safetensors", "there is no such weights file"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            find_features(str(path), splits, None)
        assert str(path) in str(caught.value)
    with pytest.raises(UserError, match="'vgg' is none of auto, classifier, pretext, inception, pixels"):
        find_features("vgg", splits, None)


def test_inception_says_what_to_install(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"pip install 'vaes\[fid\]'"):
        find_features("inception", splits, None)


def test_inception_that_does_not_load_says_why(splits: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with a torchvision for another torch, which torch-fidelity imports."""
    package = tmp_path / "torch_fidelity"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch_fidelity", raising=False)
    with pytest.raises(UserError, match=r"\(operator torchvision::nms does not exist\): pip install 'vaes"):
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


def test_weights_that_were_changed_are_refused(splits: Splits, tmp_path: Path) -> None:
    classifier_features(splits, tmp_path, steps=3)
    path = tmp_path / "classifier.safetensors"
    tensors, metadata = files.read_tensors(path)
    tensors["head.bias"][0] += 1
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(UserError, match="damaged, its weights are not those that were written") as caught:
        find_features(str(path), splits, None)
    assert str(path) in str(caught.value)


def test_large_images_are_seen_as_means_over_areas() -> None:
    images = torch.arange(128 * 96).reshape(1, 1, 128, 96).remainder(256).to(torch.uint8)
    blocks = images.float().reshape(64, 2, 48, 2).mean((1, 3)) / 255
    torch.testing.assert_close(seen(images)[0, 0], blocks)
    assert torch.equal(seen(images[:, :, :64, :64]), images[:, :, :64, :64].float() / 255)


def test_inception_takes_neither_vectors_nor_other_channels() -> None:
    for shape, reason in (((5, 8, 8), "not 5 channels"), ((1, 1, 8), "channels of 1x8")):
        images = TensorSet(torch.zeros(4, *shape, dtype=torch.uint8))
        with pytest.raises(NotApplicable, match=reason):
            find_features("inception", Splits(images, images, images), None)
