"""Methods: the name of a paper -> the parts that make it. The only place where papers' names live.

A method is a row of :data:`METHODS`, which names kinds of parts. To add one, put a row there (from a program of your
own, before the configuration is built):

    METHODS["mine"] = Method("Mine", "I 2026", url, weights, "distortion + rate + lambda_ * mmd", terms=("mmd",))
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaes.schedules import Scheduled

__all__ = ["FITTED", "METHODS", "Method", "table"]

ROUNDING = 1e-9  # of schedules whose weight is to end at 0


class Method(NamedTuple):
    """One row: which parts, and how the options of ``objective.*`` become the weights of bound and terms.

    ``weights(pixels, *, options)`` is called at every step with the values that the schedules give, and must return
    a weight for each term (and for ``rate``, where it is not 1); ``pixels`` is C * H * W. Its keyword-only parameters
    are the keys of ``objective`` in a configuration, beside those of the bound's constructor. The constructor
    parameters of each term are keys too, under the term's name. For a value that makes no sense it raises a ValueError
    whose text begins with the option's name.
    """

    title: str
    source: str
    url: str
    weights: Callable[..., dict[str, float]]
    loss: str
    """The loss in a line, for the table of methods."""
    bound: str = "elbo"
    """A kind of bound; ``objective.bound`` overrides it."""
    terms: tuple[str, ...] = ()
    """Kinds of terms; ``objective.terms`` adds to them."""
    defaults: Mapping[str, Mapping[str, Any]] = {}
    """Sections of a configuration (``model``, ``objective``, ``train``) -> keys whose default is another here. What a
    configuration gives goes before them."""


def no_weights(pixels: int) -> dict[str, float]:
    """A bound without weights."""
    return {}


def elbo_weights(pixels: int, *, beta: Scheduled = 1.0) -> dict[str, float]:
    """``beta`` weighs the rate; 1 is the ELBO.

    Args:
        pixels: C * H * W.
        beta: the weight of the rate; 1 is the ELBO.
    """
    if beta < 0:
        raise ValueError(f"beta: {beta:g} is not right; it must be 0 or more")
    return {"rate": beta}


def info_weights(
    pixels: int, *, alpha: Scheduled = 0.0, lambda_: Scheduled = 2.0, mmd_scale: float | None = None
) -> dict[str, float]:
    """Rate: ``1 - alpha``. MMD: ``(alpha + lambda_ - 1) * mmd_scale``.

    ``mmd_scale`` is the nats per image that one unit of MMD counts for. By default it is pixels / 2, so that
    ``lambda_`` stands beside the *mean* squared error over pixels and carries over between image sizes, as in the
    released codes; 1 gives the paper's own units. A negative weight would reward what it is to penalise, without end.

    Args:
        pixels: C * H * W.
        alpha: the rate weighs 1 - alpha.
        lambda_: the MMD weighs (alpha + lambda_ - 1) * mmd_scale.
        mmd_scale: nats per image of one unit of MMD; null is pixels / 2, and 1 the paper's own units.
    """
    rate, mmd = 1 - alpha, alpha + lambda_ - 1
    if rate < -ROUNDING:
        raise ValueError(f"alpha: {alpha:g} gives the rate the weight {rate:g}; it must be 1 or less")
    if mmd < -ROUNDING:
        raise ValueError(
            f"lambda_: {lambda_:g} gives the MMD the weight alpha + lambda_ - 1 = {mmd:g}; with alpha {alpha:g} it "
            f"must be {rate:g} or more"
        )
    if mmd_scale is not None and mmd_scale < 0:
        raise ValueError(f"mmd_scale: {mmd_scale:g} is not right; it must be 0 or more")
    scale = pixels / 2 if mmd_scale is None else mmd_scale
    return {"rate": max(0.0, rate), "mmd": max(0.0, mmd) * scale}


def capacity_weights(pixels: int, *, gamma: Scheduled = 1000.0) -> dict[str, float]:
    """``gamma`` weighs the capacity term, in place of the rate.

    Args:
        pixels: C * H * W.
        gamma: nats of loss for a nat of rate beside the target.
    """
    return {"rate": 0.0, "capacity": _not_negative("gamma", gamma)}


def joint_weights(pixels: int, *, gamma: Scheduled = 30.0) -> dict[str, float]:
    """``gamma`` weighs the two capacities, in place of the rate.

    Args:
        pixels: C * H * W.
        gamma: nats of loss for a nat of rate beside a target.
    """
    return {"rate": 0.0, "joint_capacity": _not_negative("gamma", gamma)}


def tc_weights(pixels: int, *, beta: Scheduled = 6.0) -> dict[str, float]:
    """``beta`` weighs the total correlation, of which the rate holds one already.

    Args:
        pixels: C * H * W.
        beta: the weight of the total correlation; 1 is the ELBO.
    """
    if beta < 1:
        raise ValueError(f"beta: {beta:g} would reward total correlation; it must be 1 or more")
    return {"total_correlation": beta - 1}


def critic_weights(pixels: int, *, gamma: Scheduled = 10.0) -> dict[str, float]:
    """``gamma`` weighs the critic's total correlation, on top of the ELBO.

    Args:
        pixels: C * H * W.
        gamma: the weight of the total correlation; 0 is the ELBO.
    """
    return {"total_correlation_critic": _not_negative("gamma", gamma)}


def dip_weights(pixels: int, *, lambda_od: Scheduled = 10.0) -> dict[str, float]:
    """``lambda_od`` weighs the covariances; the variances weigh ``dip.diagonal`` times that.

    Args:
        pixels: C * H * W.
        lambda_od: nats per image of a unit of squared covariance.
    """
    return {"dip": _not_negative("lambda_od", lambda_od)}


def _lambda_of(term: str) -> Callable[..., dict[str, float]]:
    def lambda_weights(pixels: int, *, lambda_: Scheduled = 10.0) -> dict[str, float]:
        """One term beside the distortion.

        Args:
            pixels: C * H * W.
            lambda_: nats per image of one unit of the term.
        """
        return {term: _not_negative("lambda_", lambda_)}

    return lambda_weights


def rae_weights(pixels: int, *, beta: Scheduled = 1e-3) -> dict[str, float]:
    """``beta`` weighs the norm of the codes.

    Args:
        pixels: C * H * W.
        beta: the weight of half the squared norm of a code.
    """
    return {"latent_norm": _not_negative("beta", beta)}


def rae_gp_weights(pixels: int, *, beta: Scheduled = 1e-3, gamma: Scheduled = 1e-3) -> dict[str, float]:
    """``beta`` weighs the norm of the codes, ``gamma`` the decoder's gradient.

    Args:
        pixels: C * H * W.
        beta: the weight of half the squared norm of a code.
        gamma: the weight of half the squared norm of the decoder's Jacobian.
    """
    return rae_weights(pixels, beta=beta) | {"gradient_penalty": _not_negative("gamma", gamma)}


def _not_negative(name: str, value: float) -> float:
    if value < 0:
        raise ValueError(f"{name}: {value:g} is not right; it must be 0 or more")
    return value


INFO = ("Zhao, Song & Ermon 2017", "https://arxiv.org/abs/1706.02262", info_weights)
AUTOENCODER: dict[str, Any] = {"model": {"posterior": "point"}}
WAE = ("Tolstikhin et al. 2018", "https://arxiv.org/abs/1711.01558")
DIP = ("Kumar, Sattigeri & Balakrishnan 2018", "https://arxiv.org/abs/1711.00848", dip_weights)
RAE = ("Ghosh et al. 2020", "https://arxiv.org/abs/1903.12436")
TIGHTER = ("Rainforth et al. 2018", "https://arxiv.org/abs/1802.04537", no_weights)
VAMP = ("Tomczak & Welling 2018", "https://arxiv.org/abs/1705.07120", elbo_weights)
DAI = ("Dai & Wipf 2019", "https://arxiv.org/abs/1903.05789", elbo_weights)
RAMP = {"kind": "linear", "start": 0.0, "stop": 25.0}
FIVE = {"kind": "linear", "start": 0.0, "stop": 5.0}
COOLING = {"kind": "linear", "start": 1.0, "stop": 0.5}

METHODS: dict[str, Method] = {
    "ae": Method(
        "Autoencoder",
        "Rumelhart, Hinton & Williams 1986",
        "https://doi.org/10.1038/323533a0",
        no_weights,
        "distortion",
        bound="reconstruction",
        defaults=AUTOENCODER,
    ),
    "vae": Method(
        "VAE",
        "Kingma & Welling 2013",
        "https://arxiv.org/abs/1312.6114",
        elbo_weights,
        "distortion + beta * rate, beta = 1",
    ),
    "beta_vae": Method(
        "beta-VAE",
        "Higgins et al. 2017",
        "https://openreview.net/forum?id=Sy2fzU9gl",
        elbo_weights,
        "distortion + beta * rate, beta = 4",
        defaults={"objective": {"beta": 4.0}},
    ),
    "iwae": Method(
        "IWAE",
        "Burda, Grosse & Salakhutdinov 2016",
        "https://arxiv.org/abs/1509.00519",
        no_weights,
        "-log mean of p(x, z) / q(z given x) over K samples, K = 5",
        bound="iwae",
    ),
    "info_vae": Method(
        "InfoVAE",
        *INFO,
        "distortion + (1 - alpha) * rate + (alpha + lambda_ - 1) * mmd_scale * mmd, alpha = 0, lambda_ = 2",
        terms=("mmd",),
    ),
    "mmd_vae": Method(
        "MMD-VAE",
        *INFO,
        "InfoVAE's at alpha = 1, lambda_ = 1: distortion + mmd_scale * mmd",
        terms=("mmd",),
        defaults={"objective": {"alpha": 1.0, "lambda_": 1.0}},
    ),
    "annealed_vae": Method(
        "beta-VAE with capacity",
        "Burgess et al. 2018",
        "https://arxiv.org/abs/1804.03599",
        capacity_weights,
        "distortion + gamma * |rate - target|, gamma = 1000, target from 0 to 25 nats",
        terms=("capacity",),
        defaults={"objective": {"capacity": {"target": RAMP}}},
    ),
    "beta_tcvae": Method(
        "beta-TCVAE",
        "Chen et al. 2018",
        "https://arxiv.org/abs/1802.04942",
        tc_weights,
        "distortion + rate + (beta - 1) * total correlation, beta = 6",
        terms=("total_correlation",),
    ),
    "factor_vae": Method(
        "FactorVAE",
        "Kim & Mnih 2018",
        "https://arxiv.org/abs/1802.05983",
        critic_weights,
        "distortion + rate + gamma * total correlation by a critic, gamma = 10",
        terms=("total_correlation_critic",),
    ),
    "dip_vae_i": Method(
        "DIP-VAE-I",
        *DIP,
        "distortion + rate + lambda_od * (covariances^2 + 10 (variances - 1)^2) of the means, lambda_od = 10",
        terms=("dip",),
    ),
    "dip_vae_ii": Method(
        "DIP-VAE-II",
        *DIP,
        "distortion + rate + lambda_od * (covariances^2 + (variances - 1)^2) of the samples, lambda_od = 10",
        terms=("dip",),
        defaults={"objective": {"dip": {"covariance": "samples", "diagonal": 1.0}}},
    ),
    "wae_mmd": Method(
        "WAE-MMD",
        *WAE,
        _lambda_of("mmd"),
        "distortion + lambda_ * mmd, lambda_ = 35 (the paper's 10 for twice our distortion and a sum over 7 scales)",
        bound="reconstruction",
        terms=("mmd",),
        defaults=AUTOENCODER | {"objective": {"lambda_": 35.0, "mmd": {"kernel": "imq"}}},
    ),
    "wae_gan": Method(
        "WAE-GAN",
        *WAE,
        _lambda_of("prior_critic"),
        "distortion + lambda_ * prior critic, lambda_ = 5 (the paper's 10 for twice our distortion)",
        bound="reconstruction",
        terms=("prior_critic",),
        defaults=AUTOENCODER | {"objective": {"lambda_": 5.0}},
    ),
    "aae": Method(
        "Adversarial autoencoder",
        "Makhzani et al. 2016",
        "https://arxiv.org/abs/1511.05644",
        _lambda_of("prior_critic"),
        "distortion + lambda_ * prior critic, lambda_ = 10, both at once where the paper takes turns",
        bound="reconstruction",
        terms=("prior_critic",),
        defaults=AUTOENCODER,
    ),
    "swae": Method(
        "Sliced-Wasserstein autoencoder",
        "Kolouri et al. 2018",
        "https://arxiv.org/abs/1804.01947",
        _lambda_of("sliced_wasserstein"),
        "distortion + lambda_ * sliced Wasserstein distance^2, lambda_ = 10",
        bound="reconstruction",
        terms=("sliced_wasserstein",),
        defaults=AUTOENCODER,
    ),
    "rae_l2": Method(
        "RAE-L2",
        *RAE,
        rae_weights,
        "distortion + beta * |z|^2 / 2, beta = 0.001, and a weight decay of 0.01 on the decoder",
        bound="reconstruction",
        terms=("latent_norm",),
        defaults=AUTOENCODER | {"train": {"decoder_weight_decay": 0.01}},
    ),
    "rae_gp": Method(
        "RAE-GP",
        *RAE,
        rae_gp_weights,
        "distortion + beta * |z|^2 / 2 + gamma * |Jacobian of the decoder|^2 / 2, beta = gamma = 0.001",
        bound="reconstruction",
        terms=("latent_norm", "gradient_penalty"),
        defaults=AUTOENCODER,
    ),
    "miwae": Method("MIWAE", *TIGHTER, "the mean of 8 IWAE losses of 8 samples each", bound="miwae"),
    "piwae": Method("PIWAE", *TIGHTER, "IWAE's of 64 samples for the decoder, MIWAE's for the encoder", bound="piwae"),
    "ciwae": Method("CIWAE", *TIGHTER, "mix * ELBO's + (1 - mix) * IWAE's of 64 samples, mix = 0.05", bound="ciwae"),
    "vamp_vae": Method(
        "VampPrior VAE",
        *VAMP,
        "distortion + beta * rate, beta = 1, under a prior of 500 pseudo-inputs",
        defaults={"model": {"prior": {"kind": "vamp"}}},
    ),
    "gmm_vae": Method(
        "VAE with a mixture prior",
        *VAMP,
        "distortion + beta * rate, beta = 1, under a mixture of 10 Gaussians that is learned",
        defaults={"model": {"prior": {"kind": "mixture"}}},
    ),
    "full_cov_vae": Method(
        "VAE with full covariance",
        "Kingma & Welling 2019",
        "https://arxiv.org/abs/1906.02691",
        elbo_weights,
        "distortion + beta * rate, beta = 1",
        defaults={"model": {"posterior": "full_covariance"}},
    ),
    "sigma_vae": Method(
        "sigma-VAE",
        "Rybkin, Daniilidis & Levine 2021",
        "https://arxiv.org/abs/2006.13202",
        elbo_weights,
        "distortion + beta * rate, beta = 1, the Gaussian's scale at its optimum",
        defaults={"model": {"likelihood": {"kind": "gaussian", "scale": "optimal"}}},
    ),
    "student_vae": Method(
        "Student-t VAE",
        "Takahashi et al. 2018",
        "https://doi.org/10.24963/ijcai.2018/374",
        elbo_weights,
        "distortion + beta * rate, beta = 1, pixels by Student's t with 5 degrees of freedom",
        defaults={"model": {"likelihood": "student_t"}},
    ),
    "iaf_vae": Method(
        "VAE with inverse autoregressive flow",
        "Kingma et al. 2016",
        "https://arxiv.org/abs/1606.04934",
        elbo_weights,
        "distortion + beta * rate, beta = 1, the posterior carried on by 4 autoregressive steps",
        defaults={"model": {"posterior": "iaf"}},
    ),
    "sylvester_vae": Method(
        "Sylvester VAE",
        "van den Berg et al. 2018",
        "https://arxiv.org/abs/1803.05649",
        elbo_weights,
        "distortion + beta * rate, beta = 1, the posterior carried on by 4 Sylvester steps",
        defaults={"model": {"posterior": "sylvester"}},
    ),
    "realnvp_vae": Method(
        "VAE with a flow as prior",
        "Dinh, Sohl-Dickstein & Bengio 2017",
        "https://arxiv.org/abs/1605.08803",
        elbo_weights,
        "distortion + beta * rate, beta = 1, under a prior of 6 coupling steps that is learned",
        defaults={"model": {"prior": "realnvp"}},
    ),
    "hyperspherical_vae": Method(
        "Hyperspherical VAE",
        "Davidson et al. 2018",
        "https://arxiv.org/abs/1804.00891",
        elbo_weights,
        "distortion + beta * rate, beta = 1, codes on the unit sphere",
        defaults={"model": {"posterior": "von_mises_fisher", "prior": "sphere"}},
    ),
    "categorical_vae": Method(
        "VAE with Gumbel-softmax",
        "Jang, Gu & Poole 2017",
        "https://arxiv.org/abs/1611.01144",
        elbo_weights,
        "distortion + beta * rate, beta = 1, one-hot codes, relaxed in training at temperatures from 1 to 0.5",
        defaults={
            "model": {"posterior": {"kind": "relaxed_categorical", "temperature": COOLING}, "prior": "categorical"}
        },
    ),
    "joint_vae": Method(
        "JointVAE",
        "Dupont 2018",
        "https://arxiv.org/abs/1804.00104",
        joint_weights,
        "distortion + gamma * (|rate of 10 numbers - target| + |rate of 10 classes - target|), gamma = 30, targets "
        "from 0 to 5 nats",
        terms=("joint_capacity",),
        defaults={
            "model": {"z_dim": 20, "posterior": "joint", "prior": "joint"},
            "objective": {"joint_capacity": {"numbers": dict(FIVE), "classes": dict(FIVE)}},
        },
    ),
    "two_stage_vae": Method(
        "Two-stage VAE",
        *DAI,
        "distortion + beta * rate, beta = 1, the Gaussian's scale learned; a second VAE of the codes is fitted after",
        defaults={"model": {"likelihood": {"kind": "gaussian", "scale": "learned"}}},
    ),
}

FITTED = {"ae": "gmm", "rae_l2": "gmm", "rae_gp": "gmm", "rae_sn": "gmm", "two_stage_vae": "two_stage"}
"""Rows whose codes do not fill the prior that they are drawn from -> the kind that is to be fitted afterwards."""


def table() -> str:
    """The methods as a Markdown table: the one in docs/methods.md."""
    lines = ["| `method` | | posterior, prior | bound | terms | loss per image, in nats |", "|---|---|---|---|---|---|"]
    for name, row in METHODS.items():
        parts = f"{_kind(row, 'posterior') or 'gaussian'}, {_kind(row, 'prior') or 'standard_normal'} | {row.bound}"
        lines.append(f"| `{name}` | [{row.title}]({row.url}) | {parts} | {', '.join(row.terms)} | {row.loss} |")
    return "\n".join(lines)


def _kind(row: Method, part: str) -> str | None:
    return said["kind"] if isinstance(said := row.defaults.get("model", {}).get(part), Mapping) else said
