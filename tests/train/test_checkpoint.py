import json
import pickle
from pathlib import Path

import pytest
import torch
from parts import small_vae

from vaes import files
from vaes.errors import UserError
from vaes.train import checkpoint


def write(run: Path, step: int, seed: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = small_vae(network="conv", seed=seed)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 1, 8, 8), torch.randn(1, 4, 3)).log_px.sum().backward()
    optimizer.step()
    extra, state = {"sum.loss": torch.tensor(3.0)}, {"best": None, "summed": 1}
    (run / "ckpt").mkdir(exist_ok=True)
    checkpoint.write(run, checkpoint.snapshot(step, model.state_dict(), optimizer, extra, state, {"config": "x"}))
    return model, optimizer


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    model, optimizer = write(tmp_path, 12)
    found = checkpoint.read(tmp_path / "ckpt" / "step000012")
    assert (found.step, found.metadata["config"], found.state["summed"]) == (12, "x", 1)
    other = small_vae(network="conv", seed=1)
    checkpoint.load_weights(other, found.weights, "here")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    fresh = torch.optim.Adam(other.parameters())
    checkpoint.restore_optimizer(fresh, found)
    old, new = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert old.keys() == new.keys()
    assert all(torch.equal(old[i][name], new[i][name]) for i in old for name in old[i])
    assert found.training["sum.loss"].item() == 3.0


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.TRAINING, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
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
    assert "step000002" in capsys.readouterr().err
    with pytest.raises(UserError, match="step000002"):
        checkpoint.read(path.parent)


@pytest.mark.parametrize("found", ["vaes-2", None])
def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path, found: str | None) -> None:
    write(tmp_path, 1)
    path = tmp_path / "ckpt" / "step000001" / checkpoint.STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": found}))
    with pytest.raises(UserError, match=r"state\.json: not a checkpoint of this format \(vaes-1\)"):
        checkpoint.read(path.parent)


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write(run, 1)
    run.rename(tmp_path / "elsewhere")
    model = small_vae()
    with pytest.raises(FileNotFoundError):
        checkpoint.write(
            run, checkpoint.snapshot(2, model.state_dict(), torch.optim.Adam(model.parameters()), {}, {}, {})
        )
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
    model, _ = write(tmp_path, 1, seed=1)
    found = checkpoint.read(tmp_path / "ckpt" / "step000001")
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in model.state_dict().items())
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
        state = json.loads((folder / checkpoint.STATE).read_text())
        state["sha256"][checkpoint.MODEL] = files.checksum(folder / checkpoint.MODEL)  # an attacker would
        (folder / checkpoint.STATE).write_text(json.dumps(state))
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
