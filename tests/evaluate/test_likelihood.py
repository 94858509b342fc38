"""Estimators of the evidence against models whose evidence is known: in closed form, or by integration on a grid."""

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from parts import Affine, randn, small_vae
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from vaes import likelihoods, posteriors
from vaes.data import Splits, TensorSet
from vaes.errors import UserError
from vaes.evaluate import Budget, Metric, NotApplicable, Skipped, evaluate
from vaes.evaluate.annealed import _at, _path, _transition, annealed, sigmoid_schedule
from vaes.evaluate.likelihood import Draws, dequantise, elbo, importance_weighted, log_mean, to_bits, units
from vaes.functional import log_mean_exp
from vaes.model import VAE
from vaes.priors import StandardNormal

N = 6


def linear_gaussian(widen: float = 0.5, sigma: float = 0.7, value_range: tuple[float, float] = (-1.0, 1.0)) -> VAE:
    """Probabilistic PCA with orthogonal loadings; its encoder has exact means and log-variances off by ``widen``."""
    w = torch.linalg.qr(randn(6, 2))[0] * torch.tensor([2.0, 0.5], dtype=torch.float64)
    m = randn(6, seed=3)
    precision = (w.T @ w).diagonal() + sigma**2
    gain = w.T / precision[:, None]
    logvar = torch.log(sigma**2 / precision) + widen
    encoder = Affine(torch.cat([gain, torch.zeros(2, 6, dtype=torch.float64)]), torch.cat([-gain @ m, logvar]), (4,))
    likelihood = likelihoods.Gaussian(scale=sigma, link="identity")
    return VAE(
        encoder, Affine(w, m, (1, 2, 3)), posteriors.Gaussian(), StandardNormal(2), likelihood, value_range=value_range
    )


def log_evidence(model: VAE, x: Tensor) -> Tensor:
    w, m, scale = model.decoder.weight, model.decoder.bias, float(model.likelihood.scale)
    return MultivariateNormal(m, w @ w.T + scale**2 * torch.eye(6, dtype=torch.float64)).log_prob(x.flatten(1))


def images(seed: int = 4) -> Tensor:
    return randn(N, 1, 2, 3, seed=seed)


def test_the_elbo_is_the_evidence_less_the_posterior_s_error_and_its_halves_add_up() -> None:
    model, x = linear_gaussian(widen=0.9), images()
    found = elbo(model, x, randn(50_000, N, 2, seed=5))
    gap = math.exp(0.9) - 1 - 0.9  # KL between the two normals, in two dimensions
    spread = model(x, randn(50_000, N, 2, seed=5)).log_px.std(0) / math.sqrt(50_000)
    assert ((found.elbo - (log_evidence(model, x) - gap)).abs() < 4 * spread).all()
    torch.testing.assert_close(found.elbo, -found.distortion - found.rate)


@pytest.mark.parametrize("widen", [0.7, -0.3])
def test_the_importance_weighted_bound_is_within_its_own_error_of_the_evidence(widen: float) -> None:
    model, x = linear_gaussian(widen), images()
    found = importance_weighted(model, x, 5_000, seed=1)
    error = found.value - log_evidence(model, x)
    assert (error.abs() < 4 * found.stderr).all()
    assert (found.stderr < 0.02).all()
    assert ((found.ess > 2_000) & (found.ess < 5_000)).all()


def test_the_stated_error_is_the_spread_over_seeds_and_the_shortfall_half_its_square() -> None:
    model, x = linear_gaussian(0.7), images()
    runs = [importance_weighted(model, x, 20, seed=seed) for seed in range(400)]
    values = torch.stack([run.value for run in runs])
    stated = torch.stack([run.stderr for run in runs]).square().mean(0).sqrt()
    torch.testing.assert_close(values.std(0), stated, rtol=0.25, atol=0)
    shortfall = log_evidence(model, x) - values.mean(0)
    noise = values.std(0) / math.sqrt(len(runs))
    assert ((shortfall - 0.5 * stated.square()).abs() < 5 * noise).all()
    assert (shortfall > -4 * noise).all()  # below the evidence


def test_the_bound_rises_with_k_from_the_elbo_to_the_evidence() -> None:
    model, x = linear_gaussian(1.0), images()
    means = []
    for k in (1, 4, 16, 100):
        values = torch.stack([importance_weighted(model, x, k, seed=seed).value for seed in range(200)])
        means.append(values.mean(0))
    for lower, higher in itertools.pairwise(means):
        assert lower.mean() < higher.mean()
    gap = math.exp(1.0) - 2.0
    assert ((means[0] - (log_evidence(model, x) - gap)).abs() < 0.5).all()
    torch.testing.assert_close(means[-1], log_evidence(model, x), rtol=0, atol=0.06)


def test_chunks_and_batches_change_nothing() -> None:
    model, x = linear_gaussian(0.5), images()
    whole = importance_weighted(model, x, 60, seed=3, batch_size=10_000)
    for size in (1, 7, 64, 150):
        part = importance_weighted(model, x, 60, seed=3, batch_size=size)
        for a, b in zip(whole[:3], part[:3], strict=True):
            torch.testing.assert_close(a, b)
    alone = importance_weighted(model, x[4:], 60, seed=3, images=[4, 5])
    torch.testing.assert_close(alone.value, whole.value[4:])
    assert (importance_weighted(model, x, 60, seed=4).value != whole.value).all()


def test_running_sums_equal_the_sums_at_once_and_survive_extreme_weights() -> None:
    w = randn(9, 4) * 3
    found = log_mean(w)
    torch.testing.assert_close(found.value, log_mean_exp(w, 0))
    p = torch.softmax(w, 0)
    torch.testing.assert_close(found.ess, 1 / p.square().sum(0))
    relative = w.exp().std(0) / w.exp().mean(0) / 3
    # The delta method divides the sample's own variance: sd / sqrt(K) over the mean.
    torch.testing.assert_close(found.stderr, relative, rtol=1e-9, atol=0)
    far = log_mean(w - 5_000)
    torch.testing.assert_close(far.value, found.value - 5_000)
    torch.testing.assert_close(far.stderr, found.stderr)
    assert math.isnan(log_mean(w[:1]).stderr[0])


def test_images_have_streams_of_their_own() -> None:
    like = torch.zeros(1, dtype=torch.float64)
    both, second = Draws(0, [3, 8], 2), Draws(0, [8], 2)
    first = both.normal(5, like)
    torch.testing.assert_close(torch.cat([second.normal(2, like), second.normal(3, like)]), first[:, 1:])
    assert not torch.equal(first[:, 0], first[:, 1])


# Two latent dimensions and a decoder that is far from linear: the evidence by integration.


def nonlinear(kind: str) -> VAE:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 6), nn.Unflatten(1, (1, 2, 3))).double()
    with torch.no_grad():
        for layer in (decoder[0], decoder[2]):
            layer.weight.mul_(4)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    with torch.no_grad():
        encoder[1].weight.mul_(0.1)
        encoder[1].bias.zero_()
    likelihood = likelihoods.Bernoulli() if kind == "bernoulli" else likelihoods.Gaussian(scale=0.6, link="identity")
    return VAE(encoder, decoder, posteriors.Gaussian(), StandardNormal(2), likelihood, value_range=(0.0, 1.0)).eval()


def data_of(model: VAE, kind: str) -> Tensor:
    mean = model.sample(randn(N, 2, seed=8)).detach()
    if kind == "bernoulli":
        return (torch.rand(mean.shape, generator=torch.Generator().manual_seed(1)) < mean).double()
    return mean + 0.6 * randn(*mean.shape, seed=9)


@torch.no_grad()
def on_a_grid(model: VAE, x: Tensor, points: int, reach: float = 7.0) -> Tensor:
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)
    y = model.decoder(z)[:, None].expand(-1, len(x), -1, -1, -1)
    log_joint = model.likelihood.log_prob(y, x) + model.prior.log_prob(z)[:, None]
    return log_joint.logsumexp(0) + 2 * math.log(2 * reach / (points - 1))


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_on_a_nonlinear_model_every_estimator_is_within_its_error_of_the_integral(kind: str) -> None:
    model = nonlinear(kind)
    x = data_of(model, kind)
    truth = on_a_grid(model, x, 401)
    torch.testing.assert_close(truth, on_a_grid(model, x, 301), rtol=0, atol=1e-7)  # the grid is fine enough
    with torch.inference_mode():
        bound = elbo(model, x, randn(2_000, N, 2, seed=2)).elbo
        weighted = importance_weighted(model, x, 5_000, seed=0)
        ais = [annealed(model, x, steps=150, chains=24, leapfrogs=4, start=s) for s in ("prior", "posterior")]
    assert (bound < truth - 0.1).all()  # the encoder is untrained
    assert ((weighted.value - truth).abs() < 4 * weighted.stderr).all()
    for one in ais:
        assert ((one.log_mean.value - truth).abs() < 4 * one.log_mean.stderr).all()
        assert (one.log_mean.stderr < 0.35).all()
        assert ((one.acceptance > 0.4) & (one.acceptance < 0.93)).all()


def test_ais_finds_the_evidence_of_probabilistic_pca_and_more_steps_make_it_sharper() -> None:
    model, x = linear_gaussian(), images()
    short, long = (annealed(model, x, steps=steps, chains=24, leapfrogs=4) for steps in (10, 80))
    assert ((long.log_mean.value - log_evidence(model, x)).abs() < 4 * long.log_mean.stderr).all()
    assert long.log_mean.stderr.mean() < 0.6 * short.log_mean.stderr.mean()


def test_ais_is_unbiased_even_with_few_steps() -> None:
    model, x = linear_gaussian(), images()[:2]
    many = annealed(model, x, steps=4, chains=6_000, leapfrogs=3)
    assert ((many.log_mean.value - log_evidence(model, x)).abs() < 4 * many.log_mean.stderr).all()
    assert (many.log_mean.stderr < 0.05).all()


def test_from_the_exact_posterior_ais_is_exact() -> None:
    model, x = linear_gaussian(widen=0.0), images()
    found = annealed(model, x, steps=5, chains=3, start="posterior")
    torch.testing.assert_close(found.log_mean.value, log_evidence(model, x))
    assert (found.log_mean.stderr < 1e-6).all()


def test_one_step_of_ais_from_q_is_importance_weighting() -> None:
    model, x = linear_gaussian(0.5), images()
    once = annealed(model, x, steps=1, chains=40, start="posterior", seed=3)
    torch.testing.assert_close(once.log_mean.value, importance_weighted(model, x, 40, seed=3).value)


def test_ais_leaves_the_model_as_it_was_and_runs_in_double_on_a_copy() -> None:
    model = small_vae().eval()
    x = randn(2, 1, 8, 8).float()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    single = annealed(model, x, steps=8, chains=2, leapfrogs=2)
    double = annealed(model, x, steps=8, chains=2, leapfrogs=2, double=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(single.log_mean.value, double.log_mean.value, rtol=0, atol=0.05)
    assert single.log_mean.value.dtype == torch.float64


@pytest.mark.parametrize("b", [0.3, 1.0])
def test_transitions_leave_their_distribution_alone(b: float) -> None:
    """From exact draws of the Gaussian between prior and posterior, with steps so long that a third is rejected."""
    model, x, chains = linear_gaussian(), images()[:2], 20_000
    w, m, sigma = model.decoder.weight, model.decoder.bias, float(model.likelihood.scale)
    precision = 1 + b * (w.T @ w).diagonal() / sigma**2
    mean = b * (x.flatten(1) - m) @ w / sigma**2 / precision
    path = _path(model, x, "prior")
    state = _at(path, mean + randn(chains, 2, 2, seed=1) / precision.sqrt())
    size, draws, taken = 1.55 / precision.max().sqrt().expand(2), Draws(7, [0, 1], 2), []
    for _ in range(12):
        state, accepted = _transition(path, state, b, size, 3, draws)
        taken.append(accepted.double().mean())
    assert 0.4 < torch.stack(taken).mean() < 0.9
    z = (state.z - mean) * precision.sqrt()
    assert (z.mean(0).abs() < 4 / math.sqrt(chains)).all()
    assert ((z.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / chains)).all()
    assert ((z.pow(4).mean(0) - 3).abs() < 4 * math.sqrt(96 / chains)).all()
    assert (z.prod(-1).mean(0).abs() < 4 / math.sqrt(chains)).all()


def test_the_schedule_goes_from_0_to_1_slowly_at_both_ends() -> None:
    b = sigmoid_schedule(10)
    assert (b[0], b[-1], len(b)) == (0, 1, 11)
    torch.testing.assert_close(b + b.flip(0), torch.ones(11, dtype=torch.float64))
    assert (b.diff() > 0).all()
    assert b.diff()[0] < b.diff()[5] / 3


# Bits per dimension.


def test_bits_of_a_model_that_spreads_over_the_range_are_8() -> None:
    """A density that is flat over the bins of all 256 values codes each pixel in 8 bits, whatever the range."""
    for value_range in ((-1.0, 1.0), (0.0, 1.0), (-3.0, 5.0)):
        model = linear_gaussian(value_range=value_range)
        width = (value_range[1] - value_range[0]) * 256 / 255
        flat = torch.full((3,), -6 * math.log(width), dtype=torch.float64)
        torch.testing.assert_close(to_bits(flat, model, 6), torch.full((3,), 8.0, dtype=torch.float64))


def test_bits_bound_the_code_length_of_the_binned_model_from_above() -> None:
    """With z of no effect the bin's probability is known in closed form; the bound is above it, and tight for bins
    narrower than the scale."""
    sigma = 0.05
    decoder = Affine(torch.zeros(6, 2, dtype=torch.float64), torch.full((6,), 0.1, dtype=torch.float64), (1, 2, 3))
    encoder = Affine(torch.zeros(4, 6, dtype=torch.float64), torch.zeros(4, dtype=torch.float64), (4,))
    likelihood = likelihoods.Gaussian(scale=sigma, link="identity")
    model = VAE(encoder, decoder, posteriors.Gaussian(), StandardNormal(2), likelihood)
    pixels = torch.randint(120, 160, (400, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(pixels.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = dequantise(pixels, model, uniform)
    bits = to_bits(importance_weighted(model, x, 1, seed=0).value, model, 6)
    edges = -1 + 2 * (pixels.double()[..., None] + torch.tensor([-0.5, 0.5])) / 255
    cdf = torch.special.ndtr((edges - 0.1) / sigma)
    exact = -(cdf[..., 1] - cdf[..., 0]).log2().flatten(1).mean(1)
    excess = (bits - exact).mean()
    assert excess + 4 * (bits - exact).std() / 20 > 0
    assert abs(excess) < 0.02
    middle = dequantise(pixels, model, torch.full(pixels.shape, 0.5, dtype=torch.float64))
    torch.testing.assert_close(middle, pixels.double() / 255 * 2 - 1)


def test_what_has_no_meaning_is_not_applicable() -> None:
    x = torch.zeros(2, 1, 8, 8)
    bernoulli = small_vae(likelihood=likelihoods.Bernoulli())
    with pytest.raises(NotApplicable, match="no bits per dimension"):
        dequantise(x.to(torch.uint8), bernoulli, torch.rand(2, 1, 8, 8))
    point = small_vae(posterior=posteriors.Point())
    with pytest.raises(NotApplicable, match="Point has no density"):
        elbo(point, x, torch.zeros(1, 2, 3))
    with pytest.raises(NotApplicable, match="Point has no density"):
        importance_weighted(point, x, 4, seed=0)
    with pytest.raises(NotApplicable, match="is no Gaussian: start AIS at the prior"):
        annealed(point, x, start="posterior")
    with pytest.raises(UserError, match="at least 1, got 0"):
        importance_weighted(bernoulli, x, 0, seed=0)
    with pytest.raises(UserError, match="at least 1 step"):
        annealed(bernoulli, x, steps=0)


def test_ais_needs_no_encoder() -> None:
    found = annealed(small_vae(posterior=posteriors.Point()), torch.zeros(2, 1, 8, 8), steps=4, chains=2, leapfrogs=2)
    assert found.log_mean.value.isfinite().all()


def test_units_tell_apart_what_cannot_be_compared() -> None:
    bernoulli, binary = small_vae(likelihood=likelihoods.Bernoulli()), torch.tensor([0.0, 1.0])
    said = {
        units(bernoulli, binary),
        units(bernoulli, binary * 0.5),
        units(small_vae(), binary),
        units(linear_gaussian(value_range=(0, 1)), binary),
    }
    assert len(said) == 4


class Categorical(likelihoods.Likelihood):
    """Every pixel one of 256 values, each as probable: 8 bits."""

    default_range = (0.0, 1.0)

    def channels(self, image_channels: int) -> int:
        return image_channels

    def log_prob(self, y: Tensor, x: Tensor) -> Tensor:
        return torch.full(y.shape[:2], -x[0].numel() * math.log(256)) + 0 * y.flatten(2).sum(-1)

    def mean(self, y: Tensor) -> Tensor:
        return y.sigmoid()

    def measure(self, x: Tensor) -> likelihoods.Measure:
        return "mass of 8-bit values"

    def misfit(self, decoder_range: likelihoods.Range, value_range: likelihoods.Range) -> str | None:
        return None


def test_a_likelihood_of_one_s_own_says_what_its_number_is() -> None:
    model, x = small_vae(likelihood=Categorical()), torch.zeros(2, 1, 8, 8)
    with pytest.raises(NotApplicable, match="is a mass of 8-bit values"):
        dequantise(x.to(torch.uint8), model, torch.rand(2, 1, 8, 8))
    assert units(model, x) == "nats per image, probability of 8-bit pixels"
    splits = Splits(*(TensorSet(torch.zeros(30, 1, 8, 8, dtype=torch.uint8)) for _ in range(3)))
    for seed in range(3):  # a posterior as the prior, so that every weight is p(x|z)
        with torch.no_grad():
            for parameter in model.encoder.parameters():
                parameter.zero_()
        found = evaluate(model, splits, only=["likelihood"], budget=Budget(iw_samples=3), seed=seed)
        metrics = {one.name: one for one in found}
        assert metrics["bits_per_dim_k3"].value == pytest.approx(8, abs=1e-5)
        assert "dequantisation" not in metrics["bits_per_dim_k3"].definition
    model.likelihood.measure = lambda x: "unknown"  # type: ignore[method-assign]
    with pytest.raises(NotApplicable, match="does not say"):
        dequantise(x.to(torch.uint8), model, torch.rand(2, 1, 8, 8))


def by_name(found: Sequence[Metric | Skipped]) -> dict[str, Metric | Skipped]:
    return {one.name: one for one in found}


@pytest.mark.parametrize("group", ["likelihood", "ais"])
def test_where_few_weights_count_the_error_is_withheld_and_the_number_marked(group: str) -> None:
    """Probabilistic PCA with a posterior far narrower than the prior: too hard for so few samples or temperatures."""
    pixels = torch.randint(0, 256, (40, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    splits = Splits(*(TensorSet(pixels) for _ in range(3)))
    name = {"likelihood": "iw_bound_k50", "ais": "ais_log_evidence"}[group]
    budget = Budget(iw_samples=50, ais_images=10, ais_chains=8, ais_steps=3)
    hard, easy = linear_gaussian(widen=6.0, sigma=0.02), linear_gaussian(widen=0.0, sigma=3.0)
    for model in (hard, easy):
        model.register_parameter("like", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    found = by_name(evaluate(hard, splits, only=[group], budget=budget))
    assert found[name].stderr is None
    assert "lower bound of unknown slack" in found[name].note
    assert isinstance(found[f"{name}_mc_error"], Skipped)
    found = by_name(evaluate(easy, splits, only=[group], budget=budget))
    assert found[name].stderr > 0
    assert found[name].note is None
    assert isinstance(found[f"{name}_mc_error"], Metric)


def test_errors_that_are_not_withheld_cover_the_truth() -> None:
    """Log-normal weights of every spread: of the intervals that may be trusted, about as many hold the truth as say so,
    and of the others far fewer."""
    for k, images in ((8, 2_000), (100, 1_000), (500, 500)):
        held = {True: [], False: []}
        for i, spread in enumerate((0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)):
            found = log_mean(spread * randn(k, images, seed=i) - spread**2 / 2)
            inside = found.value.abs() < 1.96 * found.stderr
            for one in (True, False):
                held[one].append(inside[found.trusted == one].double())
        assert 0.97 > torch.cat(held[True]).mean() > 0.82
        assert torch.cat(held[False]).mean() < 0.75


def test_an_image_that_carries_the_mean_elbo_is_told() -> None:
    model = small_vae(likelihood=likelihoods.Bernoulli()).double()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
        list(model.decoder.parameters())[-1].fill_(-60.0)  # every pixel black, and sure of it
    dark = torch.zeros(196, 1, 8, 8, dtype=torch.uint8)
    dark[:, :, 0, 0] = torch.randint(0, 2, (196, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    one_white = dark.clone()
    one_white[77] = 255
    found = {}
    for name, images in (("dark", dark), ("white", one_white)):
        splits = Splits(*(TensorSet(images) for _ in range(3)))
        found[name] = by_name(evaluate(model, splits, only=["likelihood"], budget=Budget(iw_samples=2)))
    elbo, median = found["white"]["elbo"], found["white"]["elbo_median"]
    assert median.value - elbo.value > 15
    assert median.interval[0] <= median.value <= median.interval[1]
    assert found["white"]["elbo_worst_percent"].value > 0.7
    assert "the worst 2 of 196 images" in elbo.note
    assert "carried by few" in found["white"]["distortion"].note
    assert found["dark"]["elbo"].note is None
    assert found["dark"]["elbo_worst_percent"].value < 0.1
