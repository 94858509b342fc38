import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from parts import small_vae
from trainings import Said, everything, objective, settings, splits, weighting

from vaes import likelihoods
from vaes.data import Batches, arrays, to_float
from vaes.errors import UserError
from vaes.model import Trace
from vaes.objectives import ELBO, Context, Drawn, Noise, Objective, Term
from vaes.randomness import Use, normal
from vaes.schedules import Linear
from vaes.train import checkpoint
from vaes.train.loop import Training, fit
from vaes.train.validate import validate
from vaes.train.weighting import Weighting


def test_a_training_leaves_all_that_it_promises(tmp_path: Path) -> None:
    metrics = fit(objective(), weighting(), splits(), settings(), tmp_path / "run", config="seed: 0\n")
    run = tmp_path / "run"
    assert json.loads((run / "metrics.json").read_text()) == metrics
    assert metrics["test"]["elbo"]["n"] == 10
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [
        (2, "train"), (3, "valid"), (4, "train"), (6, "train"), (6, "valid"),
    ]  # fmt: skip
    assert {"loss", "distortion", "rate", "elbo", "mmd", "beta", "lr"} <= lines[0].keys()
    assert [line["beta"] for line in lines if line["split"] == "train"] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step000003.png", "step000006.png"]
    assert (run / "config.yaml").read_text() == "seed: 0\n"
    assert list((run / "tensorboard").iterdir())
    kept = {path.name for path in checkpoint.checkpoints(run)}
    assert {"step000004", "step000006"} <= kept


def test_printed_terms_are_the_means_of_their_interval(tmp_path: Path) -> None:
    fit(objective(), weighting(), splits(), settings(print_freq=1), tmp_path / "one")
    fit(objective(), weighting(), splits(), settings(print_freq=3), tmp_path / "three")
    lines = {
        name: [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "three")
    }
    each = [line["loss"] for line in lines["one"] if line["split"] == "train"]
    mean = [line["loss"] for line in lines["three"] if line["split"] == "train"]
    assert mean == pytest.approx([sum(each[:3]) / 3, sum(each[3:]) / 3], rel=1e-5)


@pytest.mark.parametrize("saved", [2, 4])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, saved: int) -> None:
    fit(objective(), weighting(), splits(), settings(keep=9, print_freq=3), tmp_path / "whole", flip=True)
    run = tmp_path / "cut"
    fit(objective(), weighting(), splits(), settings(keep=9, print_freq=3), run, flip=True)
    for folder in checkpoint.checkpoints(run):
        if int(folder.name[4:]) > saved:
            (folder / "state.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "spl')  # killed in the middle of a line
    start = checkpoint.read(checkpoint.newest_folder(run))
    assert start.step == saved
    fit(
        objective(seed=5),
        weighting(),
        splits(),
        settings(keep=9, print_freq=3),
        run,
        flip=True,
        resume=start,
        within=True,
    )
    assert everything(run) == everything(tmp_path / "whole")


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(objective(), weighting(), splits(), settings(), tmp_path / name, seed=seed)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert everything(tmp_path / "a")["weights"] != everything(tmp_path / "c")["weights"]


def test_accumulated_micro_batches_equal_the_whole_batch(tmp_path: Path) -> None:
    # The mean over images is the mean over micro-batches; terms over batches (MMD) and batch norm would differ.
    for name, accumulate in (("whole", 1), ("parts", 4)):
        model = Objective(small_vae(network="mlp").double().float(), ELBO())
        fit(
            model,
            Weighting(lambda pixels: {"rate": 1.0}, {}),
            splits(),
            settings(accumulate=accumulate),
            tmp_path / name,
        )
    a, b = (checkpoint.read(checkpoint.newest_folder(tmp_path / name)).weights for name in ("whole", "parts"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_the_best_checkpoint_outlives_newer_ones(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(objective(), weighting(), splits(), settings(save_freq=1, eval_freq=1, keep=1, lr=1.0, n_steps=5), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    valid = {line["step"]: line["loss"] for line in lines if line["split"] == "valid"}
    best = min(valid, key=lambda step: valid[step])
    assert best != 5, "the test needs a training that gets worse"
    assert [path.name for path in checkpoint.checkpoints(run)] == ["step000005", f"step{best:06d}"]


def test_a_loss_that_is_no_number_stops_with_its_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    def weights(pixels: int, *, beta: float) -> dict[str, float]:
        return {"rate": math.inf if beta > 0.6 else beta, "mmd": 0.0}

    poisoned = Weighting(weights, {"beta": Linear(6, start=0.0, stop=1.0)})
    with pytest.raises(UserError) as caught:
        fit(objective(), poisoned, splits(), settings(print_freq=0, eval_freq=0), tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("step 5: the loss or a parameter is not a number")
    assert "step000004" in message
    assert "first parameter affected: model." in message
    last = checkpoint.read(checkpoint.newest_folder(tmp_path / "run"))
    assert last.step == 4
    assert all(torch.isfinite(tensor).all() for tensor in last.weights.values())


def test_parameters_that_are_no_numbers_under_a_finite_loss_are_never_saved(tmp_path: Path) -> None:
    spoilt = objective()
    first = next(spoilt.parameters())
    count = iter(range(100))
    first.register_hook(lambda grad: grad * math.nan if next(count) == 3 else grad)  # the gradient of the fourth step
    with pytest.raises(UserError, match="step 4: the loss or a parameter is not a number"):
        fit(spoilt, weighting(), splits(), settings(print_freq=0, eval_freq=0), tmp_path / "run")
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "run")] == ["step000002"]


def test_a_run_folder_that_exists_is_neither_deleted_nor_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(UserError, match="this run folder exists"):
        fit(objective(), weighting(), splits(), settings(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_a_checkpoint_beyond_the_last_step_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(objective(), weighting(), splits(), settings(), run)
    start, before = checkpoint.read(checkpoint.newest_folder(run)), (run / "metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"train\.n_steps: 5 is less than the 6 steps of the checkpoint of step 6"):
        fit(objective(), weighting(), splits(), settings(n_steps=5), run, resume=start, within=True)
    fit(objective(), weighting(), splits(), settings(), run, resume=start, within=True)
    assert (run / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 41}, "train.batch_size: 41 of 40 training images"),
        ({"accumulate": 3}, "train.accumulate: 3 does not divide the 8 images"),
        ({"batch_size": 1}, "train.batch_size: batch norm and terms that compare images need 2 images"),
        ({"accumulate": 8}, "train.batch_size: batch norm and terms that compare images need 2 images"),
    ],
)
def test_batches_that_do_not_divide_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(objective(), weighting(), splits(), settings(**options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_does_not_depend_on_the_batch_size_and_leaves_the_model_as_it_was() -> None:
    part = objective().train()
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    weights = {"rate": 1.0, "mmd": 0.0}
    found = validate(part, splits().valid, Context(weights), seed=0)
    assert part.training
    assert all(torch.equal(before[name], tensor) for name, tensor in part.state_dict().items())
    assert found["elbo"].value == pytest.approx(-found["distortion"].value - found["rate"].value)
    assert found["loss"].value == pytest.approx(-found["elbo"].value, rel=1e-5)
    halves = validate(part, splits().valid, Context(weights), seed=0, batch_size=5)
    assert halves["rate"].value == pytest.approx(found["rate"].value, rel=1e-5)
    assert halves["mse"].value == pytest.approx(found["mse"].value, rel=1e-5)


def test_the_standard_error_is_that_of_the_mean_over_images() -> None:
    part = Objective(small_vae(likelihood=likelihoods.Gaussian(scale=0.5)), ELBO())
    single = [
        validate(part, splits().valid.subset(torch.tensor([i])), Context({"rate": 1.0}), seed=0)["rate"].value
        for i in range(10)
    ]
    whole = validate(part, splits().valid, Context({"rate": 1.0}), seed=0)["rate"]
    assert whole.value == pytest.approx(np.mean(single), rel=1e-5)
    assert whole.stderr == pytest.approx(np.std(single, ddof=1) / math.sqrt(10), rel=1e-4)


def test_noise_is_standard_normal_and_a_function_of_its_arguments_alone() -> None:
    a, b = (normal((200, 100), 3, Use.POSTERIOR, 7) for _ in range(2))
    assert torch.equal(a, b)
    assert abs(a.mean()) < 4 / math.sqrt(20_000)
    assert abs(a.var() - 1) < 4 * math.sqrt(2 / 20_000)
    for other in (
        normal((200, 100), 4, Use.POSTERIOR, 7),
        normal((200, 100), 3, Use.PRIOR, 7),
        normal((200, 100), 3, Use.POSTERIOR, 8),
    ):
        assert abs((a * other).mean()) < 4 / math.sqrt(20_000)


def test_every_option_of_the_optimiser_does_what_a_loop_written_by_hand_does(tmp_path: Path) -> None:
    # eps is large, so that Adam is not blind to the scale of the gradient, and wrong averaging would show.
    options = settings(
        optimizer="adam",
        lr=Linear(6, start=0.1, stop=0.02),
        betas=(0.5, 0.7),
        eps=0.1,
        weight_decay=0.1,
        clip_grad=2.0,
        accumulate=2,
    )
    fitted = Objective(small_vae(), ELBO())
    fit(fitted, Weighting(lambda pixels: {"rate": 2.0}, {}), splits(), options, tmp_path / "run", seed=3, flip=True)

    by_hand = Objective(small_vae(), ELBO())
    m = {name: torch.zeros_like(p) for name, p in by_hand.named_parameters()}
    v = {name: torch.zeros_like(p) for name, p in by_hand.named_parameters()}
    batches = Batches(splits().train, 8, seed=3)
    clipped = 0
    for step in range(6):
        x = to_float(batches.read(step, flips=True), (-1.0, 1.0))
        noise = Noise(normal((1, 8, 3), 3, Use.POSTERIOR, step), normal((8, 3), 3, Use.PRIOR, step))
        by_hand.zero_grad()
        by_hand(x, noise, Context({"rate": 2.0}))["loss"].backward()
        norm = torch.stack([p.grad.square().sum() for p in by_hand.parameters()]).sum().sqrt()
        clipped += int(norm > 2.0)
        lr = 0.1 + (0.02 - 0.1) * step / 6
        with torch.no_grad():
            for name, p in by_hand.named_parameters():
                grad = p.grad * min(1.0, 2.0 / norm.item())
                m[name] = 0.5 * m[name] + 0.5 * grad
                v[name] = 0.7 * v[name] + 0.3 * grad**2
                p *= 1 - lr * 0.1
                root = (v[name] / (1 - 0.7 ** (step + 1))).sqrt()
                p -= lr * (m[name] / (1 - 0.5 ** (step + 1))) / (root + 0.1)
    assert clipped, "the test needs a gradient that is clipped"
    for (name, a), b in zip(fitted.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_reaches_the_networks_and_the_densities_stay_in_float32(
    tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    part, seen, densities = Objective(small_vae(), ELBO()), [], []
    part.model.encoder.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    part.model.register_forward_hook(lambda module, args, trace: densities.append(trace.log_px.dtype))
    only = Weighting(lambda pixels: {"rate": 1.0}, {})
    options = settings(n_steps=1, sample_freq=0, eval_freq=0, precision=precision)
    fit(part, only, splits(), options, tmp_path / "run")
    assert seen[0] == dtype
    assert densities[0] == torch.float32


class Flags(Said):
    """The flags of the process while a training runs, and what it says."""

    every = 1
    seen: tuple[str, bool] | None = None

    def at(self, training: Training, step: int) -> None:
        self.seen = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("asked", "settled"), [("fp32", "fp32"), ("tf32", "tf32"), ("bf16", "bf16"), ("auto", "fp32"), ("auto", "bf16")]
)
def test_precision_is_what_the_settings_say_whatever_an_earlier_training_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    settled: str,
) -> None:
    if asked == "auto" and settled != "fp32":
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", settled)
    never = {"n_steps": 1, "sample_freq": 0, "eval_freq": 0}
    # PyTorch's own default lets cuDNN round to tf32.
    flags = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for before, flag, matmul in (("tf32", True, "high"), ("bf16", False, "highest")):
        spy = Flags()
        fit(objective(), weighting(), splits(), settings(**never, precision=before), tmp_path / before, callbacks=[spy])
        assert spy.seen == (matmul, flag)
        spy = Flags()
        options = settings(**never, precision=asked)
        fit(objective(), weighting(), splits(), options, tmp_path / f"after {before}", callbacks=[spy])
        assert f"muon, {settled}, images" in spy.text
        assert spy.seen == ("high" if settled == "tf32" else "highest", settled == "tf32")
        # What belongs to the caller's process is put back.
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == flags


@pytest.mark.parametrize("asked", ["fp16", "fp8"])
def test_a_precision_of_the_launcher_that_is_not_ours_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(UserError, match=f"train.precision: accelerate launch asks for {asked}"):
        fit(objective(), weighting(), splits(), settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    fit(objective(), weighting(), splits(), settings(n_steps=1, precision="fp32"), tmp_path / "run")


def test_a_branch_has_a_best_and_lines_of_its_own(tmp_path: Path) -> None:
    fit(objective(), weighting(), splits(), settings(keep=9), tmp_path / "run")
    start = checkpoint.read(tmp_path / "run" / "ckpt" / "step000003")
    assert start.state["best"][0] == 3
    assert start.state["summed"] == 1
    heavy = Weighting(lambda pixels: {"rate": 1.0, "mmd": 1e6}, {})  # a loss that cannot be lower
    fit(objective(), heavy, splits(), settings(n_steps=8, print_freq=0), tmp_path / "branch", resume=start)
    found = checkpoint.read(checkpoint.newest_folder(tmp_path / "branch")).state
    assert found["best"][0] in (6, 8)
    assert found["summed"] == 5


def test_a_run_killed_while_its_folder_was_made_is_no_dead_end(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".lock").touch()
    (tmp_path / "new" / ".config.yaml.123.tmp").touch()  # before the configuration was whole: begin
    fit(objective(), weighting(), splits(), settings(n_steps=1), tmp_path / "new")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()  # after: go on
    with pytest.raises(UserError, match="exists"):
        fit(objective(), weighting(), splits(), settings(n_steps=1), tmp_path / "begun")
    assert not checkpoint.checkpoints(tmp_path / "begun")
    fit(objective(), weighting(), splits(), settings(n_steps=1), tmp_path / "begun", within=True)


class Scaled(Term):
    """A term with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, trace: Trace, drawn: Drawn, context: Context) -> torch.Tensor:
        return (self.scale - 3) ** 2


def test_a_compiled_step_is_the_step(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    options = {"n_steps": 2, "eval_freq": 0, "sample_freq": 0}
    plain, compiled = (Objective(small_vae(), ELBO()) for _ in range(2))
    weights = Weighting(lambda pixels: {"rate": 1.0}, {})
    fit(plain, weights, splits(), settings(**options), tmp_path / "plain")
    fit(compiled, weights, splits(), settings(**options, compile=True), tmp_path / "compiled")
    assert compiled._compiled_call_impl is not None
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_parameters_of_a_term_are_resumed(tmp_path: Path) -> None:
    def scaled() -> Objective:
        return Objective(small_vae(), ELBO(), {"scaled": Scaled()})

    only = Weighting(lambda pixels: {"rate": 1.0, "scaled": 1.0}, {})
    whole, first, second = scaled(), scaled(), scaled()
    fit(whole, only, splits(), settings(lr=0.05), tmp_path / "whole")
    fit(first, only, splits(), settings(lr=0.05, n_steps=4), tmp_path / "cut")
    start = checkpoint.read(checkpoint.newest_folder(tmp_path / "cut"))
    fit(second, only, splits(), settings(lr=0.05), tmp_path / "cut", resume=start, within=True)
    assert first.terms["scaled"].scale.item() != 1.0
    assert second.terms["scaled"].scale.item() == whole.terms["scaled"].scale.item()


@pytest.mark.parametrize("n_valid", [1, 2, 501])
def test_validation_sets_of_any_size_give_a_loss(n_valid: int) -> None:
    images = arrays(
        np.zeros((8, 1, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.uint8), valid=np.zeros((n_valid, 1, 8, 8), np.uint8)
    )
    found = validate(Objective(small_vae(), ELBO()), images.valid, Context({"rate": 1.0}), seed=0)
    assert found["loss"].n == n_valid
    found = validate(objective(), images.valid, Context({"rate": 1.0, "mmd": 1.0}), seed=0)
    assert ("loss" in found) == (n_valid > 1)
