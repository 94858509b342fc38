"""What a run is given away as: held against the model by other runtimes than the exporter's own check."""

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vaes import Experiment, Run, share
from vaes.cli import main
from vaes.config.registry import NETWORKS, POSTERIORS
from vaes.errors import UserError
from vaes.randomness import drawn
from vaes.share import operators
from vaes.share.operators import ndtri, searchsorted

SHAPE = (1, 16, 12)


def untrained(shape: tuple[int, int, int] = SHAPE, **raw: Any) -> Run:
    made = Experiment.of({"method": "vae", **raw})
    torch.manual_seed(1)
    model = made.build_model(shape).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name and weight.dim() > 1:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)  # so that outputs depend on inputs
    return Run(made, model, step=7, which="step 7", asked="7", weights=Path("x"), sha256="0" * 64, image_shape=shape)


def small(**model: Any) -> Run:
    return untrained(model={"z_dim": 6, "network": {"kind": "mlp", "hidden": [32]}, **model})


def onnx(content: bytes, x: Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return found


def wanted(run: Run, part: share.PARTS, x: Tensor) -> list[np.ndarray]:  # type: ignore[valid-type]
    with torch.no_grad():
        if part != "encoder":
            return [(run.model.decode if part == "decoder" else run.model.sample)(x).numpy()]
        latent = run.model.encode(x)
        both = latent.mean is not None and latent.logvar is not None
        return [t.numpy() for t in ((latent.mean, latent.logvar) if both else (latent.z[0],)) if t is not None]


def inputs(run: Run, part: str, n: int) -> Tensor:
    numbers = torch.Generator().manual_seed(5)
    noise = drawn(run.model.prior.noise, (n,), numbers)
    if part == "encoder":
        return 2 * torch.rand(n, *run.image_shape, generator=numbers) - 1
    return run.model.sample_codes(noise).detach() if part == "decoder" else noise


@pytest.mark.parametrize(
    ("run", "parts"),
    [
        (small(), share.PARTS),
        (small(prior={"kind": "vamp", "components": 7}), ("sampler",)),
        (small(prior="mixture"), ("sampler",)),
        (small(posterior="full_covariance"), ("encoder",)),
        (small(posterior="joint", prior="joint"), share.PARTS),
        (small(posterior="rvq", prior="codes"), share.PARTS),
        (small(posterior="fsq", prior="codes"), share.PARTS),
        (untrained(model={"z_dim": 3, "network": {"kind": "conv", "dim": 8}}), ("encoder", "decoder")),
    ],
    ids=lambda value: value.model.prior.__class__.__name__ if isinstance(value, Run) else "-".join(value),
)
def test_onnx_gives_what_the_model_gives_for_any_batch(run: Run, parts: Any) -> None:
    for part in parts:
        made = share.export_onnx(run, part)
        for n in (1, 5):
            x = inputs(run, part, n)
            for ours, theirs in zip(wanted(run, part, x), onnx(made.content, x), strict=True):
                assert ours.std() > 1e-3
                np.testing.assert_allclose(theirs, ours, atol=1e-5)
        assert made.difference < 1e-5
        assert (made.levels is None) == (part == "encoder")


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_posterior_goes_by_its_central_code(posterior: str) -> None:
    prior = {"joint": "joint", "relaxed_categorical": "categorical", "von_mises_fisher": "sphere"}
    prior |= dict.fromkeys(("vq", "rvq", "fsq", "lfq", "simvq"), "codes")
    steps = {"n_steps": 1} if posterior in ("householder", "iaf", "planar", "sylvester") else {}
    run = small(posterior={"kind": posterior, **steps}, prior=prior.get(posterior, "standard_normal"))
    if posterior == "point":
        run = untrained(method="ae", model={"z_dim": 6, "network": {"kind": "mlp", "hidden": [32]}})
    made = share.export_torch(run, "encoder")
    assert list(made.outputs) == (["mean", "logvar"] if posterior == "gaussian" else ["code"])
    x = inputs(run, "encoder", 2)
    found = torch.export.load(io.BytesIO(made.content)).module()(x)
    for ours, theirs in zip(wanted(run, "encoder", x), found, strict=True):
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_goes(network: str) -> None:
    shape = (3, 64, 64) if network == "locatello" else (3, 13, 16)
    size = {"z_dim": 2}
    if NETWORKS[network].grid is not None:
        shape, size = (3, 12, 16), {"z_channels": 2}
    run = untrained(shape, model={**size, "network": network})
    for made in share.export_parts(run, "torch", ("encoder", "decoder")):
        assert made.difference < 1e-5


def test_a_program_runs_where_there_is_no_vaes_and_carries_its_own_weights_alone(tmp_path: Path) -> None:
    run = small(prior={"kind": "vamp", "components": 50})
    paths = share.write(share.export_parts(run, "torch"), tmp_path, "torch")
    x = inputs(run, "decoder", 4)
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys; sys.modules['vaes'] = None\n"
        "import torch; extra = {'vaes.json': ''}\n"
        "loaded = torch.export.load('decoder.pt2', extra_files=extra).module()\n"
        "y, = loaded(torch.load('x.pt')); torch.save(y, 'y.pt'); print(extra['vaes.json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert torch.load(tmp_path / "y.pt").numpy() == pytest.approx(wanted(run, "decoder", x)[0], abs=1e-6)
    assert (said["method"], said["image_shape"], said["value_range"]) == ("vae", list(SHAPE), [-1.0, 1.0])
    assert len(said["config_sha256"]) == 64
    of_decoder = sum(4 * weight.numel() for weight in run.model.decoder.parameters())
    assert [path.name for path in paths] == ["encoder.pt2", "decoder.pt2", "sampler.pt2"]
    pseudo = 50 * 16 * 12 * 4
    assert paths[1].stat().st_size - of_decoder < paths[2].stat().st_size - of_decoder < 60_000 + pseudo // 2
    assert str(Path(share.__file__).parent).encode() not in paths[1].read_bytes()


@pytest.mark.parametrize("to", share.FORMATS)
def test_half_the_bytes_and_how_far_off(to: Any) -> None:
    run = untrained((1, 28, 28), model={"z_dim": 4, "network": {"kind": "mlp", "hidden": [256]}})
    (whole,), (half,) = (share.export_parts(run, to, ("decoder",), dtype) for dtype in share.DTYPES)
    assert len(half.content) < 0.55 * len(whole.content)
    assert half.levels is not None
    assert whole.difference < 1e-6 < half.difference
    assert 0.001 < half.levels < 1  # 255 levels in a range of 2
    assert half.levels == pytest.approx(half.difference * 127.5)
    run.model.decoder.get_parameter(next(iter(dict(run.model.decoder.named_parameters())))).data.mul_(1e6)
    with pytest.raises(UserError, match="decoder: comes out of float16 as no number; its weights need --dtype float32"):
        share.export_parts(run, to, ("decoder",), "float16")


def test_onnx_says_what_it_is_and_nothing_of_this_machine() -> None:
    import onnx as format

    content = share.export_onnx(small(), "encoder").content
    model = format.load_from_string(content)
    format.checker.check_model(model, full_check=True)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert (said["vaes.method"], said["vaes.part"], json.loads(said["vaes.z_shape"])) == ("vae", "encoder", [6])
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "mean", "logvar"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b"site-packages" not in content
    assert str(Path(share.__file__).parent).encode() not in content


def test_what_differs_from_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operators.DECOMPOSITIONS, torch.ops.aten.special_ndtri.default, lambda p: ndtri(p) * 1.01)
    with pytest.raises(UserError, match=r"sampler: what was exported is 0\.\d+ off the.*: --only encoder,decoder"):
        share.export_parts(small(prior="mixture"), "onnx", ("sampler", "decoder"))


def test_a_network_that_cannot_be_traced_is_a_sentence() -> None:
    class Stubborn(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.zeros(z.shape[0], *SHAPE) if z.sum().item() > 1 else torch.ones(z.shape[0], *SHAPE)

    run = small()
    run.model.decoder = Stubborn()
    for to, what in (("onnx", "ONNX"), ("torch", "a program")):
        with pytest.raises(UserError, match=f"decoder: cannot be made {what}: ") as caught:
            share.export_parts(run, to, ("decoder",))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_without_the_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx and onnxscript and onnxruntime: pip install 'vaes\[onnx\]'"):
        share.export_onnx(small(), "decoder")


def test_the_normal_quantile_and_the_search() -> None:
    p = torch.cat([torch.logspace(-30, -1, 400), torch.linspace(0.01, 0.999, 999)]).double()
    p = torch.cat([p, 1 - torch.logspace(-12, -1, 100).double()])
    torch.testing.assert_close(ndtri(p), torch.special.ndtri(p), rtol=3e-7, atol=1e-8)
    ends, values = torch.tensor([0.1, 0.4, 1.0]), torch.tensor([[0.0, 0.1], [0.100001, 1.0]])
    assert torch.equal(searchsorted(ends, values), torch.searchsorted(ends, values))
    with pytest.raises(NotImplementedError):
        searchsorted(ends, values, right=True)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: Path) -> None:
    assert main(["export", str(trained), "--to", "torch", "--only", "decoder", "-o", str(tmp_path / "d.pt2")]) == 0
    assert "d.pt2 (" in (said := capsys.readouterr().out)
    assert "<- code    (batch, 2)" in said
    assert main(["export", str(trained), "--to", "torch"]) == 0
    assert sorted(p.name for p in (trained / "export").iterdir()) == ["decoder.pt2", "encoder.pt2", "sampler.pt2"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("--to onnx --only a", "--only 'a': choose from encoder, decoder, sampler"),
        ("--to onnx -o x.pt2 --only decoder", "--to onnx makes a file that ends in .onnx"),
        ("--to onnx -o x.onnx", "is one file, and there are 3 parts; give a folder"),
        ("", "the following arguments are required: --to"),
        ("--to tensorrt", "invalid choice: 'tensorrt'"),
    ],
)
def test_wrong_words(line: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "R", *line.split()]) == 2
    assert answer in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainings import splits

    made = Experiment.of(
        {"model": {"z_dim": 2, "network": {"kind": "mlp", "hidden": [16]}}, "train": {"n_steps": 4, "batch_size": 8}}
    )
    return made.fit(tmp_path_factory.mktemp("run") / "run", data=splits(), device="cpu").folder
