"""What is read of runs, how they are called, and what is warned of."""

import json
import shutil
from pathlib import Path

import pytest
from compare.made import checkpoint, make, metric

from vaes import compare, config
from vaes.compare import pool, read_runs, warnings
from vaes.errors import UserError
from vaes.evaluate.report import FILE, Evaluation, add, read

ELBO = [metric("elbo", 1.0)]


def test_runs_go_by_the_shortest_names_that_tell_them_apart(tmp_path: Path, monkeypatch) -> None:
    runs = [make(tmp_path, name, ELBO, beta=i) for i, name in enumerate(("x/a/s0", "x/b/s0", "c"), start=1)]
    assert [run.name for run in read_runs(runs)] == ["a/s0", "b/s0", "c"]
    assert [run.name for run in read_runs(runs[1:])] == ["s0", "c"]
    monkeypatch.chdir(runs[0])
    assert [run.name for run in read_runs([Path("."), runs[2]])] == ["s0", "c"]


def test_a_pool_goes_by_what_its_runs_names_begin_with_if_no_other_s_do(tmp_path: Path) -> None:
    for i, name in enumerate(("b1-s0", "b1-s1", "b4-s0", "b4-s1")):
        make(tmp_path, name, ELBO, seed=i % 2, beta=1 + 3 * (i // 2))
    assert [column.label for column in pool(read_runs([tmp_path]))] == ["b1-s*", "b4-s*"]
    make(tmp_path, "b1-s2", ELBO, beta=9)
    assert [column.label for column in pool(read_runs([tmp_path]))] == ["b1-s0 +1", "b1-s2", "b4-s*"]


def test_a_foreign_name_writes_nothing_of_its_own_on_the_terminal(tmp_path: Path) -> None:
    odd = metric("el\x1b[2Jbo\n", 1.0)
    runs = [make(tmp_path, name, [odd], beta=i) for i, name in enumerate(("a\x1b[31m\nerror: b", "\u202eb"), start=1)]
    columns = pool(read_runs(runs))
    for format in compare.FORMATS:
        text = compare.render(columns, format)
        assert all(line.isprintable() for line in text.splitlines()), format
        assert "\\x1b[31m" in text or format in ("markdown", "latex")
    runs[0].joinpath(FILE).unlink()
    with pytest.raises(UserError) as caught:
        read_runs(runs)
    assert str(caught.value).isprintable()


def test_a_folder_of_runs_is_its_runs_and_those_left_out_are_named(tmp_path: Path) -> None:
    make(tmp_path, "b", ELBO, beta=2)
    make(tmp_path, "a", ELBO)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.yaml").write_text("method: vae\n")
    results = read_runs([tmp_path])
    assert [run.name for run in results] == ["a", "b"]
    assert warnings(results) == ["left out, for they have not been evaluated: bare"]


def test_the_checkpoints_of_one_run_stand_side_by_side(tmp_path: Path) -> None:
    run = make(tmp_path, "a", [metric("elbo", 1.0)], step=20, asked=("last",))
    make(tmp_path, "a", [metric("elbo", 2.0)], step=10, asked=("best",))
    columns = pool(read_runs([run]))
    assert [(column.label, column.differs) for column in columns] == [
        ("a@10", {"checkpoint": "step 10"}), ("a@20", {"checkpoint": "step 20"})]  # fmt: skip
    for step in (10, 20):
        (run / f"ckpt/step0000{step}").mkdir(parents=True)
    some = read_runs([run / "ckpt/step000020", run / "ckpt/step000010"])
    assert [result.name for result in some] == ["a@20", "a@10"]
    checkpoint(run, 30, "newer")
    newer = [f"a@20: evaluated at step 20, and has gone on to step 30 since; run: vaes evaluate {run}"]
    assert warnings(read_runs([run])) == newer
    assert warnings(read_runs([run / "ckpt/step000020", run / "ckpt/step000010"])) == []


def test_beside_others_the_best_checkpoint_counts_or_the_one_asked_for(tmp_path: Path) -> None:
    for name, beta in (("a", 1.0), ("b", 2.0)):
        make(tmp_path, name, ELBO, step=20, beta=beta, asked=("last",))
        make(tmp_path, name, ELBO, step=10, beta=beta, asked=("best",))
    runs = [tmp_path / "a", tmp_path / "b"]
    assert [result.evaluation.step for result in read_runs(runs)] == [10, 10]
    assert [result.evaluation.step for result in read_runs(runs, "last")] == [20, 20]
    assert [result.evaluation.step for result in read_runs(runs, "10")] == [10, 10]
    with pytest.raises(UserError, match=r"step 10 \(best\), step 20 \(last\); run: vaes evaluate .*a --checkpoint 7"):
        read_runs(runs, "7")
    make(tmp_path, "c", ELBO, step=30, beta=3)
    assert [result.evaluation.step for result in read_runs([*runs, tmp_path / "c"])] == [10, 10, 30]


@pytest.mark.parametrize(
    ("steps", "asked", "best", "sha", "said"),
    [
        ((9,), (), None, "evaluated", []),
        ((9, 12), (), None, "evaluated", ["evaluated at step 9, and has gone on to step 12 since"]),
        ((9, 12), ("last",), None, "evaluated", ["evaluated at step 9, and has gone on to step 12 since"]),
        ((9, 12), ("9",), None, "evaluated", []),
        ((9, 12), ("best",), 9, "evaluated", []),
        ((9, 12), ("best",), 12, "evaluated", ["evaluated at step 9, and its best is step 12 now"]),
        ((9,), (), None, "trained anew", ["its checkpoint of step 9 holds other weights than those evaluated"]),
        ((12,), ("best",), 12, "evaluated", ["evaluated at step 9, and its best is step 12 now"]),
    ],
)
def test_an_evaluation_that_a_run_has_left_behind_is_said(
    tmp_path: Path, steps: tuple[int, ...], asked: tuple[str, ...], best: int | None, sha: str, said: list[str]
) -> None:
    a = make(tmp_path, "a", ELBO, asked=asked, weights="evaluated")
    for step in steps:
        checkpoint(a, step, sha if step == 9 else "of another step", best)
    b = make(tmp_path, "b", ELBO, beta=2)
    expected = [f"a: {line}; run: vaes evaluate {a}" for line in said]
    assert warnings(read_runs([a, b])) == expected


def test_a_configuration_that_was_changed_since_is_said_and_does_not_count(tmp_path: Path) -> None:
    a, b = make(tmp_path, "a", ELBO), make(tmp_path, "b", ELBO, beta=2)
    text = config.to_yaml(config.load(config.DEFAULTS, ["--objective.beta", "4", "--train.keep", "7"]))
    (a / "config.yaml").write_text(text)
    results = read_runs([a, b])
    assert results[0].config.objective["beta"] == 1
    (line,) = warnings(results)
    assert "config.yaml says objective.beta 4.0 where the weights that were evaluated carry 1.0" in line
    checkpoint(b, 9, "x")
    (b / "ckpt/step000009/state.json").write_text('{"best": 3')
    assert "b: a state.json of its checkpoints is damaged" in warnings(read_runs([a, b]))[1]


def test_a_network_of_one_s_own_needs_no_import_to_be_compared(tmp_path: Path) -> None:
    runs = [make(tmp_path, name, ELBO) for name in ("a", "b")]
    for run, width in zip(runs, (3, 4), strict=True):
        (own,) = read(run)
        raw = config.parse(own.config or "", "")
        raw["model"]["network"] = {"kind": "my_resnet", "width": width}
        (run / FILE).unlink()
        add(run, own._replace(config=json.dumps(raw)))
        (run / "config.yaml").write_text(json.dumps(raw))
    columns = pool(read_runs(runs))
    assert [column.differs for column in columns] == [{"model.network.width": 3}, {"model.network.width": 4}]


def test_mistakes_are_named(tmp_path: Path) -> None:
    a = make(tmp_path, "a", ELBO)
    bare = tmp_path / "bare"
    bare.mkdir()
    bare.joinpath("config.yaml").write_text("method: vae\n")
    copied = make(tmp_path, "copied", [metric("elbo", 2.0)])
    broken = make(tmp_path, "broken", [], seed=3)
    broken.joinpath(FILE).write_text("{")
    edited = make(tmp_path, "edited", [metric("elbo", 2.0)], seed=4)
    edited.joinpath(FILE).write_text(edited.joinpath(FILE).read_text().replace('"value": 2.0', '"value": 1.0'))
    odd = make(tmp_path, "odd", [], seed=4, training={"step": "x"})
    same = make(tmp_path, "same", [], seed=5)
    shutil.copy(a / FILE, same)
    (tmp_path / "empty").mkdir()
    for runs, message in (
        ([a], "two are needed"),
        ([a, a], "given twice"),
        ([a, tmp_path / "none"], "none: does not exist"),
        ([a, tmp_path], "holds no config.yaml"),
        ([tmp_path / "empty"], "holds no config.yaml"),
        ([a, bare], f"has not been evaluated; run: vaes evaluate {bare}"),
        ([a, copied], "have the same configuration and seed 0"),
        ([a, broken], f"run vaes evaluate {broken} again"),
        ([a, edited], f"{edited / FILE}: not an evaluation (edited or damaged"),
        ([a, odd], "not what training writes"),
        ([a, same], "hold the same weights"),
    ):
        with pytest.raises(UserError) as caught:
            pool(read_runs(runs))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_runs_of_the_first_format_are_compared_where_their_images_are_known(tmp_path: Path) -> None:
    runs = []
    for name, value in (("a", 1.0), ("b", 2.0)):
        found = [metric("elbo", value)._replace(seed=0)._asdict(), metric("rate", value)._replace(seed=0)._asdict()]
        groups = {
            "likelihood": {"split": "test", "images": "f", "budget": {"n_images": 9}, "metrics": found, "skipped": []},
            "reconstruction": {"split": "test", "images": "f", "budget": {"n_images": 9},
                               "metrics": [metric("mse", value)._asdict()], "skipped": []},
        }  # fmt: skip
        run = make(tmp_path, name, ELBO, beta=value)
        document = {"format": "vaes-evaluation-1", "step": 9, "weights": name, "version": "0", "groups": groups}
        (run / FILE).write_text(json.dumps(document))
        runs.append(run)
    rows = compare.rows(pool(read_runs(runs)))
    assert {row.name: row.alone for row in rows} == {"elbo": False, "rate": False, "mse (1)": True, "mse (2)": True}


def test_the_evaluation_says_which_configuration_it_belongs_to(tmp_path: Path) -> None:
    a, b = make(tmp_path, "a", ELBO), make(tmp_path, "b", ELBO, beta=2)
    (a / "config.yaml").unlink()  # a weights file on its own, say
    assert read_runs([a, b])[0].config.objective["beta"] == 1
    (own,) = read(a)
    (a / FILE).unlink()
    add(a, Evaluation(own.step, own.weights, "0", own.groups))
    with pytest.raises(UserError, match=r"holds no config\.yaml"):
        read_runs([a, b])
