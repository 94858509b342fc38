"""Evaluations on disk: several checkpoints, several writers, damage."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from vaes.errors import UserError
from vaes.evaluate.record import Column, Metric, Skipped
from vaes.evaluate.report import FILE, Evaluation, add, group, read, ready


def evaluation(
    weights: str = "abc", step: int = 3, value: float = 1.5, names: tuple[str, ...] = ("latent",)
) -> Evaluation:
    """Groups of one metric with a column, and of one that was skipped."""
    groups = {}
    for name in names:
        metric = Metric(
            "a", value, 2, "what", stderr=0.3, interval=(0.1, 0.5), seed=2, features="f", version=3, note="n"
        )
        column = Column((4, 9), (value - 0.5, value + 0.5))
        groups[name] = group([metric, Skipped("b", "why")], "test", "fp", {"n_images": 5}, "chosen", 7, {"a": column})
    return Evaluation(step, weights, "0", groups, ("best",), "seed: 0\n")


def test_evaluations_of_several_checkpoints_read_back_as_they_were(tmp_path: Path) -> None:
    first, second = evaluation(), evaluation("def", 6, names=("latent", "ais"))
    add(tmp_path, first)
    assert add(tmp_path, second) == tmp_path / FILE
    assert read(tmp_path) == [second, first]
    document = json.loads((tmp_path / FILE).read_text())
    assert document["step"] == 6  # the last written lies open, as in the first format
    assert document["groups"]["latent"]["metrics"][0]["value"] == 1.5


def test_groups_of_the_same_weights_are_merged_and_what_they_replace_goes(tmp_path: Path) -> None:
    add(tmp_path, evaluation(names=("latent", "ais")))
    add(tmp_path, evaluation(value=8.0)._replace(asked=("last",)))
    (found,) = read(tmp_path)
    assert found.groups["latent"].columns["a"].values == (7.5, 8.5)
    assert found.groups["ais"].columns["a"].values == (1.0, 2.0)
    assert found.asked == ("best", "last")
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name[0] != ".") == [".json", ".safetensors"]


def test_the_first_format_is_read_as_one_evaluation_and_kept(tmp_path: Path) -> None:
    metric = {"name": "a", "value": 1.0, "n": 3, "definition": "d", "stderr": None, "interval": None, "seed": 4,
              "version": 1, "features": None}  # fmt: skip
    groups = {"latent": {"split": "test", "images": "fp", "budget": {"n_images": 5}, "metrics": [metric],
                         "skipped": [{"name": "b", "reason": "c"}]}}  # fmt: skip
    document = {"format": "vaes-evaluation-1", "step": 2, "weights": "old", "version": "0", "groups": groups}
    (tmp_path / FILE).write_text(json.dumps(document))
    (old,) = read(tmp_path)
    assert old.groups["latent"].metrics == [Metric("a", 1.0, 3, "d", seed=4)]
    assert old.groups["latent"].chosen is None
    assert old.groups["latent"].seed == 4
    add(tmp_path, evaluation())
    assert read(tmp_path) == [evaluation(), old]


def test_a_number_that_is_none_is_null_and_named(tmp_path: Path) -> None:
    for value in (math.inf, -math.inf, math.nan):
        metrics = [Metric("rate", value, 2, "d")]
        groups = {"g": group(metrics, "test", "", {}, columns={"rate": Column((0, 1), (1.0, value))})}
        path = add(tmp_path, Evaluation(1, "w", "0", groups))
        assert "NaN" not in path.read_text()
        assert "Infinity" not in path.read_text()
        raw = json.loads(path.read_text())["groups"]["g"]["metrics"][0]
        assert (raw["value"], raw["not_finite"]) == (None, str(value))
        (found,) = read(tmp_path)
        assert str(found.groups["g"].metrics[0].value) == str(value)
        assert str(found.groups["g"].columns["rate"].values[1]) == str(value)


WRITER = """
import sys, time
from pathlib import Path
from vaes.evaluate import report
from vaes.evaluate.record import Column, Metric
folder, name, other = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
(folder / f"ready-{name}").touch()
while not (folder / f"ready-{other}").exists():
    time.sleep(0.001)
for i in range(20):
    column = {"a": Column((0, 1), (1.0, float(i)))}
    groups = {f"{name}{i}": report.group([Metric("a", 1.0, 2, "d")], "test", "fp", {}, columns=column)}
    report.add(folder, report.Evaluation(1, f"weights {i % 3}", "0", groups))
"""


def test_what_two_processes_write_at_once_is_all_there(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), *names]) for names in ("xy", "yx")]
    while any(one.poll() is None for one in started):  # a reader beside them sees whole evaluations
        if (tmp_path / FILE).exists():
            read(tmp_path)
    assert [one.wait() for one in started] == [0, 0]
    found = read(tmp_path)
    assert {one.weights for one in found} == {"weights 0", "weights 1", "weights 2"}
    groups = {name: group for one in found for name, group in one.groups.items()}
    assert groups.keys() == {f"{name}{i}" for name in "xy" for i in range(20)}
    assert all(group.columns["a"].values[1] == float(name[1:]) for name, group in groups.items())


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch, caplog) -> None:
    def no_locks(self: object, timeout: float) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with caplog.at_level(logging.WARNING):
        add(tmp_path, evaluation())
    assert "No locks available" in caplog.text
    assert read(tmp_path) == [evaluation()]


@pytest.mark.parametrize("name", [FILE, ".evaluation.lock"])
def test_links_are_not_written_through(tmp_path: Path, name: str) -> None:
    run, target = tmp_path / "run", tmp_path / "target"
    run.mkdir()
    target.write_text("precious")
    (run / name).symlink_to(target)
    for use in (ready, lambda folder: add(folder, evaluation())):
        with pytest.raises(UserError, match="is a symbolic link"):
            use(run)
    assert target.read_text() == "precious"


def test_a_process_that_was_killed_loses_nothing_and_is_tidied_up_after(tmp_path: Path) -> None:
    add(tmp_path, evaluation())
    left = tmp_path / f"evaluation-{'0' * 16}.safetensors", tmp_path / f".evaluation-{'0' * 16}.safetensors.77.tmp"
    mine = tmp_path / "evaluation-of-mine.safetensors", tmp_path / ".evaluation.tmp"
    for path in (*left, *mine):
        path.touch()
    assert read(tmp_path) == [evaluation()]
    add(tmp_path, evaluation("def"))
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in mine)


def damage(folder: Path, how: str) -> None:
    document = json.loads((folder / FILE).read_text())
    (columns,) = folder.glob("evaluation-*.safetensors")
    if how == "value":
        document["groups"]["latent"]["metrics"][0]["value"] = 9.5
    elif how == "step":
        document["step"] = 104
    elif how == "no checksum":
        del document["sha256"]
    elif how == "columns":
        raw = bytearray(columns.read_bytes())
        raw[-1] ^= 1
        columns.write_bytes(raw)
    elif how == "outside":
        document["columns"]["file"] = "../secret.safetensors"
    if "columns" not in how:
        (folder / FILE).write_text(json.dumps(document))


@pytest.mark.parametrize("how", ["value", "step", "no checksum", "columns", "outside"])
def test_what_was_edited_or_damaged_is_refused(tmp_path: Path, how: str) -> None:
    add(tmp_path, evaluation())
    damage(tmp_path, how)
    for use in (read, ready, lambda folder: add(folder, evaluation("def"))):
        with pytest.raises(UserError, match=r"evaluation\.json: not an evaluation .*run vaes evaluate") as caught:
            use(tmp_path)
        assert "\n" not in str(caught.value)


def test_without_its_numbers_of_single_images_an_evaluation_is_read_with_a_warning(tmp_path: Path, caplog) -> None:
    add(tmp_path, evaluation())
    next(tmp_path.glob("evaluation-*.safetensors")).unlink()
    (found,) = read(tmp_path)
    assert found.groups["latent"].metrics == evaluation().groups["latent"].metrics
    assert found.groups["latent"].columns == {}
    assert "differences cannot be paired" in caplog.text
    add(tmp_path, evaluation("def"))
    assert len(read(tmp_path)) == 2


def test_another_layout_of_the_same_document_is_the_same(tmp_path: Path) -> None:
    path = add(tmp_path, evaluation())
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, ensure_ascii=False))
    assert read(tmp_path) == [evaluation()]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": "vaes-evaluation-3"}', '{"format": "vaes-evaluation-1", "groups": 3}', "[" * 100_000,
     '{"format": "vaes-evaluation-1", "groups": {"a": {"metrics": [{"nam": 1}]}}}', "\udcff", '{"a": NaN}',
     '{"format": "vaes-evaluation-2", "step": 1e999}', "1" * 5_000],
)  # fmt: skip
def test_damaged_documents_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"evaluation\.json: not an? .*run vaes evaluate"):
        read(tmp_path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(UserError, match="no regular file"):
        read(tmp_path)
