"""What the commands make of their arguments, without torch; what they then do is tested elsewhere."""

import inspect
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vaes import shipped
from vaes.cli import MODES, main
from vaes.keys import groups

SIGNATURES = {
    "run_train": "config path exp_dir resume minutes device imports arguments methods init",
    "run_sample": "where config mode save_dir checkpoint device imports options arguments",
    "run_evaluate": "where only split budget seed features perceptual prior checkpoint device imports output arguments",
    "run_fit_prior": "where kind options seed n_images checkpoint device imports arguments",
    "run_encode": "where paths split output checkpoint device imports batch_size arguments normalise shard tile",
    "run_compare": "runs save_dir format checkpoint imports html",
    "run_config": "name",
    "run_cache": "empty",
}


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that a command was called with, by name."""
    got: dict[str, Any] = {}

    def stand_in(name: str) -> Any:
        def command(*values: Any) -> None:
            got.update(zip(SIGNATURES[name].split(), values, strict=True), command=name)

        return command

    stand_ins = {name: stand_in(name) for name in SIGNATURES}
    monkeypatch.setitem(sys.modules, "vaes.commands", types.SimpleNamespace(**stand_ins))
    return got


def test_the_commands_take_what_they_are_called_with() -> None:
    from vaes import commands

    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(commands, name)).parameters) == parameters.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train", {"config": None, "path": None, "minutes": None, "device": "auto", "imports": [], "arguments": []}),
        ("train photos --minutes 2.5", {"path": Path("photos"), "minutes": 2.5}),
        ("train --minutes=2 --device cpu photos", {"path": Path("photos"), "device": "cpu"}),
        (
            "train --objective.beta 4 photos --seed 1 --data.flip=true -e runs/a",
            {
                "path": Path("photos"),
                "exp_dir": Path("runs/a"),
                "arguments": ["--objective.beta", "4", "--seed", "1", "--data.flip=true"],
            },
        ),
        ("train --method ae --data mnist", {"path": None, "arguments": ["--method", "ae", "--data", "mnist"]}),
        ("train --data.seed -1 --seed=-2", {"arguments": ["--data.seed", "-1", "--seed=-2"]}),
        ("train -c vae-mnist", {"config": str(shipped.find("vae-mnist"))}),
        ("train --import a.py --import b.py x", {"imports": [Path("a.py"), Path("b.py")], "path": Path("x")}),
        ("train --import a.py b.py -e x", {"imports": [Path("a.py"), Path("b.py")], "path": None}),
        ("train -e a --resume latest", {"resume": "latest", "exp_dir": Path("a"), "methods": ()}),
        ("train --init F -c vae-mnist", {"init": Path("F")}),
        ("encode R --split test -o c.npz --normalise", {"normalise": True}),
        ("sample R", {"where": Path("R"), "mode": "sample", "checkpoint": None, "device": "auto"}),
        ("sample --weights W --checkpoint best", {"where": Path("W"), "checkpoint": "best"}),
        ("sample R --checkpoint 2000 --data.root x", {"checkpoint": "2000", "arguments": ["--data.root", "x"]}),
        ("encode R a.png b -o c.csv", {"paths": [Path("a.png"), Path("b")], "split": None, "output": Path("c.csv")}),
        ("encode R -o c.npz a.png b", {"where": Path("R"), "paths": [Path("a.png"), Path("b")]}),
        ("encode R --split test -o c.parquet --batch_size 5", {"paths": [], "split": "test", "batch_size": 5}),
        ("evaluate R --only a,b --n_images 5 --output D", {"only": ["a", "b"], "output": Path("D"), "split": "test"}),
        ("evaluate R --prior own --perceptual lpips", {"prior": "own", "perceptual": "lpips"}),
        (
            "fit-prior R --kind flow --steps 9 --data.root D",
            {
                "kind": "flow",
                "options": {"components": None, "flow": None, "width": None, "steps": 9, "solver_steps": None},
                "arguments": ["--data.root", "D"],
                "n_images": 100_000,
            },
        ),
        ("evaluate R --outliers.kind mnist", {"only": None, "arguments": ["--outliers.kind", "mnist"]}),
        ("compare A --import n.py B", {"runs": [Path("A"), Path("B")], "imports": [Path("n.py")], "html": None}),
        ("compare A --format latex B", {"runs": [Path("A"), Path("B")], "format": "latex", "save_dir": None}),
        ("config", {"command": "run_config", "name": None}),
        ("config beta_vae", {"name": "beta_vae"}),
        ("cache --empty", {"command": "run_cache", "empty": True}),
    ],
)  # fmt: skip
def test_what_a_command_line_means(
    line: str, expected: dict[str, Any], called: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 0, capsys.readouterr().err
    assert {name: called[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sample R --z -1,0.5 --singles", {"z": [-1.0, 0.5], "singles": True, "n_samples": 64}),
        ("sample R --z=-1", {"z": [-1.0], "singles": False}),
        ("sample R --codes c.csv", {"codes": Path("c.csv"), "z": None}),
        ("sample R --mode reconstruct --images a.png b/", {"images": [Path("a.png"), Path("b")], "n_samples": 32}),
        (
            "sample R --mode traverse --format mp4 --fps 30 --seconds 2",
            {"format": "mp4", "fps": 30, "seconds": 2.0, "n_samples": 8},
        ),
        ("sample R", {"format": "png"}),
        ("sample R --mode traverse --traverse_dim 1", {"traverse_dim": 1, "traverse_range": 3.0, "n_samples": 8}),
    ],
)
def test_the_options_of_sample(line: str, expected: dict[str, Any], called: dict[str, Any]) -> None:
    assert main(line.split()) == 0
    assert {name: called["options"][name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("train --beta 4", "--beta: unknown key: did you mean --objective.beta?"),
        ("train --lr=3", "did you mean --train.lr?"),
        ("train --train-lr 3", "did you mean --train.lr?"),
        ("train --tran.lr 3", "did you mean --train.lr?"),
        ("train --learning_rate 3", "did you mean --train.lr?"),
        ("train --epochs 10", "did you mean --train.n_steps? Lengths are in optimiser steps"),
        ("train --batch-size 10", "did you mean --train.batch_size?"),
        ("train --z_dim 10", "did you mean --model.z_dim?"),
        ("train --latent_dim 10", "did you mean --model.z_dim?"),
        ("train --dataset mnist", "did you mean --data.kind?"),
        ("train --gpu 0", "did you mean --device cuda?"),
        ("train --momentun 0", "did you mean --train.momentum?"),
        ("train --resum latest", "did you mean --resume?"),
        ("train --out x", "did you mean --exp_dir?"),
        ("train --traverse_dim 3", "it is an option of vaes sample"),
        ("train a b", "b: a leftover argument beside a: one PATH is taken"),
        ("train --foo 1", "--foo: unknown key: no key or option is near"),
        ("train --minutes 0", "--minutes: 0; it must be above 0"),
        ("train --minutes nan", "--minutes: 'nan' is not right; it must be a number"),
        ("train --device cudaa", "invalid choice: 'cudaa': did you mean cuda?"),
        ("train -c vae-mnits", "did you mean -c vae-mnist?"),
        ("trian", "invalid choice: 'trian': did you mean train?"),
        ("sample R --format gif", "--format gif: sample has no film; --mode traverse and interpolate have"),
        ("sample R --mode traverse --fmt gif", "did you mean --format?"),
        ("sample R --mode traverse --format gif --fps 60", "--fps: 60; it must be at most 50"),
        ("plot R --smooth 0", "--smooth: 0; it must be at least 1"),
        ("sample R --seeds 3", "did you mean --seed?"),
        ("sample R --n 5", "did you mean --n_samples?"),
        ("sample R --root x", "did you mean --data.root?"),
        ("sample R --split test", "it is an option of vaes encode, vaes evaluate"),
        ("sample R --lr 1", "train.lr is for vaes train; only keys of data can be given here"),
        ("sample R --traverse", "did you mean --mode traverse?"),
        ("sample R --n_samples 1000000000", "--n_samples: 1000000000; it must be at most 100,000"),
        ("sample R --n_samples 0", "--n_samples: 0; it must be at least 1"),
        ("sample R --n_samples " + "9" * 900, "it must be at most 100,000"),
        ("sample R --batch_size -1", "--batch_size: -1; it must be at least 1"),
        ("sample R --seed ten", "--seed: 'ten' is not right; it must be a whole number"),
        ("sample R --z 1,x", "--z: 'x' is not right; it must be a number"),
        ("sample R --z " + "1," * 20_000 + "1", "more than 10,000 numbers"),
        ("sample R --z 1 --codes c", "give one of --codes and --z"),
        ("sample R --checkpoint step²", "it must be best, last or a step such as 2000"),
        ("fit-prior R --kind gm", "invalid choice: 'gm': did you mean gmm?"),
        ("fit-prior R --n_components 5", "did you mean --components?"),
        ("sample R --prior glow", "choose from own, fitted, gmm, flow, two_stage, autoregressive, flow_matching"),
        ("evaluate R --n 5", "did you mean --n_images?"),
        ("evaluate R --batch_size 999999999", "it must be at most 100,000"),
        ("encode R -o c.csv", "give one of PATH and --split"),
        ("encode R a.png -o c.txt", "--output c.txt: must end in .csv, .parquet or .npz"),
        ("compare A B --csv", "did you mean --format csv?"),
    ],
)
def test_what_is_wrong_is_answered_with_what_was_meant(
    line: str, answer: str, called: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    assert answer in said
    assert not called


def test_the_origin_s_sample_script_keeps_its_single_pictures(called: dict[str, Any], repo: Path) -> None:
    from vaes.cli import sample, train

    sample(["-c", "vae-digits", "--weights", "W", "--n_samples", "3"], prog="sample.py", singles=True)
    assert called["options"]["singles"]
    assert "singles=True" in (repo / "sample.py").read_text()
    train(["--train.coef_kl", "3"], prog="train_vae.py", methods=("vae",))
    assert (called["arguments"], called["methods"]) == (["--train.coef_kl", "3"], ("vae",))


def test_the_help_of_train_has_every_key_within_80_columns_without_torch_and_at_once(repo: Path) -> None:
    began = time.perf_counter()
    code = (
        "import sys; from vaes.cli import main\n"
        "try: main(['train', '--help'])\n"
        "finally: assert not {'torch', 'numpy', 'pydantic', 'yaml'} & sys.modules.keys()"
    )
    env = os.environ | {"COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 5  # 0.1 s on an idle machine
    assert max(map(len, done.stdout.splitlines())) <= 80
    for group in groups():
        for key in group.keys:
            name = key.name.replace("schedule.", "KEY.", 1)
            assert f"  --{name}  (" in done.stdout
            assert " ".join(key.meaning.split()) in " ".join(done.stdout.split())
    assert "  --train.n_steps  (a whole number; default 3000)\n      optimiser steps.\n" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "",
        "train",
        "sample",
        "encode",
        "evaluate",
        "compare",
        "plot",
        "export",
        "config",
        "cache",
        "fit-prior",
        "methods",
    ],
)
def test_every_command_has_a_help_within_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: vaes {command}".strip())
    assert max(map(len, lines)) <= 80
    assert all(mode in "\n".join(lines) for mode in MODES if command == "sample")


def test_ctrl_c_speaks_of_checkpoints_in_a_training_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*values: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "vaes.commands", types.SimpleNamespace(**dict.fromkeys(SIGNATURES, interrupted)))
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "stopped at once; a checkpoint that was saved before is whole\n"
    for line in ("sample R", "evaluate R", "compare A B", "encode R a -o c.csv"):
        assert main(line.split()) == 130
        assert capsys.readouterr().err == "stopped\n"


TYPED = """
train sample evaluate encode compare config cache R a.png -c -e -o --mode traverse --n_samples 3 -1 -1,2 --z -- -
--data.root --objective.beta=1 --beta --images --import x.py --only --split test --checkpoint best = --= -h=1 --a.b
--resume --seed --format --minutes -cx -ox --weights --version= \x1b \udcff ''
"""
WORDS = st.sampled_from(TYPED.split())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(["train", "sample", "evaluate", "encode"]), rest=st.lists(WORDS | st.text(max_size=6)))
def test_whatever_is_typed_ends_in_a_call_or_in_one_line(
    command: str, rest: list[str], called: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assume(not {"-h", "--help"} & set(rest))
    status = main([command, *rest])
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert (status, len(errors)) in ((0, 0), (2, 1)), errors
