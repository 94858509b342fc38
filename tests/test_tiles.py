"""Large images a tile at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_grids import NETWORK, experiment, images
from torch import nn

from vaes import Experiment, load
from vaes.cli import main
from vaes.errors import UserError
from vaes.model import VAE, evaluation
from vaes.tiles import tiled

SHAPE = (1, 160, 160)


def model(pointwise: bool = False) -> VAE:
    """f = 2, convolutions alone."""
    torch.manual_seed(0)
    made = experiment(network={**NETWORK, "attention": False}).build_model(SHAPE).double().eval()
    for layer in made.modules():
        if isinstance(layer, nn.GroupNorm):
            layer.forward = lambda x: x  # type: ignore[method-assign]  # whose statistics are a tile's
        if pointwise and isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            kept = layer.weight.detach()[:, :, 1:2, 1:2].clone()
            layer.weight.detach().zero_()[:, :, 1:2, 1:2] = kept
    return made


def test_tiles_are_the_whole_where_they_see_as_much_of_it() -> None:
    whole = model()
    parts = tiled(whole, SHAPE, 64)
    x, z = torch.rand(1, *SHAPE).double(), torch.randn(1, 3, 80, 80).double()
    # Tiles are the places 0 to 32, 24 to 56, 48 to 80; each knows those that are 12 and more from a border of its own.
    exact = torch.cat([torch.arange(0, 20), torch.arange(36, 44), torch.arange(60, 80)])
    with evaluation(whole):
        h, g = (m.encoder(x).unflatten(1, (-1, 80, 80)) for m in (whole, parts))
        torch.testing.assert_close(g[..., exact, :][..., exact], h[..., exact, :][..., exact], rtol=0, atol=1e-12)
        assert (g - h).abs().max() > 1e-4
        pixels = (2 * exact[:, None] + torch.arange(2)).flatten()
        a, b = whole.decoder(z), parts.decoder(z)
        torch.testing.assert_close(b[..., pixels, :][..., pixels], a[..., pixels, :][..., pixels], rtol=0, atol=1e-12)
        assert (a - b).abs().max() > 1e-4
        small = tiled(whole, SHAPE, 160)
        assert torch.equal(small.decode(z), whole.decode(z))
        assert torch.equal(small.encode(x).z, whole.encode(x).z)


@pytest.mark.parametrize("tile", [8, 30, 64, 158])
def test_what_sees_no_neighbours_is_the_same_everywhere(tile: int) -> None:
    whole = model(pointwise=True)
    parts, seen = tiled(whole, SHAPE, tile), []
    whole.decoder.register_forward_hook(lambda _, given, made: seen.append(tuple(made.shape[2:])))
    z = torch.randn(1, 3, 80, 77).double()
    with evaluation(whole):
        made = parts.decoder(z)
        assert set(seen) == {(tile, tile) if tile <= 154 else (tile, 154)}
        torch.testing.assert_close(made, whole.decoder(z), rtol=0, atol=1e-12)
        x = torch.rand(1, 1, 160, 154).double()
        torch.testing.assert_close(parts.encoder(x), whole.encoder(x), rtol=0, atol=1e-12)


def test_runs_take_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = experiment().fit(tmp_path / "run", data=images(), device="cpu")
    x = images(32).test
    assert not torch.equal(run.tiled(8).reconstruct(x)[1], run.reconstruct(x)[1])
    z = run.tiled(8).encode(x)
    assert not np.array_equal(z.mean, run.encode(x).mean)
    codes = torch.from_numpy(z.mean).unflatten(1, (3, 16, 16))
    torch.testing.assert_close(run.decode(codes, tile=8), run.tiled(8).reconstruct(x)[1])
    assert run.tiled(8).at(64).model.decode(torch.zeros(1, 3, 32, 32)).shape == (1, 1, 64, 64)
    assert sum(p.numel() for p in run.tiled(8).model.parameters()) == sum(p.numel() for p in run.model.parameters())
    path = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40), dtype=np.uint8)).save(path)
    for words in (
        ["encode", str(path), "-o", str(tmp_path / "c.npz")],
        ["sample", "--mode", "reconstruct", "--images", str(path)],
    ):
        assert main([words[0], str(tmp_path / "run"), *words[1:], "--tile", "16"]) == 0, capsys.readouterr().err
        assert main([words[0], str(tmp_path / "run"), *words[1:], "--tile", "9"]) == 2
        assert "--tile 9: must be a multiple of 2, and 8 or more; 8 fits" in capsys.readouterr().err
    there, table = load(tmp_path / "run").at((32, 40)).tiled(16), np.load(tmp_path / "c.npz")
    wanted = there.encode([path]).mean[0]
    np.testing.assert_allclose([table[f"z{i}"][0] for i in range(len(wanted))], wanted, rtol=1e-5, atol=1e-6)


def test_flat_codes_have_no_tiles(tmp_path: Path) -> None:
    made = Experiment(model={"network": "mlp"}, train={"n_steps": 1, "batch_size": 8, "eval_freq": 0})
    with pytest.raises(UserError, match="--tile: codes of this run are 2 flat numbers"):
        made.fit(tmp_path / "run", data=images(), device="cpu").tiled(8)
