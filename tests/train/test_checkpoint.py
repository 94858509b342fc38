import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from parts import small_vae

from vaes import files
from vaes.errors import UserError
from vaes.objectives import ELBO, Context, Noise, Objective
from vaes.train import Settings, checkpoint
from vaes.train.state import TrainState


def trained(step: int, seed: int = 0) -> TrainState:
    """A state after one optimiser step, which says that it was ``step``."""
    part = Objective(small_vae(network="conv", seed=seed), ELBO())
    state = TrainState(part, Settings(optimizer="adam", n_steps=100))
    part(torch.randn(4, 1, 8, 8), Noise(torch.randn(1, 4, 3), torch.randn(4, 3)), Context({"rate": 1.0}))[
        "loss"
    ].backward()
    state.optimizer.step()
    state.step, state.sums, state.summed = step, {"loss": torch.tensor(3.0)}, 1
    return state


def write(run: Path, step: int, seed: int = 0) -> TrainState:
    state = trained(step, seed)
    (run / "ckpt").mkdir(exist_ok=True)
    checkpoint.write(run, state.state_dict({"config": "x"}))
    return state


def rewrite(path: Path, **changes: object) -> None:
    """Another state under a checksum that fits."""
    document = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"}
    path.write_text(json.dumps(checkpoint.seal({**document, **changes})))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    state = write(tmp_path, 12)
    state.judge(2.0)
    found = checkpoint.read(tmp_path / "ckpt" / "step000012")
    assert (found.step, found.metadata["config"], found.state["summed"]) == (12, "x", 1)
    other = trained(3, seed=1)
    other.load_state_dict(found)
    ours, theirs = state.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    old, new = state.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    assert old.keys() == new.keys()
    assert all(torch.equal(old[i][name], new[i][name]) for i in old for name in old[i])
    assert (other.step, other.sums["loss"].item(), other.summed, other.best) == (12, 3.0, 1, None)


def test_a_finite_loss_always_beats_one_that_is_no_number() -> None:
    state = trained(1)
    for step, loss, best in ((1, math.nan, None), (2, math.inf, None), (3, 5.0, (3, 5.0)), (4, math.nan, (3, 5.0)),
                             (5, 4.0, (5, 4.0)), (6, 4.0, (5, 4.0))):  # fmt: skip
        state.step = step
        assert state.judge(loss) == (best is not None and best[0] == step)
        assert state.best == best
    assert state.stale == 1


@pytest.mark.parametrize("change", ["step", "best", "summed"])
def test_one_changed_number_of_the_state_is_noticed(tmp_path: Path, change: str) -> None:
    write(tmp_path, 100)
    path = tmp_path / "ckpt" / "step000100" / checkpoint.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), change: 104}))
    with pytest.raises(UserError, match=r"state\.json: damaged"):
        checkpoint.read(path.parent)


def test_a_step_that_is_not_the_folder_s_or_the_weights_is_noticed_whatever_the_checksums(tmp_path: Path) -> None:
    write(tmp_path, 100)
    folder = tmp_path / "ckpt" / "step000100"
    rewrite(folder / checkpoint.STATE, step=104)
    with pytest.raises(UserError, match="is of step 104, and its folder is called step000100"):
        checkpoint.read(folder)
    folder.rename(tmp_path / "ckpt" / "step000104")
    with pytest.raises(UserError, match=r"is of step 100, and state\.json of step 104"):
        checkpoint.read(tmp_path / "ckpt" / "step000104")


def test_only_what_the_program_names_is_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 7)
    for name in ("step\u00b2", "step7", "step-00007", "steps000001", "step000008x"):
        (tmp_path / "ckpt" / name).mkdir()
    (tmp_path / "ckpt" / ".step000009.1.tmp.precious").mkdir()
    (tmp_path / "ckpt" / "step000010").symlink_to(tmp_path / "ckpt" / "step000007")
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step000007"]
    before = sorted(path.name for path in (tmp_path / "ckpt").iterdir())
    checkpoint.thin_out(tmp_path, 1, None)
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == before


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.TRAINING, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / "ckpt" / "step000002" / name
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        middle = len(data) // 2
        path.write_bytes(
            {
                "flip": data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :],
                "cut": data[:middle],
                "empty": b"",
            }[damage]
        )
    assert checkpoint.newest_folder(tmp_path).name == "step000001"
    assert "step000002" in caplog.text
    with pytest.raises(UserError, match="step000002"):
        checkpoint.read(path.parent)


@pytest.mark.parametrize("found", ["vaes-3", None])
def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, found: str | None) -> None:
    write(tmp_path, 1)
    path = tmp_path / "ckpt" / "step000001" / checkpoint.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": found}))
    with pytest.raises(UserError, match=r"state\.json: not a checkpoint of this format \(vaes-2\)"):
        checkpoint.read(path.parent)


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write(run, 1)
    run.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        checkpoint.write(run, trained(2).state_dict({}))
    assert not run.exists()


def test_no_whole_checkpoint_at_all_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / "ckpt" / "step000001" / checkpoint.MODEL).write_bytes(b"")
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.newest_folder(tmp_path)


def test_a_write_that_fails_leaves_nothing_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)
    monkeypatch.setattr(
        files, "write_tensors", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 2)
    assert [path.name for path in (tmp_path / "ckpt").iterdir()] == ["step000001"]
    checkpoint.read(tmp_path / "ckpt" / "step000001")


def test_thinning_keeps_the_newest_and_the_best_and_sweeps_leftovers(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    (tmp_path / "ckpt" / ".step000009.123.tmp").mkdir()
    checkpoint.thin_out(tmp_path, 2, 1)
    assert sorted(path.name for path in (tmp_path / "ckpt").iterdir()) == ["step000001", "step000003", "step000004"]


def test_damaged_checkpoints_beyond_where_a_run_goes_on_are_set_aside(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    (tmp_path / "ckpt" / "step000003" / checkpoint.MODEL).write_bytes(b"")
    with pytest.raises(UserError, match="step000002 is newer than step 1"):
        checkpoint.set_aside(tmp_path, 1)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step000003", "step000002", "step000001"]
    (tmp_path / "ckpt" / "step000002" / checkpoint.STATE).unlink()
    for _ in range(2):
        checkpoint.set_aside(tmp_path, 1)
        left = sorted(path.name for path in (tmp_path / "ckpt").iterdir())
        assert left == ["damaged-step000002", "damaged-step000003", "step000001"]
        write(tmp_path, 2)  # the run gets there again, and is damaged again
        (tmp_path / "ckpt" / "step000002" / checkpoint.TRAINING).write_bytes(b"")


def test_writing_a_step_again_replaces_it_whole(tmp_path: Path) -> None:
    write(tmp_path, 1, seed=0)
    state = write(tmp_path, 1, seed=1)
    found = checkpoint.read(tmp_path / "ckpt" / "step000001")
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in state.model.state_dict().items())
    assert [path.name for path in (tmp_path / "ckpt").iterdir()] == ["step000001"]


def test_weights_of_another_model_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, 1)
    found = checkpoint.read(tmp_path / "ckpt" / "step000001")
    for other in (small_vae(network="mlp"), small_vae((1, 16, 16), network="conv"), small_vae(z_dim=4, network="conv")):
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(UserError, match="these weights belong to another configuration"):
            checkpoint.load_weights(other, found.weights, "here")
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("sprung"),))


def test_a_malicious_weights_file_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Trap()))  # the trap works
    assert Path("sprung").exists()
    Path("sprung").unlink()
    for write_trap in (lambda p: p.write_bytes(pickle.dumps(Trap())), lambda p: torch.save({"w": Trap()}, p)):
        write(tmp_path, 1)
        folder = tmp_path / "ckpt" / "step000001"
        write_trap(folder / checkpoint.MODEL)
        sums = {name: files.checksum(folder / name) for name in (checkpoint.MODEL, checkpoint.TRAINING)}
        rewrite(folder / checkpoint.STATE, sha256=sums)  # an attacker would
        with pytest.raises(UserError, match="not a whole safetensors file"):
            checkpoint.read(folder)
        assert not Path("sprung").exists()


def test_write_atomic_leaves_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
