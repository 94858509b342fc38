from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data import Annotations, Identity, Splits, TensorSet, arrays, binarize, digits, folder, identify, sprites
from vaes.data.hashing import content_hash
from vaes.errors import UserError

SET = np.random.default_rng(0).integers(0, 256, (60, 3, 4), dtype=np.uint8)


def splits(train: list[int], valid: list[int], test: list[int]) -> Splits:
    return arrays(SET[train], SET[test], valid=SET[valid])


OLD = splits([*range(20)], [20, 21], [30, 31, 32])


@pytest.mark.parametrize(
    ("new", "says"),
    [
        (([*range(20)], [20, 21], [30, 31, 32]), None),
        (([*range(19, -1, -1)], [21, 20], [32, 30, 31]), None),
        (([*range(20), 40, 41, 42], [20, 21], [30, 31, 32]), "3 images added to train"),
        (([*range(20), 40], [20, 21], [30, 31]), "1 image added to train, 1 gone from test"),
        (
            ([*range(2, 20), 30, 50, 51, 52], [20, 21], [31, 32, 0]),
            "3 images added to train, 1 gone from train, 1 moved from train to test, 1 moved from test to train",
        ),
        (([*range(18)], [20, 21], [30, 31, 32, 18, 19]), "2 images moved from train to test"),
        (([0, *range(20)], [20, 21], [30, 31, 32]), "1 image added to train"),  # a copy
        (([*range(1, 20)], [20, 21], [30, 31, 32]), "1 image gone from train"),
    ],
)
def test_what_changed_is_one_sentence(new, says: str | None, tmp_path: Path) -> None:
    identify(OLD).write(tmp_path / "x.safetensors")
    assert identify(splits(*new)).difference(Identity.read(tmp_path / "x.safetensors")) == says


def test_only_the_content_counts(tmp_path: Path) -> None:
    """Files under other names, in another format, cut and resized, are the same images; a changed pixel is another."""
    for i in range(30):
        Image.fromarray(SET[i]).save(tmp_path / f"{i}.png")
    whole = identify(folder(root=str(tmp_path), seed=3))
    for i in range(30):
        (tmp_path / f"{i}.png").unlink()
        Image.fromarray(SET[i]).convert("RGB").save(tmp_path / f"{99 - i}.bmp")
    again = identify(folder(root=str(tmp_path), image_size=2, fit="crop", seed=3))
    assert again.fingerprints == whole.fingerprints
    changed = SET[:30].copy()
    changed[7, 0, 0] ^= 1
    found = identify(arrays(changed, seed=3)).difference(whole)
    assert found is not None
    assert "1 image" in found
    assert "1 gone" in found


def test_the_hash_of_a_picture_is_of_its_pixels() -> None:
    grey = SET[0]
    assert content_hash(grey) == content_hash(np.stack([grey] * 3, -1)) == content_hash(grey.astype(np.uint16) * 257)
    others = [grey.T, grey.reshape(4, 3), grey ^ 1, grey.astype(np.uint16), grey.astype(np.float32)]
    others += [np.stack([grey, grey, grey ^ 1], -1), grey[:, ::-1]]
    assert len({content_hash(grey), *map(content_hash, others)}) == 8
    wide = np.random.default_rng(0).integers(0, 65536, (3, 4)).astype(np.uint16)
    assert content_hash(wide) == content_hash(wide.astype(">u2"))


def test_every_source_has_one(tmp_path: Path) -> None:
    known = identify(digits(image_size=16))
    assert known.fingerprints == identify(binarize(digits(), "dynamic")).fingerprints
    drawn = identify(sprites(image_size=16))
    assert drawn.difference(identify(sprites(image_size=16))) is None
    assert (
        drawn.difference(identify(sprites(image_size=16, seed=1)))
        == "train and valid and test: other images altogether"
    )
    assert drawn.difference(identify(sprites(image_size=32))) is not None
    few = sprites(image_size=8, n_train=50, n_valid=10, n_test=10)
    assert identify(binarize(few, "static")).definitions == identify(few).definitions
    drawn.write(tmp_path / "x")
    assert Identity.read(tmp_path / "x").fingerprints == drawn.fingerprints
    assert drawn.difference(known) is not None
    # Sets made in Python, without hashes: by what they hold.
    bare = Splits(*(TensorSet(torch.from_numpy(SET[i : i + 20, None])) for i in (0, 20, 40)))
    assert (
        identify(bare).fingerprints == identify(splits([*range(20)], [*range(20, 40)], [*range(40, 60)])).fingerprints
    )


def test_damage_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    identify(OLD).write(path)
    content = path.read_bytes()
    assert len(content) < 25 * 8 + 600
    for damaged in (content[:-1], content[:-3] + b"\1" + content[-2:], b"", content.replace(b"train", b"brain", 1)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.safetensors") as caught:
            Identity.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        Identity.read(tmp_path / "nowhere")


def test_annotations_follow_their_images() -> None:
    notes = Annotations(paths=tuple("abcd"), hashes=torch.arange(4))
    part = TensorSet(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), notes).subset(torch.tensor([3, 1])).notes
    assert part.paths == ("d", "b")
    assert part.hashes is not None
    assert part.hashes.tolist() == [3, 1]
