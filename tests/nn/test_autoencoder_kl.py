"""The residual autoencoder: what it holds for its gradient, and what stays float32 where products are bfloat16."""

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_grids import NETWORK, experiment, images
from torch import Tensor, nn
from trainings import everything

from vaes import Experiment
from vaes.config import build_objective
from vaes.functional import bounded_logvar, kl_normal
from vaes.model import VAE
from vaes.nn import autoencoder_kl
from vaes.objectives import Context
from vaes.posteriors import Gaussian
from vaes.train.listeners import Listener
from vaes.train.loop import Training
from vaes.train.noise import of_step

CHECKPOINTING = {**NETWORK, "gradient_checkpointing": True}


def gradients(model: VAE, x: Tensor, noise: Tensor) -> tuple[list[Tensor], int, int]:
    """Of a bound; and bytes that are held for them, and passes through residual blocks."""
    held, passes = 0, 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal held
        held += tensor.nbytes
        return tensor

    def count(*_: Any) -> None:
        nonlocal passes
        passes += 1

    for module in model.modules():
        if isinstance(module, autoencoder_kl._Residual):
            module.register_forward_pre_hook(count)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trace = model(x, noise)
        assert trace.rate is not None
        loss = (trace.rate - trace.log_px[0]).mean()
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)), held, passes


def test_checkpointing_holds_less_computes_again_and_changes_no_gradient() -> None:
    found = []
    x, noise = torch.rand(2, 1, 16, 16).double() * 2 - 1, torch.randn(1, 2, 3, 8, 8).double()
    for network in (NETWORK, CHECKPOINTING):
        torch.manual_seed(0)
        found.append(gradients(experiment(network=network).build_model((1, 16, 16)).double().train(), x, noise))
    (plain, held, passes), (again, less, more) = found
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True) if a is not None)
    assert more == 2 * passes
    assert less < held / 3


def test_a_training_may_be_gone_on_with_that_holds_less(tmp_path: Path) -> None:
    whole = experiment().fit(tmp_path / "a", data=images(), device="cpu")
    made = experiment(network=CHECKPOINTING)
    made.fit(tmp_path / "b", data=images(), device="cpu", resume=tmp_path / "a" / "ckpt" / "step000002")
    assert everything(tmp_path / "a")["weights"] == everything(tmp_path / "b")["weights"]
    assert whole.step == 4


def test_log_variances_of_grids_are_bounded() -> None:
    h = torch.tensor([[0.5, 0.5, 0.5, -1e4, 3.0, 1e4]]).double().requires_grad_()
    latent = Gaussian()(h, torch.zeros(1, 1, 1, 1, 3).double())
    assert latent.logvar is not None
    assert latent.logvar.flatten().tolist() == [-30.0, 3.0, 20.0]
    assert latent.aux["gaussian"].tolist() == [[0.5, 0.5, 0.5, -30.0, 3.0, 20.0]]
    assert torch.equal(Gaussian().centre(h, (1, 1, 3)).aux["gaussian"], latent.aux["gaussian"])
    assert Gaussian().log_prob(h, latent.z).isfinite().all()
    kl = kl_normal(torch.tensor(0.5), bounded_logvar(torch.tensor([-1e30, 1e30])))
    assert kl.isfinite().all()
    (slope,) = torch.autograd.grad(latent.logvar.sum(), h)
    assert slope.tolist() == [[0, 0, 0, 0, 1, 0]]


def half() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def test_in_bfloat16_norms_and_all_of_the_bound_are_float32() -> None:
    torch.manual_seed(0)
    model = experiment().build_model((1, 16, 16))
    seen: list[torch.dtype] = []

    def check(norm: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        seen.append(given[0].dtype)
        assert isinstance(norm, nn.GroupNorm)
        x = given[0].float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        wanted = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + norm.eps).sqrt()
        assert made.dtype == torch.float32
        torch.testing.assert_close(made, wanted.reshape(made.shape), rtol=1e-5, atol=1e-5)

    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(check)
    x, noise = 3 * torch.rand(2, 1, 16, 16) - 1, torch.randn(1, 2, 3, 8, 8)
    with half():
        trace = model(x, noise, wants=frozenset({"x_mean"}))
    assert torch.bfloat16 in seen
    for name in ("z", "y", "log_px", "log_pz", "log_q", "rate", "mean", "logvar", "kl", "x_mean"):
        assert getattr(trace, name).dtype == torch.float32, name
    torch.testing.assert_close(trace.kl, kl_normal(trace.mean, trace.logvar))


def test_a_step_in_bfloat16_has_the_losses_and_the_gradient_of_one_in_float32() -> None:
    """Losses within 1 % (verdicts, which are about 0, within 0.01): bfloat16 has 8 bits, an error of 0.4 % at most in
    each product, and sums average them. The gradient has the direction of float32's to a cosine of 0.99."""
    network = {**CHECKPOINTING, "groups": 2}
    made = Experiment(
        method="kl_vae",
        model={"network": network, "z_channels": 3},
        objective={"gamma": 0.7, "adversary": 0.2, "beta": 1.0},
    )
    torch.manual_seed(0)
    objective, weighting = build_objective(made, made.build_model((1, 16, 16)), (1, 16, 16))
    x = 2 * torch.rand(4, 1, 16, 16) - 1
    noise, context = of_step(objective, 4, 0, 0, torch.device("cpu")), Context(weighting(0, 256))
    found = []
    for precision in (nullcontext(), half()):
        objective.zero_grad()
        with precision:
            out = objective(x, noise, context)
            loss = torch.stack([out[name] for name in objective.losses]).sum()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in objective.parameters() if p.grad is not None])
        found.append((out, gradient))
    (full, straight), (narrow, near) = found
    assert {"perceptual", "patch_critic"} <= full.keys()
    for name, value in full.items():
        assert narrow[name].dtype == torch.float32, name
        torch.testing.assert_close(narrow[name], value, rtol=0.01, atol=0.01, msg=name)
    assert not torch.equal(narrow["loss"], full["loss"])
    assert nn.functional.cosine_similarity(near, straight, dim=0) > 0.99


def test_a_training_in_bfloat16_is_float32s_to_its_rounding_and_resumes_exactly(tmp_path: Path) -> None:
    """Losses of the first step within 4 epsilons of bfloat16 (verdicts, which are about 0, within 4 as they stand): the
    weights are the same, and the products of one step are all that differs. Afterwards Adam tells them apart."""
    logits: set[torch.dtype] = set()

    def trained(folder: str, precision: str, **options: Any) -> list[dict[str, float]]:
        every = {"print_freq": 1, "eval_freq": 3, "sample_freq": 0, "pulls_freq": 0, "save_freq": 3, "keep": 9}
        made = Experiment(
            method="kl_vae",
            model={"network": {**NETWORK, "groups": 2}, "z_channels": 3},
            objective={"gamma": 0.7, "adversary": 0.1, "perceptual": {"features": "random"}},
            train={"n_steps": 6, "batch_size": 8, "optimizer": "adam", "precision": precision, **every},
        )
        seen = Logits(logits if precision == "bf16" else set())
        run = made.fit(tmp_path / folder, data=images(), device="cpu", callbacks=[seen], **options)
        return [{name: value for name, value in line.items() if name != "split"} for line in run.history.train]

    full, narrow = trained("fp32", "fp32"), trained("bf16", "bf16")
    assert len(narrow) == 6
    assert {"loss", "rate", "perceptual", "patch_critic", "patch_critic_loss"} <= narrow[0].keys()
    assert all(math.isfinite(value) for line in narrow for value in line.values())
    close = 4 * torch.finfo(torch.bfloat16).eps
    for name, value in full[0].items():
        assert narrow[0][name] == pytest.approx(value, rel=close, abs=close), name
    assert narrow[0]["loss"] != full[0]["loss"]
    for name, value in full[-1].items():
        assert narrow[-1][name] == pytest.approx(value, rel=0.05, abs=0.05), name
    assert logits == {torch.float32}
    trained("again", "bf16", resume=tmp_path / "bf16" / "ckpt" / "step000003")
    whole, again = everything(tmp_path / "bf16"), everything(tmp_path / "again")
    for what in ("weights", "training"):
        assert whole[what] == again[what]


class Logits(Listener):
    """The types of what a critic says."""

    def __init__(self, seen: set[torch.dtype]) -> None:
        self.seen = seen

    def start(self, training: Training) -> None:
        critic = training.state.objective.get_submodule("terms.patch_critic.critic")
        critic.register_forward_hook(lambda module, given, made: self.seen.add(made.dtype))
