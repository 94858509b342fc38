import itertools
import math

import pytest
import torch
from parts import small_vae
from scipy.stats import ks_2samp, kstest
from torch import Tensor

from vaes import evaluate, likelihoods
from vaes.data import Splits, TensorSet
from vaes.evaluate import Budget, Metric, NotApplicable, Skipped
from vaes.evaluate.passes import draw_samples
from vaes.evaluate.predictive import (
    image_statistics,
    law_distance,
    mean_distance,
    predictive_checks,
    relabellings,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def every_relabelling(n: int, m: int) -> Tensor:
    """The true one first, then all of them but that."""
    rows = [[i in chosen for i in range(n + m)] for chosen in itertools.combinations(range(n + m), n)]
    return torch.tensor(rows)  # combinations begin with 0 .. n-1


def test_statistics_of_pictures_by_hand() -> None:
    left = torch.tensor([[255, 0, 0], [255, 0, 51]])
    images = torch.stack([left, torch.zeros(2, 3), torch.full((2, 3), 51)]).to(torch.uint8)[None]
    found = image_statistics(images)
    a, b, c = left.double() / 255, torch.zeros(2, 3).double(), torch.full((2, 3), 0.2).double()
    expected = {
        "brightness": (a.sum() + c.sum()) / 18,
        "contrast": (a.var(correction=0) / 3).sqrt(),
        "edges": (0.2 + (1 + 0 + 1 + 0.2)) / (3 * 7),  # 3 pairs down and 4 across in each of three channels
        "asymmetry": (2 * 1 + 2 * 0.8) / 18,
        "colour": torch.stack([a, b, c]).amax(0).mean(),
    }
    assert found.scalars.keys() == expected.keys()
    for name, value in expected.items():
        assert found.scalars[name].item() == pytest.approx(float(value), abs=1e-6), name
    assert found.intensities[0, [0, 3, 15]].tolist() == pytest.approx([9 / 18, 7 / 18, 2 / 18])
    assert found.intensities.sum().item() == pytest.approx(1)
    assert found.channels is not None
    assert found.channels[0].tolist() == pytest.approx([a.mean().item(), 0, 0.2])
    assert image_statistics(images[:, :1, :1]).scalars.keys() == {"brightness", "contrast"}
    many = images.repeat(1_100, 1, 1, 1)
    assert torch.equal(image_statistics(many).intensities, found.intensities.repeat(1_100, 1))


def test_over_all_relabellings_the_p_value_is_that_of_kolmogorov_and_smirnov() -> None:
    for seed in range(20):
        x, y = randn(4, seed=seed), randn(5, seed=seed + 100) + seed / 10
        law, exact = law_distance(x, y, every_relabelling(4, 5)), ks_2samp(x.numpy(), y.numpy(), method="exact")
        assert law.distance == pytest.approx(exact.statistic, abs=1e-15)
        assert law.p == pytest.approx(exact.pvalue, abs=1e-12)


def test_distances_of_means_over_all_relabellings_by_brute_force() -> None:
    x, y = randn(3, 4), randn(4, 4, seed=1)
    pooled, first = torch.cat([x, y]), every_relabelling(3, 4)
    for total in (True, False):
        gaps = [(pooled[row].mean(0) - pooled[~row].mean(0)).abs() for row in first]
        distances = torch.stack([gap.sum() / 2 if total else gap.max() for gap in gaps])
        law = mean_distance(x, y, first, total=total)
        assert law.distance == pytest.approx(distances[0].item(), abs=1e-14)
        assert law.p == pytest.approx((distances >= distances[0] - 1e-13).double().mean().item())


@pytest.mark.parametrize("ties", [False, True])
def test_p_values_of_equal_laws_are_uniform(ties: bool) -> None:
    laws, means = [], []
    for seed in range(1_000):
        x = randn(40, 3, seed=seed)
        x = (2 * x).round() if ties else x
        first = relabellings(15, 25, 199, seed)
        laws.append(law_distance(x[:15, 0], x[15:, 0], first).p)
        means.append(mean_distance(x[:15], x[15:], first, total=False).p)
    for found in (laws, means):
        for level in (0.01, 0.05, 0.2):
            of_level = sum(p <= level for p in found) / 1_000
            assert of_level < level + 3 * math.sqrt(level / 1_000)
    if not ties:
        assert kstest(means, "uniform").pvalue > 0.01
        assert 0.035 < sum(p <= 0.05 for p in means) / 1_000 < 0.07


def named(found: list[Metric | Skipped]) -> dict[str, Metric]:
    return {one.name: one for one in found if isinstance(one, Metric)}


def noise(n: int, low: int, high: int, seed: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, channels, 8, 8), generator=generator).to(torch.uint8)


def test_what_samples_get_wrong_is_said() -> None:
    real = noise(80, 60, 190, 0, channels=3)
    flat = real.float().mean((2, 3), keepdim=True).expand(real.shape).to(torch.uint8)
    found = named(predictive_checks(real, {"means": flat}))
    said = str(found["edges_means"].note)
    assert said.startswith("decoded means are smoother than images: edge energy 0 against 0.1")
    assert found["edges_means_p"].value == 1 / 1_000
    assert found["edges_means"].value == 0
    assert str(found["contrast_means"].note).startswith("decoded means are flatter than images")
    assert "of 255: " in str(found["intensities_means"].note)
    assert found["channels_means"].note is None

    red = real.clone()
    red[:, 0] += 40
    found = named(predictive_checks(real, {"draws": red}))
    assert str(found["channels_draws"].note).startswith("draws hold too much red: mean 0.6")
    assert str(found["brightness_draws"].note).startswith("draws are brighter than images")
    assert found["edges_draws"].note is None

    narrow = torch.cat([noise(40, 90, 91, 0), noise(40, 110, 111, 0)])
    wide = torch.cat([noise(40, 50, 51, 0), noise(40, 150, 151, 0)])
    found = named(predictive_checks(wide, {"draws": narrow}))
    assert str(found["brightness_draws"].note).startswith("draws vary too little: standard deviation of their mean int")
    with pytest.raises(NotApplicable, match="19 images: at least 20"):
        predictive_checks(real[:19], {"means": flat})


def splits_of(test: Tensor) -> Splits:
    return Splits(TensorSet(test[:5]), TensorSet(test[:5]), TensorSet(test))


def checks(model: object, images: Tensor, seed: int = 0, **options: object) -> list[Metric | Skipped]:
    return evaluate.evaluate(model, splits_of(images), only=["predictive"], seed=seed, **options)  # type: ignore


@pytest.mark.parametrize("likelihood", [likelihoods.Gaussian(scale=0.3), likelihoods.Bernoulli()])
def test_draws_of_the_true_model_pass_and_its_means_do_not(likelihood: likelihoods.Likelihood) -> None:
    model = small_vae(likelihood=likelihood).eval()
    with torch.no_grad():
        own = draw_samples(model, 300, 100, 77, draws=True).draws
    assert own is not None
    p = []
    for seed in range(10):
        found = named(checks(model, own, seed))
        p += [found[f"{name}_draws_p"].value for name in ("brightness", "contrast", "edges", "intensities")]
    assert found["edges_means_p"].value == 1 / 1_000
    assert str(found["edges_means"].note).startswith("decoded means are smoother")
    assert sum(one <= 0.05 for one in p) <= 8
    assert sum(p) / len(p) > 0.25


def test_a_likelihood_that_is_too_wide_is_seen_in_its_draws() -> None:
    model = small_vae(likelihood=likelihoods.Gaussian(scale=0.1)).eval()
    with torch.no_grad():
        own = draw_samples(model, 200, 100, 1, draws=True).draws
    model.likelihood.scale = 0.4
    found = named(checks(model, own))
    assert str(found["edges_draws"].note).startswith("draws are rougher than images")


def test_draws_do_not_depend_on_the_batch_size() -> None:
    model = small_vae(likelihood=likelihoods.Bernoulli()).eval()
    with torch.no_grad():
        found = [draw_samples(model, 50, size, 3, draws=True).draws for size in (50, 7)]
    assert (found[0] == found[1]).double().mean() > 0.999  # a mean rounded otherwise may cross its noise


def test_what_has_no_draws_says_so() -> None:
    class Silent(likelihoods.Gaussian):
        draw = likelihoods.Likelihood.draw

    for likelihood, reason in (
        (likelihoods.Bernoulli(), "Bernoulli: its cross-entropy on grey pixels is no law"),
        (Silent(), "Silent does not say how images are drawn"),
    ):
        found = checks(small_vae(likelihood=likelihood), noise(40, 0, 256, 0), budget=Budget(n_images=30))
        skipped = [one for one in found if isinstance(one, Skipped)]
        assert [one.name for one in skipped] == ["draws"]
        assert reason in skipped[0].reason
        assert "edges_means_p" in named(found)
