"""Codes in shards: what they hold, that a kill loses one at most, and what is refused."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_grids import experiment, images

import vaes
from vaes import Experiment, Run, files, load, share
from vaes.cli import main
from vaes.data import array_images
from vaes.encoding import normalised
from vaes.errors import UserError


def stored(folder: Path) -> Path:
    """48 images with labels, as a file."""
    x = np.random.default_rng(0).integers(0, 256, (48, 8, 8), dtype=np.uint8)
    np.savez(folder / "images.npz", images=x, labels=np.arange(48) % 3)
    return folder / "images.npz"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = {"kind": "arrays", "root": str(stored(folder))}
    Experiment.of(experiment().to_dict() | {"data": data}).fit(folder / "run", device="cpu")
    return folder / "run"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def run(trained: Path) -> Run:
    return load(trained)


def sets(run: Run) -> dict[str, Any]:
    return {name: x for name in ("train", "valid", "test") if len(x := getattr(run.data, name))}


def test_shards_hold_what_encode_gives(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, run = tmp_path / "latents", load(trained)
    assert main(["encode", str(trained), "-o", str(out), "--shard", "7"]) == 0
    said = capsys.readouterr().out
    assert "images/s" in said
    assert f"{sum(map(len, sets(run).values()))} images in" in said
    for name, x in sets(run).items():
        found, codes = vaes.latents(out, name), run.encode(name)
        rows = found.read(torch.arange(len(found)))
        assert len(found) == len(x)
        assert torch.equal(rows["index"], torch.arange(len(x)))
        assert torch.equal(rows["label"], x.labels)
        assert rows["mean"].shape[1:] == run.model.z_shape
        np.testing.assert_allclose(rows["mean"].flatten(1), codes.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows["logvar"].flatten(1), codes.logvar, rtol=1e-5, atol=1e-6)
        assert torch.equal(torch.cat([part["mean"] for part in found.shards()]), rows["mean"])
        some = torch.tensor([len(x) - 1, 0])
        assert torch.equal(found.read(some)["mean"], rows["mean"][some])
        assert torch.equal(found[-1]["mean"], rows["mean"][-1])
        with pytest.raises(IndexError):
            found[len(x)]
    assert len(vaes.latents(out)) == 48
    batches = torch.utils.data.DataLoader(vaes.latents(out, "train"), batch_size=5)
    assert next(iter(batches))["mean"].shape == (5, 3, 4, 4)


def test_normalised_ones_have_mean_0_and_belong_to_the_run(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = shutil.copytree(trained, tmp_path / "run")
    assert main(["encode", str(here), "-o", str(tmp_path / "n"), "--normalise", "--split", "train"]) == 0
    run, found = load(here), vaes.latents(tmp_path / "n")
    statistics = run.code_statistics()
    rows = found.read(torch.arange(len(found)))
    codes = normalised(run.encode("train"), run.model, statistics.mean, statistics.std)
    np.testing.assert_allclose(rows["mean"].flatten(1), codes.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows["logvar"].flatten(1), codes.logvar, rtol=1e-4, atol=1e-5)
    assert found.about["normalised"] == {"mean": list(statistics.mean), "std": list(statistics.std)}
    each = rows["mean"].double().square().mean((0, 2, 3)) + rows["logvar"].double().exp().mean((0, 2, 3))
    torch.testing.assert_close(each, torch.ones_like(each), rtol=1e-4, atol=0)
    (here / "code-statistics.json").write_text(
        (here / "code-statistics.json").read_text().replace(run.sha256, "0" * 64)
    )
    capsys.readouterr()
    for output in ("m", "m.npz"):
        words = ["encode", str(here), "-o", str(tmp_path / output), "--normalise", "--split", "train"]
        assert main(words) == 2
        assert "statistics of other weights (00000000" in capsys.readouterr().err
        assert not (tmp_path / output).exists()


def test_the_same_command_goes_on_after_a_kill(trained: Path, tmp_path: Path) -> None:
    words = ["encode", str(trained), "--device", "cpu", "--shard", "9", "-o"]
    pid = os.fork()
    if pid == 0:
        real, written = files.write_tensors, []

        def write(path: Path, *given: Any, **named: Any) -> None:
            real(path, *given, **named)
            if len(written) == 3:
                path.write_bytes(path.read_bytes()[:200])
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(path)

        files.write_tensors = write
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main([*words, str(tmp_path / "a")]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    with pytest.raises(UserError, match=r"\.safetensors: is missing; give the command again"):
        vaes.latents(tmp_path / "a")
    before = content(tmp_path / "a")
    stamps = {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in before}
    assert len(before) == 4  # three shards, and what they are
    assert list((tmp_path / "a").glob(".*.tmp"))
    assert main([*words, str(tmp_path / "a")]) == 0
    assert main([*words, str(tmp_path / "b")]) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert {name: (tmp_path / "a" / name).stat().st_mtime_ns for name in before} == stamps
    assert not list((tmp_path / "a").glob(".*.tmp"))


def test_codes_of_something_else_are_refused(trained: Path, tmp_path: Path, run: Run) -> None:
    of, out = {"test": run.data.test}, tmp_path / "out"
    share.write_latents(run, of, out, shard=2)
    before = content(out)
    other = load(trained, checkpoint=2)
    other.with_data(run.data)
    pixels, _ = array_images(trained.parent / "images.npz")
    for change, message in (
        ({"run": other}, f"was begun with other weights \\({run.sha256[:8]}\\) than these \\({other.sha256[:8]}"),
        ({"shard": 3}, r"2 images a shard where 3 are asked for \(--shard\)"),
        ({"statistics": run.code_statistics()}, r"codes normalised otherwise \(--normalise\)"),
        ({"sets": {"test": pixels}}, "was begun with other images"),
        ({"run": run.tiled(8)}, "--tile None where 8 is asked for"),
    ):
        given: dict[str, Any] = {"run": run, "sets": of, "shard": 2} | change
        with pytest.raises(UserError, match=message):
            share.write_latents(given.pop("run"), given.pop("sets"), out, **given)
    assert content(out) == before
    with pytest.raises(UserError, match="has no codes of train; it has test"):
        vaes.latents(out, "train")
    shard = out / "test-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"test-00001\.safetensors: is no whole shard .*; delete it"):
        share.write_latents(run, of, out, shard=2)
    shard.unlink()
    share.write_latents(run, of, out, shard=2)
    assert content(out) == before
    shutil.copy(out / "test-00000.safetensors", shard)
    about = json.loads((out / "latents.json").read_text())
    (out / "latents.json").write_text(json.dumps({**about, "step": 3}))
    with pytest.raises(UserError, match="is no shard of the codes that"):
        vaes.latents(out)[0]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").touch()
    with pytest.raises(UserError, match=r"holds x\.txt and no latents\.json"):
        share.write_latents(run, of, tmp_path / "full")
    with pytest.raises(UserError, match=r"holds no latents\.json"):
        vaes.latents(tmp_path / "full")


@pytest.mark.parametrize(
    "words",
    [["--shard", "3", "-o", "c.npz", "--split", "test"], ["-o", "c.csv"], ["-o", "c.txt"], ["-o", "l", "--tile", "7"]],
)
def test_words_that_do_not_go_together(trained: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", str(trained), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("method", ["vq_vae", "rvq_vae", "fsq_vae"])
def test_quantized_codes_are_indices(method: str, tmp_path: Path) -> None:
    network = {"kind": "autoencoder_kl", "ch": 8, "ch_mult": [1, 2], "groups": 4}
    train = experiment().to_dict()["train"]
    made = Experiment(method=method, model={"network": network, "z_channels": 3}, train=train)
    run = made.fit(tmp_path / "r", data=images(), device="cpu")
    run.with_data(images())
    share.write_latents(run, {"test": run.data.test}, tmp_path / "l", shard=3)
    rows = vaes.latents(tmp_path / "l").read(torch.arange(8))
    posterior, codes = run.model.posterior, run.encode("test")
    assert rows["indices"].shape == (8, 16, posterior.books)
    assert rows["indices"].dtype == torch.int64
    torch.testing.assert_close(posterior.look_up(rows["indices"]).flatten(1), torch.from_numpy(codes.mean))
    assert np.array_equal(rows["indices"].flatten(1), codes.indices)
    vaes.encoding.write(codes, tmp_path / "c.csv")
    header, first = (tmp_path / "c.csv").read_text().splitlines()[:2]
    assert header.split(",")[-1] == f"index{16 * posterior.books - 1}"
    assert first.split(",")[-1] == str(int(codes.indices[0, -1]))
    with pytest.raises(UserError, match="--normalise: codes of this run are indices"):
        share.write_latents(run, {"test": run.data.test}, tmp_path / "m", statistics=run.code_statistics())
