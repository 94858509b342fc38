"""Priors that are fitted after training: densities, samplers, what is recovered, files and refusals."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parts import randn
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import vaes
from vaes import Experiment, fitting
from vaes.cli import fitting as of_cli
from vaes.cli import main
from vaes.data import Splits, arrays, to_uint8
from vaes.errors import UserError
from vaes.evaluate.report import read
from vaes.fitting import Codes, Fitted, draw_codes, fit
from vaes.fitting.kinds import gaussian_of
from vaes.priors import Affine, FullMixture, Prior, StandardNormal, TwoStage
from vaes.randomness import Use, draw
from vaes.run import Run
from vaes.view import Options
from vaes.view.modes import sample as draw_sample


def truth() -> MixtureSameFamily:
    """Two correlated Gaussians far from 0, of unlike scales."""
    mean = torch.tensor([[100.0, -3.0], [104.0, 3.0]]).double()
    factor = torch.tensor([[[1.0, 0.0], [0.8, 0.3]], [[0.5, 0.0], [-1.0, 1.0]]]).double()
    return MixtureSameFamily(
        Categorical(torch.tensor([0.3, 0.7]).double()), MultivariateNormal(mean, scale_tril=factor)
    )


@pytest.fixture(scope="module")
def toy() -> Codes:
    torch.manual_seed(0)
    z = truth().sample((12_000,)).float()
    return Codes(z[:9000, None], z[9000:10_000, None], z[10_000:])


def fitted_to(codes: Codes, kind: str, **options: Any) -> Fitted:
    size = codes.held.shape[1]
    return fit(kind, codes, (size,), own=StandardNormal(size).log_prob, options=options)


def drawn(prior: Prior, n: int) -> Tensor:
    return prior.sample(draw(prior.noise, (n,), 0, Use.PRIOR, 0).to(prior.state_dict()["mean"].dtype))


def test_a_full_mixture_is_torch_s_and_its_samples_are_its_own() -> None:
    prior, law = FullMixture(2, components=2).double(), truth()
    prior.log_weights.copy_(law.mixture_distribution.probs.log())
    prior.mean.copy_(law.component_distribution.mean)
    prior.factor.copy_(law.component_distribution._unbroadcasted_scale_tril)
    z = law.sample((4, 5))
    torch.testing.assert_close(prior.log_prob(z), law.log_prob(z))
    torch.testing.assert_close(prior.centre(), law.mean)
    samples = drawn(prior, 200_000)
    torch.testing.assert_close(samples.mean(0), law.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(samples.var(0), law.variance, rtol=0.02, atol=0)
    assert law.log_prob(samples).mean().item() == pytest.approx(prior.log_prob(samples).mean().item(), abs=1e-9)
    assert FullMixture((2, 3, 1), components=2).sample(torch.rand(5, 7)).shape == (5, 2, 3, 1)


def test_a_prior_that_is_shifted_and_stretched_is_a_gaussian_s_image() -> None:
    prior = Affine(StandardNormal(3)).double()
    factor = torch.linalg.cholesky(torch.eye(3).double() + 0.5)
    prior.mean.copy_(randn(3, seed=2))
    prior.factor.copy_(factor)
    law = MultivariateNormal(prior.mean, scale_tril=factor)
    z = randn(4, 5, 3)
    torch.testing.assert_close(prior.log_prob(z), law.log_prob(z))
    torch.testing.assert_close(prior.centre(), law.mean)
    torch.testing.assert_close(drawn(prior, 200_000).T.cov(), law.covariance_matrix, rtol=0, atol=0.03)


def linear_two_stage(exact: bool) -> tuple[TwoStage, MultivariateNormal]:
    """z = w u + b + gamma e, of which everything is known, by the layer that sees the input alone."""
    torch.manual_seed(0)
    prior = TwoStage(2, width=4, draws=512).double().requires_grad_(False)
    w, b, gamma = torch.tensor([1.5, -0.5]).double(), torch.tensor([3.0, 1.0]).double(), 0.7
    for network in (prior.encoder, prior.decoder):
        network.last.weight.zero_()
        network.last.bias.zero_()
    prior.decoder.last.weight[:, 4:] = torch.diag(w)
    prior.decoder.last.bias.copy_(b)
    prior.log_scale.fill_(math.log(gamma))
    variance = gamma**2 / (w.square() + gamma**2)
    gain = w * variance / gamma**2
    prior.encoder.last.weight[:2, 4:] = torch.diag(gain)
    prior.encoder.last.bias.copy_(torch.cat([-gain * b, variance.log() + (0 if exact else 0.5)]))
    return prior, MultivariateNormal(b, torch.diag(w.square() + gamma**2))


def test_the_bound_of_a_second_vae_is_the_density_where_its_posterior_is_exact_and_below_it_elsewhere() -> None:
    z = randn(6, 2, seed=3)
    prior, law = linear_two_stage(exact=True)
    torch.testing.assert_close(prior.log_prob(z), law.log_prob(z))
    prior.draws.resize_(1, 2)
    torch.testing.assert_close(prior.log_prob(z), law.log_prob(z))  # every weight is p(z)
    noise = randn(100_000, 2)
    elbo = prior.elbo(z[:1].expand(100_000, -1), torch.cat([noise, -noise])[:100_000])
    assert elbo.mean().item() == pytest.approx(law.log_prob(z[0]).item(), abs=0.02)
    prior, law = linear_two_stage(exact=False)
    assert not prior.exact
    assert not Affine(prior).exact
    elbo = prior.elbo(z[:1].expand(100_000, -1), noise).mean()
    kl = 2 * 0.5 * (math.exp(0.5) - 1 - 0.5)  # of the posterior that is too wide
    assert elbo.item() == pytest.approx(law.log_prob(z[0]).item() - kl, abs=0.02)
    torch.testing.assert_close(prior.log_prob(z), law.log_prob(z), rtol=0, atol=0.15)  # 512 draws
    samples = prior.sample(randn(200_000, 4))
    torch.testing.assert_close(samples.mean(0), law.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(samples.T.cov(), law.covariance_matrix, rtol=0, atol=0.03)


def test_a_mixture_of_two_components_is_recovered_by_em_and_by_a_flow(toy: Codes) -> None:
    law, z = truth(), toy.held
    gmm, flow = fitted_to(toy, "gmm", components=2), fitted_to(toy, "flow", steps=1000, width=64)
    true = law.log_prob(z.double())
    off = (gmm.prior.log_prob(z).double() - true).abs().mean()
    assert off < 0.03
    weights = gmm.prior.log_weights.exp().sort().values
    torch.testing.assert_close(weights, torch.tensor([0.3, 0.7]), rtol=0, atol=0.02)
    assert flow.numbers.nats == pytest.approx(true.mean().item(), abs=0.08)
    for one in (gmm, flow):
        assert one.numbers.nats > one.numbers.gaussian + 0.3
        assert one.numbers.own < -1000
        samples = drawn(one.prior, 20_000)  # E log p_true of samples is minus the entropy where they are of the law
        assert law.log_prob(samples.double()).mean().item() == pytest.approx(true.mean().item(), abs=0.15)
    one = MultivariateNormal(z.double().mean(0), z.double().T.cov())
    assert gmm.numbers.gaussian == pytest.approx(one.log_prob(z.double()).mean().item(), abs=0.01)


def test_a_flow_never_ends_below_the_gaussian_that_it_starts_as_and_a_second_vae_learns_more(toy: Codes) -> None:
    few = Codes(toy.fit[:30], toy.stop[:10], toy.held)
    mean, factor = gaussian_of(few.fit[:, 0])
    one = MultivariateNormal(mean, scale_tril=factor).log_prob(few.stop[:, 0].double())
    for steps in (1, 50):
        found = fitted_to(few, "flow", steps=steps).prior.log_prob(few.stop[:, 0])
        assert found.mean() > one.mean() - 1e-4
    t = 2 * math.pi * torch.rand(4000, generator=torch.Generator().manual_seed(0))
    ring = torch.stack([t.cos(), t.sin()], 1) + 0.05 * randn(4000, 2).float()
    two = fitted_to(Codes(ring[:3000, None], ring[3000:3500, None], ring[3500:]), "two_stage", steps=800, width=64)
    assert two.numbers.nats > two.numbers.gaussian + 0.3
    radius = drawn(two.prior, 5000).norm(dim=1)
    assert radius.mean().item() == pytest.approx(1, abs=0.1)
    assert radius.std().item() < 0.25


def test_codes_that_carry_nothing_in_a_dimension_can_be_fitted_and_codes_that_are_all_alike_not(toy: Codes) -> None:
    flat = Codes(*(torch.cat([part, part[..., :1] * 0 + 5], -1) for part in toy))
    for kind in ("gmm", "flow"):
        found = fitted_to(flat, kind, steps=20)
        assert (drawn(found.prior, 100)[:, 2] - 5).abs().max() < 1e-3
        assert found.numbers.nats > 0
    alike = Codes(*(part * 0 + 5 for part in toy))
    with pytest.raises(UserError, match="all codes are the same"):
        fitted_to(alike, "gmm")


def test_more_components_than_codes_are_refused(toy: Codes) -> None:
    few = Codes(toy.fit[:5], toy.stop[:1], toy.held[:1])
    assert fitted_to(few, "gmm", components=6).numbers.codes == 6
    with pytest.raises(UserError, match="components: 7 for 6 codes of 6 images; at most 6 can be fitted"):
        fitted_to(few, "gmm", components=7)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("vae", {}, "kind: 'vae' is no prior that is fitted after training; choose from gmm, flow, two_stage"),
        ("flow", {"components": 3}, "components: flow has flow, steps, width; it is of gmm"),
        ("gmm", {"colour": 3}, "colour: gmm has components, steps; there is no such option"),
        ("gmm", {"components": 0}, "components: 0 is not right"),
        ("gmm", {"components": True}, "components: True is not right"),
        ("flow", {"flow": "glow"}, "flow: 'glow' is not right; choose from realnvp, maf"),
    ],
)
def test_options_that_are_not_right(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        fitting.check_options(kind, options)
    assert message in str(caught.value)
    assert fitting.KINDS.keys() == set(of_cli.KINDS)


# From a run


def images() -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (144, 1, 8, 8), dtype=np.uint8)
    return arrays(pixels[:64], pixels[80:], valid=pixels[64:80])


def trained(folder: Path, *arguments: str) -> Run:
    raw = {"model": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [16]}}, "train": {"n_steps": 3, "batch_size": 16}}
    return Experiment.of(raw, arguments).fit(folder, data=images(), device="cpu").with_data(images())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("fitted") / "run")


def test_codes_are_draws_and_those_held_out_are_of_other_images(run: Run) -> None:
    codes = draw_codes(run.model, run.data.train, seed=3)
    assert codes.fit.shape == (52, 16, 3)
    assert codes.stop.shape == (6, 16, 3)
    assert codes.held.shape == (6, 3)
    table = run.encode("train")
    assert table.logvar is not None
    centres = torch.cat([codes.held, codes.stop.mean(1), codes.fit.mean(1)])
    spread = codes.fit.var(1).mean().item()
    assert spread == pytest.approx(float(np.exp(table.logvar).mean()), rel=0.15)
    assert centres.mean(0).numpy() == pytest.approx(table.mean.mean(0), abs=0.3)
    assert torch.equal(draw_codes(run.model, run.data.train, seed=3).fit, codes.fit)
    with pytest.raises(UserError, match="5 images to fit a prior to; at least 10"):
        draw_codes(run.model, run.data.train, most=5)


def test_the_codes_of_a_point_are_the_encoder_s(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--method", "ae")
    codes = draw_codes(run.model, run.data.train)
    every = torch.cat([codes.held, codes.stop[:, 0], codes.fit[:, 0]])
    assert every.shape == (64, 3)
    wanted = torch.from_numpy(run.encode("train").mean)
    torch.testing.assert_close(every.sort(0).values, wanted.sort(0).values)


@pytest.mark.parametrize("kind", ["gmm", "flow", "two_stage"])
def test_a_stored_prior_reloads_bit_for_bit_and_is_what_samples_come_from(run: Run, kind: str, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    here = vaes.load(tmp_path / "run").with_data(images())
    own = here.sample(8)
    before = torch.random.get_rng_state()
    made = here.fit_prior(kind, steps=20)
    loaded = vaes.load(tmp_path / "run")
    found = loaded.fitted_prior()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found is not None
    assert found._replace(prior=made.prior) == made
    assert {k: v.numpy().tobytes() for k, v in made.prior.state_dict().items()} == {
        k: v.numpy().tobytes() for k, v in found.prior.state_dict().items()
    }
    z = randn(5, 3).float()
    assert torch.equal(made.prior.log_prob(z), found.prior.log_prob(z))
    samples = loaded.sample(8)
    assert torch.equal(samples, here.sample(8, prior=made))
    assert torch.equal(samples, loaded.sample(8, prior=kind))
    assert not torch.allclose(samples, own)
    picture = draw_sample(loaded.model, Options(n_samples=8, prior=found.prior, prior_words=found.words))
    assert torch.equal(picture.singles, to_uint8(samples, loaded.model.value_range))
    assert torch.equal(loaded.sample(8, prior="own"), own)
    again = here.fit_prior(kind, steps=20, write=False)
    assert torch.equal(again.prior.log_prob(z), made.prior.log_prob(z))


def test_bounds_stay_with_the_model_s_own_prior_and_samples_get_rows_beside(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    here = vaes.load(tmp_path / "run").with_data(images())
    budget, only = {"n_images": 60, "iw_samples": 4, "iw_images": 20}, ("likelihood", "generation", "predictive")

    def numbers(**options: Any) -> dict[str, float]:
        found = here.evaluate(only, features="pixels", budget=budget, write=False, **options)
        return {one.name: one.value for group in found.groups.values() for one in group.metrics}

    before = numbers()
    here.fit_prior("gmm", components=2)
    after = numbers()
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {
        f"{name}_fitted_gmm"
        for name in ("kid", "precision", "recall", "density", "coverage", "memorisation", "nearest_train_samples")
    }
    assert after["nearest_train_samples_fitted_gmm"] != after["nearest_train_samples"]
    assert numbers(prior="own") == before
    here.fit_prior("flow", steps=1)
    assert len(numbers()) == len(after) + 7
    assert numbers(prior="gmm") == after


def test_a_prior_of_other_weights_is_not_used_and_a_damaged_one_is_named(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    here = vaes.load(folder).with_data(images())
    here.fit_prior("gmm", components=2)
    here.resume({"train.n_steps": 5}, data=images())
    later = vaes.load(folder, checkpoint=5)
    assert later.fitted_prior() is None
    assert "prior-gmm.safetensors was fitted to other weights (step 3) and is not used; vaes fit-prior" in caplog.text
    with pytest.raises(UserError, match="was fitted to other weights"):
        later.sample(1, prior="gmm")
    with pytest.raises(UserError, match=r"--prior flow: .* holds none of these weights; vaes fit-prior .* --kind flow"):
        later.sample(1, prior="flow")
    path = fitting.file_of(folder, "gmm")
    whole = path.read_bytes()
    moved = fitting.file_of(folder, "flow")
    moved.write_bytes(whole)
    with pytest.raises(UserError, match="holds a gmm"):
        later.fitted_prior("flow")
    moved.unlink()
    start = 8 + int.from_bytes(whole[:8], "little")
    edited = whole.replace(b'\\"step\\": 3', b'\\"step\\": 4')
    assert edited != whole
    for damage in (whole[:100], b"", b"x" * 50, edited, whole[: start + 5] + b"\x01" + whole[start + 6 :]):
        path.write_bytes(damage)
        for name in (None, "gmm", "fitted"):
            with pytest.raises(UserError, match=r"prior-gmm\.safetensors: ") as caught:
                here.fitted_prior(name)
            assert "\n" not in str(caught.value)
        assert here.fitted_prior("own") is None
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        here.fit_prior("gmm")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("hyperspherical_vae", "unit vectors"),
        ("categorical_vae", "one-hot"),
        ("joint_vae", "one-hot"),
    ],
)
def test_codes_that_are_no_real_vectors_are_refused(method: str, what: str, tmp_path: Path) -> None:
    options = ["--model.z_dim=20"] if method == "joint_vae" else []
    run = trained(tmp_path / "run", "--method", method, *options)
    with pytest.raises(UserError, match=r"model\.posterior gaussian") as caught:
        run.fit_prior("gmm")
    assert what in str(caught.value)
    assert not list(run.folder.glob("prior*"))


def test_one_dimension_is_a_mixture_s(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--model.z_dim=1")
    with pytest.raises(UserError, match=r"flow: a coupling needs 2 dimensions.*; gmm and flow_matching take any code"):
        run.fit_prior("flow")
    assert math.isfinite(run.fit_prior("gmm", components=2, write=False).numbers.nats)


def test_the_commands_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: object) -> str:
        assert main([str(one) for one in arguments]) == 0
        return "".join(capsys.readouterr())

    folder = tmp_path / "run"
    small = [
        "--train.n_steps=5",
        "--train.batch_size=16",
        "--model.network.dim=4",
        "--data.image_size=8",
        "--data.kind=digits",
    ]
    text = said("train", "-e", folder, "--method", "two_stage_vae", *small)
    assert f"next: vaes fit-prior {folder} --kind two_stage" in text
    pictures = ["--n_samples", 4, "--save_dir", tmp_path]
    assert "vaes fit-prior" in said("sample", folder, *pictures)
    assert "vaes fit-prior" not in said("sample", folder, *pictures, "--mode", "reconstruct")
    text = said("fit-prior", folder, "--steps", 20)
    assert "the second VAE fitted after training" in text
    assert "(a bound)" in text
    assert "drawn from the second VAE fitted after training (prior-two_stage.safetensors)" in said(
        "sample", folder, *pictures
    )
    said("fit-prior", folder, "--kind", "gmm", "--components", 3)
    for mode in (["sample"], ["interpolate"], ["traverse", "--traverse_dim", 0]):
        text = said("sample", folder, *pictures, "--mode", *mode)
        assert "drawn from the mixture of 3 Gaussians with full covariances fitted after training" in text
        assert "drawn from" not in said("sample", folder, *pictures, "--mode", *mode, "--prior", "own")
    text = said("evaluate", folder, "--only", "generation", "--features", "pixels", "--n_images", 60)
    assert "kid_fitted_gmm" in text
    assert "kid_fitted_two_stage" in text
    (found,) = read(folder)
    metric = next(one for one in found.groups["generation"].metrics if one.name == "kid_fitted_gmm")
    assert metric.definition.startswith("samples from the mixture of 3 Gaussians")
    said("train", "-e", tmp_path / "b", "--method=vae", *small)
    said("evaluate", tmp_path / "b", "--only", "generation", "--features", "pixels", "--n_images", 60)
    assert "kid_fitted_gmm" in said("compare", folder, tmp_path / "b")
    document = json.loads((folder / "evaluation.json").read_text())
    assert document["weights"] == vaes.load(folder).sha256


def test_a_training_that_goes_on_meanwhile_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    small = ["--train.n_steps=4", "--train.batch_size=16", "--model.network.dim=4", "--data.image_size=8"]
    assert main(["train", "-e", str(folder), *small, "--train.eval_freq=0"]) == 0
    fit_to = fitting.fit_to

    def slow(*arguments: Any, **options: Any) -> Fitted:
        found = fit_to(*arguments, **options)
        vaes.load(folder).resume({"train.n_steps": 6})
        return found

    monkeypatch.setattr(fitting, "fit_to", slow)
    capsys.readouterr()
    assert main(["fit-prior", str(folder), "--components=2"]) == 0
    assert "the training went on meanwhile" in capsys.readouterr().err
    assert main(["sample", str(folder), "--n_samples=2"]) == 0
    assert "fitted to other weights (step 4) and is not used" in capsys.readouterr().err
