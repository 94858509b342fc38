"""The two nouns: an experiment, however it was made, and the run that it gives."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vaes
from vaes import Experiment, data
from vaes import config as configuration
from vaes.errors import UserError
from vaes.run import load
from vaes.train import checkpoint
from vaes.train.listeners import Listener

TINY = {
    "data": {"kind": "digits", "image_size": 8},
    "model": {"network": {"kind": "mlp", "hidden": [8]}, "likelihood": "bernoulli"},
    "train": {"n_steps": 6, "batch_size": 16, "eval_freq": 2, "print_freq": 2, "save_freq": 2, "keep": 9},
}


def tiny(**changes: object) -> Experiment:
    return Experiment(**TINY).replace(changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    tiny().fit(folder)
    return folder


def test_an_experiment_is_printed_back_as_whatever_it_can_be_made_of(tmp_path: Path) -> None:
    lr = {"kind": "cosine", "start": 1e-3}
    made = tiny(**{"method": "info_vae", "objective.alpha": 0.5, "train.lr": lr, "seed": 3})
    assert Experiment.of(configuration.parse(made.to_yaml(), "here")) == made
    assert Experiment.of({}, made.to_arguments()) == made
    assert eval(repr(made)) == made
    assert pickle.loads(pickle.dumps(made)) == made
    (tmp_path / "x.yaml").write_text(made.to_yaml())
    assert Experiment.read(tmp_path / "x.yaml") == made
    assert Experiment.read(tmp_path / "x.yaml", ["--seed", "4"]) == made.replace({"seed": 4}) != made
    assert hash(made) == hash(made.replace({}))


def test_an_experiment_is_read_by_the_name_of_a_shipped_configuration() -> None:
    made = Experiment.read("vae-mnist", ["--seed", "4"])
    assert (made.seed, made.data["kind"]) == (4, "mnist")
    with pytest.raises(UserError, match=r"vae-mnits: there is no such configuration file; did you mean -c vae-mnist\?"):
        Experiment.read("vae-mnits")


def test_an_experiment_cannot_be_changed_and_says_what_is_wrong_with_its_keys() -> None:
    made = tiny()
    assert made.train.batch_size == made.train["batch_size"] == 16
    with pytest.raises((AttributeError, TypeError)):
        made.train["batch_size"] = 3  # type: ignore[index]
    with pytest.raises((AttributeError, TypeError)):
        made.seed = 3  # type: ignore[misc]
    with pytest.raises(UserError, match=r"train\.batchsize: unknown key: did you mean batch_size"):
        Experiment(train={"batchsize": 3})
    with pytest.raises(UserError, match=r"objective\.beta: 'x' is not right"):
        Experiment(objective={"beta": "x"})


def test_fit_gives_the_run_that_is_on_the_disk(trained: Path) -> None:
    run = load(trained)
    assert run.experiment == tiny()
    assert run.folder == trained
    assert not run.model.training
    assert run.sample(3).shape == (3, 1, 8, 8)
    assert torch.equal(run.sample(3), run.sample(3))
    x, y = run.reconstruct(n=5)
    assert x.shape == y.shape == (5, 1, 8, 8)
    assert run.traverse(1, n=4).shape == (4, 1, 8, 8)
    torch.testing.assert_close(run.traverse(1, n=3)[1], run.decode(torch.zeros(1, 2))[0])
    with pytest.raises(UserError, match="dim: 2 of 2"):
        run.traverse(2)
    assert [segment["step"] for segment in run.history.segments] == [0]
    assert [line["step"] for line in run.history.valid] == [2, 4, 6]
    assert {len(run.encode(split).mean) for split in ("train", "valid", "test")} == {1350, 150, 297}
    assert "digits" in repr(run)


def test_encode_takes_what_images_come_as(trained: Path) -> None:
    run = load(trained)
    digits = run.data.test.read(torch.arange(4))
    want = run.encode("test").mean[:4]
    low, high = run.model.value_range
    for given in (
        digits,
        digits.numpy(),
        digits[:, 0],
        digits.float() / 255 * (high - low) + low,
        digits.permute(0, 2, 3, 1),
    ):
        np.testing.assert_allclose(run.encode(given).mean, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"images of \(1, 4, 4\) where the model takes \(1, 8, 8\)"):
        run.encode(np.zeros((2, 4, 4), np.uint8))


def test_the_best_checkpoint_is_taken_where_there_was_a_validation_and_any_can_be_asked_for(tmp_path: Path) -> None:
    lr = {"kind": "linear", "start": 0.01, "stop": 2.0}
    worse = tiny(**{"train.lr": lr, "train.n_steps": 12, "train.keep": 2, "train.save_freq": 1, "train.eval_freq": 1})
    run = worse.fit(tmp_path / "run")
    losses = {line["step"]: line["loss"] for line in run.history.valid}
    best = min(losses, key=lambda step: losses[step])
    assert best < 11, "the test needs a training that gets worse"
    assert run.step == best
    assert run.which.startswith(f"the best, step {best} of 12 by its validation loss")
    assert load(tmp_path / "run", checkpoint="last").step == 12
    assert load(tmp_path / "run", checkpoint=11).step == 11
    with pytest.raises(UserError, match=r"--checkpoint 3: .* has no checkpoint of that step; there are"):
        load(tmp_path / "run", checkpoint=3)
    with pytest.raises(UserError, match="--checkpoint x: must be best, last or a step"):
        load(tmp_path / "run", checkpoint="x")
    blind = tiny(**{"train.eval_freq": 0}).fit(tmp_path / "blind")
    assert blind.which == "the last, step 6; there was no validation loss to choose by"
    with pytest.raises(UserError, match="has no best one: no validation"):
        load(tmp_path / "blind", checkpoint="best")


def test_a_best_checkpoint_that_is_gone_is_said_and_the_last_is_taken(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    newest = checkpoint.newest_folder(run)
    state = {k: v for k, v in json.loads((newest / "state.json").read_text()).items() if k != "checksum"}
    (newest / "state.json").write_text(json.dumps(checkpoint.seal({**state, "best": [2, 1.0]})))
    shutil.rmtree(run / "ckpt" / "step000002")
    assert load(run).step == 6
    assert "the best checkpoint, of step 2, cannot be used (it is gone)" in caplog.text


def test_weights_are_held_when_they_are_loaded_and_named_by_the_bytes_that_were_read(
    trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    run = load(folder, checkpoint="last")
    before = run.sample(2)
    shutil.rmtree(folder / "ckpt")
    assert torch.equal(run.sample(2), before)
    from vaes.files import checksum

    assert run.sha256 == checksum(trained / "ckpt" / "step000006" / "model.safetensors")


def test_a_resumed_experiment_equals_an_uninterrupted_one_and_adds_a_segment(trained: Path, tmp_path: Path) -> None:
    tiny(**{"train.n_steps": 3}).replace({"train.lr": 1e-3}).fit(tmp_path / "cut")
    tiny(**{"train.lr": 1e-3}).fit(tmp_path / "whole")
    before = (tmp_path / "cut" / "config.yaml").read_text()
    run = load(tmp_path / "cut").resume({"train.n_steps": 6, "train.print_freq": 3})
    whole = load(tmp_path / "whole", checkpoint="last")
    last = load(tmp_path / "cut", checkpoint="last")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, last.model.state_dict()[name])
    assert run.experiment.train.print_freq == 3
    assert (tmp_path / "cut" / "config.yaml").read_text() == before, "the past is not rewritten"
    segments = run.history.segments
    assert [(s["step"], s["config"]["train"]["n_steps"]) for s in segments] == [(0, 3), (3, 6)]
    assert {"torch", "vaes", "python"} <= segments[1]["versions"].keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "--resume goes on with the same training; give a new run folder with -e: seed is 1"),
        ({"objective.beta": 2}, "objective.beta is 2"),
        ({"train.batch_size": 8}, "train.batch_size: 8 where this run has 16"),
        ({"model.z_dim": 3}, "model.z_dim is 3"),
    ],
)
def test_another_training_is_not_gone_on_with(trained: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(trained).resume(changes)


def test_a_history_that_was_cut_short_is_gone_on_with(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 6, "con')
    load(folder).resume({"train.n_steps": 7})
    assert [segment["step"] for segment in load(folder).history.segments] == [0, 6]


IMAGES = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)


def test_images_from_python_stay_with_their_run_and_are_given_again_to_one_that_is_loaded(tmp_path: Path) -> None:
    experiment = tiny()
    fitted = experiment.fit(tmp_path / "run", data=data.arrays(IMAGES))
    assert fitted.experiment.data.kind == "arrays"
    run = load(tmp_path / "run")
    with pytest.raises(UserError, match="its images were given in Python"):
        run.encode("test")
    same = run.with_data(data.arrays(IMAGES))
    assert len(same.encode("test").mean) > 0
    assert np.array_equal(same.encode("test").mean, fitted.encode("test").mean)
    assert load(tmp_path / "run", checkpoint="last").step == 6
    assert len(fitted.resume({"train.n_steps": 7}).encode("test").mean) > 0
    with pytest.raises(UserError, match=r"not the images that .* was trained on: .*"):
        run.with_data(data.arrays(IMAGES[:70]))
    more = same.resume({"train.n_steps": 8})
    assert load(tmp_path / "run", checkpoint="last").step == 8
    assert more.experiment == run.experiment.replace({"train.n_steps": 8})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    from PIL import Image

    root = tmp_path / "pictures"
    root.mkdir()
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(root / f"{i}.png")
    return root


def folder_of(root: Path, **changes: object) -> Experiment:
    return tiny(**{"data": {"kind": "folder", "root": str(root)}, **changes})


def test_data_that_moved_are_found_by_their_new_root(pictures: Path, tmp_path: Path) -> None:
    folder_of(pictures).fit(tmp_path / "run")
    moved = pictures.rename(tmp_path / "elsewhere")
    run = load(tmp_path / "run").resume({"train.n_steps": 8, "data.root": str(moved)})
    assert run.experiment.data.root == str(moved)
    assert run.history.segments[1]["notes"] == []


def test_data_that_changed_are_refused_said_and_accepted_on_demand(pictures: Path, tmp_path: Path) -> None:
    folder_of(pictures).fit(tmp_path / "run")
    from PIL import Image

    for i in range(40):
        Image.fromarray(255 - IMAGES[i]).save(pictures / f"new{i}.png")
    (pictures / "0.png").unlink()
    run = load(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"not the images that .* was trained on: .*added.*gone.*--data\.changed accept"
    ):
        run.resume({"train.n_steps": 8})
    with pytest.raises(UserError, match="added"):
        run.encode("test")
    assert len(run.elsewhere({"data.changed": "accept"}).encode("test").mean) > 0
    assert "added" in run.notes[0]
    lines = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["notes"] for line in lines] == [[], run.notes], "what was accepted is written down"
    assert len(run.history.segments) == 1
    again = load(tmp_path / "run").resume({"train.n_steps": 8, "data.changed": "accept"})
    assert "added" in again.history.segments[1]["notes"][0]
    assert again.experiment.data.changed == "refuse"
    assert len(again.encode("test").mean) > 0, "what was accepted is what the run was trained on since"
    (tmp_path / "run" / "data.safetensors").unlink()  # the history knows the images too
    assert len(load(tmp_path / "run").encode("test").mean) > 0
    (pictures / "1.png").unlink()
    with pytest.raises(UserError, match=r"was trained on: [a-z ]+: other images \(data\.safetensors, .* is missing"):
        load(tmp_path / "run").encode("test")


def test_the_log_says_how_the_data_were_read(pictures: Path, tmp_path: Path) -> None:
    (pictures / "notes.txt").write_text("x")

    class Said(Listener):
        text = ""

        def said(self, training: object, text: str) -> None:
            self.text += text + "\n"

    said = Said()
    folder_of(pictures, **{"data.flip": True}).fit(tmp_path / "run", callbacks=[said])
    assert "80 images 8x8 grey" in said.text
    assert "no labels" in said.text
    assert ".txt 1" in said.text
    assert "mirrored" in said.text


def test_a_caller_s_own_accelerator_and_flags_survive(tmp_path: Path) -> None:
    code = (
        "import torch, sys\nfrom accelerate import Accelerator\nmine = Accelerator(cpu=True, mixed_precision='bf16')\n"
        "torch.set_float32_matmul_precision('medium')\nimport vaes\n"
        "e = vaes.Experiment(data={'image_size': 8}, model={'network': {'kind': 'mlp', 'hidden': [8]}}, "
        "train={'n_steps': 2, 'batch_size': 8})\n"
        "run = e.fit(sys.argv[1])\n"
        "assert torch.get_float32_matmul_precision() == 'medium'\nassert mine.mixed_precision == 'bf16'\n"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


@vaes.register_network("test_two_layers")
class TwoLayers:
    """A network of one's own, as the README shows it."""

    def encoder(self, image_shape: tuple[int, int, int], outputs: int, *, width: int = 16) -> nn.Module:
        size = image_shape[0] * image_shape[1] * image_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, outputs))

    def decoder(self, z_shape: tuple[int, ...], output_shape: tuple[int, int, int], *, width: int = 16) -> nn.Module:
        size = output_shape[0] * output_shape[1] * output_shape[2]
        return nn.Sequential(
            nn.Linear(z_shape[0], width), nn.ReLU(), nn.Linear(width, size), nn.Unflatten(1, output_shape)
        )


def test_own_networks_train_resume_load_and_encode(tmp_path: Path) -> None:
    experiment = Experiment(
        **{**TINY, "model": {"network": {"kind": "test_two_layers", "width": 12}, "likelihood": "bernoulli"}}
    )
    assert experiment.model.network.width == 12
    run = experiment.fit(tmp_path / "run")
    assert run.model.encoder[1].out_features == 12
    again = load(tmp_path / "run").resume({"train.n_steps": 8})
    assert load(again.folder, checkpoint="last").step == 8
    assert len(again.encode("test").mean) == 297
    with pytest.raises(UserError, match=r"model\.network\.widht: unknown key: did you mean width"):
        experiment.replace({"model.network.widht": 3})
    with pytest.raises(UserError, match=r"model\.network\.width: 'x' is not right; it must be a whole number"):
        experiment.replace({"model.network.width": "x"})


class Static:
    @staticmethod
    def encoder(image_shape: tuple[int, ...], outputs: int, *, width: int = 4) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, outputs))

    @staticmethod
    def decoder(z_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Linear(z_shape[0], output_shape[1] * output_shape[2]), nn.Unflatten(1, output_shape))


class Bare:
    encoder = Static.encoder

    def decoder(z_shape, output_shape, *, slope=0.1):  # noqa: N805 - as a function of the class
        return nn.Sequential(Static.decoder(z_shape, output_shape), nn.LeakyReLU(slope))


@pytest.mark.parametrize(("cls", "keys"), [(Static, {"width"}), (Bare, {"width", "slope"})])
def test_a_network_s_parts_are_found_however_they_are_written(cls: type, keys: set[str]) -> None:
    try:
        vaes.register_network("test_written")(cls)
        made = Experiment(model={"network": {"kind": "test_written"}})
        assert set(made.model.network) == {"kind", *keys}
        assert made.build_model((1, 4, 4)).decode(torch.zeros(3, 2)).shape == (3, 1, 4, 4)
    finally:
        vaes.config.own.OWN.discard("test_written")
        vaes.config.registry.NETWORKS.pop("test_written", None)


def test_a_network_s_name_and_parts_are_checked() -> None:
    with pytest.raises(ValueError, match="'conv' is the package's own"):
        vaes.register_network("conv")(TwoLayers)
    with pytest.raises(ValueError, match="has no decoder"):
        vaes.register_network("half")(type("Half", (), {"encoder": lambda self: None}))


@pytest.mark.parametrize("method", ["ae", "vae", "beta_vae", "iwae", "info_vae", "mmd_vae"])
def test_runs_that_the_first_version_wrote_still_load_sample_encode_and_go_on(
    repo: Path, tmp_path: Path, method: str
) -> None:
    folder = shutil.copytree(repo / "tests" / "fixtures" / "runs-1" / method, tmp_path / method)
    run = load(folder)
    assert run.step == 6
    assert run.sample(2).isfinite().all()
    metrics = json.loads((folder / "metrics.json").read_text())
    codes = run.encode("test")
    assert float(np.mean(codes.mse)) == pytest.approx(metrics["test"]["mse"]["value"] / _width(run) ** 2, rel=1e-4)
    if method != "ae":
        assert codes.rate is not None
        assert float(np.mean(codes.rate)) == pytest.approx(metrics["test"]["rate"]["value"], rel=1e-4)
    more = run.resume({"train.n_steps": 8})
    assert load(more.folder, checkpoint="last").step == 8


def _width(run: vaes.Run) -> float:
    low, high = run.model.value_range
    return high - low


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"method": "fsq_vae"}, "autoregressive"),
        ({"method": "kl_vae", "model": {"posterior": {"kind": "fsq"}, "prior": "codes"}}, "autoregressive"),
        ({"method": "vq_vae", "model": {"posterior": "gaussian", "prior": "standard_normal"}}, None),
        ({"method": "kl_vae", "model": {"network": {"kind": "autoencoder_kl"}}}, "flow_matching"),
        ({"method": "kl_vae", "model": {"network": {"kind": "conv"}}}, None),
        ({"method": "ae"}, "gmm"),
        ({"method": "vae"}, None),
    ],
)
def test_the_prior_to_fit_is_one_that_the_codes_take(raw: dict[str, Any], kind: str | None) -> None:
    assert Experiment.of(raw).prior_to_fit == kind


def test_the_encoder_waits_for_the_decoder(tmp_path: Path) -> None:
    waiting = tiny(**{"train.n_steps": 40, "train.encoder_after": 3, "train.save_freq": 1, "train.keep": 40})
    run = waiting.fit(tmp_path / "run", device="cpu")
    weights = {step: checkpoint.read(run.folder / "ckpt" / f"step{step:06d}").weights for step in (1, 3, 4)}
    for name, first in weights[1].items():
        waits = name.startswith("encoder.")
        assert torch.equal(first, weights[3][name]) == waits, name
        assert not torch.equal(first, weights[4][name]), name
    for step in ("step000002", "step000005"):  # before the encoder has moments, and after
        again = waiting.fit(tmp_path / step, resume=run.folder / "ckpt" / step, device="cpu")
        assert all(torch.equal(x, again.model.state_dict()[name]) for name, x in run.model.state_dict().items())
    assert not any(waiting.replace({"train.n_steps": 9}).settings().encoder_waits(step) for step in range(9))
