import math

import pytest
import torch
from parts import small_vae
from torch import Tensor, nn

from vaes import evaluate, likelihoods, posteriors
from vaes.data import Annotations, Splits, TensorSet, sprites, to_float, to_uint8
from vaes.errors import UserError
from vaes.evaluate import Budget, Features, Metric, Skipped
from vaes.evaluate.feature_network import Classifier, FeatureMaps
from vaes.evaluate.features import classifier_features
from vaes.evaluate.passes import choose, fingerprint
from vaes.evaluate.report import group, not_finite, table
from vaes.evaluate.runner import DEFAULT_GROUPS, evaluate_groups
from vaes.model import VAE
from vaes.objectives.terms import Perceptual
from vaes.priors import StandardNormal

BUDGET = Budget(n_images=150, iw_samples=6, iw_images=20, ais_images=2, ais_steps=4, ais_chains=2, batch_size=40)


def random_splits(n: int = 200, size: int = 12, seed: int = 0) -> Splits:
    """Bright and dark noise, labelled so."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(3):
        labels = torch.randint(2, (n,), generator=generator)
        noise = torch.randint(0, 128, (n, 1, size, size), generator=generator)
        parts.append(TensorSet((noise + 127 * labels[:, None, None, None]).to(torch.uint8), Annotations(labels)))
    return Splits(*parts)


def named(found: list[Metric | Skipped]) -> dict[str, Metric]:
    return {one.name: one for one in found if isinstance(one, Metric)}


def reasons(found: list[Metric | Skipped]) -> dict[str, str]:
    return {one.name: one.reason for one in found if isinstance(one, Skipped)}


def model_of(size: int = 12, **options: object) -> VAE:
    return small_vae((1, size, size), **options)  # type: ignore[arg-type]


def test_everything_on_a_labelled_source_is_a_number_or_a_reason() -> None:
    model, splits = model_of(), random_splits()
    found = evaluate_groups(
        model, splits, only=[*DEFAULT_GROUPS, "ais"], budget=BUDGET, outliers=random_splits(seed=5).test,
        features=classifier_features(splits, steps=20),
    )  # fmt: skip
    metrics = {one.name: one for group in found.values() for one in group.metrics}
    assert {
        "elbo", "rate", "distortion", "iw_bound_k6", "iw_bound_k6_ess", "bits_per_dim_k6", "mutual_information",
        "total_correlation", "ais_log_evidence", "mse", "psnr", "ssim", "fid", "kid", "precision", "coverage",
        "memorisation", "active_units", "kl_dim_2", "log_det_covariance", "aggregate_mmd2", "linear_probe", "knn_probe",
        "outlier_auroc",
    } <= metrics.keys()  # fmt: skip
    assert reasons(list(found["disentanglement"].skipped)) == {
        "disentanglement": "the images come without ground-truth factors"
    }
    assert all(math.isfinite(metric.value) for metric in metrics.values())
    assert metrics["elbo"].n == 150
    assert metrics["iw_bound_k6"].n == 20
    assert metrics["fid"].features == metrics["kid"].features
    assert str(metrics["fid"].features).startswith("classifier-")
    assert 0.3 < metrics["outlier_auroc"].value < 0.7  # the same law


def test_the_numbers_are_those_of_the_pure_functions() -> None:
    model, splits = model_of().eval(), random_splits()
    metrics = named(evaluate.evaluate(model, splits, only=["likelihood", "reconstruction"], budget=BUDGET, seed=3))
    index = choose(splits.test, 150, 3)
    x = to_float(splits.test.read(index), model.value_range)
    with torch.no_grad():
        error = ((x - model.reconstruct(x)) / 2).double().square().flatten(1).mean(1)  # [-1, 1] told on [0, 1]
        latent = model.encode(x)
        rate = model.prior.kl(latent).sum(1)
    assert metrics["mse"].value == pytest.approx(error.mean().item(), rel=1e-6)
    assert metrics["mse"].stderr == pytest.approx(error.std().item() / math.sqrt(150), rel=1e-6)
    assert metrics["rate"].value == pytest.approx(rate.mean().item(), rel=1e-5)
    assert metrics["elbo"].value == pytest.approx(-metrics["distortion"].value - metrics["rate"].value, rel=1e-6)
    parts = sum(metrics[name].value for name in ("mutual_information", "total_correlation", "dimension_wise_kl"))
    assert parts == pytest.approx(metrics["rate_sampled"].value, rel=1e-5)


def test_a_seed_decides_and_batches_do_not_matter() -> None:
    model, splits = model_of(), random_splits()
    only = ["likelihood", "latent", "generation"]

    def run(seed: int, batch_size: int) -> dict[str, Metric]:
        budget = BUDGET._replace(batch_size=batch_size)
        return named(evaluate.evaluate(model, splits, only=only, budget=budget, seed=seed, features="pixels"))

    first, again, other = run(1, 40), run(1, 7), run(2, 40)
    assert first.keys() == again.keys()
    for name, metric in first.items():
        assert metric.value == pytest.approx(again[name].value, rel=1e-4, abs=1e-4), name
    assert first["elbo"].value != other["elbo"].value


def test_an_autoencoder_on_bare_images_is_told_what_does_not_apply() -> None:
    model = model_of(posterior=posteriors.Point(), likelihood=likelihoods.Bernoulli())
    splits = Splits(*(TensorSet(part.read(torch.arange(200))) for part in random_splits()))
    found = evaluate.evaluate(model, splits, budget=BUDGET, features="classifier")
    skipped = reasons(found)
    for name, reason in {
        "elbo": "Point has no density",
        "iw_bound_k6": "Point has no density",
        "bits_per_dim_k6": "no density of 8-bit",
        "rate_split": "Point is no Gaussian",
        "fid": "without labels",
        "linear_probe": "without labels",
        "disentanglement": "without ground-truth factors",
        "kl_per_dimension": "Point is no Gaussian",
        "outlier_auroc": "no second source",
    }.items():
        assert reason in skipped[name], name
    assert {"mse", "active_units", "log_det_covariance", "aggregate_mmd2", "memorisation"} <= named(found).keys()


def test_too_few_images_are_reasons_and_one_image_does_not_break_it() -> None:
    found = evaluate.evaluate(model_of(), random_splits(), budget=BUDGET._replace(n_images=1), features="pixels")
    skipped = reasons(found)
    assert "at least 2 are needed" in skipped["fid"]
    assert "1 rows: at least 40 are needed" in skipped["kid"]
    assert {"kid", "precision_recall", "memorisation", "rate_split", "log_det_covariance"} <= skipped.keys()
    assert named(found)["elbo"].stderr is None


def test_a_model_that_gives_nan_is_no_number() -> None:
    model = model_of()
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(float("nan"))
    found = evaluate.evaluate(
        model, random_splits(), only=["likelihood", "generation", "reconstruction"], budget=BUDGET, features="pixels"
    )
    assert all(name in {"rate", "mutual_information", "total_correlation", "dimension_wise_kl", "rate_sampled"}
               for name in named(found))  # fmt: skip
    assert "NaN or infin" in reasons(found)["generation"]


def test_the_model_comes_back_in_the_mode_it_was_in() -> None:
    model = model_of().train()
    model.encoder.eval()
    evaluate.evaluate(model, random_splits(), only=["reconstruction"], budget=BUDGET)
    assert model.training
    assert not model.encoder.training


class Factors(nn.Module):
    """An encoder that knows the factors of a sprite: position from its centre of mass, scale from its area."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        mass = x.sum((1, 2)).clamp_min(1e-6)
        grid = torch.linspace(-1.7, 1.7, x.shape[-1])
        right, down = ((x.sum(axis) * grid).sum(1) / mass for axis in (1, 2))
        mean = 3 * torch.stack([right, down, (mass / 400).sqrt() - 0.5], 1)
        return torch.cat([mean, torch.full_like(mean, -4.0)], 1)


def test_sprites_are_scored_on_their_factors() -> None:
    decoder = nn.Sequential(nn.Linear(3, 256), nn.Unflatten(1, (1, 16, 16)))
    model = VAE(Factors(), decoder, posteriors.Gaussian(), StandardNormal(3), likelihoods.Bernoulli())
    splits = sprites(image_size=16, n_train=300, n_valid=10, n_test=1_500)
    found = evaluate.evaluate(model, splits, only=["disentanglement"], budget=Budget(n_images=600))
    metrics = named(found)
    assert {"mig_locatello", "dci_disentanglement", "sap", "irs"} <= metrics.keys()
    assert metrics["mig_locatello"].n == 600
    for name in ("beta_vae_score", "factor_vae_score", "mig_chen"):
        assert "rows would do" in reasons(found)[name]


def test_features_of_one_s_own() -> None:
    features = Features("halves", lambda images: images.float().flatten(1)[:, :8] / 255)
    found = named(evaluate.evaluate(model_of(), random_splits(), only=["generation"], budget=BUDGET, features=features))
    assert found["fid"].features == "halves"
    few = evaluate.evaluate(
        model_of(size=14), random_splits(size=14), only=["generation"], budget=BUDGET, features="pixels"
    )
    assert "197 of each are needed" in reasons(few)["fid"]
    assert named(few)["kid"].features == "pixels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["likelyhood"]}, "'likelyhood': no such group of metrics; did you mean likelihood"),
        ({"only": []}, "no group of metrics was named"),
        ({"split": "tset"}, "'tset': no such split; did you mean test"),
        ({"budget": Budget(iw_samples=0)}, "iw_samples: 0; it must be at least 1"),
        ({"budget": Budget(n_images=-3)}, "n_images: -3"),
        ({"seed": -1}, "seed: -1"),
        ({"features": "vgg"}, "'vgg' is none of"),
    ],
)
def test_mistakes_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(model_of(), random_splits(40), **options)  # type: ignore[arg-type]


def test_images_that_the_model_does_not_take_are_refused() -> None:
    with pytest.raises(UserError, match=r"\(1, 9, 9\)"):
        evaluate.evaluate(model_of(), random_splits(40, size=9))


def test_outliers_of_another_shape_and_the_training_split_are_reasons() -> None:
    model, splits = model_of(), random_splits(60)
    small = random_splits(60, size=8).test
    found = reasons(evaluate.evaluate(model, splits, only=["downstream"], outliers=small, budget=BUDGET))
    assert "(1, 8, 8)" in found["outlier_auroc"]
    found = reasons(
        evaluate.evaluate(
            model, splits, only=["downstream", "generation"], split="train", budget=BUDGET, features="pixels"
        )
    )
    for name in ("linear_probe", "knn_probe", "memorisation", "fid_floor"):
        assert "the split evaluated is the training split" in found[name]


def test_brighter_images_are_outliers_to_a_model_of_dark_ones() -> None:
    splits = random_splits()
    dark = Splits(*(TensorSet(part.read(torch.arange(200)) // 4) for part in splits))
    bright = TensorSet(255 - splits.test.read(torch.arange(200)) // 4)
    model = model_of(likelihood=likelihoods.Bernoulli())
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
        list(model.decoder.parameters())[-1].fill_(-3.0)  # every pixel dark
    found = named(evaluate.evaluate(model, dark, only=["downstream"], outliers=bright, budget=BUDGET))
    assert found["outlier_auroc"].value == 1.0


def test_fingerprints_tell_sets_apart() -> None:
    a, b = random_splits(50), random_splits(50, seed=1)
    assert fingerprint(a.test) == fingerprint(random_splits(50).test)
    assert len({fingerprint(x) for x in (a.test, a.train, b.test, a.test.subset(torch.arange(49)))}) == 4


def test_what_a_number_rests_on_comes_with_it() -> None:
    model, splits = model_of().eval(), random_splits()
    only = [*DEFAULT_GROUPS, "ais"]
    found = evaluate_groups(model, splits, only=only, budget=BUDGET, seed=3, features="pixels")
    assert len({group.chosen for group in found.values()}) == 1
    other = evaluate_groups(model, splits, only=["latent"], budget=BUDGET, seed=4)
    assert other["latent"].images == found["latent"].images
    assert other["latent"].chosen != found["latent"].chosen
    metrics = {one.name: one for group in found.values() for one in group.metrics}
    columns = {name: column for group in found.values() for name, column in group.columns.items()}
    assert {"elbo", "rate", "distortion", "iw_bound_k6", "iw_bound_k6_ess", "bits_per_dim_k6", "ais_log_evidence",
            "mse", "psnr", "ssim"} <= columns.keys()  # fmt: skip
    codes = torch.tensor([columns.pop(f"code_{j}").values for j in range(3)]).T
    with torch.no_grad():
        latent = model.encode(to_float(splits.test.read(choose(splits.test, 150, 3)), model.value_range))
    assert torch.allclose(codes, latent.mean, atol=1e-6)
    for name, column in columns.items():
        assert math.fsum(column.values) / len(column.values) == pytest.approx(metrics[name].value, rel=1e-12), name
        assert len(column.rows) == len(column.values) == metrics[name].n
    assert columns["elbo"].rows == tuple(choose(splits.test, 150, 3).tolist())
    row = torch.tensor([columns["mse"].rows[7]])
    x = to_float(splits.test.read(row), model.value_range)
    with torch.no_grad():
        error = ((x - model.reconstruct(x)) / 2).double().square().mean().item()  # [-1, 1] told on [0, 1]
    assert columns["mse"].values[7] == pytest.approx(error, rel=1e-6)


def test_errors_of_pixels_are_the_same_whatever_range_the_model_has() -> None:
    found = []
    for likelihood in (likelihoods.Gaussian(), likelihoods.Bernoulli()):  # on [-1, 1] and on [0, 1]
        model = model_of(likelihood=likelihood)
        with torch.no_grad():
            for parameter in model.decoder.parameters():
                parameter.zero_()  # half grey
        found.append(named(evaluate.evaluate(model, random_splits(), only=["reconstruction"], budget=BUDGET)))
    for name, metric in found[0].items():
        assert metric.value == pytest.approx(found[1][name].value, rel=1e-6), name
        assert metric.definition == found[1][name].definition


def test_numbers_that_are_none_are_named_and_have_no_errors() -> None:
    nan = float("nan")
    found = group([Metric("a", nan, 1, ""), Metric("b", 1.0, 1, "", stderr=nan, interval=(nan, 1.0))], "test", "", {})
    assert not_finite({"g": found}) == ["a"]
    assert found.metrics[1].stderr is None
    assert found.metrics[1].interval is None
    assert "a         nan  which is no finite number" in table({"g": found})


def test_the_table_shows_numbers_errors_features_and_reasons() -> None:
    found = {
        "likelihood": [Metric("elbo", -98.7654321, 1234, "", stderr=0.1234), Skipped("bits\x1b[31m", "no density")],
        "generation": [Metric("fid", 3.0, 10, "", features="pixels"), Metric("p", 0.5, 10, "", interval=(0.25, 0.75))],
        "latent": [Metric(f"kl_dim_{j}", float(j), 5, "") for j in range(30)],
    }
    text = table({name: group(one, "test", "fp", {"n_images": 5}) for name, one in found.items()})
    for piece in ("± is half a 95 % interval;", "likelihood (test images)", "-98.77 ± 0.24", "n 1,234",
                  "skipped: no density", "pixels", "0.5 [0.25, 0.75]", "29 28 27", "(30 dimensions)",
                  "bits\\x1b[31m"):  # fmt: skip
        assert piece in text, piece
    assert len(text.splitlines()) == 9


def test_no_group_encodes_what_another_has_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image of the split goes through the encoder once for the bounds, codes, reconstructions and outlier scores;
    only the importance-weighted bounds of a few images, with other noise or other images, come on top."""
    model, splits = model_of(), random_splits()
    seen = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal seen
        seen += len(args[0])

    budget = BUDGET._replace(n_images=200, iw_images=1, iw_samples=1)
    only = ["latent", "likelihood", "reconstruction", "downstream"]
    model.encoder.register_forward_hook(count)
    outliers = random_splits(seed=5).test
    evaluate.evaluate(model, splits, only=only, budget=budget, outliers=outliers)
    two_bounds, shape_check, probes = 2, 1, 200  # both probes on the same codes
    assert seen == 200 + 200 + two_bounds + shape_check + probes


def test_samples_are_decoded_once_for_all_groups() -> None:
    model, seen = model_of(), 0

    def count(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal seen
        seen += len(out)

    model.decoder.register_forward_hook(count)
    only = ["generation", "predictive"]
    found = evaluate.evaluate(model, random_splits(), only=only, budget=BUDGET, features="pixels")
    assert {"fid", "edges_means_p", "edges_draws_p"} <= {one.name for one in found}
    reconstructed = 2 * 150  # for rFID: of the split, and of training images
    assert seen == 1 + 150 + reconstructed  # the first is the check of the shape


def test_rfid_is_of_reconstructions_of_as_many_images_of_either_split() -> None:
    model, splits = model_of(size=8), random_splits(size=8)
    maps = FeatureMaps(Classifier(splits.train.shape[0], 2))
    features = Features("means", lambda images: images.float().unflatten(2, (4, 2)).mean((3, 4)).flatten(1), maps)
    found = named(evaluate.evaluate(model, splits, only=["generation"], budget=BUDGET, features=features))
    for suffix, images in (("", splits.test), ("_train", splits.train)):
        x = images.read(choose(images, 150, 0))
        with torch.no_grad():
            made = to_uint8(model.reconstruct(to_float(x, model.value_range)), model.value_range)
            alike = Perceptual((0.0, 1.0), lambda name: ("means", maps)).distance(x.float() / 255, made.float() / 255)
        expected = evaluate.fid(features.extract(x), features.extract(made), features="means").value
        assert found[f"rfid{suffix}"].value == pytest.approx(expected, rel=1e-5)
        assert found[f"perceptual{suffix}"].value == pytest.approx(alike.mean().item(), rel=1e-5)
        assert found[f"perceptual{suffix}"].features == "means"
        assert found[f"rfid{suffix}"].n == found[f"perceptual{suffix}"].n == 150
    assert found["rfid"].value != found["rfid_train"].value
