import pytest
import torch
from parts import randn, small_vae
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from vaes import likelihoods, view
from vaes.model import VAE
from vaes.nn import MLPDecoder, MLPEncoder
from vaes.posteriors import (
    IAF,
    FullCovariance,
    Gaussian,
    Point,
    Posterior,
    RelaxedCategorical,
    Sylvester,
    VonMisesFisher,
)
from vaes.posteriors import Joint as JointPosterior
from vaes.priors import Categorical as Classes
from vaes.priors import Joint, Mixture, Prior, Sphere, StandardNormal, Vamp
from vaes.randomness import Draw, Use, draw, mirrored


def vamp_vae(posterior: Posterior | None = None) -> VAE:
    torch.manual_seed(0)
    shape = (1, 4, 4)
    prior = Vamp(2, shape, (-1.0, 1.0), components=3)
    posterior = posterior or Gaussian()
    parts = (MLPEncoder(shape, posterior.heads((2,)), hidden=(8,)), MLPDecoder(2, shape, hidden=(8,)))
    return VAE(*parts, posterior, prior, likelihoods.Gaussian()).double()


def test_a_mixture_is_torch_s_and_its_samples_are_its_own() -> None:
    torch.manual_seed(0)
    prior = Mixture(2, components=3, spread=2.0).double()
    with torch.no_grad():
        prior.logits += randn(3)
        prior.logvar += randn(3, 2, seed=1)
    components = Independent(Normal(prior.mean, (0.5 * prior.logvar).exp()), 1)
    theirs = MixtureSameFamily(Categorical(logits=prior.logits), components)
    z = randn(4, 5, 2, seed=2)
    torch.testing.assert_close(prior.log_prob(z), theirs.log_prob(z))
    drawn = prior.sample(draw(prior.noise, (200_000,), 0, Use.PRIOR, 0).double())
    torch.testing.assert_close(drawn.mean(0), theirs.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(0), theirs.variance, rtol=0.03, atol=0)
    torch.testing.assert_close(prior.centre(), theirs.mean)
    assert prior.kl(Gaussian()(randn(4, 4), randn(1, 4, 2))) is None


def test_the_vamp_prior_is_the_mean_of_its_pseudo_inputs_posteriors() -> None:
    model = vamp_vae()
    prior = model.prior
    assert isinstance(prior, Vamp)
    latent = model.encode(2 * torch.sigmoid(prior.pseudo) - 1)
    each = MultivariateNormal(latent.mean, torch.diag_embed(latent.logvar.exp()))
    z = randn(4, 5, 2, seed=2)
    torch.testing.assert_close(model.log_prior(z), each.log_prob(z[..., None, :]).exp().mean(-1).log())
    trace = model(randn(5, 1, 4, 4), randn(3, 5, 2))
    torch.testing.assert_close(trace.rate, (trace.log_q - trace.log_pz).mean(0))
    assert sum(name.startswith("encoder") for name, _ in model.named_parameters()) == 4  # registered once
    with pytest.raises(ValueError, match="Vamp needs gaussian of the posterior, which Point does not give"):
        vamp_vae(Point())


@pytest.mark.parametrize("posterior", [IAF((2,), width=8, context=3), Sylvester((2,))], ids=["iaf", "sylvester"])
def test_under_a_flow_the_vamp_prior_is_of_the_gaussians_it_starts_from(posterior: Posterior) -> None:
    model = vamp_vae(posterior)
    assert isinstance(model.prior, Vamp)
    mean, logvar = model.features(2 * torch.sigmoid(model.prior.pseudo) - 1)[:, :4].chunk(2, 1)
    each = MultivariateNormal(mean, torch.diag_embed(logvar.exp()))
    z = randn(4, 5, 2, seed=2)
    torch.testing.assert_close(model.log_prior(z), each.log_prob(z[..., None, :]).exp().mean(-1).log())


def test_a_full_covariance_is_torch_s() -> None:
    posterior, h, d = FullCovariance(), randn(4, 9), 3
    latent = posterior(h, randn(5, 4, d, seed=1))
    assert posterior.outputs((d,)) == 9
    q = MultivariateNormal(latent.mean, scale_tril=latent.aux["cholesky"])
    torch.testing.assert_close(latent.log_q, q.log_prob(latent.z))
    torch.testing.assert_close(posterior.log_prob(h, latent.z), latent.log_q)
    kl = StandardNormal(d).kl(latent)
    assert kl is not None
    standard = MultivariateNormal(torch.zeros(d).double(), torch.eye(d).double())
    torch.testing.assert_close(kl.sum(1), kl_divergence(q, standard))
    torch.testing.assert_close(posterior.centre(h, (d,)).z[0], q.mean)
    with pytest.raises(ValueError, match="full covariance is of flat codes"):
        posterior.outputs((2, 2, 2))


@pytest.mark.parametrize(
    ("prior", "posterior", "z_dim"),
    [
        (Sphere(3), VonMisesFisher(), 3),
        (Classes(4, classes=2), RelaxedCategorical((4,), classes=2), 4),
        (Joint(5, classes=(3,)), JointPosterior((5,), classes=(3,)), 5),
    ],
)
def test_walks_stay_where_codes_lie(prior: Prior, posterior: Posterior, z_dim: int) -> None:
    z = prior.sample(draw(prior.noise, (8,), 0, Use.PRIOR, 0))
    torch.testing.assert_close(prior.project(z), z)
    for away in (z.roll(1, 0) + 0.7 * z, torch.zeros(1, z_dim), -3 * z):
        back = prior.project(away)
        torch.testing.assert_close(prior.project(back), back)
        best = (away - back).square().sum(-1)
        assert (best[:, None] <= (away[:, None] - z).square().sum(-1) + 1e-5).all()  # no other code is nearer
    torch.manual_seed(0)
    model = small_vae(z_dim=z_dim, posterior=posterior, prior=prior)
    met: list[torch.Tensor] = []
    model.decoder.register_forward_hook(lambda module, given, made: met.append(given[0]))
    model.interpolate(z[:2], z[2:4], 5)
    options = view.Options(n_samples=3, n_interpolate=4, n_traverse=3)
    for mode in ("interpolate", "traverse"):
        view.make(mode, model, options)
    assert len(met) >= 3
    for codes in (given for given in met if len(given) > 1):  # one of zeros asks for the shape of images
        torch.testing.assert_close(prior.project(codes), codes)


def test_a_grid_of_codes_is_its_flat_self() -> None:
    h, eps = randn(4, 24), randn(2, 4, 12, seed=1)
    flat, grid = Gaussian()(h, eps), Gaussian()(h, eps.reshape(2, 4, 3, 2, 2))
    torch.testing.assert_close(flat.z, grid.z.flatten(2))
    torch.testing.assert_close(flat.log_q, grid.log_q)
    a, b = StandardNormal(12), StandardNormal((3, 2, 2))
    torch.testing.assert_close(a.log_prob(flat.z), b.log_prob(grid.z))
    assert Point().centre(h, (6, 2, 2)).z.shape == (1, 4, 6, 2, 2)


@pytest.mark.parametrize("law", ["normal", "uniform", "gumbel"])
def test_noise_has_its_law_and_so_has_its_mirror_image(law: str) -> None:
    wanted = Draw((2,), law)  # type: ignore[arg-type]
    x = draw(wanted, (100_000,), 0, Use.TERM, 3)
    assert torch.equal(x, draw(wanted, (100_000,), 0, Use.TERM, 3))
    assert not torch.equal(x, draw(wanted, (100_000,), 0, Use.TERM, 3, part=1))
    mean, variance = {"normal": (0, 1), "uniform": (0.5, 1 / 12), "gumbel": (0.5772157, 1.644934)}[law]
    for numbers in (x, mirrored(x, wanted.law)):
        assert numbers.isfinite().all()
        assert numbers.mean().item() == pytest.approx(mean, abs=0.01)
        assert numbers.var().item() == pytest.approx(variance, rel=0.02)
    covariance = ((x - mean) * (mirrored(x, wanted.law) - mean)).mean().item()
    assert covariance < -0.5 * variance


def test_seeds_can_be_stacked_for_the_convolutional_network() -> None:
    models = [small_vae(network="conv", seed=seed).double().eval() for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]
    x, eps = randn(4, 1, 8, 8), randn(1, 4, 3)

    def rate(p: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(models[0], (p, b), (x, eps)).rate
        return found

    both = torch.vmap(rate)(parameters, buffers)
    for one, model in zip(both, models, strict=True):
        torch.testing.assert_close(one, model(x, eps).rate)
