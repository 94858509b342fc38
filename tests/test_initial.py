"""Weights that go to diffusers and come back, and trainings that begin with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_grids import NETWORK, images
from torch import Tensor, nn
from trainings import everything

from vaes import Experiment, code_statistics, diffusers_folder, encoding, files, initial, share
from vaes.cli import main
from vaes.data import to_float
from vaes.errors import UserError
from vaes.train.listeners import Listener

LINEAR = {"kind": "laplace", "link": "identity"}


def experiment(n_steps: int = 3, **model: Any) -> Experiment:
    return Experiment(
        model={"network": NETWORK, "z_channels": 4, "likelihood": LINEAR, **model},
        train={"n_steps": n_steps, "batch_size": 8, "eval_freq": 0, "save_freq": 2},
    )


def randomised(module: nn.Module) -> None:
    numbers = torch.Generator().manual_seed(3)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=numbers) * (0.5 if p.dim() == 1 else p[0].numel() ** -0.5)


def equal(ours: Any, theirs: Any, x: Tensor) -> None:
    with torch.no_grad():
        q, latent = theirs.encode(x).latent_dist, ours.encode(x)
        torch.testing.assert_close(latent.mean, q.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(latent.logvar.clamp(-30, 20), q.logvar, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.decode(q.mean), theirs.decode(q.mean).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("attention", "quant_conv", "mults"),
                         [(True, True, (1, 2)), (False, False, (1, 1, 2)), (True, False, (1, 2, 2, 4))])  # fmt: skip
def test_diffusers_computes_what_we_compute(
    attention: bool, quant_conv: bool, mults: tuple[int, ...], tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    network = {**NETWORK, "attention": attention, "quant_conv": quant_conv, "ch_mult": mults, "num_res_blocks": 2}
    run = experiment(network=network, z_channels=16 if not quant_conv else 4).fit(
        tmp_path / "run", data=images(16), device="cpu"
    )
    randomised(run.model)
    run = run.with_data(images(16))
    statistics = run.code_statistics()
    paths, notes = share.export_diffusers(run, tmp_path / "folder")
    assert not notes
    assert [path.name for path in paths] == ["config.json", "diffusion_pytorch_model.safetensors"]
    theirs, said = diffusers.AutoencoderKL.from_pretrained(tmp_path / "folder", output_loading_info=True)
    assert not any(said.values())
    equal(run.model, theirs.eval(), 2 * torch.rand(2, 1, 16, 16) - 1)
    assert theirs.config.latents_std == pytest.approx(statistics.std)
    assert theirs.config.scaling_factor == pytest.approx(1 / statistics.overall_std)


@pytest.mark.parametrize(("channels", "quant_conv"), [(4, True), (16, False)])
def test_a_folder_of_diffusers_is_begun_with(channels: int, quant_conv: bool, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4,
        layers_per_block=2, use_quant_conv=quant_conv, use_post_quant_conv=quant_conv,
    ).eval()  # fmt: skip
    randomised(theirs)
    theirs.half().save_pretrained(tmp_path / "sd")
    theirs.float()
    found = initial.read_initial(tmp_path / "sd")
    made = Experiment.of(found.raw)
    model = made.build_model((3, 16, 16))
    assert model.z_shape == (channels, 2, 2)
    notes = found.put_into(model, made.model)
    assert len(notes) == 2
    assert "float16 there, and float32 here" in notes[1]
    equal(model, theirs, 2 * torch.rand(2, 3, 16, 16) - 1)


def test_a_run_begins_with_another_at_another_size_and_says_so(tmp_path: Path) -> None:
    first = experiment().fit(tmp_path / "first", data=images(), device="cpu")
    second = experiment(likelihood={**LINEAR, "scale": "learned"})
    held: dict[str, Tensor] = {}

    class Look(Listener):
        def start(self, training: Any) -> None:
            held.update({k: v.clone() for k, v in training.state.model.state_dict().items()})

    run = second.fit(tmp_path / "b", data=images(16), device="cpu", init=tmp_path / "first", callbacks=[Look()])
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(held[name], tensor)
    (segment,) = run.history.segments
    assert segment["init"]["sha256"] == first.sha256
    assert any("likelihood.log_scale" in text for text in segment["notes"])
    second.fit(tmp_path / "c", data=images(16), device="cpu", resume=tmp_path / "b" / "ckpt" / "step000002")
    assert everything(tmp_path / "b")["weights"] == everything(tmp_path / "c")["weights"]
    with pytest.raises(UserError, match="what --resume goes on with has its weights"):
        second.fit(tmp_path / "b", resume="latest", init=tmp_path / "first")


@pytest.mark.parametrize("way", ["init", "resume"])
@pytest.mark.parametrize("name", ["state.json", "config.yaml", "history.jsonl"])
def test_wherever_its_beginning_is_cut_off_a_run_goes_on_with_the_weights_it_was_given(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill does that comes when the file is to be written."""
    experiment().fit(tmp_path / "first", data=images(), device="cpu")
    made = experiment(n_steps=5).replace({"train.ema": 0.9})
    source: dict[str, Any] = {way: tmp_path / "first" / ("ckpt/step000002" if way == "resume" else "")}

    class Killed(BaseException):
        pass

    def write_text(path: Path, text: str, real: Any = files.write_text) -> None:
        if path.name == name and path.is_relative_to(tmp_path / "b"):
            raise Killed
        real(path, text)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_text", write_text)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            made.fit(tmp_path / "b", data=images(), device="cpu", **source)
    again: dict[str, Any] = source if name == "state.json" else {"resume": "latest"}
    run = made.fit(tmp_path / "b", data=images(), device="cpu", **again)
    whole = made.fit(tmp_path / "c", data=images(), device="cpu", **source)
    assert everything(tmp_path / "b")["weights"] == everything(tmp_path / "c")["weights"]
    assert run.history.segments[0].get("init") == whole.history.segments[0].get("init")
    assert (way == "init") == ("init" in run.history.segments[0])


def test_weights_that_are_lost_are_not_drawn_anew(tmp_path: Path) -> None:
    experiment().fit(tmp_path / "first", data=images(), device="cpu")
    for way, source in (("init", tmp_path / "first"), ("resume", tmp_path / "first" / "ckpt" / "step000002")):
        experiment().fit(tmp_path / way, data=images(), device="cpu", **{way: source})  # type: ignore[arg-type]
        shutil.rmtree(tmp_path / way / "ckpt")
        with pytest.raises(UserError, match="has no checkpoint of its own"):
            experiment().fit(tmp_path / way, data=images(), device="cpu", resume="latest")


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    experiment().fit(tmp_path / "first", data=images(), device="cpu")
    begun = initial.read_initial(tmp_path / "first")
    for model, message in (
        ({"network": {**NETWORK, "attention": False}}, "it has, and the model has not, decoder.mid_block.attentions"),
        ({"network": {**NETWORK, "num_res_blocks": 2}}, "it lacks decoder.up_blocks.0.resnets.2"),
        ({"network": {**NETWORK, "ch": 16}}, "of another shape: decoder.conv_in.bias"),
        ({"z_channels": 5}, "of another shape: decoder.conv_in.weight"),
    ):
        made = experiment(**model)
        before = made.build_model((1, 8, 8))
        kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
        with pytest.raises(UserError, match=message):
            begun.put_into(before, made.model)
        assert all(torch.equal(kept[name], tensor) for name, tensor in before.state_dict().items())


def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    run = experiment().fit(tmp_path / "run", data=images(), device="cpu")
    (_, path), _ = share.export_diffusers(run.with_data(images()), tmp_path / "folder")
    weights, _ = files.read_tensors(path)
    name = "decoder.conv_in.weight"
    old = {"decoder.mid_block.attentions.0.query.bias": weights["decoder.mid_block.attentions.0.to_q.bias"].clone()}
    for change, message in (
        ({name: torch.full_like(weights[name], torch.nan)}, f"not finite: {name}"),
        ({name: weights[name].int()}, f"{name} is torch.int32"),
        (old, "to_q.bias twice"),
    ):
        files.write_tensors(path, weights | change)
        with pytest.raises(UserError, match=message):
            initial.read_initial(tmp_path / "folder").put_into(run.model, run.experiment.model)
    config = path.with_name("config.json").rename(tmp_path / "config.json")
    with pytest.raises(UserError, match="without config"):
        initial.read_initial(tmp_path / "folder")
    config.rename(path.with_name("config.json"))
    path.rename(path.with_suffix(".fp16.safetensors"))
    with pytest.raises(UserError, match=r"there is diffusion_pytorch_model\.fp16\.safetensors"):
        initial.read_initial(tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "is of the class 'AutoencoderTiny'"),
        ({"act_fn": "relu"}, "act_fn is relu"),
        ({"use_quant_conv": False}, "use_quant_conv and use_post_quant_conv differ"),
        ({"block_out_channels": "x"}, "config.json: "),
        (None, "no JSON"),
    ],
)
def test_a_folder_of_another_architecture_is_refused(
    change: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    run = experiment().fit(tmp_path / "run", data=images(), device="cpu")
    (config, _), _ = share.export_diffusers(run.with_data(images()), tmp_path / "folder")
    said = json.loads(config.read_text())
    config.write_text("{" if change is None else json.dumps(said | change))
    with pytest.raises(UserError, match=message):
        initial.read_initial(tmp_path / "folder")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"likelihood": "gaussian"}, "decodes to pixels themselves"),
        ({"likelihood": {**LINEAR, "scale": "per_pixel"}}, "decodes to pixels themselves"),
        ({"network": "mlp", "z_channels": None}, "has the network autoencoder_kl, and this run has mlp"),
        ({"value_range": [0.0, 1.0]}, "pixels lie in"),
        ({"posterior": "point"}, "has the posterior gaussian, and this run has point"),
    ],
)
def test_what_is_no_autoencoder_kl_is_not_exported(model: dict[str, Any], message: str) -> None:
    made = experiment(**model)
    with pytest.raises(UserError, match=message):
        diffusers_folder.to_diffusers(made.build_model((1, 8, 8)), made.model, (1, 8, 8))


def test_statistics_are_the_moments_of_draws_and_normalise_them(tmp_path: Path) -> None:
    run = experiment().fit(tmp_path / "run", data=images(), device="cpu")
    run.with_data(images())
    found = run.code_statistics(batch_size=5)
    x = to_float(images().train.read(torch.arange(32)), run.model.value_range)
    with torch.no_grad():
        noise = torch.randn(2000, 32, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        z = run.model.encode(x, noise).z.flatten(0, 1)
    torch.testing.assert_close(torch.tensor(found.mean), z.mean((0, 2, 3)), rtol=0, atol=3e-3)
    torch.testing.assert_close(torch.tensor(found.std), z.std((0, 2, 3)), rtol=5e-3, atol=0)
    assert found.overall_std == pytest.approx(z.std().item(), rel=5e-3)
    normal = found.normalise(z)
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=5e-3)
    torch.testing.assert_close(normal.std((0, 2, 3)), torch.ones(4), rtol=5e-3, atol=0)
    codes = run.encode("train")
    flat = encoding.normalised(codes, run.model, found.mean, found.std)
    latent = run.model.encode(x)
    np.testing.assert_allclose(flat.mean, found.normalise(latent.mean).flatten(1).detach(), rtol=1e-4, atol=1e-5)
    spread = np.exp(0.5 * flat.logvar).reshape(32, 4, 16) * np.array(found.std)[:, None]
    np.testing.assert_allclose(spread, latent.logvar.mul(0.5).exp().flatten(2).detach(), rtol=1e-4)


def test_statistics_of_another_run_are_refused(tmp_path: Path) -> None:
    runs = [experiment(n_steps=n).fit(tmp_path / str(n), data=images(), device="cpu") for n in (1, 2)]
    kept = runs[0].with_data(images()).code_statistics()
    assert runs[0].code_statistics() == kept
    (tmp_path / "2" / code_statistics.FILE).write_bytes((tmp_path / "1" / code_statistics.FILE).read_bytes())
    for use in (lambda: runs[1].code_statistics(), lambda: share.export_diffusers(runs[1], tmp_path / "folder")):
        with pytest.raises(UserError, match="statistics of other weights"):
            use()
    assert not (tmp_path / "folder").exists()


def test_the_commands_go_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    small = [f"--model.network.{key}" for key in ("ch=8", "groups=4", "ch_mult=[1,2]")]
    keys = ["--data.kind=arrays", f"--data.root={tmp_path / 'a.npy'}", "--train.n_steps=2", "--train.batch_size=8"]
    off = ["--method=kl_vae", "--objective.gamma=0", "--objective.adversary=0"]
    assert main(["train", "-e", str(tmp_path / "run"), *keys, *small, *off]) == 0, capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), "--to", "diffusers", "-o", str(tmp_path / "f")]) == 0
    assert main(["encode", str(tmp_path / "run"), "--split", "test", "--normalise", "-o", str(tmp_path / "c.npz")]) == 0
    assert main(["train", "-e", str(tmp_path / "b"), "--init", str(tmp_path / "f"), *keys, *off]) == 0
    assert "begins with the weights of the diffusers folder" in capsys.readouterr().err
    assert main(["train", "-e", str(tmp_path / "c"), "--init", str(tmp_path), *keys]) == 2
    assert main(["export", str(tmp_path / "run"), "--to", "diffusers", "--only", "encoder"]) == 2
