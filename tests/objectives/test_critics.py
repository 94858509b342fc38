import torch
from parts import noise, randn, small_vae
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from vaes.objectives import ELBO, Context, Drawn, Noise, Objective
from vaes.objectives.terms import PriorCritic, Term, TotalCorrelationCritic
from vaes.objectives.terms.critics import permuted
from vaes.train.groups import groups
from vaes.train.settings import Settings


def objective(term: Term) -> tuple[Objective, torch.Tensor, Noise]:
    made = Objective(small_vae().double(), ELBO(), {"critic": term.double()})
    return made, randn(8, 1, 8, 8), noise(1, 8, 3)._replace(terms={"critic": torch.rand(8, 3, dtype=torch.float64)})


def test_one_backward_pass_gives_each_player_the_gradient_of_its_own() -> None:
    for term in (TotalCorrelationCritic((3,), width=8, depth=2), PriorCritic((3,), width=8, depth=2)):
        made, x, eps = objective(term)
        out = made(x, eps, Context({"rate": 1.0, "critic": 3.0}))
        assert made.losses == ("loss", "critic_loss")
        sum(out[name] for name in made.losses).backward()  # type: ignore[union-attr]
        ours = {name: p.grad for name, p in made.named_parameters()}
        # Two passes, as an adversary's authors write them: first the model with the critic left alone, then the critic.
        trace = made.model(x, eps.posterior)
        z, critic = trace.z[0], term.critic
        told = critic(z).mean() if isinstance(term, TotalCorrelationCritic) else softplus(-critic(z)).mean()
        loss = (trace.rate - trace.log_px.mean(0)).mean() + 3 * told
        of_model = torch.autograd.grad(loss, list(made.model.parameters()))
        other = permuted(z, eps.terms["critic"]) if isinstance(term, TotalCorrelationCritic) else eps.prior
        real, fake = (z, other) if isinstance(term, TotalCorrelationCritic) else (other, z)
        logits = torch.cat([critic(real.detach()), critic(fake.detach())])
        target = torch.cat([torch.ones(8), torch.zeros(8)]).double()
        of_critic = torch.autograd.grad(binary_cross_entropy_with_logits(logits, target), list(critic.parameters()))
        for (name, mine), theirs in zip(ours.items(), (*of_model, *of_critic), strict=True):
            torch.testing.assert_close(mine, theirs, msg=name)


def test_permuting_keeps_each_dimension_s_values_and_breaks_the_rows() -> None:
    z = randn(50, 3)
    shuffled = permuted(z, torch.rand(50, 3))
    assert torch.equal(shuffled.sort(0).values, z.sort(0).values)
    assert not torch.equal(shuffled, z)


def test_a_critic_that_is_right_gives_the_total_correlation() -> None:
    # Two equal dimensions with correlation r: log q(z) - sum log q(z_d) is quadratic in z, and TC = -log(1 - r^2) / 2.
    r = 0.8
    z = torch.stack([randn(400_000), randn(400_000, seed=1)], 1)
    z[:, 1] = r * z[:, 0] + (1 - r**2) ** 0.5 * z[:, 1]

    class Exact(nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            a, b = z.T
            return (
                -0.5 * torch.log(torch.tensor(1 - r**2))
                - ((a**2 + b**2 - 2 * r * a * b) / (1 - r**2) - a**2 - b**2) / 2
            )

    term = TotalCorrelationCritic((2,), width=2, depth=1)
    term.critic = Exact()  # type: ignore[assignment]
    trace = small_vae().double()(randn(1, 1, 8, 8), randn(1, 1, 3))._replace(z=z[None])
    found = term(trace, Drawn(z), Context({}))
    torch.testing.assert_close(found, torch.tensor(0.5108256, dtype=torch.float64), rtol=0.01, atol=0)


def test_a_critic_has_an_optimiser_of_its_own() -> None:
    made, _, _ = objective(PriorCritic((3,), width=8, depth=2, lr=3e-4, betas=(0.5, 0.9)))
    own, critic = groups(made, Settings(decoder_weight_decay=None))
    assert {id(p) for p in critic["params"]} == {id(p) for p in made.terms.parameters()}
    assert (critic["own_lr"], critic["betas"], critic["matrix"], own["own_lr"]) == (3e-4, (0.5, 0.9), False, None)
    _, decoder, _ = groups(made, Settings(decoder_weight_decay=0.1))
    assert {id(p) for p in decoder["params"]} == {id(p) for p in made.model.decoder.parameters()}
    assert decoder["weight_decay"] == 0.1
