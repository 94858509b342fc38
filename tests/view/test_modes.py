import os

import numpy as np
import pytest
import torch
from PIL import Image

from vaes.data.batches import to_float, to_uint8
from vaes.data.images import TensorSet
from vaes.errors import UserError
from vaes.functional import slerp
from vaes.view import (
    MODES,
    Options,
    draw,
    interpolate,
    make,
    reconstruct,
    sample,
    training_sheet,
    traverse,
    visualize_latent,
)
from vaes.view.picture import balanced_columns, number, row_sheet

SMALL = Options(n_samples=5, n_interpolate=4, n_traverse=3, batch_size=7)


def read(path):
    array = np.asarray(Image.open(path))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize(("shape", "conv"), [((1, 28, 20), False), ((3, 9, 8), True)])
@pytest.mark.parametrize("mode", MODES)
def test_the_files_are_the_returned_arrays_for_any_shape(mode, shape, conv, build, images, tmp_path):
    model, data = build(shape, 2, conv=conv), images(30, shape)
    options = SMALL._replace(singles=True, codes=torch.randn(5, 2))
    paths, remarks = draw(mode, model, tmp_path / "new" / "folder", options, data, "a caption")
    picture = MODES[mode](model, options, data, "a caption")
    assert remarks == list(picture.remarks) == []
    assert [path.name for path in paths] == [f"{mode}-{i:03d}.png" for i in range(len(paths) - 1)] + [
        f"{mode}-sheet.png"
    ]
    found = set(os.listdir(tmp_path / "new" / "folder")) - {".pictures.lock"}
    assert sorted(found) == sorted(path.name for path in paths)
    assert len(picture.singles) == len(paths) - 1
    for path, single in zip(paths, picture.singles, strict=False):
        np.testing.assert_array_equal(read(path), single.numpy())
    np.testing.assert_array_equal(np.asarray(Image.open(paths[-1])), np.asarray(picture.sheet))


@pytest.mark.parametrize(("mode", "between"), [*((mode, "prior") for mode in MODES), ("interpolate", "test")])
def test_the_seed_alone_decides_and_the_batch_size_does_not(mode, between, build, images):
    model, data = build((1, 8, 8), 2), images()
    options = SMALL._replace(between=between, traverse_dim=1, seed=5)
    options = options._replace(codes=torch.randn(4, 2)) if mode == "decode" else options
    drawn = MODES[mode](model, options, data, "")
    again = MODES[mode](model, options._replace(batch_size=64), data, "")
    # Matrix products of another batch size may round differently: one grey level at most.
    assert (drawn.singles.int() - again.singles.int()).abs().max() <= 1
    assert torch.equal(MODES[mode](model, options, data, "").singles, drawn.singles)
    if mode not in ("visualize_latent", "decode"):
        assert not torch.equal(MODES[mode](model, options._replace(seed=6), data, "").singles, drawn.singles)


@pytest.mark.parametrize("mode", MODES)
def test_every_module_keeps_its_own_mode_and_statistics(mode, build, images):
    model = build((1, 8, 8), 2, conv=True)
    model.train()
    frozen = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    frozen.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    MODES[mode](model, SMALL._replace(codes=torch.randn(4, 2)), images(), "")
    assert model.training
    assert not frozen.training
    assert model.decoder.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_samples_are_the_decoded_noise_of_the_seed(build):
    model = build().eval()
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        want = to_uint8(model.sample(noise), model.value_range)
    got = sample(model, SMALL._replace(seed=9)).singles
    assert (got.int() - want.int()).abs().max() <= 1
    assert got.float().std() > 10


def test_reconstructions_stand_beside_their_inputs(build, images):
    model, data = build().eval(), images()
    pairs = reconstruct(model, SMALL, data).singles
    inputs, outputs = pairs[..., :8], pairs[..., 8:]
    everything = data.read(torch.arange(len(data)))
    assert all((everything == one).flatten(1).all(1).sum() == 1 for one in inputs)
    with torch.no_grad():
        want = to_uint8(model.reconstruct(to_float(inputs, model.value_range)), model.value_range)
    assert (outputs.int() - want.int()).abs().max() <= 1


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_paths_between_test_images_run_from_code_to_code(path, transparent, images):
    """Where the code is the image, the path can be read off the pictures."""
    model, data = transparent(torch.zeros(4)), images(12, (1, 1, 4))
    rows = interpolate(model, SMALL._replace(between="test", path=path), data).singles.unflatten(-1, (6, 4))[:, 0, 0]
    assert torch.equal(rows[:, 0], rows[:, 1])
    assert torch.equal(rows[:, -1], rows[:, -2])
    assert not torch.equal(rows[:, 0], rows[:, -1])
    a, b = (to_float(rows[:, i, None], model.value_range) for i in (0, -1))
    t = torch.linspace(0, 1, 4)[:, None]
    want = slerp(a, b, t) if path == "spherical" else a + (b - a) * t
    assert (rows[:, 1:-1].int() - to_uint8(want, model.value_range).int()).abs().max() <= 1


def test_one_dimension_walks_and_the_others_hold(transparent, images):
    model, data = transparent(torch.zeros(4)), images(12, (1, 1, 4))
    options = SMALL._replace(traverse_dim=2, traverse_range=3.0)
    rows = traverse(model, options, data).singles.unflatten(-1, (3, 4))[:, 0, 0]
    walked = to_uint8(torch.tensor([-3.0, 0.0, 3.0]), model.value_range)
    assert torch.equal(rows[:, :, 2], walked.expand(5, 3))
    held = rows[:, :, [0, 1, 3]]
    assert torch.equal(held, held[:, :1].expand_as(held))
    everything = data.read(torch.arange(12))[:, 0, 0][:, [0, 1, 3]]
    assert all((everything == base).all(1).any() for base in held[:, 0])


def test_all_dimensions_come_sorted_by_kl_with_the_unused_last(transparent, monkeypatch):
    """Means are about 0, so the KL of each dimension is that of its variance alone: (exp(v) - 1 - v) / 2."""
    logvar = torch.tensor([-1.1, 0.0, -5.1, -3.1])
    data = TensorSet(torch.full((10, 1, 1, 4), 128, dtype=torch.uint8))
    said = {}
    monkeypatch.setattr("vaes.view.traversal.sheet", lambda *a, **k: said.update(k) or Image.new("RGB", (1, 1)))
    rows = traverse(transparent(logvar), SMALL, data).singles.unflatten(-1, (3, 4))[:, 0, 0]
    order = [2, 3, 0, 1]
    ends = rows[:, 2].int() - rows[:, 0].int()
    assert ends.argmax(1).tolist() == order
    kl = (logvar.exp() - 1 - logvar) / 2
    assert said["row_labels"] == [*(f"z{d}  {kl[d]:.2f} nats" for d in order[:3]), "z1  unused"]
    assert list(said["faint_rows"]) == [3]
    assert set(said["marks"]) == {1, 4, 7, 10}
    assert "1 of 4 unused" in said["caption"]


def test_without_variances_dimensions_are_sorted_by_the_spread_of_their_codes(build, images, point, monkeypatch):
    model, data = build(posterior=point).eval(), images()
    said = {}
    monkeypatch.setattr("vaes.view.traversal.sheet", lambda *a, **k: said.update(k) or Image.new("RGB", (1, 1)))
    traverse(model, SMALL, data)
    with torch.no_grad():
        spread = model.encode(to_float(data.read(torch.arange(30)), model.value_range)).z[0].var(0, correction=0)
    want = [f"z{d}" for d in spread.argsort(descending=True).tolist()]
    assert [label.split()[0] for label in said["row_labels"]] == want
    assert "variance" in said["caption"]


def test_a_traversal_of_many_dimensions_shows_the_most_used_and_says_so(build, images, monkeypatch):
    said = {}
    monkeypatch.setattr("vaes.view.traversal.sheet", lambda *a, **k: said.update(k) or Image.new("RGB", (1, 1)))
    assert len(traverse(build(z_dim=40), SMALL, images()).singles) == 32
    assert "the 32 most used of the 40 dimensions" in said["caption"]
    assert len(traverse(build(z_dim=40), SMALL, None).singles) == 32
    assert "by number" in said["caption"]


def test_the_decoded_plane_has_z1_upwards_and_z0_to_the_right(transparent, images):
    """The model's 1 x 1 x 2 pictures are the codes themselves."""
    model = transparent(torch.zeros(2))
    data = TensorSet(torch.full((10, 1, 1, 2), 128, dtype=torch.uint8))
    plane = visualize_latent(model, SMALL._replace(traverse_range=3.0), data).singles
    assert plane.shape[0] == 1
    z0, z1 = plane[0, 0, :, 0::2].int(), plane[0, 0, :, 1::2].int()
    assert (z0.diff(dim=1) > 0).all()
    assert (z0.diff(dim=0) == 0).all()
    assert (z1.diff(dim=0) < 0).all()
    assert (z1.diff(dim=1) == 0).all()
    rows, columns = z0.shape
    # The first cell's centre is half a cell inside the range.
    edge = to_uint8(torch.tensor([-3 + 3 / columns, 3 - 3 / rows]), model.value_range).int()
    assert (z0[0, 0], z1[0, 0]) == tuple(edge)


@pytest.mark.parametrize(("projection", "singles"), [("pca", 1), ("tsne", 0)])
@pytest.mark.parametrize("labelled", [True, False])
def test_projections_draw_models_of_any_z_dim(projection, singles, labelled, build, images):
    options = SMALL._replace(projection=projection)
    assert len(visualize_latent(build(z_dim=5), options, images(labelled=labelled)).singles) == singles


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("traverse", {"traverse_dim": 3}, "--traverse_dim 3: this model's dimensions are 0 to 2"),
        ("traverse", {"traverse_dim": -1}, "--traverse_dim -1"),
        ("traverse", {"traverse_range": 0.0}, "--traverse_range 0.0"),
        ("traverse", {"traverse_range": float("nan")}, "--traverse_range nan"),
        ("traverse", {"n_traverse": 1}, "--n_traverse 1: must be at least 2"),
        ("interpolate", {"n_interpolate": 1}, "--n_interpolate 1"),
        ("sample", {"n_samples": 0}, "--n_samples 0: must be at least 1"),
        ("sample", {"batch_size": 0}, "--batch_size 0"),
        ("sample", {"n_samples": 10**9}, "--n_samples 1000000000: must be 1,000,000 at most"),
        ("interpolate", {"n_interpolate": 5000}, "--n_interpolate 5000: must be 1,024 at most"),
        ("traverse", {"n_traverse": 10**12}, "--n_traverse 1000000000000: must be 1,024 at most"),
        ("decode", {}, "there are none: give --codes FILE or --z 0,1"),
        ("decode", {"codes": torch.zeros(2, 4)}, "4 numbers each, and this model's z_dim is 3"),
        ("decode", {"codes": torch.tensor([[0.0, 0, 0], [0, float("nan"), 0]])}, "code 2 of those given holds NaN"),
        ("dream", {}, "--mode dream: must be one of sample, interpolate"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line_and_nothing_is_written(
    mode, options, message, build, images, tmp_path
):
    with pytest.raises(UserError, match=message) as error:
        draw(mode, build(), tmp_path / "out", Options(**{**SMALL._asdict(), **options}), images())
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("mode", "between"), [("reconstruct", "prior"), ("interpolate", "test"), ("visualize_latent", "prior")]
)
def test_modes_that_show_test_images_refuse_to_go_without(mode, between, build, images):
    with pytest.raises(UserError, match="there are none"):
        MODES[mode](build(z_dim=2), SMALL._replace(between=between), None, "")


def test_images_of_another_shape_are_refused(build, images):
    with pytest.raises(UserError, match="1x8x8 and 3x8x8"):
        reconstruct(build(), SMALL, images(30, (3, 8, 8)))


def test_a_diverged_model_is_named_as_such(build):
    model = build()
    torch.nn.init.constant_(next(model.decoder.parameters()), float("nan"))
    with pytest.raises(UserError, match="diverged"):
        sample(model, SMALL)


def test_the_training_sheet_shows_inputs_outputs_and_samples_and_leaves_training_on(build, images, monkeypatch):
    model, data = build(conv=True).train(), images(10)
    said = {}

    def spy(pictures, columns, **kwargs):
        said.update(kwargs, pictures=pictures, columns=columns)
        return Image.new("RGB", (1, 1))

    originals, noise = data.read(torch.arange(10)), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert training_sheet(model, originals, noise, 2).width > 8 * 16
    monkeypatch.setattr("vaes.view.training.sheet", spy)
    training_sheet(model, originals, noise, 2)
    assert model.training
    assert said["row_labels"] == ["input", "output", "input", "output", "sample"]
    assert said["columns"] == 8
    rows = said["pictures"].unflatten(0, (5, 8))
    assert torch.equal(torch.cat([rows[0], rows[2, :2]]), originals)
    model.eval()
    with torch.no_grad():
        outputs = model.reconstruct(to_float(originals, model.value_range))
        samples = model.sample(noise)
    assert torch.equal(torch.cat([rows[1], rows[3, :2]]), to_uint8(outputs, model.value_range))
    assert torch.equal(rows[4, :5], to_uint8(samples, model.value_range))


def test_columns_balance_the_page_and_prefer_full_rows():
    assert balanced_columns(64, 8, 8) == 8
    assert balanced_columns(64, 8, 16) == 8
    assert balanced_columns(1, 8, 8) == 1
    assert balanced_columns(10, 8, 8) == 4 or 10 % balanced_columns(10, 8, 8) == 0
    assert all(1 <= balanced_columns(n, 28, 20) <= n for n in range(1, 200))


def test_numbers_are_short_with_a_true_minus():
    assert [number(x) for x in (-3.0, -0.75, -0.001, 0.0, 2.25, 1 / 3)] == ["−3", "−0.75", "0", "0", "2.25", "0.33"]


def test_many_short_rows_stand_side_by_side_in_reading_order(monkeypatch):
    said = {}
    monkeypatch.setattr("vaes.view.picture.sheet", lambda *a, **k: said.update(k, pictures=a[0], columns=a[1]))
    rows = torch.arange(32, dtype=torch.uint8)[:, None, None, None, None].expand(32, 2, 1, 8, 8)
    row_sheet(rows, ("input", "output"), title="", caption="", breaks=(1,), marks={3})
    assert said["columns"] == 8
    assert said["pictures"][:8, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert said["column_labels"] == ["input", "output"] * 4
    assert said["column_breaks"] == [1, 2, 3, 4, 5, 6, 7]
    assert said["marks"] == {3}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("mode", "options", "rows"),
    [
        ("reconstruct", {}, 1),
        ("interpolate", {"between": "test"}, 1),
        ("traverse", {"traverse_dim": 1}, 1),
        ("visualize_latent", {}, None),
        ("visualize_latent", {"projection": "pca"}, None),
        ("traverse", {}, None),
    ],
)
def test_fewer_images_than_asked_for_are_all_drawn_and_it_is_said(mode, options, rows, count, build, images):
    drawn = MODES[mode](build(z_dim=2), SMALL._replace(**options), images(count), "")
    if rows is None:
        assert drawn.remarks == ()
        return
    assert len(drawn.singles) == count * rows
    assert drawn.remarks == (f"{count} instead of 5: there are no more test images",)


def test_given_images_are_drawn_in_their_order_with_their_names(build, images, monkeypatch):
    model, data = build(), images(12)
    data.notes = type("Notes", (), {"paths": [f"im\n{i}.png" for i in range(12)], "labels": None})
    said = {}
    monkeypatch.setattr("vaes.view.picture.sheet", lambda *a, **k: said.update(k) or Image.new("RGB", (1, 1)))
    drawn = reconstruct(model, SMALL._replace(whose="given"), data, "the end")
    assert torch.equal(drawn.singles[..., :8], data.read(torch.arange(5)))
    assert said["title"] == "5 given images and their reconstructions"
    lines = said["caption"].split("\n")
    assert lines[1:] == [
        r"im\n0.png, im\n1.png, im\n2.png, im\n3.png, im\n4.png",
        "the first 5 of 12 given images: --n_samples 12 draws all",
        "the end",
    ]
    reconstruct(model, SMALL._replace(whose="given", n_samples=12), data)
    assert said["caption"].endswith("and 4 more")


def test_given_codes_are_decoded_in_their_order(transparent):
    model, codes = transparent(torch.zeros(3)), torch.tensor([[0.0, 1, 2], [-4, 4, 0]])
    drawn = MODES["decode"](model, SMALL._replace(codes=codes), None, "")
    assert torch.equal(drawn.singles[:, 0, 0], to_uint8(codes, model.value_range))
    with pytest.raises(UserError, match=r"codes reach to 1e\+30; give some nearer to 0"):
        MODES["decode"](build_far(model), SMALL._replace(codes=torch.full((1, 3), 1e30)), None, "")


def build_far(model):
    """Where 1e30 is squared, float32 ends."""
    decode = model.decoder.forward
    model.decoder.forward = lambda z: decode(z * z)
    return model


def test_walks_need_no_images_and_begin_at_the_mean_of_the_prior_or_a_given_code(transparent, monkeypatch):
    model = transparent(torch.zeros(3))
    said = {}
    monkeypatch.setattr("vaes.view.traversal.sheet", lambda *a, **k: said.update(k) or Image.new("RGB", (1, 1)))
    walked = to_uint8(torch.tensor([-3.0, 0, 3]), model.value_range)
    rows = traverse(model, SMALL._replace(traverse_dim=1)).singles.unflatten(-1, (3, 3))[:, 0, 0]
    assert torch.equal(rows[:, :, 1], walked.expand(5, 3))
    assert (rows[0, :, [0, 2]] == to_uint8(torch.zeros(1), model.value_range)).all()
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 5
    code = torch.tensor([[1.0, 2, -1], [0, 0, 0]])
    rows = traverse(model, SMALL._replace(traverse_dim=1, codes=code)).singles.unflatten(-1, (3, 3))[:, 0, 0]
    assert torch.equal(rows[0, 0, [0, 2]], to_uint8(code[0, [0, 2]], model.value_range))
    assert len(rows) == 2
    rows = traverse(model, SMALL._replace(codes=code)).singles.unflatten(-1, (3, 3))[:, 0, 0]
    assert torch.equal(rows[2, 0], to_uint8(torch.tensor([1.0, 2, -3]), model.value_range))
    assert said["caption"].startswith("all start from the first of 2 given codes;")
    traverse(model, SMALL)
    assert "all start from the prior's mean;" in said["caption"]
    assert "sorting them by their KL takes images" in said["caption"]


def test_the_map_of_any_z_dim_is_the_pca_and_it_is_said(build, images):
    model, data = build(z_dim=5), images()
    plain, asked = (visualize_latent(model, SMALL._replace(projection=how), data) for how in (None, "pca"))
    assert torch.equal(plain.singles, asked.singles)
    assert "first two principal components" in plain.remarks[0]
    assert asked.remarks == ()


def test_a_single_dimension_is_drawn_as_a_line(transparent):
    model = transparent(torch.zeros(1))
    data = TensorSet(torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1))
    drawn = visualize_latent(model, SMALL._replace(projection="tsne"), data)
    line = drawn.singles[0, 0, 0].int()
    assert (line.diff() > 0).all()
    assert line[0] < 10
    assert line[-1] > 245
    assert drawn.remarks == ("z_dim is 1: the codes lie on a line, and are drawn on one",)
    assert visualize_latent(model, SMALL, data).remarks == ()


def test_without_singles_no_more_is_decoded_than_a_sheet_holds(build):
    model, options = build((1, 1, 1)), Options(n_samples=2000, seed=3)
    few, every = sample(model, options), sample(model, options._replace(singles=True))
    assert len(few.singles) == 1024
    assert torch.equal(few.singles, every.singles[:1024])
    assert few.remarks == ("a sheet holds 1,024 of 2,000: --singles writes all",)
    assert len(every.singles) == 2000
    drawn = reconstruct(model, options, TensorSet(torch.zeros(600, 1, 1, 1, dtype=torch.uint8)))
    assert drawn.remarks == (
        "600 instead of 2,000: there are no more test images",
        "a sheet holds 512 of 600: --singles writes all",
    )
    walk = traverse(model, Options(n_samples=2000, n_traverse=100, traverse_dim=0))
    assert len(walk.singles) == 10


@pytest.mark.parametrize(
    ("mode", "options", "name"),
    [
        ("sample", {"n_samples": 999_999}, "n_samples"),
        ("reconstruct", {"n_samples": 999_999}, "n_samples"),
        ("interpolate", {"n_samples": 999_999}, "n_samples"),
        ("traverse", {"traverse_dim": 0, "n_samples": 999_999}, "n_samples"),
        ("traverse", {"n_traverse": 1024}, "n_traverse"),
    ],
)
def test_more_than_the_memory_holds_is_refused_with_the_largest_that_works(mode, options, name, build, monkeypatch):
    monkeypatch.setattr("vaes.view.picture.available", lambda: 400_000)
    monkeypatch.setitem(MODES, mode, lambda *a: "drawn")
    asked = SMALL._replace(**options)
    with pytest.raises(UserError, match=f"--{name} .* GiB, more than half of what is free; at most") as error:
        make(mode, build(), asked)
    most = int(str(error.value).rsplit("at most ", 1)[1].split()[0].replace(",", ""))
    assert make(mode, build(), asked._replace(**{name: most})) == "drawn"
    with pytest.raises(UserError):
        make(mode, build(), asked._replace(**{name: most + 1}))
