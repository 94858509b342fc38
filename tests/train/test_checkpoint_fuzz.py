"""Whatever a checkpoint holds, only the documented error comes out of the readers."""

import json
import math
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaes import config as configuration
from vaes import files, run, weights
from vaes.errors import UserError
from vaes.experiment import Experiment
from vaes.model import VAE
from vaes.objectives import ELBO, Objective
from vaes.train import Settings, checkpoint
from vaes.train.state import Best, TrainState

NAMES = (checkpoint.MODEL, checkpoint.TRAINING, checkpoint.STATE)
CONFIG = "model: {z_dim: 2, network: {kind: mlp, hidden: [3]}}"
METADATA: dict[str, Any] = {"config": CONFIG, "image_shape": [1, 4, 4], "step": 3}
MODEST = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def small() -> VAE:
    return Experiment.of(configuration.parse(CONFIG, "here")).build_model((1, 4, 4))


def fresh(model: VAE) -> TrainState:
    return TrainState(Objective(model, ELBO()), Settings(optimizer="adam", n_steps=10))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a real checkpoint."""
    run = tmp_path_factory.mktemp("run")
    (run / "ckpt").mkdir()
    state = fresh(small())
    sum(p.sum() for p in state.model.parameters()).backward()
    state.optimizer.step()
    state.step, state.best, state.summed, state.sums = 3, Best(3, 1.5), 1, {"loss": torch.ones(())}
    folder = checkpoint.write(run, state.state_dict(METADATA))
    return {name: (folder / name).read_bytes() for name in NAMES}


def put(folder: Path, contents: dict[str, bytes], *, checksums: bool = False) -> Path:
    """A run folder that holds these files as its only checkpoint; with checksums that fit, as an attacker's would."""
    step = folder / "ckpt" / "step000003"
    step.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (step / name).write_bytes(data)
    if checksums:
        state = json.loads(contents[checkpoint.STATE])
        state["sha256"] = {name: files.checksum(step / name) for name in NAMES[:2]}
        (step / checkpoint.STATE).write_text(sealed(state))
    return step


def sealed(state: Any) -> str:
    """A state under a checksum that fits, if it can have one."""
    if not isinstance(state, dict):
        return json.dumps(state)
    return json.dumps(checkpoint.seal({key: value for key, value in state.items() if key != "checksum"}))


def read_all(step: Path) -> int:
    """Every reader of a checkpoint, each on its own; returns how many of them were content."""
    model = small()
    content = 0

    def resumed() -> None:
        state = fresh(model)
        state.load_state_dict(checkpoint.read(step))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.optimizer.step()

    readers: tuple[Callable[[], object], ...] = (
        resumed,
        lambda: checkpoint.named_folder(step.parent.parent, None),
        lambda: checkpoint.newest_folder(step.parent.parent),
        lambda: run.load(step / checkpoint.MODEL),
        lambda: run.load(step.parent.parent),
        lambda: weights.load_weights(model, step / checkpoint.MODEL),
    )  # fmt: skip
    for reader in readers:
        try:
            reader()
            content += 1
        except UserError as error:
            assert "\n" not in str(error)
    return content


def test_a_checkpoint_that_nothing_was_done_to_is_read_by_all(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert read_all(put(tmp_path, whole)) == 6
    assert read_all(put(tmp_path, whole, checksums=True)) == 6


@MODEST
@given(name=st.sampled_from(NAMES), data=st.binary(max_size=200))
def test_arbitrary_bytes(tmp_path: Path, whole: dict[str, bytes], name: str, data: bytes) -> None:
    read_all(put(tmp_path, {**whole, name: data}, checksums=name != checkpoint.STATE))


@MODEST
@given(name=st.sampled_from(NAMES), at=st.floats(0, 1), cut=st.integers(0, 9), new=st.binary(max_size=9))
def test_bytes_flipped_cut_and_inserted(
    tmp_path: Path, whole: dict[str, bytes], name: str, at: float, cut: int, new: bytes
) -> None:
    data = whole[name]
    i = int(at * len(data))
    read_all(put(tmp_path, {**whole, name: data[:i] + new + data[i + cut :]}, checksums=name != checkpoint.STATE))


NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 2**31, 2**53, 2**63, 2**64, 10**400, 1e308, float("inf"), float("nan"), -1e-9]),
    st.integers(-3, 100),
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(["F64", "BF16", "U8", "loss", "BOOL"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)


def changed(document: Any, draw: st.DataObject) -> Any:
    """A JSON document with one value replaced, removed or added, anywhere in it."""
    if isinstance(document, (dict, list)) and document and draw.draw(st.integers(0, 5)):
        keys = sorted(document) if isinstance(document, dict) else range(len(document))
        key = draw.draw(st.sampled_from(keys))
        copy = document.copy()
        match draw.draw(st.integers(0, 7)):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[draw.draw(st.sampled_from([f"{key}x", "optimizer.x.y", "optimizer.99.step", "sum."]))] = copy[key]
            case 2 if isinstance(copy, list):
                copy.append(copy[key])
            case _:
                copy[key] = changed(copy[key], draw)
        return copy
    return draw.draw(VALUES)


@MODEST
@given(draw=st.data())
def test_another_state(tmp_path: Path, whole: dict[str, bytes], draw: st.DataObject) -> None:
    state = changed(json.loads(whole[checkpoint.STATE]), draw)
    read_all(put(tmp_path, {**whole, checkpoint.STATE: sealed(state).encode()}))


@MODEST
@given(name=st.sampled_from(NAMES[:2]), draw=st.data())
def test_another_header_of_the_tensors_under_a_checksum_that_fits(
    tmp_path: Path, whole: dict[str, bytes], name: str, draw: st.DataObject
) -> None:
    (size,) = struct.unpack("<Q", whole[name][:8])
    header = changed(json.loads(whole[name][8 : 8 + size]), draw)
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + whole[name][8 + size :]
    read_all(put(tmp_path, {**whole, name: data}, checksums=True))


def with_metadata(model: bytes, metadata: dict[str, Any]) -> bytes:
    """The weights file with other metadata."""
    (size,) = struct.unpack("<Q", model[:8])
    text = json.dumps({**json.loads(model[8 : 8 + size]), "__metadata__": {"vaes": json.dumps(metadata)}}).encode()
    return struct.pack("<Q", len(text)) + text + model[8 + size :]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"image_shape": [1, 65536, 65536]}, "its weights take .* GiB"),
        ({"config": "model: {z_dim: 50000000, network: {kind: mlp, hidden: [3]}}"}, "another configuration"),
        ({"config": "model: {z_dim: 2, network: {kind: mlp, hidden: [99999, 99999]}}"}, "its weights take .* GiB"),
        ({"image_shape": [1, 4, math.inf]}, "image shape"),
        ({"step": math.inf}, "image shape or step"),
    ],
)
def test_metadata_that_are_absurd_are_refused_and_nothing_is_allocated(
    tmp_path: Path, whole: dict[str, bytes], metadata: dict[str, Any], message: str
) -> None:
    data = with_metadata(whole[checkpoint.MODEL], {**METADATA, **metadata})
    step = put(tmp_path, {**whole, checkpoint.MODEL: data}, checksums=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=message):
        run.load(step / checkpoint.MODEL)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


STATES = [
    {"step": -1}, {"step": 1.5}, {"step": math.inf}, {"step": None}, {"terms": None}, {"terms": ["absent"]},
    {"terms": 3}, {"summed": math.inf}, {"summed": -1}, {"summed": "x"}, {"best": [1]}, {"best": 3}, {"best": "x"},
]  # fmt: skip


@pytest.mark.parametrize("change", STATES, ids=str)
def test_a_state_that_no_training_wrote_is_refused(
    tmp_path: Path, whole: dict[str, bytes], change: dict[str, Any]
) -> None:
    state = {**json.loads(whole[checkpoint.STATE]), **change}
    step = put(tmp_path, {**whole, checkpoint.STATE: sealed(state).encode()})
    with pytest.raises(UserError, match="step"):
        fresh(small()).load_state_dict(checkpoint.read(step))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("optimizer.0.exp_avg", None),
        ("optimizer.0.step", torch.ones(2)),
        ("optimizer.0.exp_avg", torch.ones(2)),
        ("optimizer.0.exp_avg_sq", torch.ones(3, 16, dtype=torch.int64)),
        ("optimizer.99.step", torch.ones(())),
        ("optimizer.x.step", torch.ones(())),
        ("optimizer", torch.ones(())),
        ("optimizer.0.amsgrad", torch.ones(())),
    ],
)
def test_moments_that_are_not_the_optimiser_s_are_refused(
    tmp_path: Path, whole: dict[str, bytes], name: str, tensor: torch.Tensor | None
) -> None:
    found = checkpoint.read(put(tmp_path, whole))
    if tensor is None:
        del found.training[name]
    else:
        found.training[name] = tensor
    with pytest.raises(UserError, match="step 3"):
        fresh(small()).load_state_dict(found)


@MODEST
@given(draw=st.data())
def test_other_metadata_under_a_checksum_that_fits(
    tmp_path: Path, whole: dict[str, bytes], draw: st.DataObject
) -> None:
    metadata = dict(METADATA)
    if draw.draw(st.booleans()):
        raw = configuration.load(configuration.parse(CONFIG, "here"))
        metadata["config"] = json.dumps(changed(raw, draw))  # YAML, too
    else:
        metadata = changed(metadata, draw)
    data = with_metadata(whole[checkpoint.MODEL], metadata)
    read_all(put(tmp_path, {**whole, checkpoint.MODEL: data}, checksums=True))
