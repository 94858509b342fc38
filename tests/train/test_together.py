"""A member of a stack has the numbers that it has alone."""

import warnings
from typing import Any

import pytest
import torch
from parts import small_vae
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vaes.config import build_model, build_objective, load
from vaes.config.registry import NETWORKS
from vaes.encoding import image_shape
from vaes.methods import METHODS
from vaes.objectives import ELBO, Context, Noise, Objective
from vaes.train import Settings
from vaes.train.noise import of_step
from vaes.train.runtime import Runtime
from vaes.train.state import TrainState
from vaes.train.step import advance
from vaes.train.together import Stack, obstacle, stacked_context, stacked_noise
from vaes.train.weighting import Weighting

N_STEPS, BATCH = 3, 4
SMALL: dict[str, dict[str, Any]] = {
    "autoencoder_kl": {"ch": 4, "ch_mult": [1, 2], "groups": 2},
    "conv": {"dim": 4, "dim_mults": [1, 2]},
    "gated_conv": {"dim": 2},
    "gated_mlp": {"hidden": [8]},
    "locatello": {},
    "mlp": {"hidden": [8]},
    "resnet": {"dim": 4, "dim_mults": [1, 2]},
}


def member(method: str, network: str, seed: int, **sections: Any) -> tuple[Objective, Weighting]:
    shape = (1, 64, 64) if network == "locatello" else (1, 8, 8)
    size = "z_dim" if NETWORKS[network].grid is None else "z_channels"
    model = {size: 4, "network": {"kind": network, **SMALL[network]}} | sections.pop("model", {})
    config = load({"method": method, "seed": seed, "model": model, "train": {"n_steps": N_STEPS}, **sections})
    return build_objective(config, build_model(config, shape), shape)


def compare(
    members: list[tuple[Objective, Weighting]],
    lrs: tuple[float, ...] = (1e-3, 4e-3),
    dtype: torch.dtype = torch.float64,
    optimizer: str = "muon",
    eps: float = 1e-5,  # Adam divides by a gradient's own size: a smaller one would blow up the rounding of tiny ones
    **tolerance: Any,
) -> None:
    """Some steps of all, stacked and each alone; the loss, the gradients and what is updated."""
    shape = torch.Size(image_shape(members[0][0].model))
    objectives = [objective.to(dtype) for objective, _ in members]
    given: dict[str, Any] = {
        "n_steps": N_STEPS,
        "batch_size": BATCH,
        "optimizer": optimizer,
        "eps": eps,
        "weight_decay": 0.01,
    }
    settings = [Settings(**given, lr=lr) for lr in lrs]
    stack = Stack(objectives)
    trained = stack.optimizer(settings[0])
    alone = [TrainState(objective, own) for objective, own in zip(objectives, settings, strict=True)]
    runtime = Runtime(device="cpu")
    for step in range(N_STEPS):
        noises = [noise(objective, seed, step, dtype) for seed, objective in enumerate(objectives)]
        contexts = [weighting.context(step, shape.numel(), 100, N_STEPS) for _, weighting in members]
        x = torch.rand(len(members), BATCH, *shape, dtype=dtype, generator=torch.Generator().manual_seed(step))
        for group in trained.param_groups:
            if group["own_lr"] is None:
                group["lr"] = torch.tensor([own.lr_schedule(step) for own in settings], dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            out = stack.backward(x, stacked_noise(noises), stacked_context(contexts, x))
        for i, (state, objective) in enumerate(zip(alone, objectives, strict=True)):
            found = gradients(objective, x[i], noises[i], contexts[i])
            size = max(gradient.abs().max() for gradient in found.values())  # rounding is that of sums over all pixels
            got = {name: p.grad[i] / size for name, p in stack.parameters.items() if p.grad is not None}
            torch.testing.assert_close(got, {name: g / size for name, g in found.items()}, **tolerance)
            with runtime:
                advance(state, objective, x[i], noises[i], contexts[i], runtime)
            torch.testing.assert_close(out["loss"][i], state.means()[0]["loss"], **tolerance)
        trained.step()
        trained.zero_grad()
        for i, objective in enumerate(objectives):
            own = {**dict(objective.named_parameters()), **dict(objective.named_buffers())}
            torch.testing.assert_close(stack.member(i), own, **tolerance)


def noise(objective: Objective, seed: int, step: int, dtype: torch.dtype) -> Noise:
    found: Noise = tree_map(lambda t: t.to(dtype), of_step(objective, BATCH, seed, step, torch.device("cpu")))
    return found


def gradients(objective: Objective, x: Tensor, noise: Noise, context: Context) -> dict[str, Tensor]:
    before = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    out = objective(x, noise, context)
    torch.stack([out[name] for name in objective.losses]).sum().backward()
    found = {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}
    objective.zero_grad()
    for name, buffer in objective.named_buffers():
        buffer.copy_(before[name])
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_row_stacks(method: str) -> None:
    compare([member(method, "mlp", seed) for seed in range(2)])


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@pytest.mark.parametrize("network", SMALL)
def test_every_network_stacks(network: str, optimizer: str) -> None:
    compare([member("info_vae", network, seed) for seed in range(2)], optimizer=optimizer, eps=1e-3)
    if network != "locatello":
        members = [member("vae", network, seed) for seed in range(2)]
        compare(members, (1e-3, 1e-3), torch.float32, optimizer, eps=1e-3, rtol=1e-5, atol=1e-5)


CROSSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "batch norm in a resnet": ("vae", "resnet", {"model": {"network": {"kind": "resnet", "norm": "batch", "dim": 4}}}),
    "a penalty on a conv": ("rae_gp", "conv", {}),
    "dreg": ("iwae", "conv", {"objective": {"gradient": "dreg"}}),
    "maf": ("iwae", "mlp", {"model": {"prior": "maf"}}),
    "piwae": ("piwae", "conv", {"objective": {"samples": 2, "groups": 2}}),
    "planar": ("vae", "mlp", {"model": {"posterior": "planar"}}),
    "two critics": ("factor_vae", "conv", {"objective": {"terms": {"prior_critic": {}}}}),
    "vamp": ("vamp_vae", "resnet", {"model": {"prior": {"kind": "vamp", "components": 3}}}),
}


@pytest.mark.parametrize("cross", CROSSES)
def test_crosses_stack(cross: str) -> None:
    method, network, sections = CROSSES[cross]
    compare([member(method, network, seed, **{k: dict(v) for k, v in sections.items()}) for seed in range(2)])


def test_members_have_coefficients_schedules_and_learning_rates_of_their_own() -> None:
    ramp = {"kind": "linear", "start": 1.0, "stop": 0.5}
    free = [{"terms": {"free_bits": {"weight": w}}, "beta": beta} for w, beta in ((0.5, 4.0), (1.0, ramp), (2.0, 0.0))]
    compare([member("beta_vae", "mlp", 0, objective=own) for own in free], (1e-3, 2e-3, 4e-3))
    kind, constant = "relaxed_categorical", {"kind": "constant", "value": 0.3}
    relaxed = [{"posterior": {"kind": kind, "temperature": t}, "prior": "categorical"} for t in (constant, ramp, 0.3)]
    compare([member("vae", "mlp", 0, model=own) for own in relaxed[:2]])
    with pytest.raises(ValueError, match=r"posterior\.temperature follows a schedule in one of them alone"):
        compare([member("vae", "mlp", 0, model=own) for own in relaxed], (1e-3,) * 3)


class Odd(nn.Module):
    def __init__(self, network: nn.Module, odd: nn.Module) -> None:
        super().__init__()
        self.network, self.odd = network, odd

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.odd(x))


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("odd", "said"), [(nn.Dropout(0.5), "random"), (Branch(), "data-dependent control flow")])
def test_what_cannot_be_stacked_is_said(odd: nn.Module, said: str) -> None:
    model = small_vae()
    assert obstacle(Objective(model, ELBO()), (1, 8, 8)) is None
    model.encoder = Odd(model.encoder, odd)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = obstacle(Objective(model, ELBO()), (1, 8, 8))
    assert found is not None
    assert said in found
    assert "\n" not in found
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_members_of_other_shapes_are_refused_with_the_first_that_differs() -> None:
    with pytest.raises(ValueError, match=r"member 1 .*net\.3\.weight is 8x16 of torch.float32 and 6x16 of"):
        Stack([Objective(small_vae(z_dim=d), ELBO()) for d in (3, 4)])
