"""Codes that are words of a codebook: assignment, gradients, what books learn, and priors over indices."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from parts import Affine, randn
from torch import Tensor
from trainings import everything

import vaes
from vaes import Experiment, evaluate, likelihoods, posteriors, priors
from vaes.config import load
from vaes.config.build import build_model, build_objective
from vaes.data import Splits, arrays
from vaes.errors import UserError
from vaes.evaluate import Budget, Metric
from vaes.fitting import Indices, check, fit_indices
from vaes.model import VAE, evaluation
from vaes.objectives import ELBO, Context, Drawn, Objective
from vaes.objectives.terms import CodeEntropy
from vaes.posteriors import FSQ, LFQ, RVQ, VQ, Quantizer, SimVQ
from vaes.priors import Autoregressive, Codes, StandardNormal
from vaes.randomness import Use, draw

FLAT, GRID = (6,), (3, 2, 4)


def quantizers(z_shape: tuple[int, ...]) -> list[Quantizer]:
    groups = {"groups": 2} if len(z_shape) == 1 else {}
    torch.manual_seed(0)
    kinds = [
        VQ(z_shape, codes=7, **groups),
        VQ(z_shape, codes=7, learn="ema", **groups),
        RVQ(z_shape, books=3, codes=5, **groups),
        SimVQ(z_shape, codes=7, **groups),
        FSQ(z_shape, levels=(4, 3, 2), **groups),
        LFQ(z_shape, **groups),
    ]
    return [kind.double() for kind in kinds]


def named(quantizer: Quantizer) -> str:
    return type(quantizer).__name__


def vae(posterior: Quantizer) -> VAE:
    d = math.prod(posterior.z_shape)
    encoder = Affine(randn(d, 4), randn(d, seed=3), (d,))

    class Flat(Affine):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(1))

    decoder = Flat(randn(4, d, seed=5), randn(4), (1, 2, 2))
    return VAE(encoder, decoder, posterior, Codes(posterior.z_shape), likelihoods.Gaussian()).double()


def vectors(z: Tensor) -> Tensor:
    """Codes (B, Z...) -> (B, P, 3), by hand."""
    return z.reshape(len(z), -1, 3) if z.dim() == 2 else z.permute(0, 2, 3, 1).reshape(len(z), -1, 3)


@pytest.mark.parametrize("shape", [FLAT, GRID])
@pytest.mark.parametrize("which", range(6))
def test_words_are_assigned_looked_up_and_counted(shape: tuple[int, ...], which: int) -> None:
    posterior = quantizers(shape)[which].eval()
    h = randn(4, math.prod(shape))
    latent = posterior.centre(h, shape)
    indices, words = latent.aux["indices"], posterior.words
    assert indices.shape == (4, posterior.positions, posterior.books)
    assert torch.equal(posterior.look_up(indices), latent.z[0])
    assert torch.equal(latent.z[0], posterior(h, randn(2, 4, posterior.positions)).z[1])
    wanted = sum(words[q][indices[..., q]] for q in range(posterior.books))
    torch.testing.assert_close(vectors(latent.z[0]), wanted)
    rest = vectors(h.reshape(4, *shape))
    if isinstance(posterior, FSQ):  # the nearest word to what was squashed, checked by its own test
        rest = vectors(latent.z[0])
    commitment = 0.0
    for q in range(posterior.books):
        nearest = (rest[:, :, None] - words[q]).square().sum(-1).argmin(-1)
        assert torch.equal(nearest, indices[..., q])
        rest = rest - words[q][nearest]
        commitment = commitment + rest.square().sum((1, 2))
    if "commitment" in latent.aux:
        torch.testing.assert_close(latent.aux["commitment"], commitment)
    k = words.shape[1]
    share = torch.stack([torch.bincount(indices[..., q].flatten(), minlength=k) for q in range(posterior.books)])
    p = share.double() / share.sum(1, keepdim=True)
    torch.testing.assert_close(latent.aux["code_perplexity"][0], torch.exp(-torch.xlogy(p, p).sum(1)).mean())
    torch.testing.assert_close(latent.aux["code_usage"][0], (share > 0).double().mean())


@pytest.mark.parametrize("which", range(6))
def test_gradients_pass_straight_through_and_words_have_their_own(which: int) -> None:
    posterior = quantizers(GRID)[which].eval()
    h = randn(4, 24).requires_grad_()
    weight = randn(4, *GRID, seed=8)
    latent = posterior.centre(h, GRID)
    (found,) = torch.autograd.grad((weight * latent.z[0]).sum(), h, retain_graph=True)
    if isinstance(posterior, FSQ):
        size = posterior.size[:, None, None].double()
        half, offset = (size - 1) * 1.001 / 2, 0.5 * (size % 2 == 0)
        slope = half * (1 - torch.tanh(h.detach().reshape(4, *GRID) + torch.atanh(offset / half)).square())
        torch.testing.assert_close(found, (weight * slope / (size // 2)).flatten(1))
        return
    torch.testing.assert_close(found, weight.flatten(1))
    (pulled,) = torch.autograd.grad(latent.aux["commitment"].sum(), h, retain_graph=True)
    if posterior.books == 1:
        torch.testing.assert_close(pulled, 2 * (h - latent.z[0].flatten(1)).detach())
    if isinstance(posterior, VQ) and posterior.learn == "gradient":
        (of_words,) = torch.autograd.grad(latent.aux["codebook"].sum(), posterior.weight, retain_graph=True)
        index, v = latent.aux["indices"][..., 0].flatten(), vectors(h.detach().reshape(4, *GRID)).flatten(0, 1)
        words = posterior.words.detach()[0]
        by_hand = torch.zeros_like(words).index_add(0, index, 2 * (words[index] - v))
        torch.testing.assert_close(of_words[0], by_hand)
        assert torch.autograd.grad(latent.aux["codebook"].sum(), h, allow_unused=True) == (None,)


@pytest.mark.parametrize("which", range(6))
def test_losses_are_of_images_and_not_of_batches(which: int) -> None:
    posterior = quantizers(FLAT)[which].eval()
    h = randn(8, 6)
    whole, *halves = (posterior.centre(part, FLAT).aux for part in (h, h[:4], h[4:]))
    for name in {"commitment", "codebook"} & whole.keys():
        assert whole[name].shape == (8,)
        torch.testing.assert_close(whole[name], torch.cat([half[name] for half in halves]))


def test_words_follow_the_running_means_of_their_vectors() -> None:
    posterior = VQ(FLAT, groups=2, codes=3, learn="ema", decay=0.9, restart=0.0).double().train()
    words = posterior.words.clone()[0]
    counts, sums = torch.full((3,), 1 / 3).double(), words / 3
    for step in range(5):
        h = randn(4, 6, seed=step)
        index = posterior(h, randn(1, 4, 2)).aux["indices"].flatten()
        v = h.reshape(8, 3)
        assert torch.equal(index, (v[:, None] - words).square().sum(-1).argmin(-1))  # those before this batch
        for k in range(3):
            counts[k] = 0.9 * counts[k] + 0.1 * (index == k).double().mean()
            sums[k] = 0.9 * sums[k] + 0.1 * v[index == k].sum(0) / 8
        words = sums / counts[:, None]
        torch.testing.assert_close(posterior.words[0], words)
        torch.testing.assert_close(posterior.use[0], counts)


@pytest.mark.parametrize("learn", ["gradient", "ema"])
def test_words_out_of_use_take_the_place_of_vectors_that_the_noise_chooses(learn: Any) -> None:
    posterior = VQ(FLAT, groups=2, codes=4, learn=learn, restart=0.5, decay=0.0).double().train()
    posterior.use.copy_(torch.tensor([[0.4, 0.1, 0.5, 0.0]]))
    before, h, keys = posterior.words.detach().clone()[0], randn(3, 6), randn(1, 3, 2, seed=4)
    with torch.no_grad():
        latent = posterior(h, keys)
    order = keys.flatten().argsort(descending=True)
    v = h.reshape(6, 3)
    started = torch.stack([before[0], v[order[0]], before[2], v[order[1]]])
    index = (v[:, None] - started).square().sum(-1).argmin(-1)
    assert torch.equal(latent.aux["indices"].flatten(), index)
    torch.testing.assert_close(latent.z.reshape(6, 3), started[index])
    if learn == "gradient":
        torch.testing.assert_close(posterior.words[0], started)
    resting = posterior.eval().state_dict()
    held = {name: tensor.clone() for name, tensor in resting.items()}
    posterior(h, keys)
    assert all(torch.equal(held[name], tensor) for name, tensor in resting.items())  # evaluation moves nothing


def test_fsq_has_its_levels_and_an_index_for_each_word() -> None:
    levels = (8, 5, 2, 3)
    posterior = FSQ((4,), groups=1, levels=levels).double()
    words = posterior.words[0]
    every = [[(n - size // 2) / (size // 2) for n in range(size)] for size in levels]
    assert sorted(map(tuple, words.tolist())) == sorted(itertools.product(*every))
    index = torch.arange(240)
    assert torch.equal(posterior.nearest(words).flatten(), index)
    assert torch.equal(posterior.look_up(index[:, None, None]), words)
    assert index[posterior.nearest(words + 0.05 * torch.sign(randn(240, 4))).flatten()].equal(index)
    reached = posterior.centre(torch.linspace(-9, 9, 2001).double()[:, None].expand(-1, 4), (4,)).z[0]
    assert [len(column.unique()) for column in reached.T] == list(levels)
    about = torch.tensor([[0.1], [-0.1]]).double().expand(-1, 4)
    assert not posterior.centre(about, (4,)).z[0, :, :2].any()  # the middle is 0, of an even number of levels too
    assert FSQ((3,), groups=1).size.tolist() == [8, 5, 5]


def test_the_entropies_of_signs_are_those_of_all_words() -> None:
    for channels in (3, 9):
        posterior = LFQ((2 * channels,), groups=2).double()
        h = randn(5, 2 * channels)
        aux = posterior.centre(h, (2 * channels,)).aux
        trace = vae(posterior).trace(randn(5, 1, 2, 2), posterior.centre(h, posterior.z_shape))
        assert trace.aux.keys() == aux.keys()
        found = CodeEntropy(temperature=0.7)(trace, Drawn(trace.z[0]), Context({}))
        words = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=channels))).double()
        q = torch.softmax(-(h.reshape(10, 1, channels) - words).square().sum(-1) / 0.7, -1)
        each = -(q * q.log()).sum(-1).mean()
        mean = q.mean(0)
        together = -(mean * mean.log()).sum()
        if channels == 9:  # eight channels together, and the last
            parts = mean.reshape(2**8, 2)
            together = sum(-(p * p.log()).sum() for p in (parts.sum(1), parts.sum(0)))
        torch.testing.assert_close(found, 2 * (each - together))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_words_that_no_code_is_near_have_a_finite_gradient(dtype: torch.dtype) -> None:
    for channels, far in ((4, 60.0), (9, 400.0)):
        codes = (far * torch.sign(randn(3, 5, channels))).to(dtype).requires_grad_()
        trace = SimpleNamespace(aux={"before_signs": codes})
        value = CodeEntropy()(trace, Drawn(codes), Context({}))
        (gradient,) = torch.autograd.grad(value, codes)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient))  # all are as sure as can be
        if channels == 4:  # and what is left is the entropy of how often each word is taken
            counts = torch.sign(codes.detach()).flatten(0, 1).unique(dim=0, return_counts=True)[1].to(dtype)
            assert len(counts) < 16
            torch.testing.assert_close(value.detach(), 5 * torch.xlogy(counts / 15, counts / 15).sum())


@pytest.mark.parametrize("which", range(6))
def test_the_uniform_prior_is_the_model_s_own_words(which: int) -> None:
    posterior = quantizers(GRID)[which].eval()
    model = vae(posterior)
    k, n = posterior.words.shape[1], posterior.positions * posterior.books
    trace = model(randn(3, 1, 2, 2), randn(2, 3, posterior.positions))
    torch.testing.assert_close(trace.rate, torch.full((3,), n * math.log(k)).double())
    if isinstance(posterior, SimVQ):
        assert model.gives >= {"rate", "log_q", "indices", "commitment", "codebook", "code_usage", "code_perplexity"}
    noise = draw(model.prior.noise, (4000,), 0, Use.PRIOR, 0)
    z = model.sample_codes(noise.double())
    assert z.shape == (4000, *GRID)
    if posterior.books == 1:
        assert torch.equal(model.prior.project(z), z)
        share = torch.bincount(posterior.nearest(z).flatten(), minlength=k).double() / (4000 * n)
        assert ((share - 1 / k).abs() < 5 / math.sqrt(4000 * n * k)).all()
    assert model.prior.log_prob(z).shape == (4000,)
    assert model.prior.centre().shape == GRID


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"posterior": "vq"}, "use the posterior gaussian or the prior codes"),
        ({"prior": "codes"}, "use the posterior vq, rvq, fsq, lfq or simvq or the prior standard_normal"),
        ({"posterior": {"kind": "vq", "groups": 3}, "prior": "codes"}, "groups must divide the 4 numbers"),
        ({"posterior": {"kind": "vq", "codes": 1}, "prior": "codes"}, "a codebook has from 2 to 262,144 words"),
        ({"posterior": {"kind": "rvq", "books": 0}, "prior": "codes"}, "books must be at least 1"),
        ({"posterior": {"kind": "vq", "decay": 1.0}, "prior": "codes"}, "decay must lie in [0, 1)"),
        ({"posterior": {"kind": "fsq", "levels": [8, 5]}, "prior": "codes"}, "levels must be 4 numbers of 2 or more"),
        ({"posterior": {"kind": "lfq", "groups": 1}, "prior": "codes", "z_dim": 19}, "524,288 words"),
        ({"posterior": "vq", "prior": "codes"}, "VQ learns by codebook and commitment, which nothing here reads"),
        ({"posterior": {"kind": "vq", "learn": "ema"}, "prior": "codes"}, "VQ learns by commitment, which nothing"),
    ],
)
def test_what_does_not_go_together_is_said_in_a_line(raw: dict[str, Any], message: str) -> None:
    def build() -> None:
        config = load({"model": {"z_dim": 4, "network": "mlp", **raw}})
        build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))

    with pytest.raises(UserError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="groups are of flat codes"):
        VQ(GRID, groups=2)


# A prior over indices


def toy(n: int, seed: int) -> Tensor:
    """(n, 2, 2) indices: a Markov chain of three letters whose law changes with the place."""
    numbers, rows = torch.Generator().manual_seed(seed), [torch.randint(3, (n,), generator=torch.Generator())]
    rows[0] = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), n, replacement=True, generator=numbers)
    step = torch.tensor([[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    for t in range(3):
        p = step if t % 2 == 0 else step.T / step.T.sum(1, keepdim=True)
        rows.append(torch.multinomial(p[rows[-1]], 1, generator=numbers)[:, 0])
    return torch.stack(rows, 1).reshape(n, 2, 2)


def test_an_autoregressive_prior_learns_the_law_of_its_indices() -> None:
    words = randn(2, 3, 5).float()
    data = Indices(toy(6000, 0), toy(1000, 1), toy(1000, 2))
    found = fit_indices(data, (10,), words, options={"width": 32, "steps": 600}, seed=3)
    prior = found.prior
    assert isinstance(prior, Autoregressive)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(81, 2, 2)
    p = prior.log_mass(every).double().exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    place = torch.tensor([27, 9, 3, 1])
    truth = torch.bincount((toy(200_000, 5).flatten(1) * place).sum(1), minlength=81).double() / 200_000
    assert 0.5 * (p - truth).abs().sum() < 0.05
    entropy = -torch.xlogy(truth, truth).sum().item()
    assert -found.numbers.nats == pytest.approx(entropy, abs=0.15)
    assert found.numbers.nats > found.numbers.gaussian + 0.5 > found.numbers.own
    assert found.numbers.own == pytest.approx(-4 * math.log(3))
    drawn = prior.draw_indices(draw(prior.noise, (20_000,), 0, Use.PRIOR, 0))
    share = torch.bincount((drawn.flatten(1) * place).sum(1), minlength=81).double() / 20_000
    assert ((share - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt() + 1e-3).all()
    first, again = (fit_indices(data, (10,), words, options={"width": 8, "steps": 20}, seed=3).prior for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_what_comes_later_tells_nothing_and_codes_are_their_indices() -> None:
    torch.manual_seed(0)
    prior = Autoregressive(GRID, 8, randn(1, 6, 3), width=8).double()
    for p in prior.parameters():
        torch.nn.init.normal_(p, std=0.5)
    noise = draw(prior.noise, (5,), 0, Use.PRIOR, 0).double()
    indices = prior.draw_indices(noise)
    z = prior.sample(noise)
    assert z.shape == (5, *GRID)
    torch.testing.assert_close(vectors(z), prior.words[0][indices[..., 0]])
    torch.testing.assert_close(prior.log_prob(z), prior.log_mass(indices))
    small = Autoregressive((4,), 2, randn(2, 3, 2), width=8).double()
    for p in small.parameters():
        torch.nn.init.normal_(p, std=0.5)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(81, 2, 2)
    assert small.log_mass(every).exp().sum().item() == pytest.approx(1, abs=1e-12)
    later = noise.clone()
    later[:, 5:] = 1 - later[:, 5:]
    assert torch.equal(prior.draw_indices(later)[:, :5], indices[:, :5])


# From a run


def images() -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    return arrays(pixels[:64], pixels[64:80], valid=pixels[80:])


@pytest.mark.parametrize("method", ["vq_vae", "rvq_vae", "fsq_vae"])
def test_a_run_of_words_is_fitted_stored_sampled_and_evaluated(method: str, tmp_path: Path) -> None:
    raw = {"method": method, "model": {"z_dim": 8, "network": {"kind": "mlp", "hidden": [16]}},
           "train": {"n_steps": 20, "batch_size": 16}}  # fmt: skip
    run = Experiment.of(raw).fit(tmp_path / "run", data=images(), device="cpu")
    own = run.sample(4)
    made = run.fit_prior(steps=20, width=16)
    assert made.kind == "autoregressive"
    loaded = vaes.load(tmp_path / "run").with_data(images())
    samples = loaded.sample(4)
    assert torch.equal(samples, run.sample(4, prior=made))
    assert torch.equal(loaded.sample(4, prior="own"), own)
    found = evaluate.evaluate(run.model, images(), only=["latent"], budget=Budget(n_images=16))
    numbers = {metric.name: metric for metric in found if isinstance(metric, Metric)}
    with evaluation(run.model):
        x = 2 * images().test.read(torch.arange(16)).float() / 255 - 1
        aux = run.model.encode(x).aux
    assert numbers["code_perplexity"].value == pytest.approx(aux["code_perplexity"][0].item(), rel=1e-5)
    assert numbers["code_usage"].value == pytest.approx(aux["code_usage"][0].item(), rel=1e-5)
    with pytest.raises(UserError, match="use --kind autoregressive"):
        check(run.model, "gmm", {})
    gaussian = build_model(load({"model": {"network": "mlp"}}), (1, 8, 8))
    with pytest.raises(UserError, match="the posterior Gaussian has none; use --kind gmm"):
        check(gaussian, "autoregressive", {})


def test_words_by_running_means_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    own = {"kind": "vq", "codes": 16, "learn": "ema", "decay": 0.5, "restart": 0.5}
    raw = {"method": "vq_vae", "model": {"z_dim": 8, "posterior": own, "network": {"kind": "mlp", "hidden": [16]}},
           "train": {"n_steps": 12, "batch_size": 16, "save_freq": 6, "keep": 9, "precision": "bf16"}}  # fmt: skip
    made = Experiment.of(raw)
    made.fit(tmp_path / "whole", data=images(), device="cpu")
    made.fit(tmp_path / "resumed", data=images(), device="cpu", resume=tmp_path / "whole" / "ckpt" / "step000006")
    whole, resumed = everything(tmp_path / "whole"), everything(tmp_path / "resumed")
    assert whole["weights"] == resumed["weights"]
    held = {name for name in whole["weights"] if name.startswith("posterior.")}
    assert held == {"posterior.words_of_ema", "posterior.means", "posterior.use"}


def test_a_collapsed_codebook_is_said_in_words(tmp_path: Path) -> None:
    posterior = VQ((4,), codes=100)
    posterior.use.fill_(0.0)[0, :3] = 1 / 3
    assert "has collapsed: 3.0% of its 100 words are in use (perplexity 3.0)" in posterior.worry()
    posterior.use.fill_(0.01)
    assert posterior.worry() == ""
    assert posteriors.Gaussian().worry() == ""
    with pytest.raises(ValueError, match="nothing here reads"):
        Objective(vae(VQ((6,), groups=2)), ELBO())
    assert StandardNormal(2).bind(posterior) is None
    with pytest.raises(RuntimeError, match="make a VAE"):
        priors.Codes(4).noise.size  # noqa: B018
