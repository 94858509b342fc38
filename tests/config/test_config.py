import copy
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vaes.config import (
    DEFAULTS,
    Config,
    build_data,
    build_model,
    build_objective,
    build_settings,
    load,
    parse,
    read_file,
    to_yaml,
)
from vaes.config.load import overrides
from vaes.config.registry import NETWORKS
from vaes.config.schema import keys
from vaes.errors import UserError
from vaes.methods import METHODS
from vaes.posteriors import Point


def test_nothing_given_is_the_digits_configuration(repo: Path) -> None:
    assert load(DEFAULTS) == load(read_file(repo / "configs/vae-digits.yaml"))


@pytest.mark.parametrize("arguments", [["--objective.beta", "4"], ["--objective.beta=4"], ["--train.coef_kl", "4"]])
def test_both_spellings_of_an_override_and_the_alias_set_beta(arguments: list[str]) -> None:
    assert load({}, arguments).objective["beta"] == 4


def test_the_aliases_of_the_mmd_coefficients() -> None:
    config = load({"method": "mmd_vae"}, ["--train.coef_alpha", "0.5", "--train.coef_lambda=3"])
    assert (config.objective["alpha"], config.objective["lambda_"]) == (0.5, 3)


def test_an_alias_beside_its_key_is_refused_in_one_place_and_overrides_it_from_another() -> None:
    with pytest.raises(UserError, match=r"train\.coef_kl: the same as objective\.beta"):
        load({"objective": {"beta": 1.0}, "train": {"coef_kl": 2.0}})
    assert load({"objective": {"beta": 1.0}}, ["--train.coef_kl", "2"]).objective["beta"] == 2


def test_a_path_is_taken_as_it_stands_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for text, expected in (("photos #1", "photos #1"), ("~/x", "home/x"), ("/abs", "/abs")):
        config = load({}, ["--data.kind=folder", "--data.root", text])
        assert config.data["root"] == str(tmp_path / expected)


def test_a_part_named_by_its_kind_keeps_the_options_given_beside_it() -> None:
    config = load({}, ["--model.likelihood.scale", "0.5", "--model.likelihood", "gaussian"])
    assert config.model["likelihood"]["scale"] == 0.5
    config = load({"model": {"network": {"dim": 8}}}, ["--model.network.kind", "mlp"])
    assert config.model["network"]["kind"] == "mlp"


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=r"seed: .* (must be 0 or more|below 2\^63)"):
        load({"seed": seed})


def test_a_resolved_configuration_survives_its_file(tmp_path: Path) -> None:
    raw = {
        "method": "info_vae",
        "data": {"kind": "folder", "root": "somewhere", "image_size": [28, 20]},
        "objective": {"alpha": {"kind": "linear", "start": 0.0, "stop": 0.5}, "mmd": {"kernel": "imq"}},
        "train": {"lr": {"kind": "one_cycle", "peak": 1e-3}},
    }
    config = load(raw)
    assert config.objective["alpha"] == {"kind": "linear", "start": 0.0, "stop": 0.5, "steps": None}
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    again = load(read_file(tmp_path / "c.yaml"))
    assert again == config
    assert load(config.to_dict()) == config


def test_a_new_kind_leaves_the_old_one_s_options_behind() -> None:
    raw = {"data": {"kind": "mnist", "root": "elsewhere"}}
    before = copy.deepcopy(raw)
    config = load(raw, ["--data.image_size", "16", "--data.kind", "digits"])
    assert config.data["image_size"] == 16
    assert raw == before


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"objective": {"bta": 4}}, "objective.bta: unknown key: did you mean beta?"),
        ({"train": {"n_step": 4}}, "train.n_step: unknown key: did you mean n_steps?"),
        ({"model": {"network": {"dims": 4}}}, "model.network.dims: unknown key: did you mean dim?"),
        ({"tran": {}}, "tran: unknown key: did you mean train?"),
        ({"data": {"kind": "mnist", "rot": "x"}}, "data.rot: unknown key: did you mean root?"),
        ({"data": {"kind": "mnits"}}, "data.kind: unknown kind 'mnits': did you mean mnist?"),
        ({"method": "betavae"}, "method: unknown method 'betavae': did you mean beta_vae?"),
        ({"method": 3}, "method: 3 is not right; it must be text"),
        ({"model": {"network": "cnov"}}, "model.network.kind: unknown kind 'cnov': did you mean conv?"),
        (
            {"train": {"lr": {"kind": "cosin", "start": 1.0}}},
            "train.lr.kind: unknown kind 'cosin': did you mean cosine?",
        ),
        ({"train": {"lr": {"kind": "cosine"}}}, "train.lr.start: missing; it must be a number"),
        ({"train": {"lr": {"kind": "cosine", "strat": 1}}}, "train.lr.strat: unknown key: did you mean start?"),
        ({"train": {"n_steps": "many"}}, "train.n_steps: 'many' is not right; it must be a whole number"),
        ({"train": {"n_steps": 2.5}}, "train.n_steps: 2.5 is not right; it must be a whole number"),
        ({"train": {"n_steps": True}}, "train.n_steps: True is not right; it must be a whole number"),
        ({"train": {"lr": "fast"}}, "train.lr: 'fast' is not right; it must be a number, or a schedule"),
        ({"train": {"lr": float("nan")}}, "train.lr: nan is not right"),
        ({"train": {"betas": [0.9]}}, "train.betas: [0.9] is not right; it must be a list of 2 numbers"),
        ({"model": {"likelihood": {"scale": "best"}}}, "a number, or one of learned, per_pixel, optimal"),
        ({"model": {"network": {"dim_mults": [1, "x"]}}}, "it must be a list of whole numbers"),
        (
            {"data": {"binarize": "dynamically"}},
            "data.binarize: 'dynamically' is not right; it must be one of none, static",
        ),
        ({"objective": {"samples": 2.5}}, "objective.samples: 2.5 is not right; it must be a whole number"),
        ({"method": "ae", "objective": {"samples": 2}}, "objective.samples: unknown key"),
        ({"data": {"flip": "yes"}}, "data.flip: 'yes' is not right; it must be true or false"),
        ({"data": {"kind": "celeba"}}, "data.root: missing; it must be text"),
        ({"train": 3}, "train: 3 is not a group of keys"),
        ({"model": {"likelihood": 3}}, "model.likelihood: 3 is not a group of keys with a kind"),
        ([1, 2], "configuration: [1, 2] is not a group of keys"),
    ],
)
def test_what_is_wrong_is_named_with_its_dotted_key(raw: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(raw) if isinstance(raw, dict) else parse_then_load(raw)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def parse_then_load(raw: object) -> Config:
    from vaes.config import resolve

    return resolve(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"train": {"lr": -1.0}}, "train: lr must be above 0"),
        ({"train": {"batch_size": 0}}, "train: batch_size must be at least 1"),
        ({"train": {"lr": {"kind": "one_cycle", "peak": 1.0, "warmup": 2.0}}}, "train.lr: warmup must lie between"),
    ],
)
def test_values_that_settings_refuse_carry_their_section(raw: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_settings(load(raw))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model": {"z_dim": 0}}, "model.z_dim: z_dim must be at least 1"),
        ({"model": {"network": {"dim": 0}}}, "model.network: dim and dim_mults must be positive"),
        ({"model": {"likelihood": {"kind": "gaussian", "scale": -1.0}}}, "model.likelihood: scale must be"),
        (
            {"model": {"likelihood": {"kind": "gaussian"}, "value_range": [0.0, 1.0]}},
            "model: the decoder's mean is confined",
        ),
    ],
)
def test_values_that_parts_refuse_carry_their_path(raw: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(load(raw), (1, 8, 8))


@pytest.mark.parametrize("method", ["vae", "beta_vae"])
@pytest.mark.parametrize("beta", [-1.0, {"kind": "linear", "start": 1.0, "stop": -0.01}])
def test_a_negative_beta_is_refused_wherever_its_schedule_gets_to_it(method: str, beta: object) -> None:
    config = load({"method": method, "objective": {"beta": beta}})
    with pytest.raises(UserError, match=r"^objective\.beta: -\S+ is not right; it must be 0 or more"):
        build_objective(config, build_model(config, (1, 16, 16)), (1, 16, 16))


@pytest.mark.parametrize("text", ["2024", "007", "1e3", "-1"])
def test_a_folder_that_is_called_as_a_number_is_a_text(text: str) -> None:
    for arguments in (["--data.root", text], [f"--data.root={text}"]):
        assert Path(load({"data": {"kind": "folder"}}, arguments).data["root"]).name == text
    assert load({"data": {"kind": "celeba"}}, ["--data.root=1", f"--data.attribute={text}"]).data["attribute"] == text
    null = load({"data": {"kind": "celeba"}}, ["--data.root=1", "--data.attribute=null"])
    assert null.data["attribute"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["beta", "4"], "beta: a leftover argument"),
        (["--objective.beta"], "--objective.beta: its value is missing"),
        (["--objective.beta", "--train.n_steps", "3"], "--objective.beta: its value is missing"),
        (["--a..b", "3"], "not a dotted key"),
        (["--train.lr", "{kind: "], "--train.lr: line 1: not valid YAML"),
        (["--train.n_steps", "3", "4"], "4: a leftover argument"),
    ],
)
def test_overrides_that_cannot_be_read_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        overrides(arguments)
    assert message in str(caught.value)


def test_overrides_read_numbers_as_people_write_them() -> None:
    read = dict(
        overrides(["--a", "1e-3", "--b=-2", "--c", "-1", "--d=[1, 2]", "--e", "no", "--f=010", "--g", ".5", "--h="])
    )
    assert read == {"a": 0.001, "b": -2, "c": -1, "d": [1, 2], "e": "no", "f": 10, "g": 0.5, "h": None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("1: 2", "the key 1 is not text"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("- 1", "its top level must be keys"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such configuration file"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read as a configuration"):
        read_file(tmp_path / "b.yaml")
    with pytest.raises(UserError, match="cannot be read as a configuration"):
        read_file(tmp_path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["seed", "method", "data", "model", "objective", "train", "kind", "lr", "network", "beta", "vae", "x"]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(names, values | st.dictionaries(names, values, max_size=3), max_size=4))
def test_whatever_the_keys_hold_only_documented_errors_come_out(raw: dict) -> None:
    try:
        config = load(raw)
        build_settings(config)
    except UserError as error:
        assert str(error)
    else:
        assert load(config.to_dict()) == config


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab:-[]{}&*!|>#'\"\n 1.eE", max_size=60)
    | st.binary(max_size=40).map(lambda b: b.decode("latin-1"))
)
def test_whatever_the_text_only_documented_errors_come_out(text: str) -> None:
    try:
        assert isinstance(parse(text, "x"), dict)
    except UserError as error:
        assert str(error).startswith("x")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_builds_and_its_weights_are_those_its_objective_takes(method: str) -> None:
    narrow = {"ch": 8} if "network" in METHODS[method].defaults.get("model", {}) else {"dim": 4}
    config = load({"method": method, "model": {"network": narrow}})
    model = build_model(config, (1, 8, 8))
    objective, weighting = build_objective(config, model, (1, 8, 8))
    assert set(weighting(0, 64)) == objective.weights
    assert (METHODS[method].bound == "reconstruction") == isinstance(model.posterior, Point)


@pytest.mark.parametrize("method", ["vae", "beta_vae", "iwae", "mmd_vae"])
def test_the_bound_takes_its_samples_from_the_objective(method: str) -> None:
    config = load({"method": method, "objective": {"samples": 7}, "model": {"network": {"dim": 4}}})
    objective, weighting = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    assert objective.bound.samples == 7
    assert "samples" not in weighting.coefficients(0)
    assert load(config.to_dict()) == config
    with pytest.raises(UserError, match="objective: samples must be at least 1, got 0"):
        build_objective(
            load({"method": method, "objective": {"samples": 0}}), build_model(config, (1, 8, 8)), (1, 8, 8)
        )


def test_binarized_data_are_black_and_white_by_a_seed_of_their_own() -> None:
    def read(**options: object) -> list[int]:
        images = build_data(load({"data": {"image_size": 16, **options}})).test
        return images.read(torch.arange(len(images))).flatten().tolist()

    assert set(read(binarize="static")) == set(read(binarize="dynamic")) == {0, 255}
    assert len(set(read())) > 2
    assert read(binarize="static") == read(binarize="dynamic") != read(binarize="static", binarize_seed=1)


def test_schedules_reach_the_weights() -> None:
    config = load({"objective": {"beta": {"kind": "linear", "start": 0.0, "stop": 1.0}}, "train": {"n_steps": 10}})
    _, weighting = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    assert [weighting(step, 64)["rate"] for step in (0, 5, 10)] == [0.0, 0.5, 1.0]


def test_the_weights_of_the_info_vae_are_the_paper_s() -> None:
    config = load({"method": "info_vae", "objective": {"alpha": 0.25, "lambda_": 10.0, "mmd_scale": 1.0}})
    _, weighting = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    assert weighting(0, 64) == {"distortion": 1.0, "rate": 0.75, "mmd": 9.25}


def test_at_alpha_0_and_lambda_1_the_info_vae_is_the_vae() -> None:
    config = load({"method": "info_vae", "objective": {"alpha": 0.0, "lambda_": 1.0}})
    _, weighting = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    assert weighting(0, 64) == {"distortion": 1.0, "rate": 1.0, "mmd": 0.0}


def test_the_mmd_weighs_half_the_pixels_as_in_the_origin() -> None:
    config = load({"method": "mmd_vae"}, ["--train.coef_alpha", "0.5", "--train.coef_lambda", "3"])
    _, weighting = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    assert weighting(0, 1024) == {"distortion": 1.0, "rate": 0.5, "mmd": (0.5 + 3 - 1) * 512}


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_encoder_and_its_decoder_take_the_same_options(kind: str) -> None:
    encoder, decoder, _ = NETWORKS[kind]
    assert [(p.name, p.annotation, p.default) for p in keys(encoder).values()] == [
        (p.name, p.annotation, p.default) for p in keys(decoder).values()
    ]


def test_the_seed_decides_the_weights_and_leaves_the_global_stream_alone() -> None:
    config = load({"model": {"network": {"dim": 4}}})
    before = torch.random.get_rng_state()
    a, b = build_model(config, (1, 8, 8)), build_model(config, (1, 8, 8))
    other = build_model(config._replace(seed=1), (1, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), other.parameters(), strict=True))


def test_every_shipped_configuration_is_complete_and_builds(repo: Path) -> None:
    paths = sorted((repo / "configs").glob("*.yaml"))
    assert len(paths) >= 7
    for path in paths:
        config = load(read_file(path))
        shape = {"celeba": (3, 64, 64), "mnist": (1, 32, 32)}.get(config.data["kind"], (1, 64, 64))
        build_objective(config, build_model(config, shape), shape)
        build_settings(config)
        assert yaml.safe_load(path.read_text())["method"] == config.method
