"""Tables, documents and the plot."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from compare.made import make, metric
from PIL import Image

from vaes import compare
from vaes.compare import Column, pool, read_runs, render
from vaes.errors import UserError
from vaes.evaluate.record import Column as PerImage
from vaes.evaluate.record import Metric


def table(runs: list[Path], **options: object) -> str:
    return render(pool(read_runs(runs)), **options)  # type: ignore[arg-type]


def row(text: str, name: str) -> list[str]:
    """The cells of a row of a table."""
    (line,) = (line for line in text.splitlines() if re.match(rf"  {re.escape(name)}( [↑↓])?  ", line))
    return re.split(r"  +", line.strip())[1:]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"images": "others"}, "images of the split"),
        ({"chosen": "others"}, "images chosen"),
        ({"drawn": 1}, "evaluation's seed"),
    ],
)
def test_what_does_not_compare_stands_in_different_rows_below(
    tmp_path: Path, options: dict[str, object], word: str
) -> None:
    a = make(tmp_path, "a", [metric("fid", 1.0)])
    b = make(tmp_path, "b", [metric("fid", 2.0)], beta=2, **options)  # type: ignore[arg-type]
    for run, beta in ((a, 1.0), (b, 2.0)):
        make(tmp_path, run.name, [metric("kid", beta)], beta=beta, group_name="other")
    text = table([a, b])
    assert row(text, "kid")[:2] == ["1.00 ± 0.20 *", "2.00 ± 0.20"]
    assert row(text, "fid (1)")[:2] == ["1.00 ± 0.20", "-"]
    assert row(text, "fid (2)")[:2] == ["-", "2.00 ± 0.20"]
    assert text.index("kid") < text.index("likelihood, of one alone") < text.index("fid (1)")
    assert re.search(rf"fid \(1\), \(2\): not comparable, for they differ in .*{word}", text.replace("\n    ", " "))


def test_n_definition_version_and_features_keep_numbers_apart_too(tmp_path: Path) -> None:
    plain = metric("elbo", 1.0)
    a = make(tmp_path, "a", [plain])
    for i, change in enumerate(({"n": 60}, {"definition": "e"}, {"version": 2}, {"features": "f"}), start=2):
        b = make(tmp_path, f"b{i}", [plain._replace(**change)], beta=i)  # type: ignore[arg-type]
        assert row(table([a, b]), "elbo (2)")[0] == "-"


def test_paired_differences_are_shown_and_decide_what_is_best(tmp_path: Path) -> None:
    """The intervals of the two overlap; image by image one is always better by about 1."""
    runs = []
    for name, gain in (("a", (0.0, 0.0, 0.0, 0.0)), ("b", (1.0, 1.1, 0.9, 1.0))):
        values = tuple(x + y for x, y in zip((0.0, -40.0, 40.0, 10.0), gain, strict=True))
        elbo = Metric("elbo", sum(values) / 4, 4, "d", stderr=16.0, seed=0)
        column = {"elbo": PerImage((0, 3, 4, 9), values)}
        runs.append(make(tmp_path, name, [elbo], beta=1 + gain[0], columns=column))
    text = table(runs)
    assert row(text, "elbo") == ["2 ± 31", "4 ± 31 *", "+1.00 ± 0.13"]
    assert "image by image" in text
    assert text.splitlines()[0].startswith("± is half a 95 % interval, over images for a, b")


def test_noise_is_marked_and_the_best_only_beyond_it(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, "a", [metric("elbo", 1.0), metric("kid", 1.0, None), metric("fid", 5.0)]),
        make(tmp_path, "b", [metric("elbo", 1.2), metric("kid", 2.0, None), metric("fid", 4.0)], beta=2),
        make(tmp_path, "c", [metric("elbo", 1.3), metric("kid", 2.0, 0.1), metric("fid", 3.0)], beta=3),
    ]
    text = table(runs)
    assert row(text, "elbo")[:3] == ["1.00 ± 0.20", "1.20 ± 0.20", "1.30 ± 0.20"]
    assert row(text, "elbo")[3:] == ["+0.20 ± 0.28 ~", "+0.30 ± 0.28"]
    assert row(text, "kid")[3:] == ["+1 ?", "+1 ?"]
    assert row(text, "fid")[2] == "3.00 ± 0.20 *"
    assert f"b  objective.beta 2.0; seed 0; step 9: {runs[1]}" in text
    bold = table(runs, bold=True)
    assert "\x1b[1m3.00 ± 0.20\x1b[0m" in bold
    assert "*" not in bold


def test_a_number_to_be_read_with_care_stays_so(tmp_path: Path) -> None:
    found = metric("elbo", 2.0)._replace(note="carried by few")
    runs = [make(tmp_path, "a", [metric("elbo", 1.0)]), make(tmp_path, "b", [found], beta=2)]
    text = table(runs)
    assert row(text, "elbo")[1] == "2.00 ± 0.20 ! *"
    assert "! to be read with care" in text


def test_arrows_point_to_what_is_better_and_rates_have_none(tmp_path: Path) -> None:
    names = "elbo distortion rate iw_bound_k100 iw_bound_k100_ess psnr bits_per_dim_k5 mig_chen memorisation mse"
    found = [metric(name, 1.0) for name in names.split()]
    runs = [make(tmp_path, name, found, beta=beta) for name, beta in (("a", 1), ("b", 2))]
    arrows = {row.key.name: row.better for row in compare.rows(pool(read_runs(runs)))}
    up = {name for name, arrow in arrows.items() if arrow == "↑"}
    down = {name for name, arrow in arrows.items() if arrow == "↓"}
    assert up == {"elbo", "iw_bound_k100", "psnr", "mig_chen"}
    assert down == {"distortion", "bits_per_dim_k5", "mse"}


@pytest.fixture
def columns(tmp_path: Path) -> list[Column]:
    runs = []
    for i in range(6):
        found = [metric("elbo", float(i)), metric("kl_dim_0", 1.0), metric("nan", math.nan)]
        runs.append(make(tmp_path, f"run_{i}&50%|#{i}", found, beta=i + 1))
    return pool(read_runs(runs))


@pytest.mark.parametrize("width", [80, 120])
def test_wide_tables_go_on_below_and_stay_within_the_terminal(columns: list[Column], width: int) -> None:
    text = render(columns, width=width)
    paths = {str(run.path) for column in columns for run in column.runs}
    for line in text.splitlines():
        assert len(line) <= width or any(path in line for path in paths), line
    for column in columns:
        assert f"  {column.label}" in text
    assert text.count("less run_0&50%|#0") == 5
    assert "kl_dim_0" not in text


def test_markdown_is_a_table_whose_cells_are_not_cut(columns: list[Column]) -> None:
    lines = render(columns, "markdown").splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {13}
    assert r"run\_0\&50%\|\#0" in body[0]
    assert "**5.00 ± 0.20**" in next(line for line in body if line.startswith("| elbo"))


def test_latex_escapes_its_signs_and_prints_the_best_in_bold(columns: list[Column]) -> None:
    text = render(columns, "latex")
    assert r" & run\_0\&50\%|\#0 & " in text
    assert r"\textbf{5.00 $\pm$ 0.20} \\" in text
    body = text[text.index(r"\begin{tabular}{lrrrrrr}") : text.index(r"\end{tabular}")]
    assert all(line.endswith((r"\\", r"\hline", "}")) for line in body.splitlines())
    assert not re.search(r"(?<!\\)[%#_]", body)
    assert all(line.startswith("%") for line in text[: text.index(r"\begin")].splitlines())


def test_csv_has_every_number_with_all_its_digits(tmp_path: Path) -> None:
    found = [[metric("elbo", 1 / 3), metric("kl_dim_0", 1.0)], [metric("elbo", 2 / 3)]]
    runs = [
        make(tmp_path, name, one, beta=1 + i) for i, (name, one) in enumerate(zip(("=a,b", 'c"d'), found, strict=True))
    ]
    lines = list(csv.DictReader(io.StringIO(table(runs, format="csv"))))
    assert [line["metric"] for line in lines] == ["elbo", "kl_dim_0"]
    assert float(lines[0]["'=a,b"]) == 1 / 3
    assert float(lines[0]['c"d high']) == pytest.approx(2 / 3 + 0.196, abs=1e-4)
    assert float(lines[0]['c"d less =a,b']) == pytest.approx(1 / 3)
    assert lines[0]["better"] == "higher"
    assert lines[0]["best"] == 'c"d'
    assert lines[1]['c"d'] == ""


def test_an_unknown_format_is_refused(columns: list[Column]) -> None:
    with pytest.raises(UserError, match="html: there is no such format; allowed: table, markdown, csv, latex"):
        render(columns, "html")


def test_training_s_loss_is_shown_where_objectives_agree(tmp_path: Path) -> None:
    training = {"step": 9, "test": {"loss": {"value": 3.0, "stderr": None, "n": 5}, "elbo": {"value": 7.0, "n": 5}}}
    a = make(tmp_path, "a", [metric("elbo", 1.0)], training=training)
    b = make(tmp_path, "b", [metric("elbo", 1.0)], seed=1, training=training)
    c = make(tmp_path, "c", [metric("elbo", 1.0)], beta=2, training=training)
    best = {"best": training, "step": 12, "test": {"loss": {"value": None, "stderr": None, "n": 5}}}
    d = make(tmp_path, "d", [metric("elbo", 1.0)], beta=2, seed=1, training=best)
    stale = make(tmp_path, "e", [metric("elbo", 1.0)], beta=3, training=training | {"step": 8})
    found = compare.rows(pool(read_runs([a, b, c, d, stale])))
    assert [row.name for row in found] == ["elbo", "loss (1)", "loss (2)"]
    assert found[1].cells[0] is not None
    assert found[1].cells[0].runs == 2
    assert found[2].cells[1] is not None
    assert (found[2].cells[1].runs, found[2].cells[1].value) == (2, 3.0)


def test_the_plot_shows_columns_that_compare_and_the_document_is_json(tmp_path: Path) -> None:
    runs = []
    for i, beta in enumerate((0.5, 1.0, 4.0)):
        for seed in (0, 1):
            found = [metric("rate", 9 / beta + seed, 0.1), metric("distortion", 20 + 5 * beta + seed, 0.1)]
            runs.append(make(tmp_path, f"r{i}$_{seed}", found, seed=seed, beta=beta))
    runs.append(make(tmp_path, "other", [metric("rate", 1.0), metric("distortion", 5.0, definition="x")], beta=7))
    runs.append(make(tmp_path, "none", [metric("mse", math.inf)], beta=8))
    columns = pool(read_runs(runs))
    labels = ["r0$_*", "r1$_*", "r2$_*"]
    assert compare.rate_distortion(columns, tmp_path / "plot.png") == labels
    with Image.open(tmp_path / "plot.png") as picture:
        assert min(picture.size) > 600
        assert len(picture.convert("RGB").resize((200, 150)).getcolors(30_000)) > 30
    assert compare.rate_distortion(columns[-1:], tmp_path / "no.png") == []
    assert not (tmp_path / "no.png").exists()
    document = json.loads(json.dumps(compare.document(columns), allow_nan=False))
    rate = next(row for row in document["metrics"] if row["name"] == "rate")
    assert rate["values"][labels[0]]["runs"] == 2
    assert rate[f"less {labels[0]}"][labels[1]]["within_noise"] is False
    assert document["columns"][labels[2]]["differs"] == {"objective.beta": 4.0}
    assert next(row for row in document["metrics"] if row["name"] == "mse")["values"]["none"]["value"] is None


def test_the_plot_names_its_runs_and_its_lines(tmp_path: Path, monkeypatch) -> None:
    from matplotlib.axes import Axes

    said: list[str] = []
    annotate = Axes.annotate
    monkeypatch.setattr(
        Axes, "annotate", lambda self, text, *a, **k: (said.append(text), annotate(self, text, *a, **k))[1]
    )
    runs = [
        make(tmp_path, name, [metric("rate", 2.0 * b, None), metric("distortion", 3.0)], beta=b)
        for name, b in (("first", 1), ("second", 2))
    ]
    assert compare.rate_distortion(pool(read_runs(runs)), tmp_path / "p.png") == ["first", "second"]
    assert [text.split()[0] for text in said if not text.startswith("ELBO -")] == ["first", "second"]
    assert sum(text.startswith("ELBO -") for text in said) > 2
    assert compare.rate_distortion(pool(read_runs(runs))[:1], tmp_path / "one.png") == ["first"]
