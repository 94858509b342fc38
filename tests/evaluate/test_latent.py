import math

import numpy as np
import pytest
import torch

from vaes.errors import UserError
from vaes.evaluate import NotApplicable, active_units, aggregate_mmd, kl_per_dimension, log_det_covariance, rate_split
from vaes.evaluate.latent import aggregate_log_density, leave_out_means
from vaes.functional import imq_kernel, kl_normal, mmd


def posteriors(n=200, d=3, seed=100, spread=1.0):
    g = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(n, d, generator=g, dtype=torch.float64)
    return mean, -1 + 0.5 * torch.randn(n, d, generator=g, dtype=torch.float64)


def test_active_units_counts_variances_above_the_threshold():
    base = torch.randn(1000, 1, dtype=torch.float64)
    base = (base - base.mean()) / base.std()
    mean = base * torch.tensor([1.0, 0.1001, 0.0999, 0.0]) + 5
    assert active_units(mean).value == 2  # variances 1, 0.01002, 0.00998, 0
    assert active_units(mean, threshold=0.5).value == 1


def test_kl_per_dimension_closed_form():
    mean, logvar = posteriors()
    found = kl_per_dimension(mean, logvar)
    by_hand = 0.5 * (mean**2 + logvar.exp() - 1 - logvar)
    assert [one.value for one in found] == pytest.approx(by_hand.mean(0).tolist())
    assert found[1].stderr == pytest.approx(float(by_hand[:, 1].std()) / math.sqrt(200))
    assert [one.value for one in kl_per_dimension(torch.zeros(5, 2), torch.zeros(5, 2))] == [0, 0]


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_aggregate_density_by_loops(offset):
    mean, logvar = posteriors(30, 2)
    mean += offset
    z = mean[:7] + 0.3
    joint, marginals = aggregate_log_density(z, mean, logvar)
    for s in range(7):
        density = torch.exp(-0.5 * (z[s] - mean) ** 2 / logvar.exp()) / torch.sqrt(2 * math.pi * logvar.exp())
        assert float(joint[s]) == pytest.approx(math.log(density.prod(1).mean()), abs=1e-5)
        assert marginals[s].tolist() == pytest.approx(density.mean(0).log().tolist(), abs=1e-5)


def test_aggregate_density_does_not_depend_on_the_blocks(monkeypatch):
    mean, logvar = posteriors()
    whole = aggregate_log_density(mean, mean, logvar)
    monkeypatch.setattr("vaes.evaluate.latent.CHUNK", 1000)
    blocks = aggregate_log_density(mean, mean, logvar)
    torch.testing.assert_close(whole.joint, blocks.joint)
    torch.testing.assert_close(whole.marginals, blocks.marginals)


def test_the_parts_of_the_rate_add_up():
    mean, logvar = posteriors(2000)
    information, correlation, dimension, rate = rate_split(mean, logvar)
    assert information.value + correlation.value + dimension.value == pytest.approx(rate.value, abs=1e-9)
    assert abs(rate.value - float(kl_normal(mean, logvar).sum(1).mean())) < 4 * rate.stderr
    assert 0 < information.value < math.log(2000)
    assert rate_split(mean, logvar, seed=0)[0] == information
    assert rate_split(mean, logvar, seed=1)[0].value != information.value
    assert rate_split(mean, logvar, n_samples=500)[3].n == 500


def test_rate_split_of_posteriors_that_never_overlap_knows_the_image():
    mean = 1000 * torch.arange(50.0)[:, None] * torch.ones(1, 2)
    information, correlation, _, _ = rate_split(mean, torch.zeros(50, 2))
    assert information.value == pytest.approx(math.log(50), abs=1e-5)
    assert correlation.value == pytest.approx(math.log(50), abs=1e-5)  # both codes name the image


@pytest.mark.parametrize("logvar", [-30.0, -34.0, -80.0, -700.0, 20.0])
def test_rate_split_of_posteriors_of_any_width(logvar):
    """Pairs of images with one posterior, far from the others': the index of the pair is known, and nothing more."""
    pair = torch.arange(60) // 2
    mean = (pair * 1e-3 + 0.4)[:, None] * torch.ones(1, 3) * (math.exp(logvar / 2 + 12) if logvar > 0 else 1)
    information, correlation, dimension, rate = rate_split(mean, torch.full_like(mean, logvar))
    assert information.value == pytest.approx(math.log(30), abs=1e-4)
    assert correlation.value == pytest.approx(2 * math.log(30), abs=1e-4)
    assert information.value + correlation.value + dimension.value == pytest.approx(rate.value, rel=1e-9)
    kl = kl_normal(mean.double(), torch.full_like(mean, logvar).double()).sum(1).mean()
    assert abs(rate.value - float(kl)) < 5 * rate.stderr + 1e-9 * abs(float(kl))


def test_the_narrow_path_is_the_wide_one(monkeypatch):
    mean, logvar = posteriors(60)
    wide = rate_split(mean, logvar)
    monkeypatch.setattr("vaes.evaluate.latent.NARROW", 0.0)
    for a, b in zip(wide, rate_split(mean, logvar), strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-6)


def test_means_with_groups_left_out_are_those_of_the_rest(monkeypatch):
    mean, logvar = posteriors(60, 2)
    z, of_row = mean[:25] + 0.2, torch.arange(60) % 7
    for chunk in (8_000_000, 300):
        monkeypatch.setattr("vaes.evaluate.latent.CHUNK", chunk)
        found = leave_out_means(z, torch.zeros_like(z), mean, logvar, of_row[:25], of_row, 7)
        for g in range(-1, 7):
            rest = aggregate_log_density(z[of_row[:25] != g], mean[of_row != g], logvar[of_row != g])
            assert float(found.joint[g + 1]) == pytest.approx(float(rest.joint.mean()), abs=1e-5)
            assert found.marginals[g + 1].tolist() == pytest.approx(rest.marginals.mean(0).tolist(), abs=1e-5)


def test_the_errors_of_the_rate_split_are_those_of_other_images():
    runs = [rate_split(*posteriors(150, 2, seed=i, spread=0.8), seed=i) for i in range(150)]
    for parts in zip(*runs, strict=True):
        values, errors = np.array([one.value for one in parts]), np.array([one.stderr for one in parts])
        assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.3, parts[0].name
        assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.88, parts[0].name


def test_rate_split_of_a_collapsed_encoder_is_zero():
    for part in rate_split(torch.zeros(50, 3), torch.zeros(50, 3)):
        assert part.value == pytest.approx(0, abs=1e-5)


def test_rate_split_on_gaussians_in_closed_form():
    # E[z|x] ~ N(0, S), Var(z|x) = v: then q(z) = N(0, S + v I), and every part has a closed form.
    n, v = 8000, 0.5
    s = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
    mean = (
        torch.randn(n, 2, generator=torch.Generator().manual_seed(100), dtype=torch.float64)
        @ torch.linalg.cholesky(s).T
    )
    found = rate_split(mean, torch.full_like(mean, math.log(v)), n_samples=4000)
    total = s + v * torch.eye(2)
    information = 0.5 * (torch.logdet(total) - 2 * math.log(v))
    correlation = 0.5 * (total.diag().log().sum() - torch.logdet(total))
    dimension = 0.5 * (total.diag() - 1 - total.diag().log()).sum()
    for part, wanted in zip(found, (information, correlation, dimension), strict=False):
        assert abs(part.value - float(wanted)) < 5 * part.stderr + 0.01, part.name


def test_log_det_covariance_of_the_mixture():
    mean, logvar = posteriors(500)
    wanted = np.linalg.slogdet(np.cov(mean.numpy().T) + np.diag(logvar.exp().mean(0).numpy()))[1]
    assert log_det_covariance(mean, logvar).value == pytest.approx(wanted)
    assert log_det_covariance(mean).value == pytest.approx(np.linalg.slogdet(np.cov(mean.numpy().T))[1])
    assert log_det_covariance(2 * mean).value == pytest.approx(log_det_covariance(mean).value + 3 * math.log(4))
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert log_det_covariance(mean @ rotation).value == pytest.approx(log_det_covariance(mean).value)


def test_log_det_stderr_matches_repetition():
    # For Gaussian rows the variance of log det S is about 2 D / n.
    errors = [log_det_covariance(posteriors(400, seed=100 + i)[0]).stderr for i in range(20)]
    assert np.mean(errors) == pytest.approx(math.sqrt(2 * 3 / 400), rel=0.2)


def test_log_det_refuses_what_has_no_volume():
    mean, _ = posteriors(100)
    for flat in (torch.cat([mean, mean[:, :1]], 1), torch.cat([mean, torch.ones(100, 1)], 1)):
        with pytest.raises(NotApplicable, match="singular"):
            log_det_covariance(flat)
    with pytest.raises(NotApplicable, match="too few"):
        log_det_covariance(mean[:39])


@pytest.mark.parametrize("kernel", [None, imq_kernel(6.0)])
def test_aggregate_mmd_is_that_of_the_library(kernel):
    codes = posteriors(50)[0]
    found, p = aggregate_mmd(codes, kernel=kernel, n_permutations=20, seed=3)
    g = torch.Generator().manual_seed(3)
    z = codes[torch.randperm(50, generator=g)]
    prior = torch.randn(z.shape, generator=g, dtype=z.dtype)
    wanted = mmd(z, prior, kernel or (lambda a, b: torch.exp(-(torch.cdist(a, b) ** 2) / 6)))
    assert found.value == pytest.approx(float(wanted), abs=1e-10)
    assert 1 / 21 <= p.value <= 1
    assert aggregate_mmd(codes, kernel=kernel, n_permutations=20, seed=3) == (found, p)


def test_aggregate_mmd_sees_a_mismatch_and_only_that():
    g = torch.Generator().manual_seed(100)
    prior = torch.randn(300, 2, generator=g)
    _, p = aggregate_mmd(prior + 0.5, n_permutations=99)
    assert p.value == 0.01  # the least that 99 permutations allow
    shares = [aggregate_mmd(torch.randn(60, 2, generator=g), n_permutations=99, seed=i)[1].value for i in range(60)]
    assert np.mean(np.array(shares) <= 0.2) < 0.4  # uniform under the null: 0.2 +- 0.05
    assert 0.35 < np.mean(shares) < 0.65


def test_the_error_of_the_mmd_is_that_of_other_codes():
    g = torch.Generator().manual_seed(0)
    found = [
        aggregate_mmd(1.3 * torch.randn(100, 2, generator=g) + 0.3, n_permutations=1, seed=i)[0] for i in range(120)
    ]
    values, errors = np.array([one.value for one in found]), np.array([one.stderr for one in found])
    assert 0.85 < np.sqrt(np.mean(errors**2)) / values.std() < 1.4
    assert np.mean(abs(values - values.mean()) < 1.96 * errors) > 0.88


def test_aggregate_mmd_is_bounded():
    assert aggregate_mmd(torch.randn(500, 2), n_max=100, n_permutations=10)[0].n == 100


def test_bad_posteriors_are_refused():
    mean, logvar = posteriors(50)
    nan = torch.where(mean > 1, torch.nan, mean)
    for metric in (kl_per_dimension, rate_split, log_det_covariance):
        with pytest.raises(NotApplicable, match="NaN"):
            metric(nan, logvar)
        with pytest.raises(UserError, match="mismatched"):
            metric(mean, logvar[:-1])
        with pytest.raises(NotApplicable, match="flat vector"):
            metric(mean[:, :, None], logvar[:, :, None])
    with pytest.raises(NotApplicable, match="must be alike"):
        rate_split(mean, logvar[:, :2])
    with pytest.raises(NotApplicable, match="reach 1e"):
        rate_split(mean, logvar * 0 - 1000)
    with pytest.raises(NotApplicable, match="at least 20"):
        aggregate_mmd(mean[:19])
    with pytest.raises(NotApplicable, match="NaN"):
        active_units(nan)
