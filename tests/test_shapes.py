"""Codes with a shape: a model of codes (C, h, w) is the flat model with the same weights, in all that it does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import randn
from torch import Tensor, nn
from trainings import settings, splits

import vaes
from vaes import encoding, likelihoods, posteriors, priors, view
from vaes.config.registry import TERMS
from vaes.data import TensorSet
from vaes.evaluate import Budget, Metric, annealed, evaluate
from vaes.model import VAE, evaluation
from vaes.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE, Bound, Context, Noise, Objective
from vaes.randomness import Draw
from vaes.train.weighting import Weighting

GRID, SIZE = (2, 2, 2), 8
IMAGE = (1, 8, 8)


def pair(prior: str = "standard_normal", seed: int = 0) -> tuple[VAE, VAE]:
    """A fully convolutional model, and its flat self that shares its weights."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Conv2d(1, 2 * GRID[0], 4, stride=4), nn.Flatten())
    decoder = nn.ConvTranspose2d(GRID[0], 1, 4, stride=4)

    def model(z_shape: tuple[int, ...], decoder: nn.Module) -> VAE:
        torch.manual_seed(seed)
        made = {
            "standard_normal": lambda: priors.StandardNormal(z_shape),
            "mixture": lambda: priors.Mixture(z_shape, components=3),
            "vamp": lambda: priors.Vamp(z_shape, IMAGE, (-1.0, 1.0), components=3),
        }[prior]()
        return VAE(encoder, decoder, posteriors.Gaussian(), made, likelihoods.Gaussian())

    return model(GRID, decoder), model((SIZE,), nn.Sequential(nn.Unflatten(1, GRID), decoder))


def bounds() -> list[Bound]:
    many: dict[str, Any] = {"samples": 2, "groups": 2}
    return [ELBO(samples=2), IWAE(samples=3), IWAE(samples=3, gradient="stl"), IWAE(samples=3, gradient="dreg"),
            MIWAE(**many), PIWAE(**many), CIWAE(samples=3)]  # fmt: skip


def terms(z_shape: tuple[int, ...]) -> dict[str, Any]:
    """All that can stand beside a Gaussian, made alike for both."""
    wired = {"z_shape": z_shape, "image_shape": IMAGE, "value_range": (-1.0, 1.0)}
    gives = pair()[0].gives
    found = {}
    for name, kind in TERMS.items():
        torch.manual_seed(3)
        names = list(kind.__init__.__annotations__)  # type: ignore[misc]
        if "find_features" in names or name in ("patch_critic", "equivariance"):
            continue
        made = kind(*(wired[key] for key in wired if key in names))
        if made.needs <= gives:
            found[name] = made
    assert {"mmd", "free_bits", "capacity", "total_correlation", "total_correlation_critic", "dip"} <= found.keys()
    return found


def noise(objective: Objective, batch: int) -> Noise:
    def of(wanted: Draw, *lead: int, seed: int = 0) -> Tensor:
        numbers = torch.Generator().manual_seed(seed)
        if wanted.law == "uniform":
            return torch.rand(*lead, *wanted.shape, dtype=torch.float64, generator=numbers)
        return torch.randn(*lead, *wanted.shape, dtype=torch.float64, generator=numbers)

    model = objective.model
    own = {name: term.noise(model.z_shape) for name, term in objective.named_terms.items()}
    given = {name: of(one, *(() if one.shared else (batch,)), seed=2) for name, one in own.items() if one is not None}
    return Noise(of(model.noise, objective.bound.samples, batch), of(model.prior.noise, batch, seed=1), given)


@pytest.mark.parametrize("prior", ["standard_normal", "mixture", "vamp"])
@pytest.mark.parametrize(
    "bound", bounds(), ids=lambda bound: f"{type(bound).__name__} {vars(bound).get('gradient', '')}"
)
def test_an_objective_of_grids_is_that_of_their_flat_selves(prior: str, bound: Bound) -> None:
    x = 2 * torch.rand(4, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) - 1
    outs, gradients = [], []
    for model in pair(prior):
        model.double()
        added = {name: term for name, term in terms(model.z_shape).items() if prior == "standard_normal"
                 or not term.needs & {"kl"}}  # fmt: skip
        objective = Objective(model, bound, added).double()
        context = Context(dict.fromkeys(objective.weights, 0.7), n=100)
        out = objective(x, noise(objective, 4), context)
        objective.zero_grad()
        torch.stack([out[name] for name in objective.losses]).sum().backward()
        outs.append({name: value.detach() for name, value in out.items()})
        gradients.append([p.grad.clone() for p in objective.parameters() if p.grad is not None])
    torch.testing.assert_close(*outs)
    assert len(gradients[0]) == len(gradients[1]) > 4
    torch.testing.assert_close(*gradients)


def test_what_a_trained_model_does_is_the_same() -> None:
    grid, flat = pair()
    images = TensorSet(torch.randint(256, (24, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    tables = [encoding.encode(model, images) for model in (grid, flat)]
    assert tables[0].mean.shape == (24, SIZE)
    for a, b in zip(tables[0][2:], tables[1][2:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    x = 2 * images.read(torch.arange(4)).float() / 255 - 1
    with evaluation(grid):
        code = grid.encode(x).z[0]
        assert code.shape == (4, *GRID)
        torch.testing.assert_close(grid.reconstruct(x), flat.reconstruct(x))
        for path in ("linear", "spherical"):
            torch.testing.assert_close(
                grid.interpolate(code[:2], code[2:], 3, path=path),  # type: ignore[arg-type]
                flat.interpolate(code[:2].flatten(1), code[2:].flatten(1), 3, path=path),  # type: ignore[arg-type]
            )
        torch.testing.assert_close(grid.sample(randn(2, *GRID).float()), flat.sample(randn(2, SIZE).float()))
    for start in ("prior", "posterior"):
        found = [annealed(m, x, steps=5, chains=2, start=start).log_mean.value for m in (grid, flat)]  # type: ignore[arg-type]
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("mode", view.MODES)
def test_pictures_are_the_same(mode: str) -> None:
    images = TensorSet(torch.randint(256, (24, *IMAGE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    options = view.Options(
        n_samples=3, n_interpolate=3, n_traverse=3, codes=randn(2, SIZE) if mode == "decode" else None
    )
    both = [view.make(mode, model, options, images).singles for model in pair()]
    assert torch.equal(*both)


def test_evaluation_is_the_same() -> None:
    found = [
        {m.name: m.value for m in evaluate(model, splits(), only=["likelihood", "latent", "reconstruction"],
                                           budget=Budget(n_images=10, iw_samples=8)) if isinstance(m, Metric)}
        for model in pair()
    ]  # fmt: skip
    assert {"elbo", "active_units"} <= found[0].keys()
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-5, nan_ok=True)


def test_a_fully_convolutional_model_trains(tmp_path: Path) -> None:
    model, _ = pair()
    objective = Objective(model, ELBO(), {name: TERMS[name]() for name in ("mmd", "free_bits", "capacity")})
    weighting = Weighting(lambda pixels: dict.fromkeys(("rate", "mmd", "free_bits", "capacity"), 1.0), {})
    metrics = vaes.fit(objective, weighting, splits(), settings(n_steps=4), tmp_path / "run")
    assert np.isfinite(metrics["test"]["loss"]["value"])


@pytest.mark.parametrize(
    ("posterior", "prior", "message"),
    [
        (lambda: posteriors.FullCovariance(), priors.StandardNormal, "full covariance is of flat codes"),
        (lambda: posteriors.IAF(GRID), priors.StandardNormal, "a flow is of flat codes"),
        (lambda: posteriors.VonMisesFisher(), priors.StandardNormal, "a sphere takes flat codes"),
        (lambda: posteriors.RelaxedCategorical(GRID), priors.StandardNormal, "one variable takes flat codes"),
        (lambda: posteriors.Gaussian(), priors.RealNVP, "a flow is of flat codes"),
        (lambda: posteriors.Gaussian(), priors.Sphere, "a sphere takes flat codes"),
    ],
)
def test_parts_of_flat_codes_are_refused_when_the_model_is_built(posterior: Any, prior: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE(nn.Identity(), nn.Identity(), posterior(), prior(GRID), likelihoods.Gaussian())
