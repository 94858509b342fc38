"""Methods: the name of a paper -> the parts that make it. The only place where papers' names live.

A method is a row of :data:`METHODS`, which names kinds of parts. To add one, put a row there (from a program of your
own, before the configuration is built):

    METHODS["mine"] = Method("Mine", "I 2026", url, weights, "distortion + rate + lambda_ * mmd", terms=("mmd",))
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaes.coefficients import (
    capacity_weights,
    critic_weights,
    dip_weights,
    elbo_weights,
    gan_weights,
    info_weights,
    joint_weights,
    kl_weights,
    lambda_of,
    lfq_weights,
    ms_ssim_weights,
    no_weights,
    perceptual_weights,
    rae_gp_weights,
    rae_weights,
    tc_weights,
    vq_weights,
)

__all__ = ["FITTED", "METHODS", "Method", "table"]


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
    optional: Mapping[str, str] = {}
    """Terms -> the key of ``objective`` that leaves them out where it is the number 0: they cost a network's pass."""


INFO = ("Zhao, Song & Ermon 2017", "https://arxiv.org/abs/1706.02262", info_weights)
AUTOENCODER: dict[str, Any] = {"model": {"posterior": "point"}}
WAE = ("Tolstikhin et al. 2018", "https://arxiv.org/abs/1711.01558")
QUANTIZED = "distortion + log K for each index"
DIP = ("Kumar, Sattigeri & Balakrishnan 2018", "https://arxiv.org/abs/1711.00848", dip_weights)
RAE = ("Ghosh et al. 2020", "https://arxiv.org/abs/1903.12436")
TIGHTER = ("Rainforth et al. 2018", "https://arxiv.org/abs/1802.04537", no_weights)
VAMP = ("Tomczak & Welling 2018", "https://arxiv.org/abs/1705.07120", elbo_weights)
DAI = ("Dai & Wipf 2019", "https://arxiv.org/abs/1903.05789", elbo_weights)
RAMP = {"kind": "linear", "start": 0.0, "stop": 25.0}
FIVE = {"kind": "linear", "start": 0.0, "stop": 5.0}
LATER = {"encoder_after": 100}
COOLING = {"kind": "linear", "start": 1.0, "stop": 0.5}


def _quantized(kind: str) -> dict[str, Any]:
    """64 numbers, 16 positions of 4, that are quantized so."""
    return {"model": {"z_dim": 64, "posterior": kind, "prior": "codes"}}


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
        lambda_of("mmd"),
        "distortion + lambda_ * mmd, lambda_ = 35 (the paper's 10 for twice our distortion and a sum over 7 scales)",
        bound="reconstruction",
        terms=("mmd",),
        defaults=AUTOENCODER | {"objective": {"lambda_": 35.0, "mmd": {"kernel": "imq"}}},
    ),
    "wae_gan": Method(
        "WAE-GAN",
        *WAE,
        lambda_of("prior_critic"),
        "distortion + lambda_ * prior critic, lambda_ = 5 (the paper's 10 for twice our distortion)",
        bound="reconstruction",
        terms=("prior_critic",),
        defaults=AUTOENCODER | {"objective": {"lambda_": 5.0}},
    ),
    "aae": Method(
        "Adversarial autoencoder",
        "Makhzani et al. 2016",
        "https://arxiv.org/abs/1511.05644",
        lambda_of("prior_critic"),
        "distortion + lambda_ * prior critic, lambda_ = 10, model and critic by turns",
        bound="reconstruction",
        terms=("prior_critic",),
        defaults=AUTOENCODER | {"train": {"play": "alternate"}},
    ),
    "swae": Method(
        "Sliced-Wasserstein autoencoder",
        "Kolouri et al. 2018",
        "https://arxiv.org/abs/1804.01947",
        lambda_of("sliced_wasserstein"),
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
        defaults={"model": {"z_dim": 3, "posterior": "von_mises_fisher", "prior": "sphere"}},
    ),
    "categorical_vae": Method(
        "VAE with Gumbel-softmax",
        "Jang, Gu & Poole 2017",
        "https://arxiv.org/abs/1611.01144",
        elbo_weights,
        "distortion + beta * rate, beta = 1, 20 one-hot codes of 10, relaxed in training at temperatures from 1 to 0.5",
        defaults={
            "model": {
                "z_dim": 200,
                "posterior": {"kind": "relaxed_categorical", "temperature": COOLING},
                "prior": "categorical",
            },
            "train": LATER,
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
    "ms_ssim_vae": Method(
        "VAE with MS-SSIM",
        "Snell et al. 2017",
        "https://arxiv.org/abs/1511.06409",
        ms_ssim_weights,
        "distortion + beta * rate + gamma * pixels / 2 * (1 - MS-SSIM), beta = gamma = 1",
        terms=("ms_ssim",),
    ),
    "perceptual_vae": Method(
        "Deep feature consistent VAE",
        "Hou et al. 2017",
        "https://arxiv.org/abs/1610.00291",
        perceptual_weights,
        "distortion + beta * rate + gamma * pixels / 2 * distance of features, beta = gamma = 1",
        terms=("perceptual",),
    ),
    "two_stage_vae": Method(
        "Two-stage VAE",
        *DAI,
        "distortion + beta * rate, beta = 1, the Gaussian's scale learned; a second VAE of the codes is fitted after",
        defaults={"model": {"likelihood": {"kind": "gaussian", "scale": "learned"}}},
    ),
    "vae_gan": Method(
        "VAE/GAN",
        "Larsen et al. 2016",
        "https://arxiv.org/abs/1512.09300",
        gan_weights,
        "pixel_weight * distortion + beta * rate + features + adversary / gamma (the last for the decoder alone), "
        "pixel_weight = 0, beta = 1, gamma = 1e-6",
        terms=("image_critic",),
    ),
    "kl_vae": Method(
        "KL-regularised autoencoder of latent diffusion",
        "Rombach et al. 2022",
        "https://arxiv.org/abs/2112.10752",
        kl_weights,
        "distortion + beta * rate + gamma * pixels * distance of features + adversary * pixels * critic of patches, "
        "beta = 1e-6, gamma = 1, adversary = 0.1, pixels by a Laplace, codes a grid",
        terms=("perceptual", "patch_critic"),
        defaults={
            "model": {
                "network": {"kind": "autoencoder_kl"},
                "likelihood": {"kind": "laplace", "scale": 1.0, "link": "identity"},
            }
        },
        optional={"perceptual": "gamma", "patch_critic": "adversary"},
    ),
    "rae_sn": Method(
        "RAE-SN",
        *RAE,
        rae_weights,
        "distortion + beta * |z|^2 / 2, beta = 0.001, and a decoder whose weights have spectral norm 1",
        bound="reconstruction",
        terms=("latent_norm",),
        defaults={"model": {"posterior": "point", "decoder_spectral_norm": True}},
    ),
    "vq_vae": Method(
        "VQ-VAE",
        "van den Oord, Vinyals & Kavukcuoglu 2017",
        "https://arxiv.org/abs/1711.00937",
        vq_weights,
        f"{QUANTIZED} + |sg[z] - e|^2 + beta * |z - sg[e]|^2, beta = 0.25",
        terms=("codebook", "commitment"),
        defaults=_quantized("vq"),
    ),
    "rvq_vae": Method(
        "RQ-VAE",
        "Lee et al. 2022",
        "https://arxiv.org/abs/2203.01941",
        vq_weights,
        f"{QUANTIZED} + |sg[z] - e|^2 + beta * |z - sg[e]|^2 summed over 4 books, beta = 0.25",
        terms=("codebook", "commitment"),
        defaults=_quantized("rvq"),
    ),
    "fsq_vae": Method(
        "FSQ",
        "Mentzer et al. 2023",
        "https://arxiv.org/abs/2309.15505",
        no_weights,
        QUANTIZED,
        defaults=_quantized("fsq") | {"train": LATER},
    ),
    "lfq_vae": Method(
        "MAGVIT-v2's lookup-free quantization",
        "Yu et al. 2023",
        "https://arxiv.org/abs/2310.05737",
        lfq_weights,
        f"{QUANTIZED} + beta * |z - sg[e]|^2 + gamma * (E H[q] - H[E q]), beta = 0.25, gamma = 0.1",
        terms=("commitment", "code_entropy"),
        defaults=_quantized("lfq"),
    ),
    "simvq_vae": Method(
        "SimVQ",
        "Zhu et al. 2024",
        "https://arxiv.org/abs/2411.02038",
        vq_weights,
        f"{QUANTIZED} + |sg[z] - e|^2 + beta * |z - sg[e]|^2, e a fixed basis through a linear map, beta = 0.25",
        terms=("codebook", "commitment"),
        defaults=_quantized("simvq"),
    ),
}

FITTED = {"ae": "gmm", "rae_l2": "gmm", "rae_gp": "gmm", "rae_sn": "gmm", "two_stage_vae": "two_stage"}
"""Rows whose flat codes do not fill the prior that they are drawn from -> the kind that is to be fitted afterwards."""


def table() -> str:
    """The methods as a Markdown table: the one in docs/methods.md."""
    lines = ["| `method` | | posterior, prior | bound | terms | loss per image, in nats |", "|---|---|---|---|---|---|"]
    for name, row in METHODS.items():
        parts = f"{_kind(row, 'posterior') or 'gaussian'}, {_kind(row, 'prior') or 'standard_normal'} | {row.bound}"
        loss = row.loss.replace("|", r"\|")
        lines.append(f"| `{name}` | [{row.title}]({row.url}) | {parts} | {', '.join(row.terms)} | {loss} |")
    return "\n".join(lines)


def _kind(row: Method, part: str) -> str | None:
    return said["kind"] if isinstance(said := row.defaults.get("model", {}).get(part), Mapping) else said
