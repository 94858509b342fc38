"""Every row of the table of methods, end to end, on images of no size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import everything

from vaes import Experiment, evaluate
from vaes.config import DEFAULTS, build_model, build_objective, build_settings, load, parse
from vaes.data import Splits, arrays
from vaes.errors import UserError
from vaes.evaluate import Budget, Metric, passes
from vaes.methods import METHODS
from vaes.train.listeners import Listener

STEPS = 20
BUDGET = Budget(n_images=16, iw_samples=8)


def images() -> Splits:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    return arrays(pixels[:64], pixels[64:80], valid=pixels[80:])


def experiment(method: str) -> Experiment:
    raw: dict[str, Any] = {
        "method": method,
        "model": {"z_dim": 3, "network": {"kind": "mlp", "hidden": [16]}},
        "train": {"n_steps": STEPS, "batch_size": 16, "eval_freq": 10, "sample_freq": 10, "save_freq": 10, "keep": 9},
    }
    made = Experiment.of(parse(Experiment.of(raw).to_yaml(), "here"))
    assert made == Experiment.of(made.to_dict()) == Experiment.of({}, made.to_arguments())
    return made


class Gradients(Listener):
    """Which parameters an optimiser has met, and whether all stayed finite."""

    unmet: list[str]

    def end(self, training: Any) -> None:
        optimizer = training.state.optimizer
        named = dict(training.state.objective.named_parameters())
        assert all(p.isfinite().all() for p in named.values())
        self.unmet = [
            name for name, p in named.items() if not any(t.abs().sum() > 0 for t in optimizer.state[p].values())
        ]


@pytest.mark.parametrize("method", METHODS)
def test_a_row_trains_resumes_samples_and_is_evaluated(method: str, tmp_path: Path) -> None:
    seen, made = Gradients(), experiment(method)
    run = made.fit(tmp_path / "whole", data=images(), device="cpu", callbacks=[seen])
    assert not seen.unmet

    halfway = tmp_path / "whole" / "ckpt" / "step000010"
    made.fit(tmp_path / "resumed", data=images(), device="cpu", resume=halfway)
    whole, resumed = everything(tmp_path / "whole"), everything(tmp_path / "resumed")
    assert whole["weights"] == resumed["weights"]
    assert _moments(whole) == _moments(resumed)

    assert run.sample(5).isfinite().all()
    alone, together = (passes.draw_samples(run.model, 5, size, 0).means.int() for size in (1, 5))
    assert len(alone) == 5
    assert (alone - together).abs().max() <= 1  # the order of sums differs
    metrics = evaluate.evaluate(run.model, images(), only=["likelihood", "reconstruction"], budget=BUDGET)
    found = {metric.name for metric in metrics if isinstance(metric, Metric)}
    assert ("elbo" in found) == ("log_q" in run.model.posterior.gives)
    codes = run.with_data(images()).encode("test")
    assert np.isfinite(codes.mean).all()
    assert np.isfinite(codes.elbo).all() == ("elbo" in found)


def _moments(left: dict[str, Any]) -> dict[str, bytes]:
    """Of the optimiser, and the weights of terms."""
    return {name: tensor for name, tensor in left["training"].items() if not name.startswith("sum.")}


def test_a_cross_that_nobody_named_comes_from_the_configuration_alone(tmp_path: Path) -> None:
    arguments = ["--model.prior", "vamp", "--model.prior.components=5", "--objective.bound=iwae"]
    arguments += [
        "--objective.samples=3",
        "--objective.gradient",
        "dreg",
        "--objective.terms.mmd.weight.kind",
        "linear",
    ]
    arguments += ["--objective.terms.mmd.weight.start=0", "--objective.terms.mmd.weight.stop=2"]
    arguments += ["--model.posterior.kind=gaussian", "--objective.terms.total_correlation_critic.width=8"]
    made = Experiment.of(experiment("vae").to_dict(), arguments)
    run = made.fit(tmp_path / "run", data=images(), device="cpu")
    test = json.loads((run.folder / "metrics.json").read_text())["test"]
    assert {"loss", "mmd", "total_correlation_critic", "total_correlation_critic_loss"} <= test.keys()
    assert made.replace({"method": "ae"}).model.posterior.kind == "point"  # what no one asked for goes with the method
    assert made.replace({"method": "ae"}).model.prior.kind == "vamp"


def test_a_schedule_that_spans_the_training_is_found_wherever_it_is() -> None:
    for method, spans in (("annealed_vae", True), ("vae", False)):
        raw = {"method": method, "train": {"n_steps": 10, "lr": 1e-3}}
        assert Experiment.of(raw).jumps(Experiment.of({**raw, "train": {"n_steps": 20, "lr": 1e-3}})) == spans


def test_a_row_gives_way_to_the_configuration_and_goes_before_the_built_in_defaults() -> None:
    assert load(DEFAULTS, ["--method", "sigma_vae"]).model["likelihood"]["scale"] == "optimal"
    assert load(DEFAULTS, ["--method", "sigma_vae", "--model.likelihood.scale=2"]).model["likelihood"] == {
        "kind": "gaussian", "scale": 2, "link": "tanh"
    }  # fmt: skip
    assert load({"method": "vamp_vae", "model": {"prior": {"components": 7}}}).model["prior"]["components"] == 7
    assert load({"method": "vamp_vae", "model": {"prior": "standard_normal"}}).model["prior"] == {
        "kind": "standard_normal"
    }
    assert load({"method": "dip_vae_ii", "objective": {"dip": {"diagonal": 3.0}}}).objective["dip"] == {
        "covariance": "samples", "diagonal": 3.0
    }  # fmt: skip
    assert load(DEFAULTS).model["likelihood"]["kind"] == "bernoulli"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model": {"posterior": "point"}},
         "objective: ELBO needs rate, which the posterior Point does not give: use the posterior gaussian"),
        ({"method": "ae", "objective": {"bound": "iwae"}}, "IWAE needs log_q, which the posterior Point does not give"),
        ({"method": "ae", "objective": {"terms": {"total_correlation": {}}}}, "TotalCorrelation needs log_q, logvar"),
        ({"objective": {"terms": {"free_bits": {}}}, "model": {"prior": "mixture"}},
         "FreeBits needs a rate per dimension in closed form, which Gaussian and Mixture have not"),
        ({"method": "vamp_vae", "model": {"posterior": "full_covariance"}},
         "model: the prior Vamp needs gaussian of the posterior, which FullCovariance does not give: use a Gaussian"),
        ({"method": "beta_vae", "objective": {"bound": "iwae"}},
         "objective.bound: iwae takes the rate whole, and the method weighs it by 4"),
        ({"objective": {"bound": "iwaee"}}, "objective.bound: unknown bound 'iwaee': did you mean iwae?"),
        ({"objective": {"terms": {"mmdd": {}}}}, "objective.terms.mmdd: unknown key: did you mean mmd?"),
        ({"method": "info_vae", "objective": {"terms": {"mmd": {}}}}, "its keys are objective.mmd"),
        ({"objective": {"terms": {"mmd": {"weight": -1.0}}}}, "objective.terms.mmd.weight: -1 is not right"),
        ({"objective": {"terms": {"mutual_information": {"weight": {"kind": "linear", "start": 0.0, "stop": -1.5}}}}},
         "objective.terms.mutual_information.weight: -1.0005 is not right; it must be -1 or more"),
        ({"objective": {"terms": {"mmd": {"kernle": "imq"}}}}, "objective.terms.mmd.kernle: unknown key: did you mean"),
        ({"model": {"prior": {"kind": "vamp", "components": 0}}}, "components must be at least 1, got 0"),
        ({"method": "beta_tcvae", "objective": {"beta": 0.5}}, "objective.beta: 0.5 would reward"),
        ({"method": "rae_gp", "train": {"decoder_weight_decay": -1.0}}, "weight decays must not be negative"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_what_would(raw: dict[str, Any], message: str) -> None:
    def build() -> None:
        config = load({**raw, "model": {"network": "mlp", **raw.get("model", {})}})
        build_settings(config)
        build_objective(config, build_model(config, (1, 8, 8)), (1, 8, 8))

    with pytest.raises(UserError) as caught:
        build()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
