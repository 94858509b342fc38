"""The statistics of a comparison on runs made by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaes import compare, config
from vaes.compare import Cell, difference, interval, pool, read_runs
from vaes.errors import UserError
from vaes.evaluate.record import Metric
from vaes.evaluate.report import Evaluation, Group, write


def make(
    folder: Path, name: str, metrics: list[Metric], *, seed: int = 0, beta: float = 1.0, images: str = "fp",
    step: int = 9, arguments: tuple[str, ...] = (), training: dict[str, object] | None = None,
) -> Path:  # fmt: skip
    run = folder / name
    run.mkdir()
    options = ["--seed", str(seed), "--objective.beta", str(beta), *arguments]
    run.joinpath("config.yaml").write_text(config.to_yaml(config.load(config.DEFAULTS, options)))
    groups = {"likelihood": Group("test", images, {}, metrics, [])}
    write(run / "evaluation.json", Evaluation(step, f"sha of {name}", "0", groups))
    if training is not None:
        run.joinpath("metrics.json").write_text(json.dumps(training))
    return run


def metric(name: str, value: float, stderr: float | None = 0.1, definition: str = "d") -> Metric:
    return Metric(name, value, 100, definition, stderr=stderr)


def test_runs_that_differ_in_seed_are_pooled_with_a_t_interval(tmp_path: Path) -> None:
    values = [1.0, 2.0, 4.0]
    runs = [make(tmp_path, f"a{i}", [metric("elbo", v)], seed=i) for i, v in enumerate(values)]
    runs.append(make(tmp_path, "b", [metric("elbo", 5.0)], beta=4))
    a, b = pool(read_runs(runs))
    assert [run.config.seed for run in a.runs] == [0, 1, 2]
    (cell,) = a.cells.values()
    assert cell.runs == 3
    assert cell.value == pytest.approx(7 / 3)
    half = 4.302652729911275 * math.sqrt(7 / 3) / math.sqrt(3)  # Student's 97.5 % point with 2 degrees of freedom
    assert (cell.low, cell.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert a.differs == {"objective.beta": 1.0}
    assert b.differs == {"objective.beta": 4.0}
    (single,) = b.cells.values()
    assert (single.low, single.high) == pytest.approx((5 - 0.196, 5 + 0.196), abs=1e-4)


def test_the_t_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2_000):
        low, high = interval(rng.standard_normal(3))
        hits += low <= 0 <= high
    assert abs(hits / 2_000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2_000)


def cell(values: list[float], stderr: float | None = None) -> Cell:
    if len(values) == 1:
        return Cell(values[0], 1, 10, None, stderr, None, None)
    return Cell(float(np.mean(values)), len(values), 10, float(np.std(values, ddof=1)), None, *interval(values))


def test_welch_s_interval_is_that_of_scipy() -> None:
    from scipy.stats import ttest_ind

    a, b = [1.0, 1.4, 0.7, 1.1], [2.0, 3.5]
    found = difference(cell(a), cell(b))
    expected = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (5, 1), (1, 4)])
def test_differences_between_equals_are_marked_nineteen_times_in_twenty(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(1)
    marked = [
        difference(cell(rng.standard_normal(n_a).tolist()), cell(rng.standard_normal(n_b).tolist())).within_noise
        for _ in range(2_000)
    ]
    assert 0.95 - 4 * 0.005 < np.mean(marked) < 0.995  # Welch's is a little wide with few runs


def test_single_runs_have_the_noise_of_their_images_or_none() -> None:
    a, b = cell([1.0], 0.3), cell([2.0], 0.4)
    assert difference(a, b).low == pytest.approx(1 - 1.959964 * 0.5, rel=1e-5)
    assert difference(a, b).within_noise is False
    assert difference(a, cell([1.5], 0.4)).within_noise is True
    assert difference(a, cell([9.0])).within_noise is None


def test_pools_without_any_spread_differ_where_they_differ() -> None:
    assert difference(cell([2.0, 2.0]), cell([2.0, 2.0])).within_noise is True
    assert difference(cell([2.0, 2.0]), cell([3.0, 3.0])).within_noise is False


def test_what_does_not_compare_stands_in_different_rows(tmp_path: Path) -> None:
    a = make(tmp_path, "a", [metric("elbo", 1.0), metric("fid", 3.0)])
    b = make(tmp_path, "b", [metric("elbo", 2.0, definition="other"), metric("fid", 4.0)], beta=2)
    text = compare.table(pool(read_runs([a, b])))
    lines = text.splitlines()
    assert any(line.split() == ["elbo", "(1)", "1", "±", "0.2", "-"] for line in lines), text
    assert any(line.split() == ["elbo", "(2)", "-", "2", "±", "0.2"] for line in lines), text
    assert any(line.split() == ["fid", "3", "±", "0.2", "4", "±", "0.2"] for line in lines), text
    assert "not comparable" in text
    other_images = make(tmp_path, "c", [metric("elbo", 1.0)], beta=3, images="others")
    assert "(2)" in compare.table(pool(read_runs([a, other_images])))


def test_the_table_marks_noise_and_tells_columns_apart(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, "a", [metric("elbo", 1.0), metric("kid", 1.0, None)]),
        make(tmp_path, "b", [metric("elbo", 1.2), metric("kid", 2.0, None)], beta=2),
        make(tmp_path, "c", [metric("elbo", 9.0), metric("kid", 2.0, 0.1)], beta=3),
    ]
    text = compare.table(pool(read_runs(runs)))
    elbo, kid = (next(line for line in text.splitlines() if line.startswith(f"  {name}")) for name in ("elbo", "kid"))
    assert elbo.split() == ["elbo", "1", "±", "0.2", "1.2", "±", "0.2", "~", "9", "±", "0.2"]
    assert kid.split() == ["kid", "1", "2", "?", "2", "±", "0.2", "?"]
    assert f"B  objective.beta 2.0; seed 0: {runs[1]}" in text


def test_where_data_lie_is_no_difference_but_the_step_is(tmp_path: Path) -> None:
    a = make(tmp_path, "a", [metric("elbo", 1.0)], arguments=("--data.kind", "mnist", "--data.root", "here"))
    b = make(tmp_path, "b", [metric("elbo", 2.0)], seed=1, arguments=("--data.kind", "mnist", "--data.root", "there"))
    assert len(pool(read_runs([a, b]))) == 1
    c = make(tmp_path, "c", [metric("elbo", 2.0)], seed=2, step=4, arguments=("--data.kind", "mnist"))
    columns = pool(read_runs([a, b, c]))
    assert [column.differs for column in columns] == [{"step": 9}, {"step": 4}]


def test_training_s_loss_is_shown_where_objectives_agree(tmp_path: Path) -> None:
    training = {"step": 9, "test": {"loss": {"value": 3.0, "stderr": None, "n": 5}, "elbo": {"value": 7.0, "n": 5}}}
    a = make(tmp_path, "a", [metric("elbo", 1.0)], training=training)
    b = make(tmp_path, "b", [metric("elbo", 1.0)], seed=1, training=training)
    c = make(tmp_path, "c", [metric("elbo", 1.0)], beta=2, training=training)
    stale = make(tmp_path, "d", [metric("elbo", 1.0)], beta=3, training=training | {"step": 8})
    text = compare.table(pool(read_runs([a, b, c, stale])))
    assert text.count("loss (") == 2
    assert "7" not in text.split("A  ")[0].replace("0.17", "")  # the evaluation's elbo stands alone


def test_mistakes_are_named(tmp_path: Path) -> None:
    a = make(tmp_path, "a", [metric("elbo", 1.0)])
    bare = tmp_path / "bare"
    bare.mkdir()
    bare.joinpath("config.yaml").write_text("method: vae\n")
    copied = make(tmp_path, "copied", [metric("elbo", 2.0)])
    broken = make(tmp_path, "broken", [], seed=3)
    broken.joinpath("evaluation.json").write_text("{")
    odd = make(tmp_path, "odd", [], seed=4, training={"step": "x"})
    same = make(tmp_path, "same", [], seed=5)
    same.joinpath("evaluation.json").write_bytes(a.joinpath("evaluation.json").read_bytes())
    for runs, message in (
        ([a], "two are needed"),
        ([a, a], "given twice"),
        ([a, tmp_path / "none"], "none: does not exist"),
        ([a, tmp_path], "holds no config.yaml"),
        ([a, bare], f"has not been evaluated; run: vaes evaluate {bare}"),
        ([a, copied], "have the same configuration and seed 0"),
        ([a, broken], f"run vaes evaluate {broken} again"),
        ([a, odd], "not what training writes"),
        ([a, same], "hold the same weights"),
    ):
        with pytest.raises(UserError) as caught:
            pool(read_runs(runs))
        assert message in str(caught.value)


def test_the_plot_shows_columns_that_compare_and_the_document_is_json(tmp_path: Path) -> None:
    runs = []
    for i, beta in enumerate((0.5, 1.0, 4.0)):
        for seed in (0, 1):
            found = [metric("rate", 9 / beta + seed, 0.1), metric("distortion", 20 + 5 * beta + seed, 0.1)]
            runs.append(make(tmp_path, f"r{i}{seed}", found, seed=seed, beta=beta))
    runs.append(make(tmp_path, "other", [metric("rate", 1.0), metric("distortion", 5.0, definition="x")], beta=7))
    runs.append(make(tmp_path, "none", [metric("mse", 1.0)], beta=8))
    columns = pool(read_runs(runs))
    assert compare.rate_distortion(columns, tmp_path / "plot.png") == ["A", "B", "C"]
    with Image.open(tmp_path / "plot.png") as picture:
        assert min(picture.size) > 600
        assert len(picture.convert("RGB").resize((200, 150)).getcolors(30_000)) > 30
    assert compare.rate_distortion(columns[-1:], tmp_path / "no.png") == []
    assert not (tmp_path / "no.png").exists()
    document = json.loads(json.dumps(compare.document(columns), allow_nan=False))
    rate = next(row for row in document["metrics"] if row["name"] == "rate")
    assert rate["values"]["A"]["runs"] == 2
    assert rate["less A"]["B"]["within_noise"] is False
    assert document["columns"]["C"]["differs"] == {"objective.beta": 4.0}


def test_one_run_s_plot_has_a_point(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, name, [metric("rate", 2.0, None), metric("distortion", 3.0)], beta=b)
        for name, b in (("a", 1), ("b", 2))
    ]
    assert compare.rate_distortion(pool(read_runs(runs))[:1], tmp_path / "p.png") == ["A"]
