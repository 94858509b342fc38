import csv
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parts import Affine, small_vae
from torch import nn

from vaes import posteriors
from vaes.data import to_float
from vaes.data.images import Annotations, TensorSet
from vaes.encoding import MEANING, ROUNDING, Codes, check_output, encode, read_codes, write
from vaes.errors import UserError
from vaes.functional import kl_normal
from vaes.likelihoods import Bernoulli, Gaussian
from vaes.model import VAE
from vaes.priors import StandardNormal

KINDS = [".csv", ".npz", ".parquet"]


class Named(TensorSet):
    """A set whose images have file names, however these are noted."""

    def __init__(self, pixels, names, labels=None, label_names=()):
        super().__init__(pixels, Annotations(labels, label_names))
        self.notes = type("Notes", (), {"paths": names, "labels": labels, "label_names": label_names})


def pictures(count=7, shape=(1, 8, 8), seed=1):
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def codes_of(paths, labels=None, d=2, point=False) -> Codes:
    n = len(paths)
    numbers = np.random.default_rng(0).normal(size=(2 * d + 5, n)).astype(np.float32)
    nan = np.full(n, np.nan, np.float32)
    return Codes(
        np.array(paths), np.array(labels or [""] * n), numbers[:d].T, None if point else numbers[d : 2 * d].T,
        nan if point else numbers[-5], numbers[-4], nan if point else numbers[-3], numbers[-2], numbers[-1],
    )  # fmt: skip


def test_the_columns_are_their_definitions_in_a_linear_model():
    """z = Ax + noise, x|z = N(Bz + c, s^2): every expectation in closed form but the draw's, which two mirrored draws
    make ``E + s^-2 e' diag(std) B'B diag(std) e / 2``."""
    torch.manual_seed(0)
    d, s = 2, 0.7
    a, b, c = (
        torch.randn(2 * d, 6, dtype=torch.float64),
        torch.randn(6, d, dtype=torch.float64),
        torch.randn(6).double(),
    )
    a[d:] *= 0.1
    encoder, decoder = Affine(a, torch.zeros(2 * d), (2 * d,)), Affine(b, c, (3, 1, 2))
    for part in (encoder, decoder):
        part.register_parameter("like", nn.Parameter(torch.zeros((), dtype=torch.float64)))
    model = VAE(encoder, decoder, posteriors.Gaussian(), StandardNormal(d), Gaussian(scale=s, link="identity"))
    images = TensorSet(pictures(400, (3, 1, 2)))
    found = encode(model, images)
    x = to_float(images.read(torch.arange(400)), (-1.0, 1.0)).double().flatten(1)
    mean, logvar = (x @ a.T).chunk(2, 1)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(found.logvar, logvar, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.rate, kl_normal(mean, logvar).sum(1), rtol=1e-4)
    error = (x - mean @ b.T - c).square()
    np.testing.assert_allclose(found.mse, error.mean(1) / 4, rtol=1e-4)
    variance = (x / 2).unflatten(1, (3, 2)).var(2, correction=0).mean(1)
    np.testing.assert_allclose(found.score, error.mean(1) / 4 / (variance + 1 / (12 * 255**2)), rtol=1e-4)
    np.testing.assert_allclose(found.elbo, -found.distortion - found.rate, rtol=1e-5)
    at_centre = 0.5 * error.sum(1) / s**2 + 3 * math.log(2 * math.pi * s**2)
    spread = torch.einsum("pd,nd->n", b.square(), logvar.exp()) / (2 * s**2)  # E of what a draw adds
    added = torch.from_numpy(found.distortion).double() - at_centre
    assert (added > -1e-3).all()  # the linear term is gone: one draw would lie below as often as above
    relative = added / spread
    assert relative.mean().item() == pytest.approx(1, abs=4 * relative.std().item() / 20)


@pytest.mark.parametrize("likelihood", [Gaussian(), Gaussian(scale="optimal"), Bernoulli()])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_numbers_depend_on_the_seed_and_the_image_alone(likelihood, network):
    model = small_vae(likelihood=likelihood, network=network).train()
    pixels = pictures()
    one = encode(model, TensorSet(pixels), batch_size=256)
    assert model.training
    for other, order in (
        (encode(model, TensorSet(pixels), batch_size=4), range(7)),
        (encode(model, TensorSet(pixels.flip(0))), range(6, -1, -1)),
        (encode(model, TensorSet(pixels[3:4])), [3]),
    ):
        for name in ("mean", "logvar", "elbo", "distortion", "rate", "mse", "score"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name)[list(order)], rtol=2e-5, atol=1e-5)
    again = encode(model, TensorSet(pixels), seed=1)
    np.testing.assert_array_equal(again.rate, one.rate)
    assert (again.elbo != one.elbo).any()


def test_a_point_posterior_has_a_score_and_no_bound():
    found = encode(small_vae(posterior=posteriors.Point()), TensorSet(pictures()))
    assert found.logvar is None
    assert np.isnan(found.elbo).all()
    assert np.isnan(found.rate).all()
    assert np.isfinite(found.score).all()
    assert (found.distortion > 0).all()


def test_the_score_of_a_constant_picture_is_that_of_its_rounding():
    model = small_vae()
    found = encode(model, TensorSet(torch.full((1, 1, 8, 8), 99, dtype=torch.uint8)))
    np.testing.assert_allclose(found.score, found.mse / np.float32(ROUNDING), rtol=1e-5)


def test_names_come_with_the_images_or_are_their_numbers():
    labels = torch.tensor([1, 0, 1, 2, 0, 0, 0])
    found = encode(small_vae(), Named(pictures(), tuple("abcdefg"), labels, ("x", "y")))
    assert found.path.tolist() == list("abcdefg")
    assert found.label.tolist() == ["y", "x", "y", "2", "x", "x", "x"]
    plain = encode(small_vae(), TensorSet(pictures(2)))
    assert plain.path.tolist() == ["0", "1"]
    assert plain.label.tolist() == ["", ""]


def test_what_cannot_be_encoded_is_a_sentence():
    model = small_vae()
    with pytest.raises(UserError, match=r"1x8x8 and 3x8x8"):
        encode(model, TensorSet(pictures(2, (3, 8, 8))))
    with pytest.raises(UserError, match="no images"):
        encode(model, TensorSet(pictures(2)[:0]))
    with pytest.raises(UserError, match="batch_size: 0"):
        encode(model, TensorSet(pictures(2)), batch_size=0)
    with pytest.raises(UserError, match="seed: -1"):
        encode(model, TensorSet(pictures(2)), seed=-1)
    torch.nn.init.constant_(next(model.encoder.parameters()), float("nan"))
    with pytest.raises(UserError, match="2 of 2 images is not finite"):
        encode(model, TensorSet(pictures(2)))


ODD = ['a "b", c.png', "line\nbreak\r\nand\rmore", "=1+1", "ü 猫 \u202e", "bytes \udcff", " ", "'", "\\udcff", "tab\t"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", [True, False])
def test_tables_hold_every_name_and_number(kind, point, tmp_path):
    codes, path = codes_of(ODD, ODD, point=point), tmp_path / f"co\udcff\ndes{kind}"
    write(codes, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    table = load(path)
    logvars = [] if point else ["logvar0", "logvar1"]
    assert list(table) == [
        "path", "label", "z0", "z1", *logvars, "elbo", "distortion", "rate", "mse", "score"
    ]  # fmt: skip
    shown = [name.replace("\udcff", "\\udcff") for name in ODD]
    assert list(table["path"]) == list(table["label"]) == shown
    for name in ("elbo", "distortion", "rate", "mse", "score"):
        np.testing.assert_array_equal(table[name], getattr(codes, name), err_msg=name)
    np.testing.assert_array_equal(read_codes(path), codes.mean)
    assert {name.split()[0] for name in MEANING} >= {"path", "label", "z0", "elbo", "mse", "score"}


def load(path: Path) -> dict:
    if path.suffix == ".npz":
        return dict(np.load(path))
    if path.suffix == ".parquet":
        columns = pytest.importorskip("pyarrow.parquet").read_table(path.open("rb")).to_pydict()
        return {k: np.array(v, dtype=np.float32 if k[:4] not in ("path", "labe") else None) for k, v in columns.items()}
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    return {
        k: v if k in ("path", "label") else np.array([float(x or "nan") for x in v], dtype=np.float32)
        for k, v in columns.items()
    }


def test_a_table_is_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "codes.npz"
    write(codes_of(["a"]), path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"codes.npz: cannot be written \(No space"):
        write(codes_of(["b"]), path)
    assert [p.name for p in tmp_path.iterdir()] == ["codes.npz"]
    assert path.read_bytes() == before


def test_what_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("codes.txt", r"written as \.csv, \.npz, \.parquet"),
        ("codes", "give a name that ends in one of them"),
        ("folder.csv", "is a folder"),
        ("file/codes.csv", "cannot be written"),
        ("n" * 249 + ".csv", r"cannot be written \(File name too long"),
    ):
        with pytest.raises(UserError, match=message):
            check_output(tmp_path / name)
    check_output(tmp_path / "new" / "CODES.CSV")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'vaes\[parquet\]'"):
        check_output(tmp_path / "codes.parquet")


CSVS = {
    "path,x\na,1\n": r"no columns z0, z1, ... \(its columns: 'path', 'x'\)",
    "": "no columns z0",
    "z0,z2\n1,2\n": "z1 is missing",
    "z0,z0,z1\n1,2,3\n": "z0 is there twice",
    "z0,z1\n": "columns and no rows",
    "z0,z1\n1,2\n3\n": "line 3 has 1 cells where the first has 2",
    "z0\n1\nx\n": "line 3: could not convert string to float: 'x'",
    "z0,z1\n1,2\n1,\n": "row 2 of codes holds NaN or infinity, or a cell is empty",
    "z0\ninf\n": "row 1 of codes",
    "z0\n1e999\n": "row 1 of codes",
    'z0\n"1': None,
    "z0\n\udc00": "no whole",
}


@pytest.mark.parametrize("text", CSVS)
def test_a_file_that_holds_no_codes_is_a_sentence(text, tmp_path):
    path, message = tmp_path / "codes.csv", CSVS[text]
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    if message is None:
        assert read_codes(path).tolist() == [[1.0]]
        return
    with pytest.raises(UserError, match=message) as error:
        read_codes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_tables_are_sentences(kind, tmp_path):
    path = tmp_path / f"codes{kind}"
    write(codes_of(["a", "b", "c"]), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, max(len(damaged), 1), 3):
            damaged[at : at + 1] = bytes([rng.integers(256)])
        path.write_bytes(damaged)
        try:
            assert read_codes(path).isfinite().all()
        except UserError as error:
            assert "\n" not in str(error)


def test_codes_come_from_regular_files_of_a_known_kind(tmp_path):
    for name in ("/dev/zero", "codes.json", "none.csv"):
        with pytest.raises(UserError):
            read_codes(tmp_path / name)
    (tmp_path / "link.csv").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is no regular file"):
        read_codes(tmp_path / "link.csv")
    path = tmp_path / "more.csv"
    path.write_text('\ufeffpath,z1,z0,z10x,zz\n\n"a\nb",2,1,x,y\n\n', encoding="utf-8")
    assert read_codes(path).tolist() == [[1.0, 2.0]]


def others(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pictures (N, 1, 8, 8) that are no digits, of those that are."""
    g = torch.Generator().manual_seed(2)
    order = torch.randperm(64, generator=g)
    return {
        "noise": torch.randint(0, 256, x.shape, generator=g, dtype=torch.uint8),
        "black": torch.zeros_like(x),
        "flat": torch.randint(0, 256, (len(x), 1, 1, 1), generator=g, dtype=torch.uint8).expand_as(x).contiguous(),
        "dark": x // 4,
        "covered": torch.cat([x[..., :4], torch.zeros_like(x[..., 4:])], -1),
        "inverted": 255 - x,
        "shuffled": x.flatten(1)[:, order].view_as(x),
    }


@pytest.mark.parametrize("posterior", [posteriors.Gaussian(), posteriors.Point()])
def test_the_score_finds_what_is_no_digit(posterior):
    from sklearn.datasets import load_digits

    digits = torch.from_numpy(load_digits().images * 15.9375).to(torch.uint8)[:, None]
    train, test = digits[:1400], digits[1400:]
    model = small_vae(z_dim=8, posterior=posterior, likelihood=Gaussian(scale=0.3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        x = to_float(train[torch.randint(0, 1400, (128,), generator=g)], model.value_range)
        trace = model(x, torch.randn(1, 128, 8, generator=g))
        loss = -trace.log_px.mean() + (0 if trace.rate is None else trace.rate.mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    normal = encode(model, TensorSet(test))
    for name, pictures in others(test).items():
        odd = encode(model, TensorSet(pictures))
        assert auroc(normal.score, odd.score) > 0.85, name


def auroc(low: np.ndarray, high: np.ndarray) -> float:
    """How often a value of the second lies above one of the first."""
    return float((high[:, None] > low).mean() + (high[:, None] == low).mean() / 2)
