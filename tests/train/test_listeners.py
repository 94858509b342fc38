"""What joins a training: callbacks, the end by patience, the best step, validation's parts and processes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from parts import small_vae
from trainings import Said, objective, settings, splits, weighting

from vaes.errors import UserError
from vaes.objectives import ELBO, Context, Objective
from vaes.train import checkpoint
from vaes.train.listeners import Listener
from vaes.train.loop import Training, fit
from vaes.train.runtime import Runtime
from vaes.train.validate import validate
from vaes.train.weighting import Weighting

ONLY_RATE = Weighting(lambda pixels: {"rate": 1.0}, {})


class Diary(Listener):
    """All that a callback is told."""

    every = 4

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, training: Training) -> None:
        self.told.append(("start", training.state.step, (training.folder / "ckpt").is_dir()))

    def stepped(self, training: Training, step: int) -> None:
        self.told.append(("stepped", step))

    def at(self, training: Training, step: int) -> None:
        self.told.append(("at", step))

    def metrics(self, training: Training, step: int, split: str, values: Mapping[str, float]) -> None:
        self.told.append((split, step, set(values) >= {"loss", "rate"}))

    def end(self, training: Training) -> None:
        self.told.append(("end", training.state.step))


def test_a_callback_is_told_everything_in_its_order(tmp_path: Path) -> None:
    diary = Diary()
    fit(objective(), weighting(), splits(), settings(print_freq=3), tmp_path / "run", callbacks=[diary])
    steps = [("stepped", step) for step in range(1, 7)]
    assert diary.told == [
        ("start", 0, True), *steps[:3], ("train", 3, True), ("valid", 3, True), steps[3], ("at", 4), *steps[4:],
        ("train", 6, True), ("valid", 6, True), ("at", 6), ("end", 6),
    ]  # fmt: skip


class Ends(Listener):
    every = 1

    def __init__(self, at: int, error: Exception | None = None) -> None:
        self.step, self.error = at, error

    def at(self, training: Training, step: int) -> None:
        if step == self.step:
            if self.error:
                raise self.error
            training.stop("a callback had enough")


def test_a_callback_ends_a_training_as_if_it_had_been_the_last_step(tmp_path: Path) -> None:
    said = Said()
    metrics = fit(objective(), weighting(), splits(), settings(), tmp_path / "run", callbacks=[Ends(at=5), said])
    assert metrics["step"] == 5
    assert "ended after step 5: a callback had enough" in said.text
    assert checkpoint.read(checkpoint.newest_folder(tmp_path / "run")).step == 5
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4, "a callback comes after the lines of its step"


def test_what_a_callback_raises_ends_the_training_and_what_falls_due_is_saved_first(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        fit(objective(), weighting(), splits(), settings(), tmp_path / "run",
            callbacks=[Ends(at=4, error=RuntimeError("mine"))])  # fmt: skip
    assert checkpoint.read(checkpoint.newest_folder(tmp_path / "run")).step == 4


def test_no_memory_in_validation_is_a_sentence_that_names_the_key_and_what_falls_due_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("vaes.train.loop.validate", full)
    options = settings(save_freq=3, eval_freq=3)
    with pytest.raises(
        UserError, match=r"train\.batch_size: no memory is left on cpu for 8 images at a time .*train\.accumulate"
    ):
        fit(objective(), weighting(), splits(), options, tmp_path / "run")
    assert checkpoint.read(checkpoint.newest_folder(tmp_path / "run")).step == 3


def test_patience_ends_a_training_that_gets_no_better_and_it_is_not_taken_up_again(tmp_path: Path) -> None:
    run, said = tmp_path / "run", Said()
    worse = settings(n_steps=40, eval_freq=1, save_freq=0, print_freq=0, sample_freq=0, lr=1.0, patience=3, keep=1)
    metrics = fit(Objective(small_vae(), ELBO()), ONLY_RATE, splits(), worse, run, callbacks=[said])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["loss"] for line in lines}
    best = min(losses, key=lambda step: losses[step])
    assert metrics["step"] == best + 3 < 40
    assert metrics["best"]["step"] == best
    assert f"3 validations brought no lower loss (train.patience 3); the best is that of step {best}" in said.text
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.state["stale"] == 3
    again = fit(Objective(small_vae(seed=1), ELBO()), ONLY_RATE, splits(), worse, run, resume=start, within=True)
    assert again == metrics
    longer = settings(n_steps=40, eval_freq=1, save_freq=0, print_freq=0, sample_freq=0, lr=1.0, patience=5, keep=1)
    more = fit(Objective(small_vae(seed=1), ELBO()), ONLY_RATE, splits(), longer, run, resume=start, within=True)
    assert more["step"] > metrics["step"]


def test_the_end_gives_the_numbers_of_the_last_and_of_the_best_step(tmp_path: Path) -> None:
    run, part = tmp_path / "run", Objective(small_vae(), ELBO())
    metrics = fit(part, ONLY_RATE, splits(), settings(n_steps=20, eval_freq=1, lr=1.0, keep=1, ema=0.5), run)
    best = metrics["best"]["step"]
    assert best < 20, "the test needs a training that gets worse"
    found = checkpoint.read(run / "ckpt" / f"step{best:06d}")
    other = Objective(small_vae(seed=3), ELBO())
    checkpoint.load_weights(other.model, found.weights, "here")
    for split in ("valid", "test"):
        again = validate(other, getattr(splits(), split), Context({"rate": 1.0}), seed=0, batch_size=8)
        assert metrics["best"][split]["elbo"]["value"] == again["elbo"].value != metrics[split]["elbo"]["value"]
    # The model given is left with its own weights, and not with those of the best or the average.
    last = checkpoint.read(checkpoint.newest_folder(run))
    for name, tensor in part.model.state_dict().items():
        assert torch.equal(tensor, last.training.get(f"raw.{name}", tensor))
    table = (run / "metrics.txt").read_text()
    assert table.splitlines()[1].split() == ["step", "20", "(last)", "step", str(best), "(best", "valid)"]
    assert max(map(len, table.splitlines())) <= 80


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path: Path) -> None:
    class Infinite(Objective):
        def score(self, *arguments: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
            out = super().score(*arguments)  # type: ignore[arg-type]
            return out if self.training else out | {"loss": out["loss"] * math.inf}

    run = tmp_path / "run"
    metrics = fit(Infinite(small_vae(), ELBO()), ONLY_RATE, splits(), settings(), run)
    assert metrics["test"]["loss"]["value"] is None
    assert metrics["not_finite"] == ["loss"]
    assert metrics["best"] is None
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for text in (*lines, (run / "metrics.json").read_text(), *(p.read_text() for p in run.glob("ckpt/*/state.json"))):
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert checkpoint.named_folder(run, None)[0].name == "step000006"


def test_validation_takes_the_images_in_the_training_s_parts_and_two_processes_see_the_same(tmp_path: Path) -> None:
    part, seen = objective(), []
    part.model.register_forward_hook(lambda module, args, trace: seen.append(len(trace.x)))
    weights = {"rate": 1.0, "mmd": 0.0}
    whole = validate(part, splits().valid, Context(weights), seed=0)
    assert seen == [10]
    seen.clear()
    parts = validate(part, splits().valid, Context(weights), seed=0, batch_size=4)
    assert seen == [5, 5]
    for name in ("elbo", "rate", "mse"):
        assert parts[name].value == pytest.approx(whole[name].value, rel=1e-6)

    class Other(Runtime):
        """The second of two processes, whose partner's share is known already."""

        def __init__(self, rank: int, others: list[object]) -> None:
            super().__init__("cpu")
            self.rank, self.world, self.others, self.mine = rank, 2, others, None

        def collected(self, value: object) -> list[object]:
            self.mine = value
            return [value, *self.others]

    first = Other(0, [])
    validate(part, splits().valid, Context(weights), seed=0, batch_size=4, runtime=first)
    second = Other(1, [first.mine])
    both = validate(part, splits().valid, Context(weights), seed=0, batch_size=4, runtime=second)
    assert repr(both) == repr(parts)  # where a term has no standard error, that is nan


def test_eval_freq_is_a_tenth_of_the_training_by_default(tmp_path: Path) -> None:
    assert [settings(n_steps=n, eval_freq=None).eval_every for n in (5, 10, 99, 1000)] == [1, 1, 9, 100]
    with pytest.raises(ValueError, match="patience counts validations"):
        settings(patience=3, eval_freq=0)


def test_the_library_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(objective(), weighting(), splits(), settings(), tmp_path / "run")
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(
    "damage",
    [b'{"step": 1e999, "split": "train"}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n", b"{}\n", b"x" * 2_000_000 + b"\n"],
    ids=["infinite", "deep", "bytes", "empty", "long"],
)
def test_a_damaged_line_of_the_log_never_blocks_a_resume_and_is_said(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fit(objective(), weighting(), splits(), settings(), tmp_path / "whole")
    run = tmp_path / "run"
    fit(objective(), weighting(), splits(), settings(n_steps=4), run)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 4]
    (run / "metrics.jsonl").write_bytes(kept[0] + damage + b"".join(kept[1:]))
    start = checkpoint.read(checkpoint.newest_folder(run))
    fit(objective(seed=4), weighting(), splits(), settings(n_steps=4), run, resume=start, within=True)
    assert "metrics.jsonl: line 2 cannot be read" in caplog.text
    assert (run / "metrics.jsonl").read_bytes() == b"".join(kept)
