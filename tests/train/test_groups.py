"""Which parameters are trained how."""

from typing import Any

import pytest
import torch
from parts import small_vae
from torch import Tensor, nn

from vaes.config import build_model, build_objective, load
from vaes.methods import METHODS
from vaes.objectives import ELBO, Objective
from vaes.objectives.terms import PriorCritic
from vaes.train.groups import groups
from vaes.train.muon import Muon
from vaes.train.settings import Settings


def test_a_critic_has_an_optimiser_of_its_own() -> None:
    term = PriorCritic((3,), width=8, depth=2, lr=3e-4, betas=(0.5, 0.9))
    made = Objective(small_vae(), ELBO(), {"critic": term})
    own, critic = groups(made, Settings(decoder_weight_decay=None))
    assert {id(p) for p in critic["params"]} == {id(p) for p in made.terms.parameters()}
    assert (critic["own_lr"], critic["betas"], critic["matrix"], own["own_lr"]) == (3e-4, (0.5, 0.9), False, None)
    _, decoder, _ = groups(made, Settings(decoder_weight_decay=0.1))
    assert {id(p) for p in decoder["params"]} == {id(p) for p in made.model.decoder.parameters()}
    assert decoder["weight_decay"] == 0.1


@pytest.mark.parametrize("method", METHODS)
def test_muon_leaves_alone_what_is_no_matrix_and_what_is_a_critic_s(method: str) -> None:
    config = load({"method": method, "model": {"z_dim": 4, "network": "mlp"}})
    made, _ = build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    left, own = set(), set()
    for group in groups(made, Settings()):
        own |= {names[id(p)] for p in group["params"] if group["own_lr"] is not None}
        left |= {names[id(p)] for p in group["params"] if not group["matrix"]}
    critics = {name for name in names.values() if name.startswith("terms.")}
    things = {f"model.prior.{name}" for name in ("pseudo", "logits", "mean", "logvar")} | {"model.posterior.weight"}
    assert own == critics
    assert left == critics | things.intersection(names.values())
    has = method in ("vamp_vae", "gmm_vae") or any("critic" in x or x == "codebook" for x in METHODS[method].terms)
    assert bool(left) == has


class Embedded(nn.Module):
    """A decoder with an embedding, inside a module with options of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.training_options: dict[str, Any] = {"own_lr": 0.5}
        self.table, self.last = nn.Embedding(4, 3), nn.Linear(3, 64)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(z + self.table.weight.sum(0)).unflatten(1, (1, 8, 8))


def test_embeddings_are_no_matrices_and_options_of_nested_modules_add_up() -> None:
    made, decoder = Objective(small_vae(), ELBO()), Embedded()
    made.model.decoder = decoder
    found = groups(made, Settings(decoder_weight_decay=0.1))
    of = {id(p): group for group in found for p in group["params"]}
    table, last = (of[id(part.weight)] for part in (decoder.table, decoder.last))
    assert (table["matrix"], table["own_lr"], table["weight_decay"]) == (False, 0.5, 0.1)
    assert (last["matrix"], last["own_lr"], last["weight_decay"]) == (True, 0.5, 0.1)
    optimizer = Muon(found, lr=1e-3)
    made.model.decode(torch.zeros(2, 3)).sum().backward()
    optimizer.step()
    assert optimizer.state[decoder.table.weight].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.state[decoder.last.weight].keys() == {"momentum"}
