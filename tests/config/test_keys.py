"""The table of keys, answers to keys that do not exist, configurations by name, and texts that cost."""

import time
from pathlib import Path

import pytest

from vaes import shipped
from vaes.config import DEFAULTS, build_model, load, parse, read_file
from vaes.config.document import as_json, document, listing, meanings, starting_point
from vaes.errors import UserError
from vaes.keys import FILE, groups
from vaes.methods import METHODS


def test_the_table_is_current() -> None:
    """If not: python -m vaes.config.document."""
    assert FILE.read_text(encoding="utf-8") == as_json(document())
    assert list(groups()) == document()


def test_every_key_has_its_line_of_meaning() -> None:
    silent = [f"{group.choice}: {key.name}" for group in groups() for key in group.keys if not key.meaning]
    assert silent == []


def test_a_meaning_goes_on_over_lines_and_ends_with_its_section() -> None:
    def part(size: int, *, first: int, second: int = 1) -> None:
        """Something.

        Args:
            size: wired.
            first: one, as :func:`vaes.fit` has it; on
            this line: too.
            second: ``two``.

        Raises:
            ValueError: never.
        """

    assert meanings(part) == {
        "size": "wired.",
        "first": "one, as vaes.fit has it; on this line: too.",
        "second": "two.",
    }


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"beta": 4}, "beta: unknown key: did you mean objective.beta?"),
        ({"lr": 4}, "did you mean train.lr?"),
        ({"train": {"beta": 4}}, "train.beta: unknown key: did you mean objective.beta?"),
        ({"train": {"epochs": 3}}, "train.epochs: unknown key: did you mean n_steps? Lengths are in optimiser steps"),
        ({"train": {"num-epochs": 3}}, "3 epochs of 60,000 images at batch_size 128 are 3 * 60000 / 128 = 1406 steps"),
        ({"train": {"BatchSize": 3}}, "did you mean batch_size?"),
        ({"train": {"learning_rate": 3}}, "did you mean lr?"),
        ({"model": {"latent_dim": 3}}, "did you mean z_dim?"),
        ({"model": {"hidden": [3]}}, "did you mean model.network.hidden?"),
        ({"objective": {"kernel": "imq"}}, "did you mean objective.mmd.kernel?"),
        ({"tran": {"lr": 3}}, "did you mean train?"),
        (
            {"data": {"kind": "digits", "root": "x"}},
            "unknown key: it is a key of data.kind arrays, cars3d, celeba and 15 more",
        ),
        ({"method": "ae", "objective": {"beta": 3}}, "it is a key of method vae, beta_vae, beta_tcvae and "),
        (
            {"model": {"network": {"kind": "mlp", "dim": 3}}},
            "it is a key of model.network.kind conv, gated_conv, resnet",
        ),
        ({"gpu": 1}, "did you mean --device cuda?"),
        ({"foo": 1}, "foo: unknown key: allowed: data, method"),
        ({"x\x1b[2J\nerror: y" * 10**5: 1}, r"x\x1b[2J\x0aerror: yx"),
        ({"train": {"lr": "y" * 10**6}}, "is not right; it must be a number, or a schedule"),
        ({"data": "y" * 10**6}, "data.kind: unknown kind 'yyy"),
        (
            {"model": {"network": "my_net"}},
            "a network of your own needs --import FILE (the file that registers it; in Python, import",
        ),
    ],
)
def test_a_key_that_does_not_exist_is_answered_with_the_one_that_was_meant(raw: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(raw)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def nested(depth: int) -> dict:
    found: dict = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "1" * 99_000 + "x", None),
        ("a: " + "9" * 99_000, "x.yaml: not valid YAML"),
        ("[" * 99_000, "x.yaml: line 1: not valid YAML here: nested more than 20 deep"),
        ("{" * 99_000, "nested more than 20 deep"),
        ("- " * 49_000, "nested more than 20 deep"),
        ("? " * 49_000, "nested more than 20 deep"),
        ("a: " * 33_000, "not valid YAML"),
        ("a" * 10_000_000, "x.yaml: 10,000,000 characters; a configuration has at most 100,000"),
        ("a: \ud800", "x.yaml: not valid YAML"),
        ("a: \x1b", "x.yaml: not valid YAML"),
    ],
)
def test_no_text_costs_more_than_its_length(text: str, message: str | None) -> None:
    began = time.process_time()
    if message is None:
        assert parse(text, "x.yaml")
    else:
        with pytest.raises(UserError) as caught:
            parse(text, "x.yaml")
        assert message in str(caught.value)
    assert time.process_time() - began < 5


def test_what_is_nested_without_end_or_too_large_is_a_sentence(tmp_path: Path) -> None:
    for raw, arguments in ((nested(100_000), ()), ({}, [f"--{'a.' * 10_000}b=1"]), ({}, ["--train.lr=1e999"])):
        with pytest.raises(UserError, match=r"nested|not a dotted key|train\.lr: inf is not right"):
            load(raw, arguments)
    (tmp_path / "big.yaml").write_text("a" * 200_000)
    with pytest.raises(UserError, match="200,000 bytes; a configuration has at most"):
        read_file(tmp_path / "big.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match=r"bytes\.yaml: cannot be read as a configuration: byte 3 is no UTF-8"):
        read_file(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("text", ["[2024] photos", "a: b", "*x", "{", "\udcff", "#1", "yes # no"])
def test_a_folder_may_be_called_as_it_likes(text: str) -> None:
    assert Path(load({"data": {"kind": "folder"}}, ["--data.root", text]).data["root"]).name == text


@pytest.mark.parametrize("name", [*METHODS, *shipped.names()])
def test_a_starting_point_is_complete_and_says_what_each_key_means(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = starting_point(name)
    config = load(parse(text, name))
    assert list(parse(text, name)) == list(config._fields)
    assert all(parse(text, name)[section].keys() == getattr(config, section).keys() for section in config._fields[2:])
    assert config == load({**DEFAULTS, "method": name} if name in METHODS else read_file(shipped.find(name)))
    assert max(map(len, text.splitlines())) <= 120
    keys = [line for line in text.splitlines() if not line.strip().startswith("#") and not line.endswith(":")]
    commented = [line for line in text.splitlines() if "# " in line]
    assert len(commented) > 0.8 * len(keys)
    with pytest.raises(UserError, match="betavae: neither a method nor a shipped configuration: did you mean beta_vae"):
        starting_point("betavae")


def test_the_list_names_every_method_and_configuration_within_80_columns() -> None:
    lines = listing().splitlines()
    assert max(map(len, lines)) < 80
    assert {*METHODS, *shipped.names()} <= {line.split()[0] for line in lines if line.startswith("  ")}


def test_a_shipped_configuration_goes_by_name_from_anywhere(tmp_path: Path, monkeypatch, repo: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.find("vae-mnist").name == "vae-mnist.yaml"
    (tmp_path / "vae-mnist").mkdir()  # a run folder of that name is not in the way
    assert shipped.find("vae-mnist").is_file()
    (tmp_path / "mine.yaml").write_text("method: vae")
    assert shipped.find("mine.yaml") == Path("mine.yaml")
    monkeypatch.chdir(repo)
    assert shipped.find("configs/vae-mnist.yaml").is_file()
    for name in ("vae-mnits", "configs/vae-mnits.yaml", "vae-mnist/"):
        with pytest.raises(UserError, match=r"there is no such configuration file; did you mean -c vae-mnist\?"):
            shipped.find(name)
    with pytest.raises(UserError, match="mmd_vae: a method, not a configuration; --method mmd_vae trains it"):
        shipped.find("mmd_vae")
    with pytest.raises(UserError, match="shipped ones: beta-vae-celeba"):
        shipped.find("x" * 10_000 + "\0")


def test_a_model_that_memory_cannot_hold_is_refused_before_it_is_built() -> None:
    for network in ({"kind": "conv"}, {"kind": "mlp"}, {"kind": "conv", "dim": 10**6}):
        config = load({"model": {"z_dim": 10**10, "network": network}})
        began = time.process_time()
        with pytest.raises(UserError, match=r"^model: its weights take [\d,.]+ GiB and [\d,.]+ GiB of memory are free"):
            build_model(config, (1, 16, 16))
        assert time.process_time() - began < 2
