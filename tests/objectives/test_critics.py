import pytest
import torch
from parts import noise, randn, small_vae
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from vaes.model import Trace
from vaes.objectives import ELBO, Context, Drawn, Noise, Objective
from vaes.objectives.terms import ImageCritic, PatchCritic, PriorCritic, Term, TotalCorrelationCritic
from vaes.objectives.terms.critics import permuted
from vaes.objectives.terms.image_critic import ConvCritic


def objective(term: Term) -> tuple[Objective, torch.Tensor, Noise]:
    made = Objective(small_vae().double(), ELBO(), {"critic": term.double()})
    return made, randn(8, 1, 8, 8), noise(1, 8, 3)._replace(terms={"critic": torch.rand(8, 3, dtype=torch.float64)})


WEIGHTS = {"rate": 1.0, "distortion": 0.5, "critic": 3.0}


def critics() -> list[Term]:
    torch.manual_seed(0)
    small = {"width": 8, "depth": 2}
    gan = ImageCritic((1, 8, 8), gamma=0.1, width=2)
    patches = [PatchCritic((1, 8, 8), loss=loss, width=2) for loss in ("hinge", "logistic")]  # type: ignore[arg-type]
    whole = PatchCritic((1, 8, 8), network="unet", width=2, lecam=0.3).eval()  # training moves its running means
    return [TotalCorrelationCritic((3,), **small), PriorCritic((3,), **small), gan, *patches, whole]  # type: ignore[arg-type]


def told(term: Term, made: Objective, trace: Trace, eps: Noise) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model minimises and the critic's loss, as authors write them: networks called as they are."""
    z, critic = trace.z[0], term.critic
    if isinstance(term, ImageCritic):
        features = 0.5 * (critic(trace.x)[1] - critic(made.model.decode(z))[1]).square().sum() / 8
        again, fresh = made.model.decode(z.detach()), made.model.decode(eps.prior)
        deceived = sum(softplus(-critic(fake)[0]).mean() for fake in (again, fresh))
        real, fakes = critic(trace.x)[0], critic(torch.cat([again, fresh]).detach())[0]
        return features + deceived / 0.1, 0.5 * (softplus(-real).mean() + softplus(fakes).mean())
    if isinstance(term, PatchCritic):
        made_up = made.model.decode(z)
        real, fake, fooled = critic(trace.x), critic(made_up.detach()), critic(made_up)
        if isinstance(real, tuple):  # the running means are 0 yet
            wrong = [
                0.5 * ((1 - r).clamp_min(0).mean() + (1 + f).clamp_min(0).mean())
                for r, f in zip(real, fake, strict=True)
            ]
            sure = [r.square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
            return -sum(f.mean() for f in fooled), sum(wrong) + 0.3 * sum(sure)
        if term.loss == "hinge":
            return -fooled.mean(), 0.5 * ((1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean())
        return softplus(-fooled).mean(), 0.5 * (softplus(-real).mean() + softplus(fake).mean())
    told = critic(z).mean() if isinstance(term, TotalCorrelationCritic) else softplus(-critic(z)).mean()
    real, fake = eps.prior, z
    if isinstance(term, TotalCorrelationCritic):
        real, fake = z[:4], permuted(z[4:], eps.terms["critic"][4:])
    logits = torch.cat([critic(real.detach()), critic(fake.detach())])
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(fake))]).double()
    return told, binary_cross_entropy_with_logits(logits, target)


@pytest.mark.parametrize("term", critics(), ids=lambda term: type(term).__name__)
def test_one_backward_pass_gives_each_player_the_gradient_of_its_own(term: Term) -> None:
    made, x, eps = objective(term)
    out = made(x, eps, Context(WEIGHTS))
    assert made.losses == ("loss", "critic_loss")
    sum(out[name] for name in made.losses).backward()  # type: ignore[union-attr]
    ours = {name: p.grad for name, p in made.named_parameters()}
    # Two passes: first the model with the critic left alone, then the critic.
    trace = made.model(x, eps.posterior)
    of_model, of_critic = told(term, made, trace, eps)
    loss = (trace.rate - 0.5 * trace.log_px.mean(0)).mean() + 3 * of_model
    theirs = (
        *torch.autograd.grad(loss, list(made.model.parameters()), retain_graph=True),
        *torch.autograd.grad(of_critic, list(term.parameters())),
    )
    for (name, mine), expected in zip(ours.items(), theirs, strict=True):
        torch.testing.assert_close(mine, expected, msg=name, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("term", critics(), ids=lambda term: type(term).__name__)
def test_a_gradient_goes_one_way_only(term: Term) -> None:
    made, x, eps = objective(term)
    both, loss = (made(x, eps, Context(WEIGHTS)) for _ in range(2))
    (both["loss"] + both["critic_loss"]).backward()
    with_critic = [p.grad for p in made.model.parameters()]
    made.zero_grad()
    loss["loss"].backward()
    assert all(p.grad is None for p in term.parameters())
    for ours, alone in zip(with_critic, (p.grad for p in made.model.parameters()), strict=True):
        assert torch.equal(ours, alone)  # type: ignore[arg-type]
    assert any(g.abs().sum() > 0 for p in made.model.encoder.parameters() if (g := p.grad) is not None)


@pytest.mark.parametrize("model_plays", [True, False])
def test_only_who_plays_has_a_gradient(model_plays: bool) -> None:
    for term in critics():
        made, x, eps = objective(term)
        whole = made(x, eps, Context(WEIGHTS))
        out = made(x, eps, Context(WEIGHTS, model_plays=model_plays, critics_play=not model_plays))
        assert all(torch.equal(out[name], value) for name, value in whole.items())
        assert {name for name, value in out.items() if value.requires_grad} == {
            "loss" if model_plays else "critic_loss"
        }


def test_the_adversary_teaches_the_decoder_alone() -> None:
    found = []
    for gamma in (1e-6, 1.0):
        torch.manual_seed(0)
        made, x, eps = objective(ImageCritic((1, 8, 8), gamma=gamma, width=2))
        made(x, eps, Context({**WEIGHTS, "distortion": 0.0}))["loss"].backward()
        found.append([p.grad for net in (made.model.encoder, made.model.decoder) for p in net.parameters()])
    n = len(list(made.model.encoder.parameters()))
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        assert torch.equal(a, b) == (k < n)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 9, 13), (3, 31, 40), (2, 64, 64), (4, 11, 100)])
def test_a_critic_of_images_takes_any_size_from_8_on(shape: tuple[int, int, int]) -> None:
    critic = ConvCritic(shape, 2, 1e-3, (0.5, 0.9))
    logits, features = critic(torch.randn(3, *shape))
    assert logits.shape == (3,)
    assert len(features) == 3
    assert 4 <= min(features.shape[2:]) <= 12
    torch.testing.assert_close(critic(torch.ones(2, *shape))[0][:1], critic(torch.ones(1, *shape))[0])


@pytest.mark.parametrize("shape", [(1, 7, 8), (3, 64, 4)])
def test_a_critic_of_images_refuses_smaller_ones(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"needs 8 pixels a side or more, got {shape[1]}x{shape[2]}"):
        ImageCritic(shape)
    with pytest.raises(ValueError, match="gamma must be above 0"):
        ImageCritic((1, 8, 8), gamma=0.0)


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


def test_a_critic_finds_the_total_correlation_of_a_gaussian() -> None:
    r, batch = 0.8, 512  # two dimensions of correlation r, as above
    torch.manual_seed(0)
    term = TotalCorrelationCritic((2,), width=32, depth=2)
    optimizer = torch.optim.Adam(term.parameters(), lr=3e-3)
    trace = small_vae()(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3))

    def codes(n: int) -> torch.Tensor:
        a, b = torch.randn(2, n)
        return torch.stack([a, r * a + (1 - r**2) ** 0.5 * b], 1)

    for _ in range(400):
        z = codes(batch)
        loss = term.critic_loss(trace._replace(z=z[None]), Drawn(z, torch.rand(batch, 2)), Context({}))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = codes(50_000)
    assert term(trace._replace(z=z[None]), Drawn(z), Context({})).item() == pytest.approx(0.5108, abs=0.08)


@pytest.mark.parametrize("side", [8, 9, 12, 13, 24, 31, 64])
def test_a_critic_of_patches_takes_any_size_from_8_on_and_says_what_it_left_out(side: int) -> None:
    term = PatchCritic((3, side, side + 5), width=2)
    assert min(term.critic(torch.randn(2, 3, side, side + 5)).shape[1:]) >= 1
    assert bool(term.note) == (side < 24)


def test_a_critic_of_patches_learns_from_its_start_on() -> None:
    made, x, eps = objective(PatchCritic((1, 8, 8), width=2, start=5))
    for step in (4, 5):
        made.zero_grad()
        made(x, eps, Context(WEIGHTS, step=step))["critic_loss"].backward()
        moved = [p.grad.abs().sum() > 0 for p in made.terms.parameters() if p.grad is not None]
        assert any(moved) == (step == 5)
        assert len(moved) == len(list(made.terms.parameters()))


def test_the_running_means_of_lecam_are_those_of_the_paper() -> None:
    term = PatchCritic((1, 8, 8), width=2, layers=1, lecam=0.5, start=1).double()
    trace = small_vae().double()(randn(4, 1, 8, 8), randn(1, 4, 3), frozenset({"x_mean"}))
    assert trace.x_mean is not None
    plain = PatchCritic((1, 8, 8), width=2, layers=1).double()
    plain.critic.load_state_dict(term.critic.state_dict())
    term.critic_loss(trace, Drawn(randn(1)), Context({}, step=0))
    assert not term.counted  # it does not learn yet
    r = m = torch.zeros(())
    for step in (1, 2, 3):
        now = trace._replace(x=step * trace.x)
        real, made = term.critic(now.x), term.critic(trace.x_mean[0])
        r, m = (
            mean if step == 1 else 0.99 * before + 0.01 * mean for mean, before in ((real.mean(), r), (made.mean(), m))
        )
        r, m = r.detach(), m.detach()
        found = term.critic_loss(now, Drawn(randn(1)), Context({}, step=step))
        sure = (real - m).square().mean() + (made - r).square().mean()
        torch.testing.assert_close(found, plain.critic_loss(now, Drawn(randn(1)), Context({})) + 0.5 * sure)
    before = term.averages.clone()
    with torch.no_grad():
        term.critic_loss(trace, Drawn(randn(1)), Context({}, step=9))
    assert torch.equal(before, term.averages)


@pytest.mark.parametrize("side", [8, 9, 13, 31, 64])
def test_a_critic_of_pixels_judges_each_of_them_with_weights_of_norm_1(side: int) -> None:
    term = PatchCritic((3, side, side + 5), network="unet", width=2, layers=4).double()
    whole, pixels = term.critic(randn(2, 3, side, side + 5))
    assert (whole.shape, pixels.shape) == ((2,), (2, side, side + 5))
    assert bool(term.note) == (side < 32)
    vae = small_vae((3, side, side + 5)).double()
    trace = vae(randn(2, 3, side, side + 5), randn(1, 2, 3), frozenset({"x_mean"}))
    for _ in range(100):  # each learning step is one power iteration more
        term.critic_loss(trace, Drawn(randn(1)), Context({}))
    for layer in (term.critic.stem, *term.critic.down, *term.critic.up, term.critic.image):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("term", critics(), ids=lambda term: type(term.critic).__name__)
def test_the_doubt_of_a_critic_that_cannot_tell_is_1(term: Term) -> None:
    with torch.no_grad():
        for p in term.parameters():
            p.zero_()
        if isinstance(term, PatchCritic) and term.lecam:
            term.averages.fill_(3.0)  # which is no matter of telling
    made, x, eps = objective(term)
    found = made.contributions(x, eps, Context(WEIGHTS))
    assert float(found.doubts["critic"]) == pytest.approx(1)
    lecam = getattr(term, "lecam", 0)
    assert float(found.critics["critic"].detach()) == pytest.approx(term.chance + lecam * 2 * (9 + 9) * bool(lecam))


@pytest.mark.parametrize("term", critics(), ids=lambda term: type(term.critic).__name__)
def test_contributions_add_up_to_the_loss(term: Term) -> None:
    made, x, eps = objective(term)
    out, found = made(x, eps, Context(WEIGHTS)), made.contributions(x, eps, Context(WEIGHTS))
    torch.testing.assert_close(sum(found.parts.values()), out["loss"])
    torch.testing.assert_close(found.critics["critic"], out["critic_loss"])


@pytest.mark.parametrize("network", ["patch", "unet"])
def test_half_precision_is_near_float32_and_finite(network: str) -> None:
    torch.manual_seed(0)
    term = PatchCritic((1, 16, 16), network=network, width=8, lecam=0.1).eval()  # type: ignore[arg-type]
    made = Objective(small_vae((1, 16, 16), network="conv"), ELBO(), {"critic": term})
    x, eps = torch.rand(4, 1, 16, 16), Noise(torch.randn(1, 4, 3), torch.randn(4, 3))
    full = made(x, eps, Context(WEIGHTS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = made(x, eps, Context(WEIGHTS))
    sum(low[name] for name in made.losses).backward()  # type: ignore[union-attr]
    for name, value in full.items():
        assert low[name].dtype == torch.float32
        torch.testing.assert_close(low[name], value, rtol=0.02, atol=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
