"""`vaes evaluate` and `vaes compare` from the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vaes.cli import main
from vaes.evaluate.report import read

SMALL = ["--n_images", "60", "--iw_samples", "5", "--iw_images", "20", "--ais_images", "2", "--ais_steps", "4"]
TRAIN = ["--train.batch_size=16", "--model.network.dim", "4", "--data.image_size=8", "--data.n_valid=20"]


def said(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main([str(part) for part in arguments])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: two that differ in seed, one in beta; the first two and the last evaluated on pixels."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("a", []), ("b", ["--seed", "1"]), ("c", ["--objective.beta", "4"])):
        run = str(folder / name)
        assert main(["train", "-e", run, *TRAIN, "--train.n_steps", "6", *options]) == 0
        assert main(["evaluate", run, *SMALL, "--features", "pixels"]) == 0
    return folder


def test_evaluate_prints_a_table_and_leaves_records(runs: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    (before,) = read(run)
    status, out, err = said("evaluate", run, "--only", "reconstruction,ais", *SMALL, "--split", "valid", "--seed", 7,
                            capsys=capsys)  # fmt: skip
    assert status == 0, err
    assert "reconstruction (valid images)" in out
    assert "ais_log_evidence" in out
    assert "skipped: images are 8x8: SSIM's window is 11x11" in out
    assert "likelihood" not in out.split("definitions")[0]
    (after,) = read(run)
    assert after.groups.keys() == before.groups.keys() | {"ais"}
    assert after.groups["likelihood"] == before.groups["likelihood"]
    assert after.groups["reconstruction"].split == "valid"
    assert after.groups["ais"].metrics[0].seed == 7
    assert after.step == 6


def test_the_same_command_leaves_the_same_bytes(runs: Path, tmp_path: Path, capsys) -> None:
    found = []
    for name in ("x", "y"):
        run = shutil.copytree(runs / "a", tmp_path / name)
        (run / "evaluation.json").unlink()
        assert said("evaluate", run, *SMALL, "--features", "pixels", capsys=capsys)[0] == 0
        found.append((run / "evaluation.json").read_bytes())
    assert found[0] == found[1] == (runs / "a" / "evaluation.json").read_bytes()


def test_its_elbo_is_training_s(runs: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    assert said("evaluate", run, "--only", "likelihood", "--iw_samples", 2, capsys=capsys)[0] == 0
    metrics = {one.name: one for one in read(run)[0].groups["likelihood"].metrics}
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert metrics["rate"].value == pytest.approx(test["rate"]["value"], rel=1e-4)
    assert abs(metrics["elbo"].value - test["elbo"]["value"]) < 4 * test["elbo"]["stderr"]


def test_other_weights_stand_beside_an_evaluation_and_weights_files_do_too(runs: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    shutil.copy(runs / "c" / "evaluation.json", run)
    weights = run / "ckpt/step000006/model.safetensors"
    assert said("evaluate", weights, "--only", "latent", *SMALL, capsys=capsys)[0] == 0
    new, old = read(run)
    assert new.groups.keys() == {"latent"}
    assert old.groups == read(runs / "c")[0].groups | {
        name: group._replace(columns={}) for name, group in old.groups.items()
    }


def test_outliers_from_a_second_source(runs: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    status, out, err = said("evaluate", run, "--only=downstream", *SMALL, "--outliers.kind", "sprites",
                            "--outliers.image_size=8", "--outliers.n_train", 20, "--outliers.n_test=50",
                            "--data.n_valid", 20, capsys=capsys)  # fmt: skip
    assert status == 0, err
    assert "outlier_auroc  " in out
    assert "no second source" not in out


def test_compare_pools_seeds_and_writes_what_it_says(runs: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "deep" / "comparison"
    status, out, err = said("compare", *(runs / name for name in "abc"), "--save_dir", folder, capsys=capsys)
    assert status == 0, err
    plain = " ".join(out.split())
    assert f"a +1 objective.beta 1.0; seeds 0, 1; best checkpoint, step 6: {runs / 'a'} {runs / 'b'}" in plain
    assert f"c objective.beta 4.0; seed 0; best checkpoint, step 6: {runs / 'c'}" in plain
    assert sorted(path.name for path in folder.iterdir()) == ["comparison.json", "curves.png", "rate-distortion.png"]
    assert json.loads((folder / "comparison.json").read_text())["columns"]["a +1"]["seeds"] == [0, 1]
    status, out, err = said("compare", runs / "a", runs / "c", "--format", "csv", "--save_dir", folder, capsys=capsys)
    assert status == 0
    assert {line.count(",") for line in out.splitlines()} == {out.splitlines()[0].count(",")}  # and nothing else
    assert "comparison.json" in err


def test_bad_input_is_one_line_with_status_2_and_leaves_nothing(runs: Path, tmp_path: Path, capsys) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    bare = shutil.copytree(runs / "a", tmp_path / "bare")
    (bare / "evaluation.json").unlink()
    (tmp_path / "file").touch()
    broken = shutil.copytree(runs / "a", tmp_path / "broken")
    (broken / "evaluation.json").write_text("{")
    commands: dict[str, tuple[list[object], str]] = {
        "unknown group": (["evaluate", run, "--only", "latent,likelyhood"], "did you mean likelihood?"),
        "no group": (["evaluate", run, "--only", ","], "no group of metrics was named"),
        "K": (["evaluate", run, "--iw_samples", 0], "iw_samples: 0; it must be at least 1"),
        "n": (["evaluate", run, "--n_images", -1], "n_images: -1"),
        "batch": (["evaluate", run, "--batch_size", 0], "batch_size: 0"),
        "seed": (["evaluate", run, "--seed", -1], "seed: -1"),
        "split": (["evaluate", run, "--split", "tset"], "invalid choice: 'tset'"),
        "features": (
            ["evaluate", run, "--features", "vgg"],
            "'vgg' is none of auto, classifier, pretext, inc",
        ),
        "no run": (["evaluate", tmp_path / "none"], "none: does not exist"),
        "which run": (["evaluate"], "the following arguments are required: RUN"),
        "model key": (["evaluate", run, "--model.z_dim", 3], "only keys of data can be given"),
        "unknown key": (["evaluate", run, "--data.rot", "x"], "data.rot: unknown key"),
        "other size": (["evaluate", run, "--data.image_size", 9], "(1, 9, 9)"),
        "outliers": (["evaluate", run, "--outliers.kind", "digitz"], "--outliers, read as a data section"),
        "damaged": (["evaluate", broken, "--only", "latent"], "broken/evaluation.json: not a JSON file"),
        "not evaluated": (["compare", run, bare], f"has not been evaluated; run: vaes evaluate {bare}"),
        "one run": (["compare", run], "two are needed to compare"),
        "same": (["compare", run, runs / "a"], "hold the same weights"),
        "not a folder": (["compare", run, runs / "b", "--save_dir", tmp_path / "file"], "cannot be written"),
        "leftover": (["compare", run, runs / "b", "--seed", 3], "--seed"),
    }
    before = sorted(tmp_path.rglob("*"))
    for name, (arguments, message) in commands.items():
        status, out, err = said(*arguments, capsys=capsys)
        assert status == 2, f"{name}: {out}{err}"
        (line,) = [line for line in err.splitlines() if line]
        assert line.startswith("error: "), f"{name}: {err}"
        assert message in line, f"{name}: {line}"
        assert out == "", name
        assert sorted(tmp_path.rglob("*")) == before, name


def test_help_comes_without_torch() -> None:
    for command in ("evaluate", "compare"):
        code = (
            "import sys; from vaes.cli import main\n"
            f"try: main([{command!r}, '--help'])\n"
            "except SystemExit as e: assert e.code == 0\n"
            "assert not {'torch', 'numpy', 'matplotlib'} & sys.modules.keys()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"usage: vaes {command}" in done.stdout
